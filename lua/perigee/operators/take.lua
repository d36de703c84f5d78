--- take: the first n values; then the call is cancelled.

local errors = require("perigee.errors")
local link = require("perigee.link")

local Take = link.class()

function Take:next(value)
  if self.closed then return end
  local n = (self.n or 0) + 1
  if n > self.state.n then return end -- the last one's callback made the source give more
  self.n = n
  self.down:next(value)
  if n >= self.state.n then return self:finish() end
end

local through = link.through(Take)

local function source(observer, ctx, state)
  if state.n == 0 then return observer:complete() end -- asks nothing
  return through(observer, ctx, state)
end

---@param self perigee.Reply
---@param n integer 0 or more
---@return perigee.Reply
return function(self, n)
  if type(n) ~= "number" or n < 0 or n ~= math.floor(n) then
    error(errors.misuse("INVALID_OPTION", "take takes a whole number, got " .. tostring(n)), 0)
  end
  return link.lift(self, source, { n = n })
end
