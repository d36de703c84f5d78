--- Patterns as handlers and fakes are found by: their route (nest-wire 1.3, 1.4).

local core = require("perigee.core")
local errors = require("perigee.errors")
local log = require("perigee.log")

local patterns = {}

--- For `app:forward`: whatever no other handler takes.
patterns.any = setmetatable({}, { __tostring = function() return "perigee.any_pattern" end })

---@param pattern any
---@return string json
function patterns.encode(pattern)
  if pattern == nil then error(errors.misuse("INVALID_OPTION", "the pattern is nil", "pattern"), 0) end
  local json, message = core.json_encode(pattern)
  if not json then error(errors.misuse("INVALID_OPTION", "bad pattern: " .. message, "pattern"), 0) end
  return json
end

-- GEN-10, G2: Nest has the same traps, silently.
local function warn_if_odd(pattern, json, route, where)
  local key = core.lookup_key(json)
  if key ~= route then
    log.warn("%s: the pattern %s is a string that is JSON: requests for it look for %s, this handler is unreachable",
      where, json, key == core.null and "null" or tostring(key))
  elseif type(pattern) == "table" and tostring(route):find("[TOO_MANY_KEYS]", 1, true) then
    log.warn("%s: the pattern has more than 20 keys: it is the same as any other such pattern", where)
  end
end

--- The key of a handler's pattern. With `where` its traps are warned about.
---@param pattern any
---@param where? string
---@return string|boolean|lightuserdata
function patterns.route(pattern, where)
  local json = patterns.encode(pattern)
  local route = core.route(json)
  if where then warn_if_odd(pattern, json, route, where) end
  return route
end

--- The key a message with this pattern looks for.
---@return string|boolean|lightuserdata|nil
function patterns.lookup(pattern)
  return core.lookup_key(patterns.encode(pattern))
end

--- As logs and messages show it: a string itself, else JSON.
---@param pattern any
---@return string
function patterns.show(pattern)
  if type(pattern) == "string" then return pattern end
  if pattern == patterns.any then return tostring(pattern) end
  return core.json_encode(pattern) or tostring(pattern)
end

return patterns
