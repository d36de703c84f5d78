--- The operations of `make bench-micro` that are Lua: what a script does many times a second. Each does its work once
--- and returns what came of it.

local perigee = require("perigee")
local router = require("perigee.router")

---@class spec.MicroOp
---@field name string
---@field setup fun(): fun(): any what is measured; built once, before
---@field wants any what it must return
---@field counted? integer how often it is done to count instructions, where the usual takes long
---@field teardown? fun()

-- As in micro.h.
local SMALL = '{"amount":1999,"currency":"EUR","customer":"cus_9f3b21","orderId":"ord_42",'
  .. '"paid":false,"tags":["a","b"]}'
local LARGE = "[" .. SMALL .. ("," .. SMALL):rep(37) .. "]"

local function encoding(text)
  return function()
    local value, encode = perigee.json.decode(text), perigee.json.encode
    return function() return encode(value) end
  end
end

local function decoding(text, pick)
  return function()
    local decode = perigee.json.decode
    return function() return pick(decode(text)) end
  end
end

-- Of several paths in turn: the look-up of one alone would be lifted out of the loop.
local function routing(method, paths, pick)
  return function()
    local routes = router.new()
    for i, place in ipairs({ "orders", "invoices", "customers", "carts", "items" }) do
      routes:add("GET", "/" .. place, i * 10, "here:1")
      routes:add("GET", "/" .. place .. "/:id", i * 10 + 1, "here:2")
      routes:add("POST", "/" .. place .. "/charge", i * 10 + 2, "here:3")
      routes:add("GET", "/" .. place .. "/:id/lines/:line", i * 10 + 3, "here:4")
    end
    local i = 0
    return function()
      i = i % #paths + 1
      return pick(routes:find(method, paths[i]))
    end
  end
end

local app, client

local function sending(method)
  return function()
    app = perigee.app()
    app:message("charge", function(order) return order end)
    app:listen("local:micro")
    app:start():await()
    client = perigee.client("local:micro")
    client:connect():await()
    local order = perigee.json.decode(SMALL)
    return method(order)
  end
end

local function stop()
  client:close():await()
  app:stop():await()
end

local function double(n) return n * 2 end

local function is_large(n) return n > 2 end

---@type spec.MicroOp[]
return {
  { name = "lua nothing", setup = function() return function() return 1 end end, wants = 1 },
  { name = "json.encode 100 B", setup = encoding(SMALL), wants = SMALL },
  { name = "json.encode 4 kB", setup = encoding(LARGE), wants = LARGE, counted = 200 },
  { name = "json.decode 100 B", setup = decoding(SMALL, function(value) return value.orderId end), wants = "ord_42" },
  {
    name = "json.decode 4 kB", wants = 38, counted = 200,
    setup = decoding(LARGE, function(list) return #list end),
  },
  {
    name = "router static path", wants = 32,
    setup = routing("POST", { "/customers/charge", "/customers/charge" }, function(route) return route.handler end),
  },
  {
    name = "router two parameters", wants = "7",
    setup = routing("GET", { "/items/i_42/lines/7", "/carts/c_42/lines/7" },
      function(_, params) return params.line end),
  },
  {
    name = "await a made promise", wants = 1,
    setup = function()
      local made = perigee.promise(function(resolve) resolve(1) end)
      return function() return made:await() end
    end,
  },
  {
    name = "async and await", wants = 1,
    setup = function()
      local function at_once() return 1 end
      return function() return perigee.async(at_once):await() end
    end,
  },
  { name = "of await", setup = function() return function() return perigee.of(1):await() end end, wants = 1 },
  {
    name = "of map filter await", wants = 6,
    setup = function()
      return function() return perigee.of(1, 2, 3):map(double):filter(is_large):await() end
    end,
  },
  {
    name = "local send await", wants = "ord_42", teardown = stop,
    setup = sending(function(order)
      return function() return client:send("charge", order):await().orderId end
    end),
  },
  {
    name = "local send raw await", wants = SMALL, teardown = stop,
    setup = sending(function(order)
      local raw = client:send("charge", order):raw():await()
      return function() return tostring(client:send("charge", raw):raw():await()) end
    end),
  },
}
