local errors = require("perigee.errors")

local function hostile()
  return setmetatable({}, {
    __index = function(_, name) error("there is no " .. name) end,
    __tostring = function() error("not to be shown") end,
  })
end

describe("errors of scripts that raise when they are read", function()
  it("have no fields, and a text all the same", function()
    assert.is_nil(errors.field(hostile(), "code"))
    assert.are.equal(1, errors.field(setmetatable({}, { __index = { code = 1 } }), "code"))
    assert.are.equal("an error that cannot be shown", errors.text(hostile()))
    assert.are.equal("TIMEOUT: late", errors.text(errors.make("TIMEOUT", "late")))
    assert.are.equal("m", errors.text({ code = "C", message = "m" }))
  end)

  it("end what they end: any, retry, saga", function()
    local perigee = require("perigee")
    local function raise() error(hostile()) end
    local function outcome(waited) return pcall(waited.await, waited) end
    local ok, err = outcome(perigee.any({ perigee.async(raise) }))
    assert.are.same({ false, "all 1 failed, the last with: an error that cannot be shown" }, { ok, err.message })
    ok, err = outcome(perigee.of(1):map(raise):retry({ attempts = 1, on = { "TIMEOUT" } }))
    assert.are.same({ false, "table" }, { ok, type(err) })
    local log = require("perigee.log")
    log.set_sink(function() end)
    ok, err = outcome(perigee.saga(function(saga)
      saga:step("one", function() return 1 end, raise)
      raise()
    end))
    log.set_sink()
    assert.are.same({ false, "one (an error that cannot be shown)" }, { ok, errors.list(err.failures) })
  end)
end)

describe("errors", function()
  it("reads as CODE: message, or as the message alone", function()
    assert.equal("TIMEOUT: no value", tostring(errors.new({ code = "TIMEOUT", message = "no value" })))
    assert.equal("no value", tostring(errors.new({ message = "no value" })))
    assert.equal("OVERLOADED: OVERLOADED", tostring(errors.new({ code = "OVERLOADED" })))
  end)

  it("keeps the caller's table and all its fields", function()
    local fields = { code = "X", status = 402, err = { a = 1 }, cause = "c", mine = true }
    local err = errors.new(fields)
    assert.equal(fields, err)
    assert.equal(402, err.status)
    assert.is_true(err.mine)
    assert.is_true(errors.is(err))
  end)

  it("takes a text as the message", function()
    assert.equal("x", errors.new("x").message)
  end)

  it("keeps the identity of a raised table", function()
    local raised = { code = 402 }
    assert.equal(raised, errors.from(raised))
    assert.is_nil(getmetatable(raised))
    assert.is_false(errors.is(raised))
  end)

  it("makes SCRIPT of a text, with the traceback", function()
    local err = errors.from("boom", "trace")
    assert.equal("SCRIPT", err.code)
    assert.equal("boom", err.message)
    assert.equal("trace", err.traceback)
    assert.equal("SCRIPT", errors.from(nil).code)
    assert.equal("42", errors.from(42).message)
  end)

  it("captures where a text was raised, and nothing for a table", function()
    local _, err = xpcall(function() error("boom") end, errors.on_raise)
    assert.matches("errors_spec.lua:%d+: boom", err.message)
    assert.matches("^stack traceback:", err.traceback)
    local raised = {}
    local _, same = xpcall(function() error(raised) end, errors.on_raise)
    assert.equal(raised, same)
    assert.is_nil(same.traceback)
  end)

  it("says where a misuse happened", function()
    local err = errors.misuse("INVALID_OPTION", "no")
    assert.equal("INVALID_OPTION", err.code)
    assert.matches("errors_spec.lua", err.traceback)
  end)
end)
