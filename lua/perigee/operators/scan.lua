--- scan: a running total; every step of it is a value.

local check_callable = require("perigee.promise").check_callable
local link = require("perigee.link")
local protect_two = require("perigee.scheduler").protect_two

local Scan = link.class()

function Scan:open(ctx)
  self.total, self.started = self.state.seed, self.state.seed ~= nil
  return ctx
end

function Scan:next(value)
  if self.closed then return end
  if self.started then
    local ok, result = protect_two(self.state.f, self.total, value)
    if not ok then return self:fail(result) end
    value = result
  end
  self.total, self.started = value, true
  return self.down:next(value)
end

local source = link.through(Scan)

--- Without seed it starts with the first value. A raise in f rejects.
---@param self perigee.Reply
---@param f fun(total: any, value: any): any
---@param seed? any
---@return perigee.Reply
return function(self, f, seed)
  check_callable("scan", f or false)
  return link.lift(self, source, { f = f, seed = seed })
end
