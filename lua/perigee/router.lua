--- Finds the handler of an HTTP request. Routes are compiled into a tree of segments once; a path without
--- parameters is one look-up. Per segment a literal comes before ":param", which comes before "*rest".

local errors = require("perigee.errors")

local find, sub = string.find, string.sub

---@class perigee.Route
---@field method string upper case, "ANY" for all
---@field path string as routed
---@field handler any
---@field where string file:line of the routing script
---@field names string[] of parameters, in order of the segments

---@class perigee.RouterNode
---@field literal table<string, perigee.RouterNode>
---@field param? perigee.RouterNode
---@field rest? table<string, perigee.Route> routes of "*rest", by method
---@field routes? table<string, perigee.Route> routes that end here, by method
---@field index? integer of a parameter's node: its place among the names of each route below

---@class perigee.Router
---@field private root perigee.RouterNode
---@field private static table<string, table<string, perigee.Route>> path without parameters -> routes by method
local Router = {}
Router.__index = Router
Router.__name = "perigee.router"

local function new_node()
  return { literal = {} }
end

---@return perigee.Router
local function new()
  return setmetatable({ root = new_node(), static = {} }, Router)
end

local function fail(...)
  error(errors.misuse("INVALID_OPTION", string.format(...)), 0)
end

-- "/a//b/" -> "a", "", "b", ""
local function split(path)
  local segments = {}
  for segment in path:gmatch("/([^/]*)") do segments[#segments + 1] = segment end
  return segments
end

local function check_path(path)
  if type(path) ~= "string" or path:sub(1, 1) ~= "/" then
    fail("a route's path starts with '/', not as in '%s'", tostring(path))
  end
end

local function parameter(segment, path, names)
  local name = segment:match("^[:*]([%a_][%w_]*)$")
  if not name then fail("'%s' in the route '%s' is not a name", segment, path) end
  if names[name] then fail("the route '%s' has two parameters '%s'", path, name) end
  names[name] = true
  return name
end

local function put(routes, route)
  local other = routes[route.method]
  if other then
    fail("%s %s at %s is already routed at %s%s", route.method, route.path, route.where, other.where,
      other.path ~= route.path and " as " .. other.path or "")
  end
  routes[route.method] = route
end

local function insert(root, route)
  local node, segments, names = root, split(route.path), {}
  for i, segment in ipairs(segments) do
    local kind = segment:sub(1, 1)
    if kind == "*" then
      if i < #segments then fail("'%s' is not the last segment of the route '%s'", segment, route.path) end
      route.names[#route.names + 1] = parameter(segment, route.path, names)
      node.rest = node.rest or {}
      return node.rest
    elseif kind == ":" then
      route.names[#route.names + 1] = parameter(segment, route.path, names)
      node.param = node.param or new_node()
      node = node.param
      node.index = #route.names
    else
      node.literal[segment] = node.literal[segment] or new_node()
      node = node.literal[segment]
    end
  end
  node.routes = node.routes or {}
  return node.routes
end

--- Adds a route. Refuses a second one for the same method and shape of path, naming both places.
---@param method string
---@param path string literal segments as they read decoded; ":name" and, last, "*name"
---@param handler any
---@param where string file:line
function Router:add(method, path, handler, where)
  check_path(path)
  local route = { method = method:upper(), path = path, handler = handler, where = where, names = {} }
  local routes = insert(self.root, route)
  put(routes, route)
  if #route.names == 0 then self.static[path] = routes end
end

-- HEAD follows GET; "any" comes last.
local function pick(routes, method)
  return routes[method] or method == "HEAD" and routes.GET or routes.ANY
end

local function has_bad_escape(path)
  return path:gsub("%%%x%x", ""):find("%", 1, true) ~= nil
end

local function decode(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function allow_all(allowed, routes)
  for method in pairs(routes) do
    allowed[method] = true
    if method == "GET" then allowed.HEAD = true end
  end
end

-- The route that ends here and a table for its parameters; or nil and the methods allowed, with those found before.
local function finish(routes, method, allowed)
  if not routes then return nil, allowed end
  local route = pick(routes, method)
  if route then return route, {} end
  allowed = allowed or {}
  allow_all(allowed, routes)
  return nil, allowed
end

-- Goes on with the segment that begins at `from`, nil after the last; parameters are set on the way back. Each node is
-- visited at most once, since a node has one depth: a request cannot make this slow. Returns as `finish`.
local function walk(node, path, from, escaped, method, allowed)
  if not from then return finish(node.routes, method, allowed) end
  local slash = find(path, "/", from, true)
  local segment = sub(path, from, slash and slash - 1)
  if escaped then segment = decode(segment) end
  local after = slash and slash + 1
  local route, found
  local child = node.literal[segment]
  if child then
    route, found = walk(child, path, after, escaped, method, allowed)
    if route then return route, found end
    allowed = found
  end
  child = node.param
  if child and segment ~= "" then
    route, found = walk(child, path, after, escaped, method, allowed)
    if route then
      found[route.names[child.index]] = segment
      return route, found
    end
    allowed = found
  end
  route, found = finish(node.rest, method, allowed)
  if route then
    local rest = sub(path, from)
    found[route.names[#route.names]] = escaped and decode(rest) or rest
  end
  return route, found
end

local function sorted_list(set)
  local names = {}
  for name in pairs(set) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, ", ")
end

---@param method string
---@param path string as in the request, undecoded, without the query
---@return perigee.Route? route
---@return table<string, string>|integer params_or_status decoded parameters; without a route 400, 404 or 405
---@return string? allow for 405
function Router:find(method, path)
  local routes = self.static[path]
  if routes then
    local route = pick(routes, method)
    if route then return route end
  end
  if path:sub(1, 1) ~= "/" then return nil, 404 end
  local escaped = find(path, "%", 1, true)
  if escaped and has_bad_escape(path) then return nil, 400 end
  local route, found = walk(self.root, path, 2, escaped, method)
  if route then return route, found end
  if found then return nil, 405, sorted_list(found) end
  return nil, 404
end

return { new = new }
