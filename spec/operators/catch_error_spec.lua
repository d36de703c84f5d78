local combinators = require("perigee.combinators")
local source = require("spec.support.source")

local promise = require("perigee.promise")

local function failing(code)
  return combinators.reply(function(sink)
    sink:next("before")
    sink:error({ code = code })
  end)
end

describe("catch_error", function()
  it("ends the stream with the value returned", function()
    local r = failing("X"):catch_error(function(err) return "caught " .. err.code end)
    assert.same({ "before", "caught X" }, r:collect():await())
  end)

  it("goes on with a Reply or Promise", function()
    local with_reply = failing("X"):catch_error(function() return combinators.of(1, 2) end)
    assert.same({ "before", 1, 2 }, with_reply:collect():await())
    local with_promise = failing("X"):catch_error(function()
      return combinators.sleep(1):next(function() return "p" end)
    end)
    assert.same({ "before", "p" }, with_promise:collect():await())
  end)

  it("fails with the error of what it went on with", function()
    for _, other in ipairs({ failing("Y"), promise.rejected({ code = "Y" }) }) do
      local _, err = pcall(function() failing("X"):catch_error(function() return other end):await() end)
      assert.equal("Y", err.code)
    end
  end)

  it("replaces the error with one that is raised", function()
    local raised = { code = "Y" }
    local _, err = pcall(function() failing("X"):catch_error(function() error(raised) end):await() end)
    assert.equal(raised, err)
  end)

  it("is not called when nothing fails", function()
    local r = combinators.of(1):catch_error(function() return "wrong" end)
    assert.same({ 1 }, r:collect():await())
  end)

  it("hands cancelling to whichever runs", function()
    local first, one = source.manual()
    local second, two = source.manual()
    local subscription = first:catch_error(function() return second end):subscribe({})
    one.observer:error({ code = "X" })
    assert.equal(1, two.asked)
    subscription:unsubscribe()
    assert.same({ 0, 1 }, { one.cancelled, two.cancelled })
    local p_cancelled = false
    local p = promise.pending(function() p_cancelled = true end)
    failing("X"):catch_error(function() return p end):subscribe({}):unsubscribe()
    assert.is_true(p_cancelled)
    first:catch_error(function() return second end):subscribe({}):unsubscribe()
    assert.equal(1, one.cancelled)
  end)

  it("hands the settings of the chain to the Reply it goes on with", function()
    local second, control = source.manual()
    failing("X"):catch_error(function() return second end):raw():subscribe({})
    assert.same({ raw = true }, control.ctx)
  end)

  it("forbids await in its function", function()
    local _, err = pcall(function()
      failing("X"):catch_error(function() combinators.sleep(1):await() end):await()
    end)
    assert.equal("UNSUPPORTED", err.code)
  end)
end)
