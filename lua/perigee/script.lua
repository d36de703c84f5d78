--- Makes a generation of a routing script: runs it in an environment of its own.

local app_of = require("perigee.app")
local environment = require("perigee.environment")
local errors = require("perigee.errors")
local generation = require("perigee.generation")

--- Runs the script, in the calling coroutine. Raises { cause =, where = }: what is wrong, and file:line when the
--- error's text does not say.
---@param path string
---@param number integer
---@param files? table<string, string> sources to take instead of those on disk
---@return perigee.Generation
local function load(path, number, files)
  local own = environment.new(path, { files = files, is_served = true })
  own.globals.arg = { [0] = path }
  local ok, result, where = own:run()
  if ok and app_of.is(result) then return generation.new(own, number, result) end
  own:close()
  if ok then result = errors.make("SCRIPT", path .. " does not return an app: it should end with 'return app'") end
  error({ cause = result, where = where }, 0)
end

return { load = load }
