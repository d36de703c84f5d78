--- HTTP in front, Nest's TCP behind: through a script, through perigee.to, and what others do.

local behind = require("spec.bench.behind")
local products = require("spec.bench.products")
local proxies = require("spec.bench.proxies")

local function perigee(path)
  return {
    product = "perigee", path = path,
    start = function()
      return products.perigee({ "serve", "spec/bench/gateway.lua", "--admin", "off" },
        { "SERVICE_PORT=" .. behind.service_port() })
    end,
  }
end

local function script() return perigee("/orders/charge") end

local function to() return perigee("/charge") end

local function nest()
  return {
    product = "Nest 12", path = "/orders/charge",
    start = function()
      return products.nest("gateway.js", { service = { port = tonumber(behind.service_port()) } })
    end,
  }
end

local function limit()
  return {
    product = "the limit", path = "/orders/charge",
    start = function() return products.limit("limit", behind.service_port()) end,
  }
end

-- HTTP proxies have an HTTP server behind them.
local function proxy(product, start)
  return function()
    return {
      product = product, path = "/orders/charge",
      start = function(row) return start(behind.echo_port(), row.connections) end,
    }
  end
end

local haproxy, nginx = proxy("HAProxy", proxies.haproxy), proxy("nginx", proxies.nginx)

local function row(name, fields, ...)
  local made = { name = name, load = "http", connections = 64, bytes = 100, contenders = {} }
  for key, value in pairs(fields) do made[key] = value end
  for i, contender in ipairs({ ... }) do made.contenders[i] = contender() end
  return made
end

local side = true

return {
  row("HTTP > script > TCP", {}, nest, haproxy, limit, script),
  row("HTTP > script > TCP, 10 kB", { side = side, bytes = 10e3 }, nest, script),
  row("HTTP > to > TCP", {}, nest, haproxy, nginx, limit, to),
  row("HTTP > to > TCP, 10 kB", { side = side, bytes = 10e3 }, nginx, limit, to),
  row("HTTP > to > TCP, 1 MB", { side = side, bytes = 1e6, connections = 8 }, nginx, limit, to),
  row("HTTP > to > TCP, 1 conn", { side = side, connections = 1 }, nginx, limit, to),
  row("HTTP > to > TCP, 100 conns", { side = side, connections = 100 }, nginx, limit, to),
  row("HTTP > to > TCP, 10000 conns", { side = side, connections = 10000 }, nginx, limit, to),
  -- An open loop: what one more request waits for while perigee is half busy.
  row("HTTP > to > TCP, half load", { half_of = "perigee", split = 3 }, nginx, limit, to),
}
