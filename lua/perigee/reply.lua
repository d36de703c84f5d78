--- What `send` returns: cold (nothing happens until somebody waits), promise-like, with any number of values.

local core = require("perigee.core")
local errors = require("perigee.errors")
local json = require("perigee.json")
local link = require("perigee.link")
local log = require("perigee.log")
local operators = require("perigee.operators")
local promise = require("perigee.promise")
local scheduler = require("perigee.scheduler")
local unasked = require("perigee.unasked")
local values = require("perigee.values")
local where = require("perigee.where")

local connect = link.connect
local acquire, candidate, suspend = scheduler.acquire, scheduler.candidate, scheduler.suspend

---@class perigee.Reply
---@field private source fun(observer: table, ctx: table?, state: any): any
---@field private state any nil: the Reply itself
---@field private slot? integer while nobody has asked
---@field private direct? fun(reply: perigee.Reply, task: perigee.Task, raw: boolean?): boolean?, any await's short cut:
---asks and waits for the task, which is woken without an observer; true and the value, false and the error, or nothing
---when nothing was done and the long way must be taken
local Reply = {}
Reply.__index = Reply
Reply.__name = "perigee.reply"

for name, operator in pairs(operators) do Reply[name] = operator end

local classes = { [Reply] = true }

--- A class of Replies with one source, for tables that are its state themselves: made by setmetatable alone.
---@param source fun(observer: table, ctx: table?, state: table): any
---@param direct? fun(reply: perigee.Reply, task: perigee.Task, raw: boolean?): boolean?, any
---@return table
local function class(source, direct)
  local new = {}
  for name, value in pairs(Reply) do new[name] = value end -- copies: one table less to look into for each call
  new.__index, new.source, new.direct = new, source, direct
  classes[new] = true
  return new
end

---@private
Reply._class, Reply._base = class, Reply

--- See link.lua for what a source is.
---@param source fun(observer: table, ctx: table?, state: any): any
---@param state? any handed to the source, so that it need not be a closure
---@param warn_unasked? boolean
---@return perigee.Reply
local function new(source, state, warn_unasked)
  local reply = setmetatable({ source = source, state = state }, Reply)
  if warn_unasked then unasked.add(reply) end
  return reply
end

---@private
Reply._asked = unasked.asked

---@return boolean
local function is(value)
  return type(value) == "table" and classes[getmetatable(value)] == true
end

--- await: the hot path, no table of its own for a plain call ----------------------------------------------------

local Awaiting = link.class()

function Awaiting:next(value)
  if not self.closed then self.value = value end
end

local function settle_wait(self, ok, value)
  self.closed, self.upstream = true, nil
  self.ok, self.value = ok, value
  return scheduler.wake(self.waiter, ok, value) -- ignored when not parked yet
end

function Awaiting:complete()
  if not self.closed then return settle_wait(self, true, self.value) end
end

function Awaiting:error(err)
  if not self.closed then return settle_wait(self, false, err) end
end

--- Asks, waits for the end, and returns the last value (nil when there was none) or raises the error.
---@return any
function Reply:await()
  local direct = self.direct
  local task = direct and candidate()
  if task then
    local ok, value = direct(self, task)
    if ok then return value end
    if ok == false then error(value, 0) end
  end
  local waiter = acquire()
  local observer = setmetatable({
    waiter = waiter, closed = false, ok = false, value = false,
    upstream = false, upstream_a = false, upstream_b = false, -- room for what link.connect sets: it need not grow
  }, Awaiting)
  observer.value = nil
  connect(self, observer)
  local ok, value = observer.ok, observer.value
  if not observer.closed then ok, value = suspend(waiter, observer.cancel, observer) end
  if not ok then error(value, 0) end
  return value
end

--- Promises ----------------------------------------------------------------------------------------------------

local Last, First, Collect = link.class(), link.class(), link.class()

function Last:next(value)
  if not self.closed then self.value = value end
end

function Last:complete()
  if self.closed then return end
  self.closed, self.upstream = true, nil
  return promise.settle(self.target, true, self.value)
end

function Last:error(err)
  if self.closed then return end
  self.closed, self.upstream = true, nil
  return promise.settle(self.target, false, err)
end

First.complete, First.error = Last.complete, Last.error

