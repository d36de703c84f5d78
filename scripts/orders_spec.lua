-- Tests of the gateway, scripts/orders.lua: no listener is opened, nothing is dialled, and a wait of half a minute
-- takes no time, since the clock moves on when everything waits.
--
--   perigee test scripts
--     ++++++++++
--     10 successes / 0 failures / 0 errors / 0 pending : 0.02 seconds
--     10 passed, 0 failed

local perigee = require("perigee")
local testing = require("perigee.testing")

local CHARGE = { cmd = "charge" }
local ORDER = { orderId = "ord_42", amount = 1999 }

describe("scripts/orders.lua", function()
  local gateway

  before_each(function() gateway = testing.load("scripts/orders.lua") end)

  -- What billing makes of a charge; the events it is told need no answer.
  local function billing_answers(answer)
    gateway:fake("BILLING_SERVICE", { [CHARGE] = answer })
  end

  local function charge(order)
    return gateway:request({ path = "/orders/charge", json = order or ORDER })
  end

  it("answers with billing's invoice", function()
    billing_answers(function(order) return { id = "inv_1", amount = order.amount } end)
    local response = charge()
    assert.equal(200, response.status)
    assert.same({ id = "inv_1", amount = 1999 }, response:json())
  end)

  it("tells billing of the order first", function()
    billing_answers({ id = "inv_1" })
    charge()
    assert.equal("emit", gateway:calls("BILLING_SERVICE")[1].kind)
    assert.equal("ord_42", gateway:called("BILLING_SERVICE", "order_placed").data.orderId)
  end)

  it("passes a body on without looking at it", function()
    billing_answers({ id = "inv_1" })
    local response = gateway:request({ path = "/charge", body = '{"any": "thing"}' })
    assert.equal('{"id":"inv_1"}', response.body)
    gateway:called("BILLING_SERVICE", CHARGE, { any = "thing" })
  end)

  it("answers 402 with billing's reason when billing refuses", function()
    billing_answers(function() error({ code = 402, message = "nothing to charge" }) end)
    local response = charge()
    assert.equal(402, response.status)
    assert.equal("nothing to charge", response:json().detail)
  end)

  it("answers 504 when billing is silent for 5 seconds", function()
    billing_answers(testing.never)
    assert.equal(504, charge().status)
    assert.equal(5000, testing.clock.now())
  end)

  it("waits for an answer that takes 4 seconds", function()
    billing_answers(function()
      perigee.sleep(4000):await()
      return { id = "late" }
    end)
    assert.equal("late", charge():json().id)
  end)

  it("asks again, after 100 and 200 ms, when billing cannot be reached", function()
    local times = {}
    billing_answers(function()
      times[#times + 1] = testing.clock.now()
      if #times < 3 then error(perigee.error({ code = "CONNECT_FAILED", message = "ECONNREFUSED" })) end
      return { id = "third time" }
    end)
    assert.equal("third time", charge():json().id)
    assert.same({ 0, 100, 300 }, times)
  end)

  it("answers 502 when billing stays away", function()
    billing_answers(function() error(perigee.error({ code = "CONNECT_FAILED", message = "ECONNREFUSED" })) end)
    assert.equal(502, charge().status)
    assert.equal(3, #gateway:calls("BILLING_SERVICE", CHARGE))
  end)

  it("charges nobody twice: a silent billing is not asked again", function()
    billing_answers(testing.never)
    charge()
    assert.equal(1, #gateway:calls("BILLING_SERVICE", CHARGE))
  end)

  it("refuses what is no JSON, before it asks anybody", function()
    billing_answers({ id = "inv_1" })
    assert.equal(400, gateway:request({ path = "/orders/charge", body = "{" }).status)
    assert.same({}, gateway:calls("BILLING_SERVICE"))
  end)
end)
