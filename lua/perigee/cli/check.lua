--- perigee check SCRIPT...: loads and validates; opens no port, no connection.

local arguments = require("perigee.cli.arguments")
local host = require("perigee.host")
local offline = require("perigee.cli.offline")
local scripts = require("perigee.cli.scripts")

local FLAGS = { ["--json"] = { later = true } }

---@param argv string[]
---@return integer exit
return function(argv)
  local paths = arguments.parse(argv, FLAGS)
  if #paths == 0 then arguments.usage("it takes one script or more") end
  offline()
  local apps, environments = scripts.load(paths)
  local together = host.new(apps)
  scripts.checked(together.check, together)
  for i, app in ipairs(apps) do
    io.stdout:write(("%s: good: %d routes, %d handlers, %d listeners\n"):format(paths[i], #app.routes, #app.declared,
      #app.listens))
  end
  for _, own in ipairs(environments) do own:close():await() end
  return 0
end
