--- Loading routing scripts for `check`.

local errors = require("perigee.errors")
local script = require("perigee.script")

local EXIT_CONFIG = 78

local scripts = {}

local function refuse(err, where)
  error({ exit = EXIT_CONFIG, cause = err, where = where }, 0)
end

--- Runs each script; raises what is wrong with one as status 78.
---@param paths string[]
---@return perigee.Generation[]
function scripts.load(paths)
  local generations = {}
  for i, path in ipairs(paths) do
    local ok, result = pcall(script.load, path, 1)
    if not ok then refuse(result.cause, result.where) end
    generations[i] = result
  end
  return generations
end

--- Calls fn(...); an INVALID_OPTION it raises is the scripts' fault: status 78.
---@return any
function scripts.checked(fn, ...)
  local ok, result = pcall(fn, ...)
  if ok then return result end
  if errors.is(result) and result.code == "INVALID_OPTION" then refuse(result) end
  error(result, 0)
end

return scripts
