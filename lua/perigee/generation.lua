--- One loaded version of a routing script: its environment, its app, and their life.
---
---   made -> start (clients, on_reload, on_start) -> [serves] -> finish (on_stop, spawned work ends, clients close)

local combinators = require("perigee.combinators")
local errors = require("perigee.errors")
local log = require("perigee.log")
local scheduler = require("perigee.scheduler")

local HOOK_MS = 5000

---@class perigee.Generation
---@field path? string of the script; nil for an app that a host made
---@field number integer the first is 1
---@field app perigee.App
---@field loaded_at integer seconds since 1970
---@field is_started boolean its start hooks have all run
---@field cancelled integer calls that the drain timeout has ended
---@field private environment? perigee.Environment
local Generation = {}
Generation.__index = Generation
Generation.__name = "perigee.generation"

local function make(fields)
  fields.number, fields.loaded_at, fields.is_started, fields.cancelled = fields.number or 1, os.time(), false, 0
  return setmetatable(fields, Generation)
end

--- Of an app made in a host.
---@param app perigee.App
---@return perigee.Generation
local function of(app)
  return make({ app = app })
end

--- Of a script that has run.
---@param own perigee.Environment
---@param number integer
---@param app perigee.App
---@return perigee.Generation
local function new(own, number, app)
  return make({ path = own.path, number = number, app = app, environment = own })
end

--- The sources it was made of.
---@return table<string, string> by path
function Generation:files()
  return self.environment and self.environment.files or {}
end

--- The script's `package`: where it finds its modules.
---@return table
function Generation:package()
  return self.environment and self.environment.package or package
end

---@return string for logs
function Generation:name()
  return ("%s, generation %d"):format(self.path or "the app", self.number)
end

--- Life ---------------------------------------------------------------------------------------------------------

local function run_hook(name, limit_ms, hook, ...)
  local work, is_late = combinators.async(hook, ...), false
  local timer = scheduler.after(limit_ms, function()
    is_late = true
    work:cancel()
  end)
  local ok, result = pcall(function() return work:await() end)
  timer:cancel()
  if is_late then
    result = errors.make("TIMEOUT", ("%s did not end within %d ms"):format(name, limit_ms))
  elseif ok then
    return result
  end
  error(result, 0)
end

local function hand_over(app, old)
  local hook, before = app.reload_hook, app.state
  local state = hook and run_hook("on_reload", HOOK_MS, hook, old.app.state)
  if state ~= nil then
    app.state = state
  elseif app.state == before then
    app.state = old.app.state
  end
end

--- Makes what factories make, takes the old one's state over, runs the start hooks. In a coroutine; raises what is
--- wrong: then it is to be finished.
---@param old? perigee.Generation
function Generation:start(old)
  local app = self.app
  run_hook("what makes clients and values", HOOK_MS, app.registry.start, app.registry)
  if old then hand_over(app, old) end
  for _, hook in ipairs(app.start_hooks) do run_hook("on_start", HOOK_MS, hook, app) end
  self.is_started = true
end

--- Requests passed on without Lua that its clients still wait for.
---@return integer
function Generation:forwards()
  return self.app.registry:forwards() + (self.environment and self.environment:forwards() or 0)
end

--- Runs the stop hooks of one that has started, ends what it has spawned, closes its clients. In a coroutine; failures
--- are logged.
---@param limit_ms integer for each hook; what its sagas have to undo has its own time
function Generation:finish(limit_ms)
  for _, hook in ipairs(self.is_started and self.app.stop_hooks or {}) do
    local ok, err = pcall(run_hook, "on_stop", limit_ms, hook, self.app)
    if not ok then log.failure(("%s: in on_stop"):format(self:name()), err) end
  end
  self.is_started = false
  if self.environment then self.environment:cancel():await() end -- while there are clients to undo with
  self.app.registry:close(self.environment ~= nil):await() -- a host may start its app again
  if self.environment then self.environment:close():await() end
end

return { new = new, of = of }
