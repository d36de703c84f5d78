--- reduce: all values into one, given at the end.

local check_callable = require("perigee.promise").check_callable
local link = require("perigee.link")
local protect_two = require("perigee.scheduler").protect_two

local Reduce = link.class()

function Reduce:open(ctx)
  self.total, self.started = self.state.seed, self.state.seed ~= nil
  return ctx
end

function Reduce:next(value)
  if self.closed then return end
  if self.started then
    local ok, result = protect_two(self.state.f, self.total, value)
    if not ok then return self:fail(result) end
    value = result
  end
  self.total, self.started = value, true
end

local complete = Reduce.complete

function Reduce:complete()
  if self.closed then return end
  if self.started then self.down:next(self.total) end
  return complete(self)
end

local source = link.through(Reduce)

--- Without seed it starts with the first value, and gives nothing when there is none. A raise in f rejects.
---@param self perigee.Reply
---@param f fun(total: any, value: any): any
---@param seed? any
---@return perigee.Reply
return function(self, f, seed)
  check_callable("reduce", f or false)
  return link.lift(self, source, { f = f, seed = seed })
end
