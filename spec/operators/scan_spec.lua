local combinators = require("perigee.combinators")
local source = require("spec.support.source")

local function add(total, value) return total + value end

describe("scan", function()
  it("passes each step of the running total", function()
    assert.same({ 11, 13, 16 }, combinators.of(1, 2, 3):scan(add, 10):collect():await())
  end)

  it("starts with the first value without a seed", function()
    assert.same({ 1, 3, 6 }, combinators.of(1, 2, 3):scan(add):collect():await())
  end)

  it("starts anew for each request", function()
    local r = combinators.of(1, 2):scan(add)
    assert.equal(3, r:await())
    assert.equal(3, r:await())
  end)

  it("keeps a total of false", function()
    local r = combinators.of(true, false, true):scan(function(total, value) return total and value end)
    assert.same({ true, false, false }, r:collect():await())
  end)

  it("gives the function two arguments, nil too", function()
    local function count(...) return select("#", ...) end
    assert.same({ 2, 2 }, combinators.of(nil, false):scan(count, 0):collect():await())
  end)

  it("rejects when the function raises, cancels the source, and forbids await", function()
    local r, control = source.manual()
    local p = r:scan(function() error("boom") end):last()
    control.observer:next(1)
    control.observer:next(2)
    assert.equal(1, control.cancelled)
    local _, err = pcall(p.await, p)
    assert.equal("SCRIPT", err.code)
    assert.matches("scan_spec.lua:%d+: boom", err.message)
    _, err = pcall(function() combinators.of(1, 2):scan(function() combinators.sleep(1):await() end):await() end)
    assert.equal("UNSUPPORTED", err.code)
  end)

  it("refuses anything but a function", function()
    local ok, err = pcall(function() combinators.of(1):scan(nil) end)
    assert.is_false(ok)
    assert.equal("INVALID_OPTION", err.code)
  end)
end)
