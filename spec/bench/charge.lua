-- The service behind the rows over a broker: answers each request with its data, undecoded, and counts events.
--
--   BROKER=nats://127.0.0.1:4222 perigee serve spec/bench/charge.lua

local perigee = require("perigee")

local app = perigee.app()
app:message({ cmd = "charge" }, function(_, ctx) return ctx.raw end)

local events = 0
app:event({ cmd = "charged" }, function() events = events + 1 end)
app:message({ cmd = "count" }, function() return events end)

app:listen(os.getenv("BROKER"))
return app
