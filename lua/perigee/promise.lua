--- A value that arrives later, or the error that came instead. Settles once; callbacks run in coroutines, after
--- the code that is running now.

local errors = require("perigee.errors")
local log = require("perigee.log")
local scheduler = require("perigee.scheduler")
local scope = require("perigee.scope")
local where = require("perigee.where")

local deadline, post, within = scheduler.deadline, scheduler.post, scheduler.within

---@class perigee.Promise
---@field private state "pending"|"fulfilled"|"rejected"
---@field private value any
---@field private locked? boolean resolved with another Promise or Reply, whose outcome it waits for
---@field private handled? boolean somebody looks at the outcome
---@field private on_cancel? fun(arg: any) reaches what will settle it
---@field private parent? perigee.Task cancels it when it is cancelled itself
local Promise = {}
Promise.__index = Promise
Promise.__name = "perigee.promise"

-- What waits for a Promise is a reaction: { of = the Promise, settle = function(reaction, ok, value), … }. Those of
-- a pending one are kept in its array part.

local function check_callable(name, fn)
  if fn == nil or type(fn) == "function" then return end
  local mt = getmetatable(fn)
  if type(mt) == "table" and mt.__call then return end
  error(errors.misuse("INVALID_OPTION", name .. " takes functions, got " .. type(fn)), 0)
end

local MAX_MS = 2 ^ 53 -- as core.timer

local function check_ms(name, ms)
  if type(ms) == "number" and ms >= 0 and ms < MAX_MS then return end
  error(errors.misuse("INVALID_OPTION", name .. " takes milliseconds, got " .. tostring(ms)), 0)
end

--- Rejections nobody handles ------------------------------------------------------------------------------------

local on_unhandled -- of the tests: told instead of the log

local function report(note)
  if note.handled then return end
  note.handled = true
  log.failure(("unhandled rejection of the promise made at %s"):format(where.text(note.func, note.line)), note.err)
end

-- That nobody will look is certain when the Promise is collected. Tables have no __gc here, a proxy does; only
-- rejections that nobody was waiting for pay for one. A spawned failure is told at the next turn of the loop:
-- nobody is expected to come for it, and a quiet process may not collect for hours.
local function watch(promise)
  local note = { err = promise.value, func = promise.func, line = promise.line, handled = false }
  promise.note = note
  if on_unhandled then return on_unhandled(note) end
  if promise.prompt then
    scheduler.after(0, report, note)
    return
  end
  promise.sentinel = newproxy(true)
  getmetatable(promise.sentinel).__gc = function() report(note) end
end

--- Each rejection that nobody waits for is told to fn, at once, and no longer logged; its `handled` may become true
--- later. nil: as before.
---@param fn? fun(note: { err: any, func: function?, line: integer?, handled: boolean })
local function watch_unhandled(fn)
  on_unhandled = fn
end

local function mark_handled(promise)
  promise.handled = true
  if promise.state ~= "rejected" then return end -- only those have a note
  local note = promise.note
  if note then
    note.handled = true
    promise.note, promise.sentinel = nil, nil
  end
end

--- Settling -----------------------------------------------------------------------------------------------------

local function settle(promise, ok, value)
  if promise.state ~= "pending" then return end
  promise.state, promise.value = ok and "fulfilled" or "rejected", value
  promise.on_cancel, promise.cancel_arg = nil, nil
  for i = 1, #promise do
    local reaction = promise[i]
    promise[i] = nil
    post(reaction.settle, reaction, ok, value)
  end
  if not ok and not promise.handled then watch(promise) end
end

