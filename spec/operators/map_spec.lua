local combinators = require("perigee.combinators")
local source = require("spec.support.source")

describe("map", function()
  it("passes what the function makes of each value", function()
    assert.same({ 2, 4 }, combinators.of(1, 2):map(function(v) return v * 2 end):collect():await())
  end)

  it("gives the function one argument, nil too", function()
    local function count(...) return select("#", ...) end
    assert.same({ 1, 1 }, combinators.of(nil, false):map(count):collect():await())
  end)

  it("rejects when the function raises, cancels the source, and forbids await", function()
    local r, control = source.manual()
    local p = r:map(function() error("boom") end):last()
    control.observer:next(1)
    assert.equal(1, control.cancelled)
    local _, err = pcall(p.await, p)
    assert.equal("SCRIPT", err.code)
    assert.matches("map_spec.lua:%d+: boom", err.message)
    _, err = pcall(function() combinators.of(1, 2):map(function() combinators.sleep(1):await() end):await() end)
    assert.equal("UNSUPPORTED", err.code)
  end)

  it("refuses anything but a function", function()
    local ok, err = pcall(function() combinators.of(1):map(nil) end)
    assert.is_false(ok)
    assert.equal("INVALID_OPTION", err.code)
  end)

  it("passes errors and the end", function()
    local called = false
    local function mark() called = true end
    assert.is_nil(combinators.of():map(mark):await())
    local _, err = pcall(function()
      combinators.reply(function(sink) sink:error({ code = "X" }) end):map(mark):await()
    end)
    assert.equal("X", err.code)
    assert.is_false(called)
  end)

  it("hands cancelling up", function()
    local r, control = source.manual()
    r:map(tostring):map(tostring):subscribe({}):unsubscribe()
    assert.equal(1, control.cancelled)
  end)
end)
