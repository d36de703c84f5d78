--- The iterator behind reply:values(): keeps values until they are taken, in order.

local core = require("perigee.core")
local errors = require("perigee.errors")
local link = require("perigee.link")
local scheduler = require("perigee.scheduler")

local MAX_BUFFERED = 1048576 -- a source cannot be paused; a reader this far behind is given up

-- What the source holds: keeps values until asked for. It does not know its iterator, so that one can be collected.
local Buffer = link.class()

local function end_buffer(self, err)
  self.closed, self.upstream = true, nil
  self.err = err
  local waiter = self.waiter
  if waiter then return scheduler.wake(waiter, true) end
end

local shut = Buffer.cancel

-- Nobody is expected to read on. Another coroutine that does must not take this for the end of the stream.
function Buffer:cancel()
  if self.closed then return end
  shut(self)
  return end_buffer(self, errors.make("CANCELLED", "the coroutine that read values() was cancelled or has ended"))
end

function Buffer:next(value)
  if self.closed then return end
  if self.tail - self.head + 1 >= MAX_BUFFERED then
    shut(self)
    self.head, self.tail, self.values = 1, 0, {}
    return end_buffer(self, errors.make("OVERLOADED", "values() holds " .. MAX_BUFFERED .. " values nobody has taken"))
  end
  self.tail = self.tail + 1
  if value == nil then value = core.null end -- nil would end the loop
  self.values[self.tail] = value
  if self.waiter then return scheduler.wake(self.waiter, true) end
end

function Buffer:error(err)
  if not self.closed then return end_buffer(self, err) end
end

function Buffer:complete()
  if not self.closed then return end_buffer(self, nil) end
end

local function take(self)
  local value = self.values[self.head]
  self.values[self.head] = nil
  self.head = self.head + 1
  if self.head > self.tail then self.head, self.tail = 1, 0 end
  return value
end

---@class perigee.Iterator
local Iterator = {}
Iterator.__index = Iterator
Iterator.__name = "perigee.iterator"

local function close(buffer)
  if buffer.owner then scheduler.disown(buffer.owner, buffer) end
  buffer.owner = nil
  buffer:cancel()
end

-- In a finalizer nothing of the user's may run; the queue does it, before the loop waits again.
local function close_when_collected(buffer)
  local proxy = newproxy(true)
  getmetatable(proxy).__gc = function()
    if buffer.owner then pcall(scheduler.post, close, buffer) end
  end
  return proxy
end

local function open(iterator, waiter)
  local buffer = iterator.buffer
  buffer.asked = true
  scheduler.own(waiter, buffer)
  buffer.owner = waiter
  iterator.proxy = close_when_collected(buffer)
  link.connect(iterator.reply, buffer)
end

local function wait_for_more(waiter, buffer)
  if buffer.waiter then
    error(errors.misuse("UNSUPPORTED", "another coroutine waits for a value of this iterator"), 0)
  end
  buffer.waiter = waiter
  local ok, value = scheduler.suspend(waiter, buffer.cancel, buffer)
  buffer.waiter = nil
  if not ok then error(value, 0) end
end

function Iterator:__call()
  local buffer = self.buffer
  if self.over then return nil end
  local waiter = scheduler.acquire()
  if not buffer.asked then open(self, waiter) end
  while buffer.head > buffer.tail and not buffer.closed do -- again when another coroutine was quicker
    wait_for_more(waiter or scheduler.acquire(), buffer)
    waiter = nil
  end
  if self.over then return nil end
  if buffer.head <= buffer.tail then return take(buffer) end
  self.over = true
  close(buffer)
  local err = buffer.err
  if err then error(err, 0) end
  return nil
end

--- Cancels the call; the iteration is over.
function Iterator:close()
  self.over = true
  close(self.buffer) -- wakes who waits
end

---@param reply perigee.Reply
---@return perigee.Iterator
local function new(reply)
  local buffer = setmetatable({ closed = false, values = {}, head = 1, tail = 0 }, Buffer)
  return setmetatable({ reply = reply, buffer = buffer }, Iterator)
end

return { new = new }
