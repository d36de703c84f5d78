--- Runs functions in pooled coroutines and lets them wait. One task waits for one thing at a time.
---
---   start -> running --await--> parked --wake, cancel--> running -> ended (the coroutine returns to the pool)
---
--- What must not run at once (callbacks of Promises, a task woken by another task) goes into one queue, which is
--- drained before control returns to the loop.

local core = require("perigee.core")
local coroutines = require("perigee.coroutines")
local errors = require("perigee.errors")
local log = require("perigee.log")
local pool = require("perigee.pool")
local uv = require("luv")

local TOKEN = coroutines.token
local MAIN = {} -- stands for the main state in tables keyed by coroutine
local MAX_DRAIN_NS, DRAIN_CHECK = 2e8, 1000 -- in one go; items between two looks at the clock

local IDLE, take, give = pool.IDLE, pool.take, pool.give
local raw_resume, raw_status = coroutines.resume, coroutines.status
local raw_yield, isyieldable, running = coroutine.yield, coroutine.isyieldable, coroutine.running

local WEAK = { __mode = "kv" }
local tasks = setmetatable({}, WEAK) -- coroutine -> the task it runs
local sync = setmetatable({}, { __mode = "k" }) -- coroutine or MAIN -> is it inside a callback that may not wait

local queue, head, tail = {}, 1, 0 -- groups of four: function and three arguments
local depth = 0 -- tasks on the stack, each resumed by the one below
local MAX_DEPTH = coroutines.max_depth
local active -- the task whose code runs, or whose end is being told
local draining = false -- a drain loop is below us in the main state
local entered = 0 -- the core has called into the main state and will call leave()
local armed = false -- a timer will drain
local host_runs_loop = false
local slices = { 0 } -- pieces of script begun or ended, for the budget: what runs between two counts is one

local IN_CALLBACK = "await does not work in operator, subscribe and producer callbacks: start perigee.async(...) there"
local IN_LOOP = "await does not work in a callback of the loop: wrap what it does in perigee.async(...)"
local IN_C = "await cannot wait here: a C function (such as table.sort, string.gsub or require) is in between"
local FOREIGN = "await cannot wait here: this coroutine was resumed by a coroutine.resume kept from before "
  .. "perigee was loaded"
local NEVER = "await would never end: nothing that could settle it is left on the loop"

local function current()
  local co, is_main = running()
  if is_main then return nil end -- built with 5.2 extensions
  return co
end

local function unsupported(message)
  return errors.misuse("UNSUPPORTED", message)
end

local function cancelled()
  return errors.make("CANCELLED", "cancelled")
end

-- Runs what must not fail; if it does, the fault is logged and the caller goes on.
local function guarded(fn, a, b, c)
  local ok, err = xpcall(fn, errors.on_raise, a, b, c)
  if not ok then log.failure("in a callback", err) end
end

--- The queue ---------------------------------------------------------------------------------------------------

local arm -- below

local function drain()
  local was_active = active
  draining, active = true, nil
  local count, since = 0, nil
  while head <= tail do
    count = count + 1
    if count % DRAIN_CHECK == 0 then -- what queues more of itself for ever must not keep the loop from the others
      local now = uv.hrtime()
      since = since or now
      if now - since > MAX_DRAIN_NS then
        arm(1) -- with 0 the loop would fire it without a poll in between
        break
      end
    end
    local at = head
    head = at + 4
    local fn, a, b, c = queue[at], queue[at + 1], queue[at + 2], queue[at + 3]
    queue[at], queue[at + 1], queue[at + 2], queue[at + 3] = nil, nil, nil, nil
    if head > tail then head, tail = 1, 0 end
    slices[1] = slices[1] + 1
    guarded(fn, a, b, c)
  end
  draining, active = false, was_active
end

--- The core, or a timer of ours, is about to run code in the main state. Pairs with `leave`.
local function enter()
  entered = entered + 1
end

--- Ends `enter`: runs what the entry has queued.
local function leave()
  entered = entered - 1
  if entered == 0 and not draining and head <= tail then drain() end
end

--- Calls fn(arg) once, ms from now, in the main state.
---@param ms number
---@return { cancel: fun(self) } timer
local function after(ms, fn, arg)
  return core.timer(ms, function()
    enter()
    guarded(fn, arg)
    leave()
  end)
end

local function disarm()
  armed = false
end

function arm(ms)
  if armed then return end
  armed = true
  after(ms, disarm)
end