local function observe(promise, reaction)
  mark_handled(promise)
  if promise.state == "pending" then
    promise[#promise + 1] = reaction
  else
    post(reaction.settle, reaction, promise.state == "fulfilled", promise.value)
  end
end

-- Takes a reaction back. Work whose outcome nobody waits for any more is cancelled.
local function drop(reaction)
  reaction.dropped = true
  local promise = reaction.of
  if promise.state ~= "pending" then return end
  for i = #promise, 1, -1 do
    if promise[i] == reaction then table.remove(promise, i) end
  end
  if #promise == 0 then promise:cancel() end
end

--- The `_follow` of a value that stands for a later one: a Promise or a Reply.
local function follower(value)
  if type(value) ~= "table" then return nil end
  local mt = getmetatable(value)
  return type(mt) == "table" and rawget(mt, "_follow") or nil
end

--- Settles the Promise with the value, or with what a Promise or Reply comes to. Ignored when already resolved.
local function resolve(promise, value)
  if promise.state ~= "pending" or promise.locked then return end
  local follow = follower(value)
  if not follow then return settle(promise, true, value) end
  promise.locked = true
  promise.on_cancel, promise.cancel_arg = nil, nil
  follow(value, promise)
end

--- Ignored when already resolved.
local function reject(promise, err)
  if promise.state ~= "pending" or promise.locked then return end
  settle(promise, false, errors.from(err))
end

local function settle_target(reaction, ok, value)
  if not reaction.dropped then settle(reaction.target, ok, value) end
end

local function link(promise, target, settle_fn)
  local reaction = { of = promise, target = target, settle = settle_fn }
  target.on_cancel, target.cancel_arg = drop, reaction
  return reaction
end

---@private
function Promise:_follow(target)
  if self == target then
    return settle(target, false, errors.make("UNSUPPORTED", "a promise cannot be resolved with itself"))
  end
  observe(self, link(self, target, settle_target))
end

--- Making -------------------------------------------------------------------------------------------------------

-- Fields that most Promises come to have are named at once: growing the table costs more than making it.

-- One that perigee itself observes at once: where it was made will not be asked.
local function bare()
  return setmetatable({
    state = "pending", value = false, handled = false, on_cancel = false, cancel_arg = false,
  }, Promise)
end

--- A pending Promise, for `resolve` and `reject` of this module.
---@param on_cancel? fun(arg: any)
---@param cancel_arg? any
---@return perigee.Promise
local function pending(on_cancel, cancel_arg)
  local func, line = where.capture(4) -- above: this, and who calls it for a script
  return setmetatable({
    state = "pending", value = false, handled = false, on_cancel = on_cancel, cancel_arg = cancel_arg,
    func = func, line = line,
  }, Promise)
end

--- Runs the executor now. A raise in it rejects; a function it returns is called on cancel.
---@param executor fun(resolve: fun(value: any), reject: fun(err: any)): fun()?
---@return perigee.Promise
local function new(executor)
  check_callable("promise", executor or false)
  local promise = pending()
  local ok, result = scheduler.protect_two(executor,
    function(value) resolve(promise, value) end,
    function(err) reject(promise, err) end)
  if not ok then
    reject(promise, result)
  elseif type(result) == "function" and promise.state == "pending" and not promise.locked then
    promise.on_cancel = result
  end
  return promise
end

---@return perigee.Promise promise
---@return fun(value: any) resolve
---@return fun(err: any) reject
local function defer()
  local promise = pending()
  return promise, function(value) resolve(promise, value) end, function(err) reject(promise, err) end
end

---@return perigee.Promise
local function resolved(value)
  local promise = pending()
  resolve(promise, value)
  return promise
end

---@return perigee.Promise
local function rejected(err)
  local promise = pending()
  reject(promise, err)
  return promise
end

-- Children of an ended task go to its own parent. Until its outcome is known, cancelling that reaches them too.
local function bequeath(promise, task, ok, value)
  if promise.parent then scope.bequeath(task, promise.parent) end
  if ok then resolve(promise, value) else reject(promise, value) end
  if promise.state ~= "pending" then return end
  local on_cancel, arg = promise.on_cancel, promise.cancel_arg
  promise.on_cancel, promise.cancel_arg = function()
    scheduler.guarded(on_cancel, arg)
    task:cancel_children()
  end, nil
end

--- Runs fn(...) in a coroutine; its outcome settles the promise, and cancelling that cancels the coroutine.
---@return perigee.Task
local function run(promise, fn, ...)
  local task = scheduler.start(function(ok, value, task)
    if task.scope and task.scope.children then return bequeath(promise, task, ok, value) end
    if ok then resolve(promise, value) else reject(promise, value) end
  end, fn, ...)
  if promise.state == "pending" and not promise.locked then
    promise.on_cancel, promise.cancel_arg = task.cancel, task
  elseif promise.state == "rejected" then
    task:cancel() -- fn has cancelled its own promise and goes on; nothing when it has ended
  end
  return task
end

--- Using --------------------------------------------------------------------------------------------------------

local function wake_reaction(reaction, ok, value)
  if not reaction.dropped then scheduler.wake(reaction.waiter, ok, value) end
end

--- Waits and returns the value, or raises the error. Outside a coroutine it runs the loop.
---@return any
function Promise:await()
  local waiter = scheduler.acquire()
  mark_handled(self)
  local ok, value = self.state == "fulfilled", self.value
  if self.state == "pending" then
    local reaction = { of = self, waiter = waiter, settle = wake_reaction }
    self[#self + 1] = reaction
    ok, value = scheduler.suspend(waiter, drop, reaction)
  end
  if not ok then error(value, 0) end
  return value
end

local function run_callback(reaction, ok, value)
  local target = reaction.target
  if reaction.dropped or target.state ~= "pending" then return end
  local fn = reaction.on_error
  if ok then fn = reaction.on_value end
  if fn == nil then return settle(target, ok, value) end
  if reaction.scope then return within(reaction.scope, run, target, fn, value) end
  run(target, fn, value)
end

--- Calls on with the outcome; what the callback returns settles the new Promise, a raise rejects it.
---@param on_value? fun(value: any): any
---@param on_error? fun(err: perigee.Error): any
---@return perigee.Promise
function Promise:next(on_value, on_error)
  check_callable("next", on_value)
  check_callable("next", on_error)
  local target = pending()
  local reaction = link(self, target, run_callback)
  reaction.on_value, reaction.on_error = on_value, on_error
  if deadline() then reaction.scope = scheduler.scope() end -- it runs for whoever registers it
  observe(self, reaction)
  return target
end

---@param fn fun(err: perigee.Error): any
---@return perigee.Promise
function Promise:catch(fn)
  return self:next(nil, fn)
end

-- The callback's own Promise is waited for; its failure wins over the outcome, its value does not.
local function run_finally(reaction, ok, value)
  local target = reaction.target
  if reaction.dropped or target.state ~= "pending" then return end
  local gate = bare()
  local after_gate = link(gate, target, function(self, good, err)
    if self.dropped then return end
    if good then settle(target, ok, value) else settle(target, false, err) end
  end)
  observe(gate, after_gate)
  if reaction.scope then return within(reaction.scope, run, gate, reaction.on_end) end
  run(gate, reaction.on_end)
end

--- Calls fn() whatever the outcome is, which then passes through.
---@param fn fun(): any
---@return perigee.Promise
function Promise:finally(fn)
  check_callable("finally", fn)
  if fn == nil then return self:next() end
  local target = pending()
  local reaction = link(self, target, run_finally)
  reaction.on_end = fn
  if deadline() then reaction.scope = scheduler.scope() end
  observe(self, reaction)
  return target
end

local function expire(reaction)
  local message = reaction.message or ("no value within %g ms"):format(reaction.ms)
  settle(reaction.target, false, errors.make("TIMEOUT", message))
  drop(reaction)
end

local function settle_in_time(reaction, ok, value)
  reaction.timer:cancel()
  settle_target(reaction, ok, value)
end

local function drop_timed(reaction)
  reaction.timer:cancel()
  drop(reaction)
end

--- The promise's outcome into target; TIMEOUT, and the promise cancelled, when that takes longer than ms.
---@param message? string of the TIMEOUT
local function limit(promise, target, ms, message)
  local reaction = link(promise, target, settle_in_time)
  reaction.ms, reaction.message = ms, message
  reaction.timer = scheduler.after(ms, expire, reaction)
  target.on_cancel = drop_timed
  observe(promise, reaction)
end

--- Rejects with TIMEOUT, and cancels what it waits for, when that takes longer than ms. false: no limit.
---@param ms number|false
---@return perigee.Promise
function Promise:timeout(ms)
  if ms == false then return self:next() end
  check_ms("timeout", ms)
  local target = pending()
  limit(self, target, ms)
  return target
end

--- Rejects with CANCELLED now, and cancels the work behind it. Nothing when already settled.
function Promise:cancel()
  if self.state ~= "pending" then return end
  local on_cancel, arg = self.on_cancel, self.cancel_arg
  mark_handled(self) -- who cancels knows
  settle(self, false, errors.make("CANCELLED", "cancelled"))
  if on_cancel then scheduler.guarded(on_cancel, arg) end
end

local function hush(promise)
  if #promise == 0 then return mark_handled(promise) end
  for i = 1, #promise do
    local target = promise[i].target
    if target then hush(target) end
  end
end

--- Cancels it; what is chained to it and nobody looks at is no unhandled rejection then.
---@param promise perigee.Promise
local function cancel_quietly(promise)
  hush(promise)
  promise:cancel()
end

---@return boolean
local function is(value)
  return type(value) == "table" and getmetatable(value) == Promise
end

return {
  new = new, defer = defer, resolved = resolved, rejected = rejected, is = is,
  pending = pending, bare = bare, resolve = resolve, reject = reject, settle = settle,
  observe = observe, drop = drop, cancel_quietly = cancel_quietly, run = run, limit = limit, follower = follower,
  watch_unhandled = watch_unhandled, check_callable = check_callable, check_ms = check_ms, MAX_MS = MAX_MS,
}
