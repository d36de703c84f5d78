--- default: an empty stream gives this value instead.

local link = require("perigee.link")

local Default = link.class()

function Default:next(value)
  if self.closed then return end
  self.seen = true
  return self.down:next(value)
end

local complete = Default.complete

function Default:complete()
  if self.closed then return end
  if not self.seen then self.down:next(self.state.value) end
  return complete(self)
end

local source = link.through(Default)

---@param self perigee.Reply
---@param value any
---@return perigee.Reply
return function(self, value)
  return link.lift(self, source, { value = value })
end
