--- Functions that make Promises and Replies, and that wait for several.

local array = require("perigee.json").array -- results are lists, an empty one too when it becomes JSON
local core = require("perigee.core")
local errors = require("perigee.errors")
local promise = require("perigee.promise")
local reply = require("perigee.reply")
local scheduler = require("perigee.scheduler")
local scope_of = require("perigee.scope")
local link = require("perigee.link")

local MAP_CONCURRENCY = 64

local combinators = {}

local function invalid(message)
  return errors.misuse("INVALID_OPTION", message)
end

local function check_function(name, fn)
  promise.check_callable(name, fn or false)
end

local function check_list(name, list)
  if type(list) ~= "table" or promise.follower(list) then
    error(invalid(name .. " takes a list, got " .. type(list)), 0)
  end
  local n = list.n or #list
  if type(n) ~= "number" or n < 0 or n ~= math.floor(n) or n == math.huge then
    error(invalid(("%s: n is the length of the list, got %s"):format(name, tostring(n))), 0)
  end
  return n
end

local function as_promise(item)
  if promise.is(item) then return item end
  local own = promise.bare()
  promise.resolve(own, item)
  return own
end

-- The losers: cancelled, unless somebody else waits for them too.
local function drop_group(self)
  for i = 1, #self.reactions do promise.drop(self.reactions[i]) end
end

-- Observes all items of a list; each outcome is told once, until the target is settled.
local function group(list, n, target, on_outcome)
  local self = { target = target, left = n, reactions = {} }
  local function settle(reaction, ok, value)
    if reaction.dropped or target.state ~= "pending" then return end
    self.left = self.left - 1
    on_outcome(self, reaction.index, ok, value)
  end
  target.on_cancel, target.cancel_arg = drop_group, self
  for i = 1, n do -- all are asked before any is heard: reactions run later
    local item = as_promise(list[i])
    local reaction = { of = item, index = i, settle = settle }
    self.reactions[i] = reaction
    promise.observe(item, reaction)
  end
end

local function conclude(self, ok, value)
  promise.settle(self.target, ok, value)
  drop_group(self)
end

--- All values, in order. The first failure rejects and cancels the rest.
---@param list any[] Promises, Replies (asked at once, last value), plain values; `n` may tell its length
---@return perigee.Promise
function combinators.all(list)
  local n = check_list("all", list)
  local target, values = promise.pending(), array()
  if n == 0 then promise.resolve(target, values) end
  group(list, n, target, function(self, i, ok, value)
    if not ok then return conclude(self, false, value) end
    values[i] = value
    if self.left == 0 then conclude(self, true, values) end
  end)
  return target
end

-- A raised table without a message or a code is told as it would stand on a wire.
local function told_by(err)
  local text = errors.field(err, "message") or errors.field(err, "code")
  if text then return tostring(text) end
  local mt = getmetatable(err)
  if type(mt) == "table" and mt.__tostring then return errors.text(err) end
  return core.json_encode(err) or errors.text(err)
end

--- The first value; the rest is cancelled. When all fail: the last failure's code, and `.errors` in the list's order.
---@param list any[]
---@return perigee.Promise
function combinators.any(list)
  local n = check_list("any", list)
  if n == 0 then return promise.rejected(errors.make("INVALID_OPTION", "any of an empty list has no value")) end
  local target, failures = promise.pending(), {}
  group(list, n, target, function(self, i, ok, value)
    if ok then return conclude(self, true, value) end
    failures[i] = value
    if self.left > 0 then return end
    local message = ("all %d failed, the last with: %s"):format(n, told_by(value))
    local code = errors.field(value, "code")
    conclude(self, false, errors.new({ code = code, message = message, cause = value, errors = failures }))
  end)
  return target
end

--- The first outcome, good or bad; the rest is cancelled.
---@param list any[]
---@return perigee.Promise
function combinators.race(list)
  local n = check_list("race", list)
  if n == 0 then return promise.rejected(errors.make("INVALID_OPTION", "race of an empty list never ends")) end
  local target = promise.pending()
  group(list, n, target, function(self, _, ok, value) conclude(self, ok, value) end)
  return target
end

