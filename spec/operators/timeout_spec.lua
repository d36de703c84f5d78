local scheduler = require("perigee.scheduler")
local source = require("spec.support.source")
local uv = require("luv")

describe("timeout", function()
  it("fails when no value comes, and cancels the call", function()
    local r, control = source.manual()
    local _, err = pcall(function() r:timeout(5):await() end)
    assert.equal("TIMEOUT", err.code)
    assert.equal("no value within 5 ms", err.message)
    assert.equal(1, control.cancelled)
  end)

  it("is silence: each value starts it again", function()
    local r, control = source.manual()
    local n = 0
    local function tick()
      n = n + 1
      control.observer:next(n)
      if n == 4 then control.observer:complete() else scheduler.after(30, tick) end
    end
    scheduler.after(30, tick)
    assert.equal(4, r:timeout(90):await()) -- 120 ms in all
  end)

  it("fails between values", function()
    local r, control = source.manual()
    local p = r:timeout(5):collect()
    control.observer:next(1)
    local _, err = pcall(p.await, p)
    assert.equal("TIMEOUT", err.code)
  end)

  it("leaves no timer behind, however it ends", function()
    for _, how in ipairs({ "complete", "error", "unsubscribe" }) do
      local r, control = source.manual()
      local subscription = r:timeout(60000):subscribe({ error = function() end })
      if how == "unsubscribe" then
        subscription:unsubscribe()
      else
        control.observer[how](control.observer, { code = "X" })
      end
    end
    uv.run() -- would last a minute
  end)

  it("replaces the client's limit; false only turns it off", function()
    local r, control = source.manual()
    r:timeout(60000):subscribe({}):unsubscribe()
    assert.same({ timeout = false }, control.ctx)
    r:timeout(false):subscribe({})
    assert.same({ timeout = false }, control.ctx)
    assert.is_false(uv.run("nowait"))
  end)

  it("refuses what is not a time", function()
    for _, ms in ipairs({ -1, 0 / 0, "5", true }) do
      local ok, err = pcall(function() source.manual():timeout(ms) end)
      assert.is_false(ok)
      assert.equal("INVALID_OPTION", err.code)
    end
  end)
end)
