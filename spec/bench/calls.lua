--- Load made by the contender itself: a client told on its standard input for how long to call.

local uv = require("luv")

local calls = {}

local function call_for(contender, seconds)
  local begin = uv.hrtime()
  contender.process:write(("%d\n"):format(seconds * 1000))
  local count = tonumber((contender.process:line("^%d+$", seconds * 1000 + 10000)))
  return { requests = count, seconds = (uv.hrtime() - begin) / 1e9 }
end

--- Warms it up. It compares every answer with its call, always.
function calls.check(contender, options)
  call_for(contender, options.warm_seconds)
end

---@return { requests: integer, seconds: number }
function calls.load(contender, options)
  return call_for(contender, options.seconds)
end

return calls
