-- perigee's side of the HTTP rows: the work of spec/peers/gateway.js, by a script and by perigee.to.
--
--   SERVICE_PORT=3001 perigee serve spec/bench/gateway.lua

local perigee = require("perigee")

local app = perigee.app()
local billing = perigee.client("tcp://127.0.0.1:" .. os.getenv("SERVICE_PORT"))

-- Decodes the body, encodes it into a request, decodes the reply, encodes it into the answer: so does Nest's gateway.
app:post("/orders/charge", function(req)
  local order = req:json()
  local invoice = billing:send({ cmd = "charge" }, order):await()
  return invoice
end)

app:post("/charge", perigee.to(billing, { cmd = "charge" }))

app:listen("http://127.0.0.1:0", { max_body_bytes = 2097152, max_connections = 20000 }) -- 1 MB, 10000 connections

return app
