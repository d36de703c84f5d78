local combinators = require("perigee.combinators")
local source = require("spec.support.source")

describe("tap", function()
  it("shows each value and passes it unchanged", function()
    local seen = {}
    local r = combinators.of(1, 2):tap(function(v)
      seen[#seen + 1] = v
      return "ignored"
    end)
    assert.same({ 1, 2 }, r:collect():await())
    assert.same({ 1, 2 }, seen)
  end)

  it("rejects when the function raises, cancels the source, and forbids await", function()
    local r, control = source.manual()
    local p = r:tap(function() error("boom") end):last()
    control.observer:next(1)
    assert.equal(1, control.cancelled)
    local _, err = pcall(p.await, p)
    assert.equal("SCRIPT", err.code)
    assert.matches("tap_spec.lua:%d+: boom", err.message)
    _, err = pcall(function() combinators.of(1, 2):tap(function() combinators.sleep(1):await() end):await() end)
    assert.equal("UNSUPPORTED", err.code)
  end)

  it("refuses anything but a function", function()
    local ok, err = pcall(function() combinators.of(1):tap(nil) end)
    assert.is_false(ok)
    assert.equal("INVALID_OPTION", err.code)
  end)
end)
