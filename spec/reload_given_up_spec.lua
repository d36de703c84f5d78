--- Reloads that come to nothing because somebody has given them up: a stop, or who asked for them.

local loop = require("spec.support.loop")
local perigee = require("perigee")
local program = require("spec.support.perigee")
local reload = require("perigee.reload")

-- What the scripts tell: they run in this process. A script reads its steps from here.
local told

local function script(more)
  return program.script(([[
    local perigee = require("perigee")
    local app = perigee.app()
    app:get("/", function() return "here" end)
    app:listen("http://127.0.0.1:0")
    app:on_start(function() tell("started") end)
    app:on_stop(function() tell("stopped") end)
    %s
    return app
  ]]):format(more or ""))
end

local function rewrite(path, more)
  local from, to = assert(io.open(script(more))), assert(io.open(path, "w"))
  to:write(from:read("*a"))
  from:close()
  to:close()
end

local function wait_told(text)
  loop.wait_until(function() return told[#told] == text end, 5000, function() return text .. " to be told" end)
end

local function code_of(promise)
  local ok, err = pcall(promise.await, promise)
  assert.is_false(ok)
  assert.is_true(reload.is_refusal(err))
  return err.error.code
end

local SLOW_START = 'app:on_start(function() tell("slow") perigee.sleep(60000):await() end)'

describe("a reload that is given up", function()
  local set

  local function serve(...)
    set = reload.new({ scripts = { ... }, drain_timeout = 1000 })
    set:prepare():await():commit()
    return set
  end

  before_each(function()
    told = {}
    rawset(_G, "tell", function(text) told[#told + 1] = text end)
  end)

  after_each(function()
    if set then set:stop():await() end
    set = nil
    rawset(_G, "tell", nil)
    program.clean()
  end)

  it("by a stop ends, and what it had started is undone", function()
    local path = script()
    serve(path)
    rewrite(path, SLOW_START)
    local candidate = set:prepare()
    wait_told("slow")
    set:stop():await()
    assert.are.equal("CANCELLED", code_of(candidate))
    assert.are.same({ "started", "started", "slow", "stopped" }, told)
    assert.are.same({}, set:addresses())
  end)

  it("by a stop between prepare and commit is not committed any more: its own stop hooks run", function()
    local path = script()
    serve(path)
    local candidate = set:prepare():await()
    local stopped = set:stop()
    assert.is_false(candidate:commit())
    stopped:await()
    assert.are.same({ "started", "started", "stopped", "stopped" }, told)
  end)

  it("before it began is refused: a set that stops takes no more", function()
    serve(script())
    local stopped = set:stop()
    assert.are.equal("CANCELLED", code_of(set:prepare()))
    stopped:await()
  end)

  it("at the first start leaves nothing open", function()
    set = reload.new({ scripts = { script(SLOW_START) } })
    local candidate = set:prepare()
    wait_told("slow")
    set:stop():await()
    assert.are.equal("CANCELLED", code_of(candidate))
  end)

  it("by who asked leaves room for the next one", function()
    local path = script()
    serve(path)
    rewrite(path, SLOW_START)
    local candidate = set:prepare()
    wait_told("slow")
    candidate:cancel()
    loop.wait_until(function() return not set.under_way end, 5000, "its end")
    rewrite(path)
    assert.is_true(set:prepare():await():commit())
  end)

  it("while its last script loads undoes what the others have started, and leaves room for the next", function()
    local path, other = script(), script("app.routes[1].path = '/other'")
    serve(path, other)
    local text = "app.routes[1].path = '/other' "
    rewrite(other, text .. 'tell("loading") pcall(function() perigee.sleep(60000):await() end)')
    local candidate = set:prepare()
    wait_told("loading")
    candidate:cancel()
    loop.wait_until(function() return not set.under_way end, 5000, "its end")
    assert.are.same({ "started", "started", "started", "loading", "stopped" }, told)
    rewrite(other, text)
    assert.is_true(set:prepare():await():commit())
  end)

  it("while its first script loads loads no other, whatever that script makes of it", function()
    local path, other = script(), script("app.routes[1].path = '/other'")
    serve(path, other)
    rewrite(path, 'tell("loading") pcall(function() perigee.sleep(60000):await() end)')
    local candidate = set:prepare()
    wait_told("loading")
    candidate:cancel()
    loop.wait_until(function() return not set.under_way end, 5000, "its end")
    assert.are.same({ "started", "started", "loading" }, told)
  end)

  it("twice, or after its commit, changes nothing", function()
    serve(script())
    local candidate = set:prepare():await()
    perigee.all({ candidate:abort(), candidate:abort() }):await()
    assert.is_false(candidate:commit())
    candidate = set:prepare():await()
    assert.is_true(candidate:commit())
    candidate:abort():await()
    assert.are.equal(2, set:status().scripts[1].generation)
  end)
end)
