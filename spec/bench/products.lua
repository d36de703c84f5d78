--- How the products are started, in their place.

local cjson = require("cjson")
local machine = require("spec.bench.machine")

local products = {}

function products.perigee(args, env) return machine.start("measured", "build/bin/perigee", args, env) end

--- A script of spec/peers, or one linked to there.
---@param given table its options
---@param place? "measured"|"load"
function products.nest(script, given, place)
  -- Packages are looked up from where the link is, not from where it leads.
  local flags = { "--preserve-symlinks", "--preserve-symlinks-main", "build/peers/" .. script, cjson.encode(given) }
  return machine.start(place or "measured", "build/peers/node", flags, { "NODE_ENV=production" })
end

--- One of the limits: bare programs of spec/bench.
function products.limit(program, ...)
  return machine.start("measured", "build/bench/" .. program, { ... })
end

return products
