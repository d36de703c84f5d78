--- Rules unreachable-pattern and ambiguous-pattern: handlers for patterns that no Nest peer can send, or whose route
--- is that of other patterns too (nest-wire 1.3, 1.4, GEN-05, GEN-06, GEN-10).

local core = require("perigee.core")
local patterns = require("perigee.patterns")

local MAX_LEVELS, MAX_KEYS = 6, 20 -- of objects in a route

local function is_finite(number)
  return number == number and number ~= math.huge and number ~= -math.huge
end

-- What a value inside a pattern loses on its way to the route; nil when nothing.
local function loss(value, level)
  if type(value) == "number" and not is_finite(value) then
    return "unreachable-pattern", ("the pattern has %s in it, which JSON cannot carry: null stands there instead")
      :format(value ~= value and "NaN" or "an infinite number")
  elseif type(value) == "cdata" then
    return "unreachable-pattern", "the pattern has an integer beyond 2^53 in it, which JavaScript rounds"
  elseif type(value) ~= "table" then
    return nil
  elseif level > MAX_LEVELS then
    return "ambiguous-pattern", ("the pattern is deeper than %d objects: what is below does not tell it from others")
      :format(MAX_LEVELS)
  end
  local keys, rule, message = 0, nil, nil
  for _, item in pairs(value) do
    keys = keys + 1
    if not rule then rule, message = loss(item, level + 1) end
  end
  if keys > MAX_KEYS then
    return "ambiguous-pattern", ("the pattern has more than %d keys: it is the same as any other such pattern")
      :format(MAX_KEYS)
  end
  return rule, message
end

--- What is odd about the pattern of a handler.
---@param pattern any
---@return string? rule nil: nothing
---@return string? message
return function(pattern)
  if pattern == patterns.any then return nil end
  local json = patterns.encode(pattern)
  local route, key = core.route(json), core.lookup_key(json)
  if pattern == core.null then return "unreachable-pattern", "the pattern is null: no Nest client sends that" end
  local rule, message = loss(pattern, 1)
  if rule or key == route then return rule, message end
  return "unreachable-pattern", ("the pattern %s is a string that is JSON: requests for it look for %s"):format(json,
    key == core.null and "null" or tostring(key))
end
