-- A proxy between services: passes everything on untouched, and changes one message on its way.
--
--   perigee serve scripts/billing.lua &
--   perigee serve scripts/proxy.lua &
--   perigee send tcp://127.0.0.1:3000 '{"cmd":"charge"}' '{"orderId":"ord_42","amount":1999}'
--     {"amount":1999,"id":"inv_8a1","status":"paid"}
--   perigee send tcp://127.0.0.1:3000 charge_in_euros '{"orderId":"ord_42","euros":19.99}'
--     {"euros":19.99,"id":"inv_8a1"}
--
-- BACKEND is where messages go, PROXY_PORT where they come in.

local perigee = require("perigee")

local app = perigee.app()
local backend = perigee.client(os.getenv("BACKEND") or "tcp://127.0.0.1:3001")

app:message("charge_in_euros", function(order)
  local cents = math.floor(order.euros * 100 + 0.5)
  return backend:send({ cmd = "charge" }, { orderId = order.orderId, amount = cents }):map(function(invoice)
    return { id = invoice.id, euros = invoice.amount / 100 }
  end)
end)

app:forward(perigee.any_pattern, backend)

app:listen("tcp://127.0.0.1:" .. (os.getenv("PROXY_PORT") or "3000"))

return app
