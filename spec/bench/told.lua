--- The client's side of calls.lua for scripts of perigee: so many at once, for as long as standard input says.

local perigee = require("perigee")
local uv = require("luv")

--- Says "ready"; to a line of milliseconds, the calls made.
---@param client perigee.Client
---@param in_flight integer
---@param call fun(): integer? makes one call and checks its answer; a number if it made more
---@param count? fun(): integer what has arrived so far: after a round, it must be what was made in it
return function(client, in_flight, call, count)
  local made, is_over = 0, false
  local clock = uv.new_timer() -- as the limit does: no look at a clock for each call

  local function call_on()
    while not is_over do
      local n = call() or 1 -- before `made` is read: others count meanwhile
      made = made + n
    end
  end

  local function measure(ms)
    local before = count and count()
    made, is_over = 0, false
    clock:start(ms, 0, function() is_over = true end)
    local running = {}
    for i = 1, in_flight do running[i] = perigee.async(call_on) end
    perigee.all(running):await()
    local arrived = count and count() - before or made
    if arrived ~= made then error(("%d arrived, not %d"):format(arrived, made)) end
    return made
  end

  local stdin = uv.new_pipe(false)
  stdin:open(0)
  perigee.promise(function(resolve, reject)
    stdin:read_start(function(_, text)
      if not text then return resolve() end
      perigee.spawn(function()
        print(measure(tonumber(text)))
        io.stdout:flush()
      end):catch(reject)
    end)
    print("ready")
    io.stdout:flush()
  end):await()
  stdin:close()
  clock:close()
  client:close():await()
end
