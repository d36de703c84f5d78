--- The lines of the table: what work, done by whom. A row to come is an entry here, and a load if it needs another.
--
-- start(service_port, options) starts the process that is measured and returns it. `load` drives it: check() once,
-- then load() in every round.

local cjson = require("cjson")
local brokers = require("spec.bench.brokers")
local machine = require("spec.bench.machine")
local proxies = require("spec.bench.proxies")
local wrk = require("spec.bench.wrk")

local PERIGEE = "build/bin/perigee"
local NODE = "build/peers/node"

local function perigee(args, env) return machine.start("measured", PERIGEE, args, env) end

-- Packages are looked up from where the link is, not from where it leads.
local function nest(script, given)
  local flags = { "--preserve-symlinks", "--preserve-symlinks-main", "build/peers/" .. script, cjson.encode(given) }
  return machine.start("measured", NODE, flags, { "NODE_ENV=production" })
end

local function perigee_gateway(service_port)
  return perigee({ "serve", "spec/bench/gateway.lua" }, { "SERVICE_PORT=" .. service_port })
end

local function nest_gateway(service_port) return nest("gateway.js", { service = { port = service_port } }) end

local function limit(service_port) return machine.start("measured", "build/bench/limit", { tostring(service_port) }) end

-- HTTP proxies have an HTTP server behind them.
local echo_port
local function before_echo(start)
  return function()
    echo_port = echo_port or wrk.wait_port(machine.start("load", "build/bench/limit", {}))
    return start(echo_port)
  end
end

local function nest_calls(given, options)
  given.inFlight = options.in_flight
  return nest("send_client.js", given)
end

local function perigee_calls(url, options)
  return perigee({ "run", "spec/bench/send.lua", url, tostring(options.in_flight) })
end

---@class bench.Contender
---@field row string
---@field product string the first of a row is what the others are compared with
return {
  { row = "HTTP > script > TCP", product = "Nest 12", start = nest_gateway, load = "wrk", path = "/orders/charge" },
  { row = "HTTP > script > TCP", product = "perigee", start = perigee_gateway, load = "wrk", path = "/orders/charge" },
  { row = "HTTP > to > TCP", product = "Nest 12", start = nest_gateway, load = "wrk", path = "/orders/charge" },
  { row = "HTTP > to > TCP", product = "perigee", start = perigee_gateway, load = "wrk", path = "/charge" },
  { row = "HTTP > to > TCP", product = "the limit", start = limit, load = "wrk", path = "/orders/charge" },
  {
    row = "HTTP > to > TCP", product = "HAProxy", start = before_echo(proxies.haproxy), load = "wrk",
    path = "/orders/charge",
  },
  {
    row = "HTTP > to > TCP", product = "nginx", start = before_echo(proxies.nginx), load = "wrk",
    path = "/orders/charge",
  },
  {
    row = "send > TCP", product = "Nest 12", load = "calls",
    start = function(port, options) return nest_calls({ port = port }, options) end,
  },
  {
    row = "send > TCP", product = "perigee", load = "calls",
    start = function(port, options) return perigee_calls("tcp://127.0.0.1:" .. port, options) end,
  },
  {
    row = "send > NATS", product = "Nest 12", load = "calls",
    start = function(_, options) return nest_calls({ transport = "nats", servers = brokers.url("nats") }, options) end,
  },
  {
    row = "send > NATS", product = "perigee", load = "calls",
    start = function(_, options) return perigee_calls(brokers.url("nats"), options) end,
  },
  {
    row = "send > Redis", product = "Nest 12", load = "calls",
    start = function(_, options)
      return nest_calls({ transport = "redis", port = brokers.port("redis") }, options)
    end,
  },
  {
    row = "send > Redis", product = "perigee", load = "calls",
    start = function(_, options) return perigee_calls(brokers.url("redis"), options) end,
  },
}
