--- Coroutines that run one function after the other, for the scheduler.
---
---   take -> resume(co, fn, n, a, b) -> yields IDLE, ok, value when fn has ended -> give

local coroutines = require("perigee.coroutines")
local errors = require("perigee.errors")

local IDLE = {} -- what one yields when its function has ended
local MAX_IDLE = 256

local create, yield, on_raise = coroutines.create, coroutine.yield, errors.on_raise
local idle, count = {}, 0

-- Inside the xpcall, as all that can raise: a script may resume an idle coroutine that it has kept, with anything.
local function call_list(fn, n, list)
  return fn(unpack(list, 1, n))
end

-- fn(a, b), or with n arguments, which are in a list when they are more. Nothing is vararg here nor on the way here:
-- LuaJIT is much quicker so.
local function loop(fn, n, a, b)
  while true do
    local done, value
    if n == 2 then
      done, value = xpcall(fn, on_raise, a, b)
    elseif n == 1 then
      done, value = xpcall(fn, on_raise, a)
    elseif n == 0 then
      done, value = xpcall(fn, on_raise)
    else
      done, value = xpcall(call_list, on_raise, fn, n, a)
    end
    fn, n, a, b = yield(IDLE, done, value)
  end
end

---@return thread
local function take()
  if count == 0 then return create(loop) end
  local co = idle[count]
  idle[count] = nil
  count = count - 1
  return co
end

--- One that has yielded IDLE.
---@param co thread
local function give(co)
  if count == MAX_IDLE then return end
  count = count + 1
  idle[count] = co
end

--- Lets go of the idle ones: each still holds what it ran last.
local function trim()
  idle, count = {}, 0
end

return { IDLE = IDLE, take = take, give = give, trim = trim }
