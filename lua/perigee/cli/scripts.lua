--- Loading routing scripts for `serve` and `check`.

local app_of = require("perigee.app")
local environment = require("perigee.environment")
local errors = require("perigee.errors")

local EXIT_CONFIG = 78

local scripts = { EXIT_CONFIG = EXIT_CONFIG }

local function refuse(err, where)
  error({ exit = EXIT_CONFIG, cause = err, where = where }, 0)
end

--- Runs each script; raises what is wrong with one as status 78.
---@param paths string[]
---@return perigee.App[] apps
---@return perigee.Environment[] environments
function scripts.load(paths)
  local apps, environments = {}, {}
  for i, path in ipairs(paths) do
    local own = environment.new(path)
    own.globals.arg = { [0] = path }
    environments[i] = own
    local ok, result, where = own:run()
    if not ok then refuse(result, where) end
    if not app_of.is(result) then
      refuse(errors.make("SCRIPT", path .. " does not return an app: it should end with 'return app'"))
    end
    apps[i] = result
  end
  return apps, environments
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
