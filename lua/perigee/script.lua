--- Makes a generation of a routing script: runs it in an environment of its own.

local app_of = require("perigee.app")
local combinators = require("perigee.combinators")
local environment = require("perigee.environment")
local errors = require("perigee.errors")
local generation = require("perigee.generation")

-- In a coroutine of its own: should the script yield that away, who loads it hears of it.
local function run(own, limit_ms)
  local work = combinators.async(function() return { own:run() } end)
  local ok, ran = pcall(function() return (limit_ms and work:timeout(limit_ms) or work):await() end)
  if ok then return unpack(ran, 1, 3) end
  if limit_ms and errors.is(ran) and ran.code == "TIMEOUT" then
    ran = errors.make("SCRIPT", ("%s does not finish loading within %d ms"):format(own.path, limit_ms))
  end
  return false, ran
end

--- Runs the script; to be called in a coroutine. Raises { cause =, where = }: what is wrong, and file:line when the
--- error's text does not say.
---@param path string
---@param number integer
---@param files? table<string, string> sources to take instead of those on disk
---@param limit_ms? integer how long that may take, waiting included
---@return perigee.Generation
local function load(path, number, files, limit_ms)
  local own = environment.new(path, { files = files, is_served = true })
  own.globals.arg = { [0] = path }
  local ok, result, where = run(own, limit_ms)
  if ok and app_of.is(result) then return generation.new(own, number, result) end
  own:close()
  if ok then result = errors.make("SCRIPT", path .. " does not return an app: it should end with 'return app'") end
  error({ cause = result, where = where }, 0)
end

return { load = load }
