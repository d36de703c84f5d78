-- A gateway: HTTP in front, the billing service behind it.
--
--   perigee serve scripts/billing.lua &
--   perigee serve scripts/orders.lua &
--   curl -d '{"orderId":"ord_42","amount":1999}' http://127.0.0.1:8080/orders/charge
--     {"amount":1999,"id":"inv_8a1","status":"paid"}
--
-- BILLING_HOST and BILLING_PORT say where billing is, ORDERS_PORT where to listen.

local perigee = require("perigee")

local app = perigee.app()

app:provide("config", {
  host = os.getenv("BILLING_HOST") or "127.0.0.1",
  port = os.getenv("BILLING_PORT") or "3001",
})

app:clients_async({
  {
    name = "BILLING_SERVICE",
    inject = { "config" },
    use_factory = function(config) return { transport = "tcp", host = config.host, port = config.port } end,
  },
})

local billing = app:inject("BILLING_SERVICE")

app:post("/orders/charge", function(req)
  local order = req:json()
  billing:emit("order_placed", { orderId = order.orderId, at = os.time() })
  return billing:send({ cmd = "charge" }, { orderId = order.orderId, amount = order.amount })
    :timeout(5000)
    :retry({ attempts = 2, backoff = 100, on = { "CONNECT_FAILED" } }) -- it was not sent: it may be sent again
    :catch_error(function(err)
      if err.code == "REMOTE" then error({ status = 402, message = err.message }) end
      error(err)
    end)
end)

-- The same without a look at it: the body goes to billing as it is, the answer comes back as it is.
app:post("/charge", perigee.to(billing, { cmd = "charge" }))

app:listen("http://127.0.0.1:" .. (os.getenv("ORDERS_PORT") or "8080"))

return app
