--- perigee run SCRIPT [ARG]...: runs a script in a coroutine and ends with it.

local arguments = require("perigee.cli.arguments")
local environment = require("perigee.environment")
local errors = require("perigee.errors")
local report = require("perigee.cli.report")
local scheduler = require("perigee.scheduler")

local FLAGS = { ["--timeout"] = { value = "ms" } }

---@param argv string[]
---@param finish fun(code: integer) ends the program now
---@return integer exit
return function(argv, finish)
  local positional, flags = arguments.parse(argv, FLAGS, 1)
  local path = table.remove(positional, 1)
  if not path then arguments.usage("it takes a script") end
  local own = environment.new(path)
  positional[0] = path
  own.globals.arg = positional
  local timer = flags.timeout and scheduler.after(flags.timeout, function()
    report.error(errors.make("TIMEOUT", ("the script did not end within %d ms"):format(flags.timeout)))
    finish(1)
  end)
  local ok, err, where = own:run(unpack(positional, 1, #positional))
  if timer then timer:cancel() end
  if not ok then
    report.error(err, where)
    report.traceback(err)
  end
  own:close():await()
  return ok and 0 or 1
end
