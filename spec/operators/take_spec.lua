local combinators = require("perigee.combinators")
local source = require("spec.support.source")

describe("take", function()
  it("ends after n values and cancels the call", function()
    local r, control = source.manual()
    local p = r:take(2):collect()
    for i = 1, 3 do control.observer:next(i) end
    assert.equal(1, control.cancelled)
    assert.same({ 1, 2 }, p:await())
  end)

  it("passes n values also when a callback makes the source give more", function()
    local r, control = source.manual()
    local seen = {}
    r:take(1):subscribe({
      next = function(value)
        seen[#seen + 1] = value
        if value < 3 then control.observer:next(value + 1) end
      end,
      complete = function() seen[#seen + 1] = "end" end,
    })
    control.observer:next(1)
    assert.same({ 1, "end" }, seen)
  end)

  it("ends with a shorter stream", function()
    assert.same({ 1 }, combinators.of(1):take(5):collect():await())
  end)

  it("stops an endless iterator", function()
    local n = 0
    local r = combinators.from(function()
      n = n + 1
      return n
    end)
    assert.same({ 1, 2, 3 }, r:take(3):collect():await())
    assert.equal(3, n)
  end)

  it("asks nothing for 0", function()
    local r, control = source.manual()
    assert.is_nil(r:take(0):await())
    assert.equal(0, control.asked)
  end)

  it("refuses what is not a count", function()
    for _, n in ipairs({ -1, 1.5, 0 / 0, "x" }) do
      local ok, err = pcall(function() combinators.of(1):take(n) end)
      assert.is_false(ok)
      assert.equal("INVALID_OPTION", err.code)
    end
  end)
end)
