--- Lets await inside a user's own coroutine reach whoever can wait for it. coroutine.resume, wrap and status
--- are replaced, once, by versions that pass perigee's token through and otherwise behave as before.
---
---   task or main chunk -> resume(outer) -> resume(inner) -> await
---        waits  <------- token <--------- token <------ yields (token, waiter)
---
--- The state is kept in the registry: a second copy of this module must not wrap the wrapped functions.

local SLOT = "perigee.coroutines"

---@class perigee.Coroutines
---@field token table what await yields first; nobody else has it
---@field max_depth integer so many may resume each other
---@field resumer table<thread, thread|true> who resumed a coroutine that has not come back; true is the main chunk
---@field resume fun(co: thread, ...): boolean, ... the original
---@field status fun(co: thread): string the original
local state = debug.getregistry()[SLOT]
if state then return state end

local raw_create, raw_resume = coroutine.create, coroutine.resume
local raw_status, raw_yield = coroutine.status, coroutine.yield
local running, isyieldable = coroutine.running, coroutine.isyieldable

local TOKEN = {}
local MAX_DEPTH = 20000 -- LuaJIT does not look how much of the C stack they take: at 100,000 the process ends
local depth = 0 -- coroutines resumed from here and not back yet
-- Weak both ways: a value would otherwise keep its own key alive.
local resumer = setmetatable({}, { __mode = "kv" })

local function current()
  local co, is_main = running()
  if is_main then return nil end -- built with 5.2 extensions
  return co
end

local back

local function go(co, ...)
  depth = depth + 1
  return back(co, raw_resume(co, ...))
end

-- The inner coroutine awaits: wait on its behalf, then go on with it. At the bottom is either a perigee task,
-- which suspends, or the main chunk, where the waiter runs the loop.
local function pass_on(co, waiter)
  if current() == nil then
    return go(co, waiter:run_loop())
  end
  if not isyieldable() then
    return go(co, false, waiter:refuse())
  end
  return go(co, raw_yield(TOKEN, waiter))
end

function back(co, ok, first, ...)
  depth = depth - 1
  if ok and first == TOKEN then return pass_on(co, (...)) end
  resumer[co] = nil
  return ok, first, ...
end

local function resume(co, ...)
  if type(co) ~= "thread" then return raw_resume(co, ...) end -- raises as ever
  -- While it awaits, its resumer is blocked in resume: to everyone else it is not suspended.
  if resumer[co] then
    if raw_status(co) == "suspended" then return false, "cannot resume non-suspended coroutine" end
    return raw_resume(co, ...)
  end
  if depth >= MAX_DEPTH then return false, "stack overflow: coroutines resume each other" end
  resumer[co] = current() or true
  return go(co, ...)
end

-- Level 2 is the caller, as wrap adds the caller's position to texts.
local function unwrap(ok, ...)
  if not ok then error((...), 2) end
  return ...
end

local function wrap(fn, ...)
  if type(fn) ~= "function" then
    local got = fn == nil and select("#", ...) == 0 and "no value" or type(fn)
    error("bad argument #1 to 'wrap' (function expected, got " .. got .. ")", 2)
  end
  local co = raw_create(fn)
  return function(...) return unwrap(resume(co, ...)) end
end

local function status(co)
  local now = raw_status(co)
  if now == "suspended" and resumer[co] then return "normal" end
  return now
end

for name, fn in pairs({ resume = resume, wrap = wrap, status = status }) do rawset(coroutine, name, fn) end

state = {
  token = TOKEN, max_depth = MAX_DEPTH, resumer = resumer,
  create = raw_create, resume = raw_resume, status = raw_status,
}
debug.getregistry()[SLOT] = state
return state
