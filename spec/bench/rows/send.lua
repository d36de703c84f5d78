--- Clients that call and emit: the contender is the load as well.

local behind = require("spec.bench.behind")
local products = require("spec.bench.products")

local function nest(script)
  return function(transport)
    return {
      product = "Nest 12",
      start = function(row)
        local given = behind.nest_options(transport)
        given.inFlight = row.in_flight
        return products.nest(script, given)
      end,
    }
  end
end

local function perigee(product, script)
  return function(transport)
    return {
      product = product,
      start = function(row)
        return products.perigee({ "run", script, behind.url(transport), tostring(row.in_flight) })
      end,
    }
  end
end

local function limit()
  return {
    product = "the limit",
    start = function(row)
      return products.limit("limit_client", behind.service_port(), tostring(row.in_flight))
    end,
  }
end

local SEND = {
  nest = nest("send_client.js"), perigee = perigee("perigee", "spec/bench/send.lua"),
  raw = perigee("perigee raw", "spec/bench/send_raw.lua"),
}
local EMIT = { nest = nest("emit_client.js"), perigee = perigee("perigee", "spec/bench/emit.lua") }
local TRANSPORTS = { { "tcp", "TCP" }, { "nats", "NATS" }, { "redis", "Redis" } }

local rows = {}

local function add(name, in_flight, side, ...)
  rows[#rows + 1] = { name = name, load = "calls", in_flight = in_flight, side = side, contenders = { ... } }
end

for _, pair in ipairs(TRANSPORTS) do
  local transport, title = unpack(pair)
  for _, in_flight in ipairs({ 64, 1, 1024 }) do
    local is_main = in_flight == 64
    local name = "send > " .. title .. (is_main and "" or (", %d in flight"):format(in_flight))
    local calls = { SEND.nest(transport), SEND.perigee(transport) }
    if transport == "tcp" then
      table.insert(calls, SEND.raw(transport))
      table.insert(calls, limit())
    end
    add(name, in_flight, not is_main, unpack(calls))
  end
end
for _, pair in ipairs(TRANSPORTS) do
  add("emit > " .. pair[2], 64, true, EMIT.nest(pair[1]), EMIT.perigee(pair[1]))
end

return rows
