-- A saga over three services: what has been done is undone, the last first, when a later step fails.
--
--   perigee run scripts/saga.lua Oslo
--     stock     reserved 2 lamps
--     billing   charged 3998
--     shipping  booked a courier to Oslo
--     placed: res_1 inv_1 shp_1
--   perigee run scripts/saga.lua Atlantis
--     stock     reserved 2 lamps
--     billing   charged 3998
--     billing   refunded inv_1
--     stock     released res_1
--     not placed: no courier goes to Atlantis
--
-- The exit status of the second is 1. The services run in the script itself; any URLs would do.

local perigee = require("perigee")

local function serve(name, handlers)
  local app = perigee.app()
  for pattern, handler in pairs(handlers) do app:message(pattern, handler) end
  app:listen("local:" .. name)
  app:start():await()
  return perigee.client("local:" .. name)
end

local stock = serve("stock", {
  reserve = function(order) print("stock     reserved " .. order.count .. " lamps") return "res_1" end,
  release = function(id) print("stock     released " .. id) end,
})
local billing = serve("billing", {
  charge = function(order) print("billing   charged " .. order.count * 1999) return "inv_1" end,
  refund = function(id) print("billing   refunded " .. id) end,
})
local shipping = serve("shipping", {
  book = function(order)
    if order.city == "Atlantis" then error({ message = "no courier goes to Atlantis" }) end
    print("shipping  booked a courier to " .. order.city)
    return "shp_1"
  end,
})

local order = { count = 2, city = ... or "Oslo" }

local placing = perigee.saga(function(saga)
  local reservation = saga:step("reserve", function() return stock:send("reserve", order) end,
    function(id) return stock:send("release", id) end)
  local invoice = saga:step("charge", function() return billing:send("charge", order) end,
    function(id) return billing:send("refund", id) end)
  local shipment = saga:step("book", function() return shipping:send("book", order) end)
  return { reservation, invoice, shipment }
end)

local ok, result = pcall(placing.await, placing)
print(ok and "placed: " .. table.concat(result, " ") or "not placed: " .. result.message)
return ok and 0 or 1
