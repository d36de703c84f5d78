--- tap: f sees each value, which passes unchanged.

local check_callable = require("perigee.promise").check_callable
local link = require("perigee.link")
local protect = require("perigee.scheduler").protect

local Tap = link.class()

function Tap:next(value)
  if self.closed then return end
  local ok, err = protect(self.state.f, value)
  if not ok then return self:fail(err) end
  return self.down:next(value)
end

local source = link.through(Tap)

--- A raise in f rejects.
---@param self perigee.Reply
---@param f fun(value: any)
---@return perigee.Reply
return function(self, f)
  check_callable("tap", f or false)
  return link.lift(self, source, { f = f })
end