--- All outcomes, in order; never rejects.
---@param list any[]
---@return perigee.Promise of { status = "fulfilled", value = } | { status = "rejected", reason = } each
function combinators.settled(list)
  local n = check_list("settled", list)
  local target, outcomes = promise.pending(), array()
  if n == 0 then promise.resolve(target, outcomes) end
  group(list, n, target, function(self, i, ok, value)
    if ok then
      outcomes[i] = { status = "fulfilled", value = value }
    else
      outcomes[i] = { status = "rejected", reason = value }
    end
    if self.left == 0 then conclude(self, true, outcomes) end
  end)
  return target
end

local Mapping = {}
Mapping.__index = Mapping

function Mapping:cancel()
  self.over = true
  for work in pairs(self.running) do work:cancel() end
end

function Mapping:ended(i, work, ok, value)
  self.running[work] = nil
  if self.over then return end
  if not ok then
    promise.settle(self.target, false, value)
    return self:cancel()
  end
  self.results[i] = value
  self.left = self.left - 1
  if self.left == 0 then
    self.over = true
    return promise.settle(self.target, true, self.results)
  end
  return self:fill()
end

function Mapping:fill()
  while not self.over and self.next_index <= self.n and self.active < self.concurrency do
    local i = self.next_index
    self.next_index, self.active = i + 1, self.active + 1
    local work = promise.bare()
    self.running[work] = true
    promise.observe(work, { of = work, settle = function(_, ok, value)
      self.active = self.active - 1
      return self:ended(i, work, ok, value)
    end })
    if self.scope then
      scheduler.within(self.scope, promise.run, work, self.fn, self.values[i], i)
    else
      promise.run(work, self.fn, self.values[i], i)
    end
  end
end

local function check_map_options(options)
  if options == nil then return {} end
  if type(options) ~= "table" then error(invalid("map takes a table of options, got " .. type(options)), 0) end
  for option in pairs(options) do
    if option ~= "concurrency" then
      error(invalid(("map: unknown option '%s' (known: concurrency)"):format(tostring(option))), 0)
    end
  end
  return options
end

--- fn(value, index) for each item, in coroutines, at most `concurrency` at once; the results in order. The first
--- failure rejects and cancels the rest.
---@param list any[]
---@param fn fun(value: any, index: integer): any
---@param options? { concurrency?: integer } 64 when not given
---@return perigee.Promise
function combinators.map(list, fn, options)
  local n = check_list("map", list)
  check_function("map", fn)
  local concurrency = check_map_options(options).concurrency or MAP_CONCURRENCY
  if type(concurrency) ~= "number" or concurrency < 1 or concurrency ~= concurrency then
    error(invalid("map: concurrency is 1 or more, got " .. tostring(concurrency)), 0)
  end
  local target = promise.pending()
  if n == 0 then
    promise.resolve(target, array())
    return target
  end
  scope_of.adopt(target)
  local scope = scheduler.deadline() and scheduler.scope()
  local function begin(values)
    local mapping = setmetatable({
      target = target, scope = scope, fn = fn, values = values, n = n, left = n, results = array(),
      concurrency = concurrency, active = 0, next_index = 1, running = {}, over = false,
    }, Mapping)
    target.on_cancel, target.cancel_arg = mapping.cancel, mapping
    mapping:fill()
  end
  local values = {}
  group(list, n, target, function(self, i, ok, value)
    if not ok then return conclude(self, false, value) end
    values[i] = value
    if self.left == 0 then begin(values) end
  end)
  return target
end

--- Starts fn(...) in a coroutine now; the Promise of its first result. Cancelling it raises CANCELLED in fn. It is a
--- child of the coroutine that starts it: inherits its deadline, is cancelled with it, may outlive its end.
---@param fn function
---@return perigee.Promise
function combinators.async(fn, ...)
  check_function("async", fn)
  local target, parent = promise.pending(), scheduler.running_task()
  target.parent = parent
  promise.run(target, fn, ...)
  if parent and target.state == "pending" then scope_of.adopt(target, parent) end -- else it needs no place in the list
  return target
end

--- As async, but nobody's child: neither deadline nor cancelling reach it, and a failure nobody looks at is logged at
--- once.
---@param fn function
---@return perigee.Promise
function combinators.spawn(fn, ...)
  check_function("spawn", fn)
  local target = promise.pending()
  target.prompt = true
  scheduler.within(nil, promise.run, target, fn, ...)
  return target
end

