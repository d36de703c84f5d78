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
  local generations = scripts.load(paths)
  scripts.checked(function() host.new():check(generations) end)
  for i, generation in ipairs(generations) do
    local app = generation.app
    io.stdout:write(("%s: good: %d routes, %d handlers, %d listeners\n"):format(paths[i], #app.routes, #app.declared,
      #app.listens))
  end
  for _, generation in ipairs(generations) do generation:finish(1) end
  return 0
end
