--- What stands behind the contenders, started when it is first asked for.

local brokers = require("spec.bench.brokers")
local machine = require("spec.bench.machine")

local ports = {}

local function port_of(program)
  ports[program] = ports[program] or tostring(machine.wait_port(machine.start("load", "build/bench/" .. program, {})))
  return ports[program]
end

local behind = {}

--- Of the TCP service.
---@return string
function behind.service_port() return port_of("service") end

--- Of an HTTP server that answers with what it gets: what HTTP proxies are set before.
---@return string
function behind.echo_port() return port_of("limit") end

--- Where a client finds the service: "tcp" directly, else over a broker.
---@param transport "tcp"|"nats"|"redis"
function behind.url(transport)
  return transport == "tcp" and "tcp://127.0.0.1:" .. behind.service_port() or brokers.url(transport)
end

--- The same in the options of Nest's clients.
---@return table
function behind.nest_options(transport)
  if transport == "tcp" then return { port = tonumber(behind.service_port()) } end
  if transport == "nats" then return { transport = "nats", servers = brokers.url("nats") } end
  return { transport = "redis", port = brokers.port("redis") }
end

return behind
