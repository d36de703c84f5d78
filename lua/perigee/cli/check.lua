--- perigee check SCRIPT...: tells what is wrong with routing scripts; opens no port, no connection.

local arguments = require("perigee.cli.arguments")
local budget = require("perigee.cli.budget")
local check = require("perigee.check")
local log = require("perigee.log")
local offline = require("perigee.cli.offline")

local FLAGS = { ["--json"] = {}, ["--static"] = {}, ["--load-budget"] = { value = "ms" } }
local EXIT_FINDINGS, LOAD_MS = 78, 5000

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

local function run(paths, flags)
  if flags.static then return check.static(paths) end
  -- The check ends a load that takes too long, and tells where; this is for what it cannot end.
  budget.start({ budget = (flags.load_budget or LOAD_MS) + 1000 })
  offline()
  divert_output()
  log.level = "error" -- what it warns about while scripts load are findings
  return check.run(paths, { limit = flags.load_budget })
end

---@param argv string[]
---@return integer exit
return function(argv)
  local paths, flags = arguments.parse(argv, FLAGS)
  if #paths == 0 then arguments.usage("it takes one script or more") end
  local stdout = io.stdout
  local list, apps = run(paths, flags)
  for _, finding in ipairs(flags.json and {} or list) do io.stderr:write(check.text(finding), "\n") end
  if flags.json then stdout:write(check.json(list), "\n") end
  if #list > 0 then return EXIT_FINDINGS end
  for i, path in ipairs(flags.json and {} or paths) do
    local app = apps and apps[i]
    stdout:write(path, ": good", app and (": %d routes, %d handlers, %d listeners"):format(#app.routes, #app.declared,
      #app.listens) or "", "\n")
  end
  return 0
end
