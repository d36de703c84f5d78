-- The seed's page on ClientProxy, example by example, in perigee's words.

local http = require("spec.support.http")
local loop = require("spec.support.loop")
local perigee = require("perigee")
local tcp = require("spec.support.tcp")

local INVOICE = { id = "inv_8a1", amount = 1999, status = "paid" }

local billing, app, placed

-- billing-service: @MessagePattern({ cmd: 'charge' }), @EventPattern('order_placed')
before_each(function()
  placed = {}
  billing = perigee.app()
  billing:message({ cmd = "charge" }, function(order)
    if order.amount < 0 then error(perigee.error({ message = "no credit" })) end
    return { id = "inv_8a1", amount = order.amount, status = order.amount > 0 and "paid" or nil }
  end)
  billing:message("slow", function() perigee.sleep(60000):await() end)
  billing:event("order_placed", function(order) placed[#placed + 1] = order.orderId end)
  billing:listen("tcp://127.0.0.1:0")
  billing:start():await()
  app = perigee.app()
end)

after_each(function()
  app:stop({ drain_timeout = 100 }):await()
  billing:stop({ drain_timeout = 100 }):await()
  loop.finish()
end)

local function billing_port()
  return billing:addresses()[1]:match(":(%d+)$")
end

-- ClientsModule.register([{ name: 'BILLING_SERVICE', transport: Transport.TCP, options: { … } }])
local function register()
  app:clients({ { name = "BILLING_SERVICE", transport = "tcp", host = "localhost", port = billing_port() } })
  return app:inject("BILLING_SERVICE") -- @Inject('BILLING_SERVICE')
end

local function order_charge(service, order_id, amount)
  return service:send({ cmd = "charge" }, { orderId = order_id, amount = amount })
end

describe("the seed's OrdersService", function()
  it("charges an order, and awaits as firstValueFrom does", function()
    local service = register()
    assert.are.same(INVOICE, order_charge(service, "ord_42", 1999):first():await())
    assert.are.same(INVOICE, order_charge(service, "ord_42", 1999):await())
  end)

  it("GEN-11 sends nothing until somebody asks", function()
    local service = register()
    local reply = order_charge(service, "ord_42", 1999)
    loop.run_for(20)
    assert.are.equal("disconnected", service:status().state)
    reply:await()
    assert.are.equal("connected", service:status().state)
  end)

  it("GEN-12 emits order_placed without being asked twice", function()
    register():emit("order_placed", { orderId = "ord_42", at = os.time() })
    loop.wait_until(function() return placed[1] end)
    assert.are.same({ "ord_42" }, placed)
  end)

  it("guards the call: timeout, map, catchError", function()
    local service = register()
    local function charge_with_guards(pattern, amount, ms)
      return service:send(pattern, { orderId = "ord_42", amount = amount })
        :timeout(ms or 5000)
        :map(function(invoice)
          invoice.status = invoice.amount > 0 and "paid" or "pending"
          return invoice
        end)
        :catch_error(function(err) error("Billing failed: " .. err.message, 0) end)
    end
    local charge = { cmd = "charge" }
    assert.are.same(INVOICE, charge_with_guards(charge, 1999):await())
    assert.are.equal("pending", charge_with_guards(charge, 0):await().status)
    for message, reply in pairs({
      ["Billing failed: no credit"] = charge_with_guards(charge, -1),
      ["Billing failed: no value within 20 ms"] = charge_with_guards("slow", 1, 20),
    }) do
      local ok, err = pcall(function() return reply:await() end)
      assert.is_false(ok)
      assert.are.equal(message, err.message)
    end
  end)
end)

describe("the seed's modules", function()
  it("register clients asynchronously, from the environment", function()
    app:provide("config", { BILLING_HOST = "127.0.0.1", BILLING_PORT = billing_port() })
    app:clients_async({ {
      name = "BILLING_SERVICE",
      inject = { "config" },
      use_factory = function(config)
        return { transport = "tcp", host = config.BILLING_HOST, port = config.BILLING_PORT }
      end,
    } })
    local service = app:inject("BILLING_SERVICE")
    app:start():await()
    assert.are.same(INVOICE, order_charge(service, "ord_42", 1999):await())
  end)

  it("connect on start and close on stop, so that the first call finds a connection", function()
    local server = tcp.listen()
    app:clients({ { name = "BILLING_SERVICE", host = "127.0.0.1", port = server.port } })
    local service = app:inject("BILLING_SERVICE")
    app:on_start(function() service:connect():await() end)
    app:on_stop(function() service:close():await() end)
    assert.are.equal(0, server.accepted)
    app:start():await()
    assert.are.equal(1, server.accepted)
    local peer = server:accept()
    app:stop():await()
    assert.are.equal("EOF", select(2, peer:read_end()))
  end)

  it("can be tested with a token overridden", function()
    local service = register()
    app:override("BILLING_SERVICE", {
      [{ cmd = "charge" }] = function(order) return { id = "fake", amount = order.amount, status = "paid" } end,
    })
    assert.are.same({ id = "fake", amount = 7, status = "paid" }, order_charge(service, "ord_42", 7):await())
  end)

  it("make a client without a module, as @Client does", function()
    local client = perigee.client({ transport = "tcp", port = billing_port() })
    client:emit("order_placed", { orderId = "ord_43" }):await()
    loop.wait_until(function() return placed[1] end)
    client:close():await()
    assert.are.same({ "ord_43" }, placed)
  end)
end)

describe("the seed's OrdersController", function()
  it("answers POST /orders/charge with the invoice, by returning the Reply", function()
    local service = register()
    app:post("/orders/charge", function(req)
      local body = req:json()
      return order_charge(service, body.orderId, body.amount)
    end)
    app:listen("http://127.0.0.1:0")
    app:start():await()
    local response = http.request(app:addresses()[1], "POST", "/orders/charge", '{"orderId":"ord_42","amount":1999}')
    assert.are.equal(200, response.status)
    assert.are.equal("application/json", response.headers["content-type"])
    assert.are.same(INVOICE, http.json(response))
  end)
end)
