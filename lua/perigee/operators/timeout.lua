--- timeout: fails when the stream is silent for too long, before the first value or between two.

local check_ms = require("perigee.promise").check_ms
local errors = require("perigee.errors")
local link = require("perigee.link")
local scheduler = require("perigee.scheduler")

local Timeout = link.class()

local function expire(self)
  self.timer = nil
  return self:fail(errors.make("TIMEOUT", ("no value within %g ms"):format(self.state.ms)))
end

-- The client's own limit is replaced: it must not fire first.
function Timeout:open(ctx)
  self.timer = scheduler.after(self.state.ms, expire, self)
  return link.with(ctx, "timeout", false)
end

function Timeout:release()
  if self.timer then self.timer:cancel() end
  self.timer = nil
end

function Timeout:next(value)
  if self.closed then return end
  self:release()
  self.timer = scheduler.after(self.state.ms, expire, self)
  return self.down:next(value)
end

local limited = link.through(Timeout)

local Unlimited = link.class()

function Unlimited.open(_, ctx)
  return link.with(ctx, "timeout", false)
end

local unlimited = link.through(Unlimited)

---@param self perigee.Reply
---@param ms number|false silence in milliseconds; false turns the limit off
---@return perigee.Reply
return function(self, ms)
  if ms == false then return link.lift(self, unlimited, {}) end
  check_ms("timeout", ms)
  return link.lift(self, limited, { ms = ms })
end