--- Queues fn(a, b, c): it runs after the code running now, and before the loop waits again.
local function post(fn, a, b, c)
  local at = tail + 1
  tail = tail + 4
  queue[at], queue[at + 1], queue[at + 2], queue[at + 3] = fn, a, b, c
  if armed or draining or entered > 0 then return end
  if depth > 0 and current() then return end
  arm(0) -- nobody below us drains: a main chunk, or a callback of somebody else's handle
end

--- Tasks -------------------------------------------------------------------------------------------------------

---@class perigee.Task
---@field private co thread
---@field scope perigee.Scope|false what it hands down, once there is something
---@field private on_done? fun(ok: boolean, value: any, task: perigee.Task)|table
---@field private parked boolean
---@field private closers? table<table, true>
local Task = {}
Task.__index = Task
Task.__name = "perigee.task"

local function finish(task, ok, value)
  task.ended = true
  tasks[task.co] = nil
  local closers, on_done = task.closers, task.on_done
  task.on_done = nil
  if closers then
    task.closers = nil
    for closer in pairs(closers) do guarded(closer.cancel, closer) end
  end
  if not on_done then return end
  if type(on_done) == "table" then return guarded(on_done.ended, on_done, ok, value) end
  guarded(on_done, ok, value, task)
end

local function came_back(task, was_draining, was_entered, was_active, ok, what, done, value)
  depth = depth - 1
  if depth == 0 then slices[1] = slices[1] + 1 end
  draining, entered = was_draining, was_entered
  if not ok then -- xpcall inside catches all but the ends of a budget or of memory
    finish(task, false, errors.from(what, debug.traceback(task.co)))
  elseif what == IDLE then
    give(task.co)
    if not done then value = errors.from(value) end -- out of memory: a text, no handler was called
    finish(task, done, value)
  elseif what ~= TOKEN then
    local err = errors.make("UNSUPPORTED", "coroutine.yield outside a coroutine of the script's own")
    err.traceback = debug.traceback(task.co) -- where it yields
    finish(task, false, err)
  end
  active = was_active
  if head <= tail and not draining and entered == 0 and (depth == 0 or current() == nil) then drain() end
end

local function begin(task, fn, n, a, b)
  local was_draining, was_entered, was_active = draining, entered, active
  -- Inside a coroutine the loop can be run again (vim.wait): what enters then drains for itself.
  draining, entered, active = false, 0, task
  if depth == 0 then slices[1] = slices[1] + 1 end -- what is started from inside belongs to who starts it
  depth = depth + 1
  return came_back(task, was_draining, was_entered, was_active, raw_resume(task.co, fn, n, a, b))
end

-- The same for a task that waits.
local function resume(task, ok, value)
  local was_draining, was_entered, was_active = draining, entered, active
  draining, entered, active = false, 0, task
  if depth == 0 then slices[1] = slices[1] + 1 end
  depth = depth + 1
  return came_back(task, was_draining, was_entered, was_active, raw_resume(task.co, ok, value))
end

-- At the bottom of the stack a task is resumed at once; from inside another, after that one has come back, so
-- that a chain of tasks waking each other does not nest.
local function resume_soon(task, ok, value)
  if depth == 0 or current() == nil then return resume(task, ok, value) end
  return post(resume, task, ok, value)
end

local function launch(on_done, fn, n, a, b)
  if depth >= MAX_DEPTH then error(errors.make("SCRIPT", "stack overflow: coroutines start each other"), 0) end
  local co = take()
  local task = setmetatable({
    false, -- a number of whoever wakes it
    co = co, on_done = on_done, parked = false, ended = false, cancelled = false, scope = false,
  }, Task) -- with `abort` and `abort_arg` eight fields: one more would double the table
  local outer = active and active.scope
  if outer and outer.deadline then task.scope = { deadline = outer.deadline } end
  tasks[co] = task
  begin(task, fn, n, a, b)
  return task
end

--- Runs fn(...) now, in a coroutine, until it first waits.
---@param on_done? fun(ok: boolean, value: any, task: perigee.Task)|{ ended: fun(self, ok: boolean, value: any) } told
---of its first result, or of the error; maybe before start returns
---@param fn function
---@return perigee.Task
local function start(on_done, fn, ...)
  local n = select("#", ...)
  if n > 2 then return launch(on_done, fn, n, { ... }) end
  local a, b = ...
  return launch(on_done, fn, n, a, b)
end

--- The same for what has two arguments, and is started often.
---@return perigee.Task
local function start_two(on_done, fn, a, b)
  return launch(on_done, fn, 2, a, b)
end

local function abort(waiter)
  local fn, arg = waiter.abort, waiter.abort_arg
  waiter.parked, waiter.abort, waiter.abort_arg = false, nil, nil
  if fn then guarded(fn, arg) end
end

