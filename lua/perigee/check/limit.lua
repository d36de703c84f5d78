--- Ends Lua code that runs for too long, in a program that does nothing else: the compiler is off meanwhile.

local errors = require("perigee.errors")
local where_of = require("perigee.where")

local EVERY = 100000 -- instructions between two looks at the clock

local limit = {}

--- Calls fn(), which may await. Code of scripts that uses more than `ms` of CPU time has an error raised in it, again
--- and again until it has ended; perigee's own code is left alone.
---@param ms integer
---@param fn fun(): any
---@return any result of fn
---@return string? where file:line of the code that was ended
function limit.run(ms, fn)
  local deadline, where = os.clock() + ms / 1000, nil
  local function look()
    local info = debug.getinfo(2, "fSl")
    if not where and os.clock() < deadline or not info or where_of.is_own(info.func) then return end
    where = where or info.short_src .. ":" .. info.currentline
    debug.sethook(look, "", 1) -- no pcall in the script gets a word in
    error(errors.make("SCRIPT", ("took longer than %d ms at %s"):format(ms, where)), 0)
  end
  local compiling = jit.status()
  jit.off()
  jit.flush()
  debug.sethook(look, "", EVERY)
  local ok, result = pcall(fn)
  debug.sethook()
  if compiling then jit.on() end
  if not ok then error(result, 0) end
  return result, where
end

return limit
