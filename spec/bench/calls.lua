--- Load made by a client told on its standard input for how long to call: the contender itself, or what calls it.
--- Every client compares each answer with its call.

local uv = require("luv")

local calls = {}

--- Starts the client if that is another one than the contender.
function calls.open(contender, row)
  contender.load = contender.call and contender.call(contender.process, row) or contender.process
  contender.load:line("^ready", 20000)
end

---@return { requests: integer, seconds: number }
function calls.run(contender, seconds)
  local begin = uv.hrtime()
  contender.load:write(("%d\n"):format(seconds * 1000))
  local count = tonumber((contender.load:line("^%d+$", seconds * 1000 + 30000)))
  return { requests = count, seconds = (uv.hrtime() - begin) / 1e9 }
end

function calls.close(contender) contender.load:stop() end

return calls