--- Cancels what the task has started and still runs, in the order it was started.
function Task:cancel_children()
  local children = self.scope and self.scope.children
  if not children then return end
  self.scope.children = nil
  for i = 1, children.n do
    if children[i] then guarded(children[i].cancel, children[i]) end
  end
end

--- Cancels what the task waits for and raises CANCELLED there; when it is not waiting, at its next await. Its children
--- first: what it starts when it is told is no longer meant.
function Task:cancel()
  if self.ended then return end
  self:cancel_children()
  if self.ended then return end
  if not self.parked or raw_status(self.co) ~= "suspended" then -- a wait that could not begin leaves its mark
    self.parked, self.cancelled = false, true
    return
  end
  abort(self)
  resume_soon(self, false, cancelled())
end

---@private
function Task.refuse()
  return unsupported(IN_C)
end

--- Scopes ------------------------------------------------------------------------------------------------------

--- The task whose code runs; in the callback that is told of its end, the ended one.
---@return perigee.Task?
local function scope()
  return active
end

--- The task whose coroutine runs.
---@return perigee.Task?
local function running_task()
  return current() and active
end

--- When the sends of the running code are over, on core.now()'s clock.
---@return number|false|nil
local function deadline()
  local own = active and active.scope
  return own and own.deadline
end

--- Calls fn(...) as if the task called it (nil: nobody): what it starts inherits the deadline. It must not wait.
---@param task? { scope: perigee.Scope|false }
local function within(task, fn, ...)
  local was = active
  active = task
  local ok, err = xpcall(fn, errors.on_raise, ...)
  active = was
  if not ok then error(err, 0) end
end

--- Waiting -----------------------------------------------------------------------------------------------------

local nvim = rawget(_G, "vim")
local in_fast_event = nvim and nvim.in_fast_event
local host_wait = in_fast_event and nvim.wait -- Neovim's way to run its loop from Lua

-- What a main chunk waits with: it runs the loop until woken.
local MainWaiter = {}
MainWaiter.__index = MainWaiter
MainWaiter.refuse = Task.refuse

local function wait_in_host(waiter)
  local function is_done() return waiter.done end
  repeat
    local _, why = host_wait(0x7fffffff, is_done, 1000)
    if why == -2 then return false, errors.make("CANCELLED", "interrupted") end
  until waiter.done
  return waiter.ok, waiter.value
end

local innermost -- of main chunks that wait inside each other's callbacks

function MainWaiter:run_loop()
  if head <= tail then drain() end
  if host_wait then return wait_in_host(self) end
  local below = innermost
  innermost = self
  while not self.done do
    if not uv.run("once") and not self.done then
      self.done, self.ok, self.value = true, false, errors.make("CANCELLED", NEVER)
    end
  end
  innermost = below
  return self.ok, self.value
end

--- Ends the wait of the main chunk, if it waits, with an error.
---@param err perigee.Error
local function interrupt(err)
  if innermost then innermost.done, innermost.ok, innermost.value = true, false, err end
end

local function check_main()
  if sync[MAIN] then error(unsupported(IN_CALLBACK), 0) end
  local in_loop = host_runs_loop or entered > 0
  if not in_loop then
    if in_fast_event then
      in_loop = in_fast_event()
    else
      in_loop = uv.loop_mode and uv.loop_mode() ~= nil
    end
  end
  if in_loop then error(unsupported(IN_LOOP), 0) end
end

-- Inside a user's own coroutine: who is at the bottom of the chain of resumes.
local function find_bottom(co)
  while true do
    if sync[co] then error(unsupported(IN_CALLBACK), 0) end
    local below = coroutines.resumer[co]
    if below == nil then error(unsupported(FOREIGN), 0) end
    if below == true then
      check_main()
      return setmetatable({ parked = false, done = false, nested = true }, MainWaiter)
    end
    co = below
    local task = tasks[co]
    if task then
      if sync[co] then error(unsupported(IN_CALLBACK), 0) end
      return task
    end
  end
end

--- Who would wait if the running code did. Raises UNSUPPORTED where waiting is not possible, and CANCELLED when the
--- task was cancelled while it ran. Call it before asking for anything, then `suspend`.
local function acquire()
  local co = current()
  if co == nil then
    check_main()
    return setmetatable({ parked = false, done = false, is_main = true }, MainWaiter)
  end
  local task = tasks[co]
  if task == nil then
    task = find_bottom(co)
  elseif sync[co] then
    error(unsupported(IN_CALLBACK), 0)
  end
  if not isyieldable() then error(unsupported(IN_C), 0) end
  if task.cancelled then
    task.cancelled = false
    task:cancel_children() -- those since
    error(cancelled(), 0)
  end
  return task
