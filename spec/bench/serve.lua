-- perigee's side of the serve row: what spec/peers/service.js answers to the same pattern.
--
--   perigee serve spec/bench/serve.lua

local perigee = require("perigee")

local app = perigee.app()

app:message({ cmd = "charge" }, function(order)
  return { id = "inv_8a1", amount = order.amount, status = "paid" }
end)

app:listen("tcp://127.0.0.1:0")

return app