function First:next(value)
  if self.closed then return end
  self:cancel()
  return promise.settle(self.target, true, value)
end

Collect.error = Last.error

-- A hole would end the list: nil is kept as null.
function Collect:next(value)
  if self.closed then return end
  self.n = self.n + 1
  if value == nil then value = core.null end
  self.list[self.n] = value
end

function Collect:complete()
  if self.closed then return end
  self.closed, self.upstream = true, nil
  return promise.settle(self.target, true, self.list)
end

local function into(reply, target, observer)
  connect(reply, observer)
  if not observer.closed then
    target.on_cancel, target.cancel_arg = observer.cancel, observer
  end
  return target
end

---@private
function Reply:_follow(target)
  return into(self, target, setmetatable({ target = target, closed = false }, Last))
end

local function ask(reply, target)
  reply:_follow(target)
  return target
end

--- Asks; the first value, then the call is cancelled. nil when there is none.
---@return perigee.Promise
function Reply:first()
  local target = promise.pending()
  return into(self, target, setmetatable({ target = target, closed = false }, First))
end

--- Asks; the last value, nil when there is none.
---@return perigee.Promise
function Reply:last()
  return ask(self, promise.pending())
end

--- Asks; the list of all values.
---@return perigee.Promise
function Reply:collect()
  local target = promise.pending()
  return into(self, target, setmetatable({ target = target, closed = false, list = json.array(), n = 0 }, Collect))
end

--- Asks; the callbacks see the last value or the error, as a Promise's.
---@param on_value? fun(value: any): any
---@param on_error? fun(err: perigee.Error): any
---@return perigee.Promise
function Reply:next(on_value, on_error)
  promise.check_callable("next", on_value)
  promise.check_callable("next", on_error)
  return ask(self, promise.bare()):next(on_value, on_error)
end

--- Asks.
---@param fn fun(err: perigee.Error): any
---@return perigee.Promise
function Reply:catch(fn)
  return self:next(nil, fn)
end

--- Asks.
---@param fn fun(): any
---@return perigee.Promise
function Reply:finally(fn)
  promise.check_callable("finally", fn)
  return ask(self, promise.bare()):finally(fn)
end

--- subscribe ---------------------------------------------------------------------------------------------------

---@class perigee.Subscription
---@field closed boolean
local Subscription = link.class()

local function call(self, name, value)
  local fn = self.callbacks[name]
  if fn == nil then return end
  local ok, err = scheduler.protect(fn, value)
  if ok then return end
  log.failure(("in the %s callback of the subscription made at %s"):format(name, where.text(self.func, self.line)),
    err)
end

function Subscription:next(value)
  if not self.closed then return call(self, "next", value) end
end

function Subscription:error(err)
  if self.closed then return end
  self.closed, self.upstream = true, nil
  if self.callbacks.error then return call(self, "error", err) end
  log.failure("nobody handles the error of the subscription made at " .. where.text(self.func, self.line), err)
end

function Subscription:complete()
  if self.closed then return end
  self.closed, self.upstream = true, nil
  return call(self, "complete")
end

--- Cancels the call. No callback follows.
function Subscription:unsubscribe()
  return self:cancel()
end

--- Asks, and calls back for each value and the end. A raise in a callback is logged and the stream goes on.
---@param callbacks { next?: fun(value: any), error?: fun(err: perigee.Error), complete?: fun() }
---@return perigee.Subscription
function Reply:subscribe(callbacks)
  if type(callbacks) == "function" then callbacks = { next = callbacks } end
  if type(callbacks) ~= "table" then
    error(errors.misuse("INVALID_OPTION", "subscribe takes a table of callbacks, got " .. type(callbacks)), 0)
  end
  for _, name in ipairs({ "next", "error", "complete" }) do promise.check_callable("subscribe", callbacks[name]) end
  local func, line = where.capture()
  local subscription = setmetatable({ callbacks = callbacks, closed = false, func = func, line = line }, Subscription)
  connect(self, subscription)
  return subscription
end

--- An iterator over the values, for `for value in reply:values() do`. Asks at its first step; raises the error. The
--- call is cancelled by close(), when the coroutine ends, or when the iterator is collected.
---@return perigee.Iterator
function Reply:values()
  return values.new(self)
end

return { new = new, class = class, is = is }
