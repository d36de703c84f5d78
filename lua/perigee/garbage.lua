--- How long the collector waits between two cycles, in a program of our own.
---
--- A proxy's garbage is short-lived, so each cycle marks the same small heap: waiting longer halves the work. But a
--- script that keeps much must not make the heap several times as large. So the wait is room in bytes, not a factor:
--- looked at after each cycle, by a proxy that each collection finalises.

local ROOM_KB = 6144 -- measured: beyond it little is gained
local MIN_PAUSE, MAX_PAUSE = 200, 1000 -- percent of what lives; 200 is Lua's own

local function tune()
  local pause = 100 + 100 * ROOM_KB / collectgarbage("count")
  collectgarbage("setpause", math.floor(math.max(MIN_PAUSE, math.min(MAX_PAUSE, pause))))
end

local function watch()
  local proxy = newproxy(true)
  getmetatable(proxy).__gc = function()
    tune()
    watch()
  end
end

--- From now on, in this state.
local function start()
  tune()
  watch()
end

return { start = start }
