--- Nest's client is the load; what is measured is the service it calls.

local machine = require("spec.bench.machine")
local products = require("spec.bench.products")

local function nest_client(service, row)
  return products.nest("send_client.js", { port = machine.wait_port(service), inFlight = row.in_flight }, "load")
end

return {
  {
    name = "serve < Nest's client", load = "calls", in_flight = 64,
    contenders = {
      {
        product = "Nest 12", call = nest_client,
        start = function() return products.nest("service.js", {}) end,
      },
      { product = "the limit", call = nest_client, start = function() return products.limit("service") end },
      {
        product = "perigee", call = nest_client,
        start = function() return products.perigee({ "serve", "spec/bench/serve.lua", "--admin", "off" }) end,
      },
    },
  },
}
