-- perigee test: what it prints, how it ends, and what fails a test beside its own assertions.

local loop = require("spec.support.loop")
local program = require("spec.support.perigee")

local files = {}

-- busted takes files by their ending.
local function spec_file(text)
  local path = program.script(text)
  assert(os.rename(path, path .. ".lua"))
  files[#files + 1] = path .. ".lua"
  return path .. ".lua"
end

after_each(function()
  for _, path in ipairs(files) do os.remove(path) end
  files = {}
  program.clean()
  loop.finish()
end)

-- Runs a spec of the text; the path it is written to reads SPEC in what is returned.
local function run(text, env)
  local path = spec_file("local perigee, testing = require('perigee'), require('perigee.testing')\n" .. text)
  local code, out, err = program.run({ "test", path }, { env = env })
  local function plain(said)
    return (said:gsub(path:gsub("%p", "%%%0"), "SPEC"):gsub(" : %d[%d.]* seconds", ""))
  end
  return code, plain(out), plain(err)
end

local function has(text, part)
  assert.is_truthy(text:find(part, 1, true), ("%q is not in:\n%s"):format(part, text))
end

-- One test of that body must fail, saying so.
local function fails(body, message)
  local code, out, err = run("it('is bad', function()\n" .. body .. "\nend)\nit('is good', function() end)")
  has(out, message)
  has(out, "\n1 passed, 1 failed\n")
  assert.equal(1, code)
  return err, out
end

local SCRIPT = [[
  local path = os.tmpname()
  local file = io.open(path, "w")
  file:write("local perigee = require('perigee') local app = perigee.app()\n" .. TEXT .. "\nreturn app")
  file:close()
  local t = testing.load(path)
  os.remove(path)
]]

local function script(text)
  return "local TEXT = [==[" .. text .. "]==]\n" .. SCRIPT
end

describe("perigee test", function()
  it("runs the example in scripts/, ten specs with timeouts and retries, in no time", function()
    local code, out, err = program.run({ "test", "scripts" })
    assert.same({ 0, "" }, { code, err })
    local counted = "10 successes / 0 failures / 0 errors / 0 pending"
    local dots, seconds, last = out:match("^(%++)\n" .. counted .. " : ([%d.]+) seconds\n(.*)$")
    assert.equal("++++++++++", dots, out)
    assert.is_true(tonumber(seconds) < 0.5, seconds)
    assert.equal("10 passed, 0 failed\n", last)
  end)

  it("tells what failed, and where", function()
    local code, out, err = run([[
describe("sums", function()
  it("add up", function() assert.equal(3, 1 + 1) end)
  it("are sums", function() assert.equal(2, 1 + 1) end)
  it("raise", function() perigee.async(function() error({ code = "X", message = "no" }) end):await() end)
end)]])
    assert.same({ 1, "" }, { code, err })
    has(out, "-+*\n1 success / 1 failure / 1 error / 0 pending\n")
    has(out, "sums add up\nSPEC:3: Expected objects to be equal.")
    has(out, "sums raise\nSPEC:5: ")
    has(out, "\n1 passed, 2 failed\n")
  end)

  it("tells of a file that is no Lua, and of an error outside tests", function()
    local code, out = run("describe(")
    assert.equal(1, code)
    has(out, "0 passed, 1 failed\n")
    code, out = run("describe('x', function() error('outside') end)")
    assert.equal(1, code)
    has(out, "SPEC:2: outside")
    has(out, "0 passed, 1 failed\n")
  end)

  it("ends with 2 for what is no path, with 1 where there are no specs", function()
    local code, _, err = program.run({ "test", "/nowhere" })
    assert.same({ 2, "perigee: INVALID_OPTION: there is no file or folder '/nowhere'\nsee 'perigee help test'\n" },
      { code, err })
    code, _, err = program.run({ "test", "--fast" })
    assert.same({ 2, "perigee: INVALID_OPTION: unknown option '--fast'\nsee 'perigee help test'\n" }, { code, err })
    code, _, err = program.run({ "test", "README.md" })
    assert.same({ 2, "perigee: INVALID_OPTION: 'README.md' is no spec: the name of one ends in .lua\n"
      .. "see 'perigee help test'\n" }, { code, err })
    code, _, err = program.run({ "test", "spec/unit" })
    assert.same({ 1, "perigee: UNSUPPORTED: there are no specs, *_spec.lua, in spec/unit\n" }, { code, err })
  end)

  it("names the package of busted where it is missing", function()
    local code, _, err = run("", { LUA_PATH = "/nowhere/?.lua" })
    assert.equal(1, code)
    assert.equal("perigee: UNSUPPORTED: busted is not installed: it is the package lua-busted of Debian and Ubuntu, "
      .. "or: luarocks install busted\n", err)
  end)

  it("has a page of help", function()
    local code, out = program.run({ "help", "test" })
    assert.equal(0, code)
    assert.matches("^usage: perigee test %[PATH%]", out)
  end)
end)

describe("a test fails at its end", function()
  it("for a client without a fake, whatever the script makes of it", function()
    local err = fails(script([[
      app:clients({ { name = "BILLING", host = "127.0.0.1" } })
      app:get("/", function() return app:inject("BILLING"):send("x", 1):catch_error(function() return "fine" end) end)
    ]]) .. "assert.equal(200, t:request({ path = '/' }).status)",
      "SPEC:2: send x: the client 'BILLING' has no fake, and a test opens no connection: t:fake(\"BILLING\", { ... })")
    assert.equal("", err)
  end)

  it("for what it has left running, told by the line that started it", function()
    fails("perigee.spawn(function() perigee.sleep(1000):await() end)", "SPEC:3: what was started here still runs")
    fails("perigee.sleep(1000):next(function() end)", "SPEC:3: what was started here still waits")
  end)

  it("for what a request of the app has left running", function()
    local _, out = fails(script([[app:get("/", function()
        perigee.spawn(function() perigee.sleep(1000):await() end)
        return "done"
      end)]]) .. "assert.equal('done', t:request({ path = '/' }).body)", "what was started here still runs")
    assert.matches("/tmp/lua_%w+:3: what was started", out)
  end)

  it("for a failure nobody handles", function()
    fails("perigee.async(function() error('lost') end)", "SPEC:3: nobody handles this failure: SCRIPT: SPEC:3: lost")
    fails("perigee.spawn(function() error('lost') end)", "SPEC:3: nobody handles this failure: SCRIPT: SPEC:3: lost")
  end)

  it("for an assertion that failed in a fake", function()
    fails(script([[
      app:clients({ { name = "B", host = "b" } })
      app:event("e", function() return app:inject("B"):emit("x", 1) end)
      app:message("m", function() return app:inject("B"):send("x", 1):default(0) end)
    ]]) .. [[t:fake("B", { x = function(data) assert.equal(2, data) end }) t:message("m", 1)]],
      "Expected objects to be equal.")
  end)

  it("for an app that cannot be stopped in order", function()
    fails(script([[app:on_stop(function() perigee.async(function() error("late") end) end)]]) .. "t:start()",
      "nobody handles this failure: SCRIPT: ")
    fails(script([[app:on_stop(function() error("no end") end)]]) .. "t:start()", "in on_stop: SCRIPT: ")
  end)

  it("not for what still runs but needs no time", function()
    local code, out = run([[
it("is good", function()
  perigee.spawn(function() for _ = 1, 100 do perigee.sleep(0):await() end end)
end)]])
    assert.equal(0, code, out)
  end)

  it("once for a call that waits for its next attempt", function()
    local _, out = fails(script([[
      app:clients({ { name = "B", host = "b" } })
      app:event("e", function() return app:inject("B"):send("x", 1):retry({ backoff = 1000 }):await() end)
    ]]) .. "t:fake('B', { x = function() error({}) end })\nt:event('e', 1)", "what was started here still runs")
    local _, lines = out:gsub("what was started", "")
    assert.equal(1, lines, out)
  end)

  it("not for failures that are handled later", function()
    local code, out = run([[
it("is good", function()
  local work = perigee.async(function() error("lost") end)
  perigee.sleep(10):await()
  assert.has_error(function() work:await() end)
end)]])
    assert.equal(0, code, out)
  end)
end)

describe("a test that never ends", function()
  it("fails, and the others run", function()
    fails("perigee.promise(function() end):await()",
      "SPEC:3: CANCELLED: await would never end: nothing that could settle it is left on the loop")
  end)

  it("is stopped when it runs on in virtual time", function()
    fails("testing.limit(50)\nperigee.async(function() while true do perigee.sleep(1):await() end end):await()",
      "SPEC:4: TIMEOUT: the test has run for 50 ms and still waits")
  end)

  it("is stopped when it waits for something real", function()
    fails([[
testing.limit(50)
local uv = require("luv")
local timer = uv.new_timer()
finally(function() timer:close() end)
perigee.promise(function() timer:start(60000, 0, function() end) end):await()]],
      "SPEC:7: TIMEOUT: the test has run for 50 ms and still waits")
  end)
end)

describe("the log of a test", function()
  it("is shown when the test fails, and only then", function()
    local text = script([[app:message("x", function() error("oops") end)]]) .. "t:message('x', 1)"
    local code, _, err = run("it('x', function()\n" .. text .. "\nend)")
    assert.same({ 0, "" }, { code, err })
    has(fails(text .. "\nerror('bad')", "SPEC:11: bad"), "perigee: error: message x: SCRIPT: ")
  end)
end)

describe("busted's own", function()
  it("before_each, after_each, finally and nesting go with it", function()
    local code, out, err = run([[
local order = {}
describe("a", function()
  local t
  before_each(function()
    order[#order + 1] = "before " .. testing.clock.now()
    perigee.sleep(5):await()
  end)
  after_each(function() order[#order + 1] = "after" end)
  it("x", function()
    finally(function() order[#order + 1] = "finally" end)
    order[#order + 1] = "x " .. testing.clock.now()
  end)
  describe("b", function()
    it("y", function() order[#order + 1] = "y " .. testing.clock.now() end)
  end)
end)
it("z", function()
  assert.equal("before 0, x 5, finally, after, before 0, y 5, after", table.concat(order, ", "))
end)
pending("later")]])
    assert.same({ 0, "" }, { code, err })
    has(out, "\n3 passed, 0 failed\n")
  end)

  it("coroutines may await too, and files run one after the other", function()
    local path = spec_file([[
      it("x", function()
        local perigee = require("perigee")
        local next_value = coroutine.wrap(function()
          perigee.sleep(1000):await()
          coroutine.yield(1)
        end)
        assert.equal(1, next_value())
      end)]])
    local code, out = program.run({ "test", path, path })
    assert.equal(0, code, out)
    has(out, "2 passed, 0 failed")
  end)
end)
