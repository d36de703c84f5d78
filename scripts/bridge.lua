-- A bridge with a transform: takes orders as one system spells them and passes them on as another does.
--
--   perigee serve scripts/billing.lua &
--   perigee serve scripts/bridge.lua &
--   perigee send tcp://127.0.0.1:3002 order.pay '{"ref":"ord_42","total":"19.99"}'
--     {"paid":"19.99","ref":"ord_42"}
--   perigee emit tcp://127.0.0.1:3002 order.placed '{"ref":"ord_42"}'
--
-- FROM and TO are URLs, of two transports if need be: FROM=unix:/run/orders.sock TO=tcp://billing:3001.

local perigee = require("perigee")

local app = perigee.app()
local to = perigee.client(os.getenv("TO") or "tcp://127.0.0.1:3001")

local function to_cents(text)
  local amount = tonumber(text)
  if not amount then error({ message = "total is no number: " .. tostring(text) }) end
  return math.floor(amount * 100 + 0.5)
end

-- Errors of the other side pass as they are, streams value by value.
app:message("order.pay", function(order)
  return to:send({ cmd = "charge" }, { orderId = order.ref, amount = to_cents(order.total) })
    :map(function(invoice) return { ref = order.ref, paid = ("%.2f"):format(invoice.amount / 100) } end)
end)

app:event("order.placed", function(order)
  return to:emit("order_placed", { orderId = order.ref })
end)

app:listen(os.getenv("FROM") or "tcp://127.0.0.1:3002")

return app