end

--- Who acquire() most likely returns: cheaper, but it holds only if its `co` is the running coroutine and may yield.
local function candidate()
  local task = active
  if task and not (task.cancelled or sync[task.co]) then return task end
end

--- The first half of `suspend`, for who yields TOKEN by itself.
local function park(task, abort_fn, abort_arg)
  task.parked, task.abort, task.abort_arg = true, abort_fn, abort_arg
end

--- After the yield: whether it was no `wake` that ended the wait. Then the caller cancels what was waited for.
---@return boolean
local function unpark(task)
  if not task.parked then return false end
  task.parked, task.abort, task.abort_arg = false, nil, nil
  return true
end

--- Waits until `wake(waiter, ok, value)` and returns ok and value.
---@param abort_fn? fun(arg: any) cancels what is waited for; called when the wait ends in any other way
local function suspend(waiter, abort_fn, abort_arg)
  waiter.parked, waiter.abort, waiter.abort_arg = true, abort_fn, abort_arg
  local ok, value
  if waiter.is_main then
    ok, value = waiter:run_loop()
  else
    ok, value = raw_yield(TOKEN, waiter)
  end
  if waiter.parked then abort(waiter) end
  return ok, value
end

--- Ends a wait. Ignored when the waiter is not waiting; whoever may wake late must know that it is late.
local function wake(waiter, ok, value)
  if not waiter.parked then return end
  waiter.parked, waiter.abort, waiter.abort_arg = false, nil, nil
  if getmetatable(waiter) == Task then return resume_soon(waiter, ok, value) end
  waiter.done, waiter.ok, waiter.value = true, ok, value
end

--- Waits for whatever subscribe(resume) arranges: resume(ok, value) counts once, at any time, even at once.
--- Returns value or raises it.
---@param subscribe fun(resume: fun(ok: boolean, value: any)): (fun()|nil) may return what cancels
local function await(subscribe)
  local waiter = acquire()
  local settled, parked, ok, value = false, false, nil, nil
  local cancel = subscribe(function(good, result)
    if settled then return end
    settled, ok, value = true, good, result
    if parked then wake(waiter, good, result) end
  end)
  if not settled then
    parked = true
    ok, value = suspend(waiter, cancel)
    settled = true
  end
  if not ok then error(value, 0) end
  return value
end

--- Ties obj to the task: obj:cancel() is called when it ends. Nothing for a main chunk, which does not end.
local function own(waiter, obj)
  if getmetatable(waiter) ~= Task then return end
  waiter.closers = waiter.closers or {}
  waiter.closers[obj] = true
end

local function disown(waiter, obj)
  if waiter.closers then waiter.closers[obj] = nil end
end

--- Calls fn(value) with await forbidden in this coroutine; one started inside may wait. Returns ok and its first
--- result, or false and the error.
local function protect(fn, value)
  local co = current() or MAIN
  local before = sync[co]
  sync[co] = true
  local ok, result = xpcall(fn, errors.on_raise, value)
  sync[co] = before
  if not ok then result = errors.from(result) end -- out of memory: a text, no handler was called
  return ok, result
end

--- The same for fn(a, b): how many there are is seen by functions such as print, and varargs are not compiled.
local function protect_two(fn, a, b)
  local co = current() or MAIN
  local before = sync[co]
  sync[co] = true
  local ok, result = xpcall(fn, errors.on_raise, a, b)
  sync[co] = before
  if not ok then result = errors.from(result) end
  return ok, result
end

--- For the program, which runs the loop from C, where luv cannot see it: the main state may never wait.
local function set_host_runs_loop(value)
  host_runs_loop = value
end

-- Of C's: a text has its traceback behind it.
local function on_fault(raised)
  local message, traceback = nil, nil
  if type(raised) == "string" then message, traceback = raised:match("^(.-)\n(stack traceback:\n.*)$") end
  log.failure("in a callback", message and { message = message, traceback = traceback } or raised)
end

core.hooks({
  enter = enter,
  leave = leave,
  fault = on_fault,
})

return {
  start = start, start_two = start_two, await = await, acquire = acquire, candidate = candidate,
  suspend = suspend, wake = wake,
  TOKEN = TOKEN, park = park, unpark = unpark,
  protect = protect, protect_two = protect_two, post = post, after = after, enter = enter, leave = leave,
  own = own, disown = disown,
  guarded = guarded, trim = pool.trim, interrupt = interrupt, set_host_runs_loop = set_host_runs_loop,
  scope = scope, running_task = running_task, deadline = deadline, within = within, slices = slices,
}
