--- map: each value becomes what f makes of it.

local check_callable = require("perigee.promise").check_callable
local link = require("perigee.link")
local protect = require("perigee.scheduler").protect

local Map = link.class()

function Map:next(value)
  if self.closed then return end
  local ok, result = protect(self.state.f, value)
  if not ok then return self:fail(result) end
  return self.down:next(result)
end

local source = link.through(Map)

--- A raise in f rejects.
---@param self perigee.Reply
---@param f fun(value: any): any
---@return perigee.Reply
return function(self, f)
  check_callable("map", f or false)
  return link.lift(self, source, { f = f })
end
