--- Where options of clients and listeners stand in a file: in calls of perigee.client, of an app's clients,
--- clients_async and listen; and values that are provided, which options are made of.

local kinds = require("perigee.check.kinds")
local parser = require("perigee.check.parser")

---@class perigee.check.Place
---@field role "client"|"entry"|"factory"|"listen"|"value" entry: of app:clients; factory: what use_factory returns
---@field node perigee.check.Node

local function returned(fn, list, role)
  fn = kinds.resolve(fn)
  if fn.tag ~= "Function" then return end
  parser.walk(fn[1], function(node)
    if node.tag == "Return" and node[1] then list[#list + 1] = { role = role, node = node[1] } end
    return node.tag ~= "Function"
  end)
end

-- The entries of a list; both of Nest's forms: the list itself, or { clients = list }.
local function entries(node)
  local made, found = node and kinds.resolve(node), {}
  for _, item in ipairs(made and made.tag == "Table" and made or {}) do
    if item.tag ~= "Pair" then
      found[#found + 1] = kinds.resolve(item)
    elseif item[1].value == "clients" then
      return entries(item[2])
    end
  end
  return found
end

local of_app = {}

function of_app.clients(node, list)
  for _, entry in ipairs(entries(node[2])) do list[#list + 1] = { role = "entry", node = entry } end
end

function of_app.clients_async(node, list)
  for _, entry in ipairs(entries(node[2])) do
    for _, pair in ipairs(entry.tag == "Table" and entry or {}) do
      if pair.tag == "Pair" and pair[1].value == "use_factory" then returned(pair[2], list, "factory") end
    end
  end
end

function of_app.provide(node, list)
  if not node[3] then return end
  list[#list + 1] = { role = "value", node = node[3] }
  returned(node[3], list, "value")
end

function of_app.listen(node, list)
  for i = 2, 3 do
    if node[i] then list[#list + 1] = { role = "listen", node = node[i] } end
  end
end

---@param facts perigee.check.Facts
---@return perigee.check.Place[]
return function(facts)
  local list = {}
  parser.walk(facts.tree.block, function(node)
    if node.tag == "Call" and node[2] and kinds.of(facts, node) == "client" then
      list[#list + 1] = { role = "client", node = node[2] }
    elseif node.tag == "Method" and of_app[node.name] and kinds.of(facts, node[1]) == "app" then
      of_app[node.name](node, list)
    end
  end)
  return list
end
