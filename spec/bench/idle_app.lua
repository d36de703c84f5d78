-- What start-up and idle connections are measured with: one route, one message handler.
--
--   HTTP_PORT=8080 TCP_PORT=3001 perigee serve spec/bench/idle_app.lua

local perigee = require("perigee")

local app = perigee.app()
local limits = { max_connections = 20000, idle_timeout = 600000, header_timeout = 600000 }

app:get("/", function() return { status = "ok" } end)
app:message("echo", function(data) return data end)
app:listen("http://127.0.0.1:" .. os.getenv("HTTP_PORT"), limits)
if os.getenv("TCP_PORT") then
  app:listen("tcp://127.0.0.1:" .. os.getenv("TCP_PORT"), { max_connections = 20000 })
end
return app
