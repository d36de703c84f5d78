--- One stage between a source and whoever asked: guards the end, and carries cancelling up the chain.
---
---   source  --next, error, complete-->  link  -->  link.down  --> …
---   source  <------- its cancel ------  link  <--- cancel() ---  …
---
--- A source is a function(observer, ctx, state) that may return what cancels it: a function and up to two arguments
--- for it, or an object with cancel(). It may call the observer at once. ctx is a table of settings handed up by
--- operators, or nil; its `deadline` is when whoever asks is out of time. Cancel is called at most once, and never
--- after the source has ended by itself.

local errors = require("perigee.errors")
local scheduler = require("perigee.scheduler")

local guarded, deadline = scheduler.guarded, scheduler.deadline

---@class perigee.Link
---@field down table the next stage
---@field state table what the operator was given; `up` is the Reply before it
---@field closed boolean nothing more goes down
---@field stopped? boolean closed from below, or by this stage itself, not by the source
---@field release? fun(self) overridden by stages that hold a timer or more
local Link = {}

--- A class of links: has copies of the methods, since they are called for each value.
---@return table
local function class()
  local new = {}
  for name, method in pairs(Link) do new[name] = method end
  new.__index = new
  return new
end

local function call_cancel(fn, a, b)
  if type(fn) == "function" then return guarded(fn, a, b) end
  guarded(fn.cancel, fn)
end

local function stop_upstream(link)
  local fn, a, b = link.upstream, link.upstream_a, link.upstream_b
  link.upstream = nil
  if fn then call_cancel(fn, a, b) end
end

-- Closes without a word to the stage below.
local function shut(link)
  link.closed, link.stopped = true, true
  if link.release then link:release() end
  stop_upstream(link)
end

function Link:next(value)
  if self.closed then return end
  return self.down:next(value)
end

function Link:error(err)
  if self.closed then return end
  self.closed, self.upstream = true, nil
  if self.release then self:release() end
  return self.down:error(err)
end

function Link:complete()
  if self.closed then return end
  self.closed, self.upstream = true, nil
  if self.release then self:release() end
  return self.down:complete()
end

--- From below: nothing more is wanted.
function Link:cancel()
  if not self.closed then shut(self) end
end

--- This stage fails.
function Link:fail(err)
  if self.closed then return end
  shut(self)
  return self.down:error(err)
end

--- This stage has had enough.
function Link:finish()
  if self.closed then return end
  shut(self)
  return self.down:complete()
end

--- Asks the Reply. The one place where that happens.
---@param reply perigee.Reply
---@param link table
---@param ctx? table
local function connect(reply, link, ctx)
  if reply.slot then reply:_asked() end
  if ctx == nil then -- who asks is told once: a retry asks later, when nobody runs
    local at = deadline()
    if at then ctx = { deadline = at } end
  end
  local ok, fn, a, b = xpcall(reply.source, errors.on_raise, link, ctx, reply.state or reply)
  if not ok then
    link:error(fn)
  elseif fn == nil then
    return
  elseif not link.closed then
    link.upstream, link.upstream_a, link.upstream_b = fn, a, b
  elseif link.stopped then
    call_cancel(fn, a, b)
  end
end

--- The source of an operator: each request gets a link of the class between `state.up` and the observer.
---@param links table a class; its `open(link, ctx)`, if any, is called first and may return another ctx
---@return fun(observer: table, ctx: table?, state: table): table
local function through(links)
  return function(observer, ctx, state)
    local link = setmetatable({
      down = observer, state = state, closed = false,
      upstream = false, upstream_a = false, upstream_b = false, -- room for what connect sets: it need not grow
    }, links)
    if links.open then ctx = link:open(ctx) end
    connect(state.up, link, ctx)
    return link
  end
end

--- A Reply behind an operator.
---@param reply perigee.Reply
---@param source fun(observer: table, ctx: table?, state: table): any
---@param state table
---@return perigee.Reply
local function lift(reply, source, state)
  state.up = reply
  return setmetatable({ source = source, state = state }, reply._base)
end

--- A copy of ctx with one more setting; what is set further down the chain, later, is seen first and stays.
local function with(ctx, name, value)
  local copy = {}
  for key, setting in pairs(ctx or {}) do copy[key] = setting end
  if copy[name] == nil then copy[name] = value end
  return copy
end

return { class = class, connect = connect, through = through, lift = lift, with = with }
