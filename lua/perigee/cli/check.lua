--- perigee check SCRIPT...: tells what is wrong with routing scripts; opens no port, no connection.

local arguments = require("perigee.cli.arguments")
local check = require("perigee.check")
local log = require("perigee.log")
local offline = require("perigee.cli.offline")

local FLAGS = { ["--json"] = {}, ["--load-budget"] = { value = "ms" } }
local EXIT_FINDINGS = 78

-- What scripts print while they load must not stand between the findings.
local function divert_output()
  local stderr = io.stderr
  io.stdout = stderr -- luacheck: ignore 122
  io.output(stderr)
  function _G.print(...)
    local texts = {}
    for i = 1, select("#", ...) do texts[i] = tostring((select(i, ...))) end
    stderr:write(table.concat(texts, "\t"), "\n")
  end
end

---@param argv string[]
---@return integer exit
return function(argv)
  local paths, flags = arguments.parse(argv, FLAGS)
  if #paths == 0 then arguments.usage("it takes one script or more") end
  local stdout = io.stdout
  offline()
  divert_output()
  log.level = "error" -- what it warns about while scripts load are findings
  local list, apps = check.run(paths, { limit = flags.load_budget })
  if flags.json then
    stdout:write(check.json(list), "\n")
  else
    for _, finding in ipairs(list) do io.stderr:write(check.text(finding), "\n") end
  end
  if #list > 0 then return EXIT_FINDINGS end
  for i, app in ipairs(flags.json and {} or apps) do
    stdout:write(("%s: good: %d routes, %d handlers, %d listeners\n"):format(paths[i], #app.routes, #app.declared,
      #app.listens))
  end
  return 0
end
