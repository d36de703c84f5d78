--- The program: finds the command, runs it in a coroutine, and turns its end into an exit status.

local arguments = require("perigee.cli.arguments")
local errors = require("perigee.errors")
local help = require("perigee.cli.help")
local log = require("perigee.log")
local report = require("perigee.cli.report")
local scheduler = require("perigee.scheduler")

local COMMANDS = {
  serve = true, run = true, send = true, emit = true, check = true, reload = true, status = true, test = true,
  version = true, help = true,
}

local EXIT_FAILED, EXIT_USAGE = 1, 2

-- Errors that commands raise: { usage = error }, { exit =, cause =, where = }, or anything else.
local function failed(command, err)
  if type(err) == "table" and rawget(err, "usage") then
    report.error(err.usage)
    if err.usage.code ~= "UNSUPPORTED" then
      io.stderr:write(("see 'perigee help%s'\n"):format(COMMANDS[command] and " " .. command or ""))
    end
    return EXIT_USAGE
  end
  if type(err) == "table" and rawget(err, "exit") then
    report.error(err.cause, err.where)
    return err.exit
  end
  report.error(err)
  report.traceback(err)
  return EXIT_FAILED
end

local function command_of(name)
  if name == "help" then return help.run end
  if COMMANDS[name] then return require("perigee.cli." .. name) end
  return function() arguments.usage("there is no command '%s'", name) end
end

local function aliases(name)
  if name == "--help" or name == "-h" then return "help" end
  if name == "--version" or name == "-v" then return "version" end
  return name
end

--- Runs the command; done(code) is called once, maybe before main returns. The loop is the caller's to run.
---@param argv string[]
---@param done fun(code: integer)
---@param control? integer the descriptor of a supervisor's channel: this is a worker of `serve`
local function main(argv, done, control)
  scheduler.set_host_runs_loop(true)
  local ended = false
  local function finish(code)
    if ended then return end
    ended = true
    io.stdout:flush()
    done(code)
  end
  local name = aliases(argv[1])
  if not name then
    io.stderr:write(help.usage)
    return finish(EXIT_USAGE)
  end
  local rest = {}
  for i = 2, #argv do rest[i - 1] = argv[i] end
  -- `perigee COMMAND --help`
  for _, text in ipairs(name == "run" and { rest[1] } or rest) do
    if text == "--help" then name, rest = "help", { name ~= "help" and name or nil } end
  end
  log.level = "info"
  if name == "test" then
    -- busted's tests run in the main chunk, as in a plain host: an await there runs the loop.
    scheduler.set_host_runs_loop(false)
    local ok, result = xpcall(command_of(name), errors.on_raise, rest)
    return finish(ok and result or failed(name, result))
  end
  scheduler.start(function(ok, result)
    finish(ok and result or failed(name, result))
  end, command_of(name), rest, finish, control)
end

return { main = main }
