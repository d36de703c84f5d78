-- The service behind the rows over a broker: answers each request with its data, undecoded.
--
--   BROKER=nats://127.0.0.1:4222 perigee serve spec/bench/charge.lua

local perigee = require("perigee")

local app = perigee.app()
app:message({ cmd = "charge" }, function(_, ctx) return ctx.raw end)
app:listen(os.getenv("BROKER"))
return app
