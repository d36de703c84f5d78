--- The client's side of calls.lua for scripts of perigee: so many at once, for as long as standard input says.

local perigee = require("perigee")
local uv = require("luv")

--- Says "ready"; to a line of milliseconds, the calls made.
---@param client perigee.Client
---@param in_flight integer
---@param call fun(): integer? makes one call and checks its answer; a number if it made more
---@param check? fun(made: integer) after each round
return function(client, in_flight, call, check)
  local made, stop_at = 0, 0

  local function call_on()
    while uv.now() < stop_at do made = made + (call() or 1) end
  end

  local function measure(ms)
    made, stop_at = 0, uv.now() + ms
    local running = {}
    for i = 1, in_flight do running[i] = perigee.async(call_on) end
    perigee.all(running):await()
    if check then check(made) end
    return made
  end

  local stdin = uv.new_pipe(false)
  stdin:open(0)
  perigee.promise(function(resolve)
    stdin:read_start(function(_, text)
      if not text then return resolve() end
      perigee.spawn(function()
        print(measure(tonumber(text)))
        io.stdout:flush()
      end)
    end)
    print("ready")
    io.stdout:flush()
  end):await()
  stdin:close()
  client:close():await()
end
