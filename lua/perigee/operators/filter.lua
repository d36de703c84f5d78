--- filter: only the values for which f is true.

local check_callable = require("perigee.promise").check_callable
local link = require("perigee.link")
local protect = require("perigee.scheduler").protect

local Filter = link.class()

function Filter:next(value)
  if self.closed then return end
  local ok, wanted = protect(self.state.f, value)
  if not ok then return self:fail(wanted) end
  if wanted then return self.down:next(value) end
end

local source = link.through(Filter)

--- A raise in f rejects.
---@param self perigee.Reply
---@param f fun(value: any): boolean
---@return perigee.Reply
return function(self, f)
  check_callable("filter", f or false)
  return link.lift(self, source, { f = f })
end
