local log = require("perigee.log")
local errors = require("perigee.errors")

describe("log", function()
  local lines

  before_each(function()
    lines = {}
    log.set_sink(function(line) lines[#lines + 1] = line end)
  end)

  after_each(function()
    log.set_sink(nil)
    log.level = "info"
  end)

  it("writes one prefixed line per message", function()
    log.error("a %s of %d", "b", 3)
    log.warn("w")
    log.info("i")
    assert.same({ "perigee: error: a b of 3", "perigee: warn: w", "perigee: info: i" }, lines)
  end)

  it("keeps a peer's text from forging lines", function()
    log.error("%s", "one\nperigee: info: two\r\27[0m")
    assert.same({ "perigee: error: one\\nperigee: info: two\\r\\x1b[0m" }, lines)
  end)

  it("indents tracebacks", function()
    log.failure("in x", errors.from("boom", "stack traceback:\n\ta.lua:1: in f"))
    assert.same({ "perigee: error: in x: SCRIPT: boom\n    stack traceback:\n    a.lua:1: in f" }, lines)
  end)

  it("shows plain tables by their message or code, else as JSON", function()
    log.failure("x", { message = "m" })
    log.failure("x", { code = 402 })
    log.failure("x", { reason = "r" })
    assert.same({ "perigee: error: x: m", "perigee: error: x: 402", 'perigee: error: x: {"reason":"r"}' }, lines)
  end)

  it("never raises", function()
    local hostile = setmetatable({}, { __tostring = function() error("no") end })
    log.error("%d", "text")
    log.error("%s", hostile)
    log.error(nil)
    assert.equal(3, #lines)
    log.set_sink(function() error("full disk") end)
    assert.has_no.errors(function() log.error("x") end)
  end)

  it("lets through what the level allows", function()
    log.level = "warn"
    log.info("i")
    log.warn("w")
    log.level = "none"
    log.error("e")
    assert.same({ "perigee: warn: w" }, lines)
  end)

  it("takes nil and booleans for %s", function()
    log.info("%s %s", nil, true)
    assert.same({ "perigee: info: nil true" }, lines)
  end)

  it("writes the same line a few times a second, counts the rest, and says how many", function()
    local now, real = 1000, os.time
    os.time = function() return now end -- luacheck: ignore
    local before = log.dropped_total
    local got = {}
    log.set_sink(function(line) got[#got + 1] = line end)
    for _ = 1, 100 do log.error("down") end
    log.error("other")
    now = 1001
    log.error("down")
    for i = 1, 1000 do log.error("%d", i) end
    os.time = real -- luacheck: ignore
    log.set_sink()
    assert.equal(5 + 1 + 1 + 200 + 1, #got)
    assert.equal("perigee: error: other", got[6])
    assert.equal("perigee: warn: 95 more lines like those before were not written", got[7])
    assert.equal("perigee: warn: 801 more lines like those before were not written", got[#got]) -- told as it goes
    assert.equal(95 + 801, log.dropped_total - before)
  end)
end)
