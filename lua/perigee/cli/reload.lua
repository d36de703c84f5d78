--- perigee reload: has a running `perigee serve` load its scripts anew; tells the generations, or why not.

local arguments = require("perigee.cli.arguments")
local door = require("perigee.cli.door")
local json = require("perigee.json")
local report = require("perigee.cli.report")

local FLAGS = { ["--admin"] = { value = "text" }, ["--pid"] = { value = "text" } }

---@param argv string[]
---@return integer exit
return function(argv)
  local rest, flags = arguments.parse(argv, FLAGS)
  if rest[1] then arguments.usage("it takes no '%s'", rest[1]) end
  local answer = door.ask(door.find(flags), "POST", "/reload")
  for _, one in ipairs(answer.scripts or {}) do
    local old = one.old ~= json.null and one.old or 0
    io.stdout:write(("%s: generation %d -> %d\n"):format(one.file, old, one.new))
  end
  local refused = answer.refused or {}
  for _, one in ipairs(refused) do report.error(one.file .. ": " .. one.error) end
  return refused[1] and 1 or 0
end
