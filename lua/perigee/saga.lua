--- Steps over several services, undone backwards when one fails.
---
---   step a -> step b -> step c fails
---   undo a <- undo b <-            and then the saga rejects with c's error

local combinators = require("perigee.combinators")
local errors = require("perigee.errors")
local log = require("perigee.log")
local promise = require("perigee.promise")
local scheduler = require("perigee.scheduler")
local scope = require("perigee.scope")
local where = require("perigee.where")

local UNDO_TIMEOUT = 5000
local MAX_UNDOS = 1024
local KNOWN = { undo_timeout = true }

---@class perigee.Saga
---@field private work perigee.Promise what the user holds
---@field private inner perigee.Promise what the function comes to
---@field private ended perigee.Promise settles when nothing is left to undo
---@field private task perigee.Task
---@field private state "running"|"done"|"undoing"|"undone"
---@field private undos { name: string, fn: function, value: any }[] the next one last
---@field private count integer undos ever registered
---@field private failures { step: string, error: any }[] of undos
---@field private undo_timeout number
local Saga = {}
Saga.__index = Saga
Saga.__name = "perigee.saga"

--- Undoing ------------------------------------------------------------------------------------------------------

-- Runs in a coroutine of its own, that nobody cancels and no deadline bounds but each undo's. A step that was under way
-- when the saga failed, and succeeds all the same, adds its undo meanwhile.
local function undo_all(saga)
  while #saga.undos > 0 do
    local undo = table.remove(saga.undos)
    local ok, err = pcall(function()
      return combinators.deadline(saga.undo_timeout, undo.fn, undo.value):await()
    end)
    if not ok then saga.failures[#saga.failures + 1] = { step = undo.name, error = err } end
  end
end

-- What has been done stays done: that is logged even where nobody looks at the rejection.
local function report(saga)
  if #saga.failures == 0 then return end
  log.error("the saga made at %s has not undone: %s", where.text(saga.work.func, saga.work.line),
    errors.list(saga.failures))
end

-- The error as it was; when something is not undone, one like it in all that callers switch on.
local function outcome(err, failures)
  if #failures == 0 then return err end
  return errors.new({
    code = errors.field(err, "code"), message = errors.field(err, "message"), status = errors.field(err, "status"),
    err = errors.field(err, "err"), traceback = errors.field(err, "traceback"),
    cause = err, failures = failures,
  })
end

local function undo(saga, err)
  if saga.state == "undone" then saga.failures = {} end -- the others have been told
  saga.state = "undoing"
  local undone = promise.bare()
  scheduler.within(nil, promise.run, undone, undo_all, saga)
  promise.observe(undone, { of = undone, settle = function()
    if #saga.undos > 0 then return undo(saga, err) end -- added after the last look
    saga.state = "undone"
    report(saga)
    promise.settle(saga.work, false, outcome(err, saga.failures)) -- nothing when it was cancelled
    promise.settle(saga.ended, true)
  end })
end

--- Steps --------------------------------------------------------------------------------------------------------

local function check(saga, method, name, fn)
  if type(name) ~= "string" then
    error(errors.misuse("INVALID_OPTION", ("saga:%s takes a name first, got %s"):format(method, type(name))), 0)
  end
  promise.check_callable("saga:" .. method, fn or false)
  if saga.state ~= "running" then
    error(errors.make("CANCELLED", ("the saga is over: no '%s'"):format(name)), 0)
  end
  if saga.count >= MAX_UNDOS then
    error(errors.make("OVERLOADED", ("a saga has %d undos at most: no '%s'"):format(MAX_UNDOS, name)), 0)
  end
end

local function add(saga, name, fn, value)
  saga.undos[#saga.undos + 1] = { name = name, fn = fn, value = value }
  saga.count = saga.count + 1
  if saga.state == "undone" then undo(saga, errors.make("CANCELLED", "cancelled")) end
end

--- Does something and returns what it comes to, or raises. When the saga fails later, undo(value) takes it back; a
--- step that has failed is not taken back.
---@param name string for errors and logs
---@param action fun(): any a Promise or Reply is waited for
---@param undo_step? fun(value: any): any the same
---@return any value
function Saga:step(name, action, undo_step)
  check(self, "step", name, action)
  promise.check_callable("saga:step", undo_step)
  local value = action()
  if promise.follower(value) then value = value:await() end
  if undo_step and self.state ~= "done" then add(self, name, undo_step, value) end
  return value
end

--- Says how to take back what is not done yet: for a request that may have had its effect although it failed.
---@param name string
---@param undo_step fun(): any
function Saga:undo(name, undo_step)
  check(self, "undo", name, undo_step)
  add(self, name, undo_step)
end

--- Life ---------------------------------------------------------------------------------------------------------

-- From now on no step begins, though the function may hear of it first. It may even have succeeded in this turn.
local function cancel(saga)
  saga.state = "undoing"
  return scheduler.post(saga.inner.cancel, saga.inner) -- from the queue: all that runs is told before the first undo
end

local function body(saga, fn)
  saga.task = scheduler.scope() -- `run` may come back too late to say
  return fn(saga)
end

local function concluded(reaction, ok, value)
  local saga = reaction.saga
  if not ok or saga.state == "undoing" then
    if saga.task then saga.task:cancel_children() end -- steps that run beside the one that failed
    return undo(saga, ok and errors.make("CANCELLED", "cancelled") or value)
  end
  saga.state, saga.undos = "done", {}
  promise.settle(saga.work, true, value)
  promise.settle(saga.ended, true)
end

local function check_options(options)
  if options ~= nil and type(options) ~= "table" then
    error(errors.misuse("INVALID_OPTION", "saga takes a table of options, got " .. type(options)), 0)
  end
  for name in pairs(options or {}) do
    if not KNOWN[name] then
      error(errors.misuse("INVALID_OPTION", ("saga: unknown option '%s' (known: undo_timeout)"):format(name)), 0)
    end
  end
  local ms = options and options.undo_timeout or UNDO_TIMEOUT
  if not (type(ms) == "number" and ms > 0 and ms < promise.MAX_MS) then
    error(errors.misuse("INVALID_OPTION", "saga: undo_timeout takes milliseconds above 0, got " .. tostring(ms)), 0)
  end
  return ms
end

--- As `new`.
---@return perigee.Promise
---@return perigee.Promise ended settles when nothing is left to undo; later than the first where that was cancelled
local function start(fn, options)
  promise.check_callable("saga", fn or false)
  local undo_timeout = check_options(options)
  local work, inner = promise.pending(), promise.bare()
  local saga = setmetatable({
    work = work, inner = inner, ended = promise.bare(), state = "running", undos = {}, count = 0, failures = {},
    undo_timeout = undo_timeout,
  }, Saga)
  scope.adopt(work)
  work.on_cancel, work.cancel_arg = cancel, saga
  promise.observe(inner, { of = inner, saga = saga, settle = concluded })
  promise.run(inner, body, saga, fn)
  return work, saga.ended
end

--- Runs fn(saga) in a coroutine, as async does. When it raises, or is cancelled, what its steps have done is undone,
--- the last one first, each within `undo_timeout`; then the Promise rejects with the error. When undos fail, the others
--- are run all the same and the error has `failures`, a list of { step =, error = }; these are logged, too. Who cancels
--- does not wait for the undos.
---@param fn fun(saga: perigee.Saga): any
---@param options? { undo_timeout?: number } ms for each undo, 5000 when not given
---@return perigee.Promise of what fn returns
local function new(fn, options)
  return (start(fn, options))
end

return { new = new, start = start }