--- Runs fn(...) as async does, for ms at most: then it rejects with TIMEOUT, what runs is cancelled, and until then no
--- send inside, whatever its own limits, lasts longer. Inside another deadline it can only be shorter.
---@param ms number
---@param fn function
---@return perigee.Promise
function combinators.deadline(ms, fn, ...)
  promise.check_ms("deadline", ms)
  check_function("deadline", fn)
  local now, outer = core.now(), scheduler.deadline()
  local at = math.min(now + ms, outer or math.huge)
  local target, work = promise.pending(), promise.bare()
  if at <= now then
    promise.reject(target, scope_of.too_late())
    return target
  end
  scope_of.adopt(target)
  work.parent = target.parent -- whose children its own become
  promise.limit(work, target, at - now, "deadline exceeded")
  scheduler.within({ scope = { deadline = at } }, promise.run, work, fn, ...)
  return target
end

local function wake_up(target)
  promise.resolve(target, nil)
end

---@param ms number
---@return perigee.Promise
function combinators.sleep(ms)
  promise.check_ms("sleep", ms)
  local target = promise.pending()
  local timer = scheduler.after(ms, wake_up, target)
  target.on_cancel, target.cancel_arg = timer.cancel, timer
  return target
end

local function emit_list(observer, _, list)
  for i = 1, list.n or #list do
    if observer.closed then return end
    observer:next(list[i])
  end
  return observer:complete()
end

--- A Reply of these values.
---@return perigee.Reply
function combinators.of(...)
  return reply.new(emit_list, { n = select("#", ...), ... })
end

-- Steps run in a coroutine, so that an iterator may await.
local function emit_steps(observer, _, iterator)
  local task = scheduler.start(function(ok, err)
    if ok then return observer:complete() end
    return observer:error(err)
  end, function()
    for value in iterator do
      if observer.closed then return end
      observer:next(value)
      if observer.closed then return end
    end
  end)
  return task.cancel, task
end

local function emit_promise(observer, _, source)
  local reaction = { of = source, settle = function(self, ok, value)
    if self.dropped then return end
    if not ok then return observer:error(value) end
    observer:next(value)
    return observer:complete()
  end }
  promise.observe(source, reaction)
  return promise.drop, reaction
end

--- A Reply of a list's values, an iterator's (which may await), or a Promise's. A Reply is returned as it is.
---@param source any[]|function|perigee.Promise|perigee.Reply
---@return perigee.Reply
function combinators.from(source)
  if reply.is(source) then return source end
  if promise.is(source) then return reply.new(emit_promise, source) end
  local mt = getmetatable(source)
  if type(source) == "function" or type(mt) == "table" and mt.__call then
    return reply.new(emit_steps, source)
  end
  if type(source) ~= "table" then
    error(invalid("from takes a list, an iterator, a Promise or a Reply, got " .. type(source)), 0)
  end
  return reply.new(emit_list, source)
end

-- What a producer holds: as any link, and texts given as errors become error tables.
local Sink = link.class()
local pass_error = Sink.error

function Sink:error(err)
  return pass_error(self, errors.from(err))
end

-- What a producer returned, if it cancels: a function, or something such as a Promise or a subscription.
local function canceller(made)
  if type(made) == "function" then return made end
  if type(made) ~= "table" then return nil end
  if type(made.cancel) == "function" then return function() return made:cancel() end end
  local mt = getmetatable(made)
  if type(mt) == "table" and mt.__call then return function() return made() end end
end

local function produce(observer, _, producer)
  local sink = setmetatable({ down = observer, closed = false }, Sink)
  local ok, made = scheduler.protect(producer, sink)
  if not ok then return sink:error(made) end
  local cancel = canceller(made)
  if cancel == nil or not sink.closed then
    sink.upstream = cancel
  elseif sink.stopped then
    scheduler.guarded(cancel)
  end
  return sink
end

--- A Reply made by hand: producer(sink) runs for each request; sink:next(value), sink:error(err), sink:complete(),
--- at any time. What it returns, a function, is called when the rest is not wanted.
---@param producer fun(sink: { next: fun(self, value: any), error: fun(self, err: any), complete: fun(self) }): fun()?
---@return perigee.Reply
function combinators.reply(producer)
  check_function("reply", producer)
  return reply.new(produce, producer)
end

combinators.promise = promise.new
combinators.error = errors.new

return combinators
