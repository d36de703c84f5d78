--- perigee run SCRIPT [ARG]...: runs a script in a coroutine and ends with it.

local arguments = require("perigee.cli.arguments")
local budget = require("perigee.cli.budget")
local environment = require("perigee.environment")
local errors = require("perigee.errors")
local garbage = require("perigee.garbage")
local promise = require("perigee.promise")
local report = require("perigee.cli.report")
local scheduler = require("perigee.scheduler")
local uv = require("luv")

local FLAGS = {
  ["--timeout"] = { value = "ms" },
  ["--budget"] = { value = "ms" },
  ["--max-memory"] = { value = "mib" },
}
local EXIT_FAILED, MAX_EXIT = 1, 255
local STDIN = "-"

-- The first one cancels the script, which may take time to undo things. From then on the signal ends the process, as it
-- does where nobody listens, so that the second one also ends a script that never comes back to the loop.
local SIGNALS = { sigint = 130, sigterm = 143 } -- what shells say of a program that a signal has ended

local function watch_signals(stopped)
  local handles = {}
  for name, status in pairs(SIGNALS) do
    local handle = uv.new_signal()
    uv.signal_start_oneshot(handle, name, function() -- not a method in every luv
      scheduler.enter()
      promise.resolve(stopped, { status = status, err = errors.make("CANCELLED", "ended by " .. name:upper()) })
      scheduler.leave()
    end)
    handle:unref()
    handles[#handles + 1] = handle
  end
  return handles
end

-- The program calls this when the script waits for what nothing on the loop can bring.
local function watch_idle(stopped)
  debug.getregistry()["perigee.idle"] = function()
    local err = errors.make("CANCELLED", "nothing is left on the loop that could end this wait")
    promise.resolve(stopped, { status = EXIT_FAILED, err = err })
  end
end

-- Waits for each: a state must not be closed while luv's handles are still closing.
local function close_all(handles)
  for _, handle in ipairs(handles) do
    scheduler.await(function(resume) handle:close(function() resume(true) end) end)
  end
end

-- What the chunk returns may be its exit status.
local function status_of(result)
  if type(result) ~= "number" then return { status = 0 } end
  if result >= 0 and result <= MAX_EXIT and result == math.floor(result) then return { status = result } end
  local message = ("the script returned %s, which is no exit status: 0 to %d"):format(tostring(result), MAX_EXIT)
  return { status = EXIT_FAILED, err = errors.make("INVALID_OPTION", message) }
end

local function failed(err, where)
  return { status = EXIT_FAILED, err = err, where = where, is_fault = true }
end

local function run_script(own, args)
  local ok, result, where = own:run(unpack(args, 1, #args))
  if ok and promise.follower(result) then
    ok, result = pcall(result.await, result)
  end
  if ok then return status_of(result) end
  return failed(result, where)
end

-- How it ended: by itself, by a signal, or by its time.
local function wait(work, stopped, timeout_ms)
  local timer = timeout_ms and scheduler.after(timeout_ms, function()
    local err = errors.make("TIMEOUT", ("the script did not end within %d ms"):format(timeout_ms))
    promise.resolve(stopped, { status = EXIT_FAILED, err = err })
  end)
  promise.observe(work, { of = work, settle = function(_, ok, ended)
    promise.resolve(stopped, ok and ended or failed(ended))
  end })
  local ended = stopped:await()
  if timer then timer:cancel() end
  return ended
end

---@param argv string[]
---@return integer exit
return function(argv)
  local args, flags = arguments.parse(argv, FLAGS, 1)
  local path = table.remove(args, 1)
  if not path then arguments.usage("it takes a script") end
  garbage.start()
  -- Who runs a script by hand may well let it compute for long.
  budget.limit({ slice = flags.budget, max_memory = flags.max_memory and flags.max_memory * 1024 * 1024 })
  local own = environment.new(path, path == STDIN and { files = { [STDIN] = arguments.read_stdin() } } or nil)
  args[0] = path
  own.globals.arg = args
  local work, stopped = promise.bare(), promise.bare()
  local handles = watch_signals(stopped)
  watch_idle(stopped)
  promise.run(work, run_script, own, args)
  local ended = wait(work, stopped, flags.timeout)
  if ended.err then report.error(ended.err, ended.where) end
  if ended.is_fault then report.traceback(ended.err) end
  work:cancel()
  own:close():await()
  close_all(handles)
  return ended.status
end
