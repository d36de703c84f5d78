-- Patterns as clients send them: texts that are remembered must be those of the pattern asked for now.

local core = require("perigee.core")
local log = require("perigee.log")
local pattern_text = require("perigee.pattern_text")
local perigee = require("perigee")
local loop = require("spec.support.loop")

local LIMIT = 4096

describe("the text of a pattern", function()
  it("is its JSON, the first time and after", function()
    for _ = 1, 2 do
      assert.equal('"charge"', pattern_text("charge"))
      assert.equal('"cha\\"rge"', pattern_text('cha"rge'))
      assert.equal('{"cmd":"charge"}', pattern_text({ cmd = "charge" }))
      assert.equal('{"cmd":"refund"}', pattern_text({ cmd = "refund" }))
      assert.equal('{"charge":"cmd"}', pattern_text({ charge = "cmd" }))
      assert.equal('{"":""}', pattern_text({ [""] = "" }))
      assert.equal("5", pattern_text(5))
      assert.equal("false", pattern_text(false))
    end
  end)

  it("follows a table that was changed", function()
    local pattern = { cmd = "charge" }
    pattern_text(pattern)
    pattern.cmd = "refund"
    assert.equal('{"cmd":"refund"}', pattern_text(pattern))
    pattern.cmd, pattern.role = nil, "refund"
    assert.equal('{"role":"refund"}', pattern_text(pattern))
  end)

  it("is left to the wire for what is more than one pair of strings", function()
    for _, pattern in ipairs({
      {}, { "a" }, { cmd = 1 }, { cmd = true }, { cmd = {} }, { a = "x", b = "y" }, { "a", cmd = "x" }, { [1.5] = "x" },
      core.slice('{"a":1}'), perigee.array({}), setmetatable({ cmd = "x" }, {}), { cmd = "\255" },
    }) do
      assert.equal(pattern, pattern_text(pattern))
    end
  end)

  it("is none for what is no JSON", function()
    assert.is_nil(pattern_text("\255"))
    assert.is_nil(pattern_text(print))
    assert.equal("null", pattern_text(0 / 0)) -- as ever
  end)

  it("is remembered of so many at most, strings and tables, and right beyond", function()
    local function fill(from, to)
      for i = from, to do assert.equal(('"p%d"'):format(i), pattern_text("p" .. i)) end
      for i = from, to do assert.equal(('{"k%d":"v"}'):format(i), pattern_text({ ["k" .. i] = "v" })) end
      for i = from, to do assert.equal(('{"cmd":"p%d"}'):format(i), pattern_text({ cmd = "p" .. i })) end
      collectgarbage()
      collectgarbage()
      return collectgarbage("count")
    end
    fill(1, LIMIT) -- tables have grown to what they may become
    local before = fill(LIMIT + 1, 2 * LIMIT)
    local after = fill(2 * LIMIT + 1, 10 * LIMIT)
    assert.is_true(after < before + 1024, ("%d kB, then %d kB"):format(before, after))
  end)
end)

describe("a pattern of one pair", function()
  after_each(function()
    loop.finish()
    log.set_sink()
  end)

  it("finds its handler, and a bad one fails the call alone", function()
    local app = perigee.app()
    app:message({ cmd = "charge" }, function() return "charged" end)
    app:message({ role = "charge" }, function() return "by role" end)
    app:listen("tcp://127.0.0.1:0")
    app:start():await()
    local client = perigee.client("tcp://127.0.0.1:" .. app:addresses()[1]:match(":(%d+)$"))
    for _ = 1, 2 do
      assert.equal("charged", client:send({ cmd = "charge" }, 1):await())
      assert.equal("by role", client:send({ role = "charge" }, 1):await())
      local ok, err = pcall(function() return client:send({ cmd = "\255" }, 1):await() end)
      assert.is_false(ok)
      assert.equal("INVALID_MESSAGE", err.code)
    end
    client:close():await()
    app:stop():await()
  end)
end)
