--- A Reply of what a function returns: it runs in a coroutine, once for each who asks, and a Reply it returns streams.

local combinators = require("perigee.combinators")
local core = require("perigee.core")
local link = require("perigee.link")
local promise = require("perigee.promise")
local reply = require("perigee.reply")
local scheduler = require("perigee.scheduler")
local scope = require("perigee.scope")

local Relay = link.class()

function Relay:release()
  if self.task then self.task:cancel() end -- nothing when it has ended
end

local function source(observer, ctx, call)
  if ctx and ctx.deadline and ctx.deadline <= core.now() then return observer:error(scope.too_late()) end
  local relay = setmetatable({ down = observer, closed = false }, Relay)
  relay.task = scheduler.start(function(ok, value)
    if relay.closed then return end
    if not ok then return relay:error(value) end
    if value == nil then return relay:complete() end
    return link.connect(combinators.from(promise.follower(value) and value or combinators.of(value)), relay, ctx)
  end, call.fn, unpack(call, 1, call.n))
  return relay
end

---@param fn function
---@param ... any its arguments
---@return perigee.Reply
return function(fn, ...)
  return reply.new(source, { fn = fn, n = select("#", ...), ... })
end
