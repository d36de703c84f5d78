--- What is measured is the service that is called. Nest's client hands its calls to the kernel one by one and is slower
--- than what it calls, so most of them wake the service alone; the limit's client, beside it, lets nothing sleep.

local machine = require("spec.bench.machine")
local products = require("spec.bench.products")

local function nest_client(service, row)
  return products.nest("send_client.js", { port = machine.wait_port(service), inFlight = row.in_flight }, "load")
end

local function limit_client(service, row)
  return machine.start("load", "build/bench/limit_client",
    { tostring(machine.wait_port(service)), tostring(row.in_flight) })
end

local function nest() return products.nest("service.js", {}) end

local function limit() return products.limit("service") end

local function perigee() return products.perigee({ "serve", "spec/bench/serve.lua", "--admin", "off" }) end

local function row(name, call)
  return {
    name = name, load = "calls", in_flight = 64,
    contenders = {
      { product = "Nest 12", call = call, start = nest },
      { product = "the limit", call = call, start = limit },
      { product = "perigee", call = call, start = perigee },
    },
  }
end

return { row("serve < Nest's client", nest_client), row("serve < the limit's client", limit_client) }
