--- catch_error: goes on with what f makes of the error.

local promise = require("perigee.promise")
local link = require("perigee.link")
local protect = require("perigee.scheduler").protect

local Catch = link.class()
local Fallback = link.class() -- the stream that takes over; `down` is the Catch's own

function Catch:open(ctx)
  self.ctx = ctx
  return ctx
end

-- Settles like a Promise's reaction, into the stream.
local function pass_outcome(reaction, ok, value)
  if reaction.dropped then return end
  local down = reaction.down
  if not ok then return down:error(value) end
  down:next(value)
  return down:complete()
end

function Catch:error(err)
  if self.closed then return end
  self.upstream = nil
  local ok, value = protect(self.state.f, err)
  if self.closed then return end -- f has cancelled us
  self.closed = true
  if not ok then return self.down:error(value) end
  if promise.is(value) then
    local reaction = { of = value, down = self.down, settle = pass_outcome }
    self.after_error = function() promise.drop(reaction) end
    return promise.observe(value, reaction)
  elseif promise.follower(value) then
    local fallback = setmetatable({ down = self.down, closed = false }, Fallback)
    self.after_error = function() fallback:cancel() end
    return link.connect(value, fallback, self.ctx)
  end
  self.down:next(value)
  return self.down:complete()
end

local cancel = Catch.cancel

function Catch:cancel()
  cancel(self)
  local after_error = self.after_error
  self.after_error = nil
  if after_error then after_error() end
end

local source = link.through(Catch)

--- A value that f returns ends the stream with it, a Reply or Promise goes on with it, a raise replaces the error.
---@param self perigee.Reply
---@param f fun(err: perigee.Error): any
---@return perigee.Reply
return function(self, f)
  promise.check_callable("catch_error", f or false)
  return link.lift(self, source, { f = f })
end
