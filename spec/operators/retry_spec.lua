local combinators = require("perigee.combinators")
local source = require("spec.support.source")

local uv = require("luv")

-- Fails until the given request, then gives "ok".
local function flaky(good, code)
  local control = { asked = 0 }
  return combinators.reply(function(sink)
    control.asked = control.asked + 1
    if control.asked < good then return sink:error({ code = code or "X" }) end
    sink:next("ok")
    sink:complete()
  end), control
end

describe("retry", function()
  it("asks again, at most that many times after the first", function()
    local r, control = flaky(3)
    assert.equal("ok", r:retry(2):await())
    assert.equal(3, control.asked)
    local never, count = flaky(100)
    local _, err = pcall(function() never:retry(2):await() end)
    assert.equal("X", err.code)
    assert.equal(3, count.asked)
  end)

  it("counts anew for each request", function()
    local r, control = flaky(100)
    local retried = r:retry(1)
    pcall(retried.await, retried)
    pcall(retried.await, retried)
    assert.equal(4, control.asked)
  end)

  it("survives a source that fails at once a hundred thousand times", function()
    local r, control = flaky(100000)
    assert.equal("ok", r:retry(100000):await())
    assert.equal(100000, control.asked)
  end)

  it("retries an error whatever it raises when it is read", function()
    local strict = setmetatable({}, { __index = function(_, name) error("no field " .. name) end })
    local asked = 0
    local r = combinators.reply(function(sink)
      asked = asked + 1
      sink:error(strict)
    end)
    local _, err = pcall(function() r:retry(1):await() end)
    assert.same({ true, 2 }, { err == strict, asked })
    _, err = pcall(function() r:retry({ on = { "X" } }):await() end)
    assert.same({ true, 3 }, { err == strict, asked })
  end)

  it("waits backoff, then longer by factor each time", function()
    local core = require("perigee.core")
    local before = core.now()
    local r = flaky(4)
    assert.equal("ok", r:retry({ attempts = 3, backoff = 10, factor = 2, jitter = 0.1 }):await())
    assert.is_true(core.now() - before >= 60) -- 10 + 20 + 40 less a tenth, less the clock's grain
  end)

  it("retries the errors it is told to", function()
    local r, control = flaky(3, "TIMEOUT")
    assert.equal("ok", r:retry({ attempts = 5, on = { "CONNECT_FAILED", "TIMEOUT" } }):await())
    assert.equal(3, control.asked)
    local other, count = flaky(3, "REMOTE")
    local _, err = pcall(function() other:retry({ on = { "TIMEOUT" } }):await() end)
    assert.same({ "REMOTE", 1 }, { err.code, count.asked })
    local picked, picks = flaky(3)
    assert.equal("ok", picked:retry({ on = function(e) return e.code == "X" end }):await())
    assert.equal(3, picks.asked)
    _, err = pcall(function() flaky(3):retry({ on = function() error("boom") end }):await() end)
    assert.equal("SCRIPT", err.code)
  end)

  it("hands cancelling to the request that runs, or to the wait", function()
    local r, control = source.manual()
    local subscription = r:retry({ attempts = 3, backoff = 60000 }):subscribe({})
    control.observer:error({ code = "X" })
    subscription:unsubscribe()
    assert.same({ 1, 0 }, { control.asked, control.cancelled })
    uv.run() -- would last a minute
    local again, second = source.manual()
    subscription = again:retry(1):subscribe({})
    second.observer:error({ code = "X" })
    subscription:unsubscribe()
    assert.same({ 2, 1 }, { second.asked, second.cancelled })
  end)

  it("passes values and the end", function()
    assert.same({ 1, 2 }, combinators.of(1, 2):retry(1):collect():await())
  end)

  it("refuses what makes no sense", function()
    for _, bad in ipairs({ "x", -1, { attempts = "x" }, { backoff = -1 }, { jitter = 2 }, { on = 1 },
      { atempts = 1 } }) do
      local ok, err = pcall(function() combinators.of(1):retry(bad) end)
      assert.is_false(ok)
      assert.equal("INVALID_OPTION", err.code)
    end
  end)
end)
