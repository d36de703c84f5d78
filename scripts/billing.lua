-- A service: answers {"cmd":"charge"} and hears "order_placed", over Nest's TCP transport.
--
--   perigee serve scripts/billing.lua
--   perigee send tcp://127.0.0.1:3001 '{"cmd":"charge"}' '{"orderId":"ord_42","amount":1999}'
--     {"amount":1999,"id":"inv_8a1","status":"paid"}
--
-- BILLING_PORT chooses another port than 3001.

local perigee = require("perigee")

local app = perigee.app()

app:message({ cmd = "charge" }, function(order)
  if type(order.amount) ~= "number" or order.amount <= 0 then
    error({ code = 402, message = "nothing to charge" }) -- goes out as it is, as Nest's RpcException does
  end
  return { id = "inv_8a1", amount = order.amount, status = "paid" }
end)

app:event("order_placed", function(order)
  print("placed: " .. order.orderId)
  io.stdout:flush()
end)

app:listen("tcp://127.0.0.1:" .. (os.getenv("BILLING_PORT") or "3001"))

return app
