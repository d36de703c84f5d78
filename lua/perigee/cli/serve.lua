--- perigee serve SCRIPT...: runs routing scripts on one set of listeners until TERM or INT.

local arguments = require("perigee.cli.arguments")
local errors = require("perigee.errors")
local host = require("perigee.host")
local log = require("perigee.log")
local options = require("perigee.options")
local promise = require("perigee.promise")
local scheduler = require("perigee.scheduler")
local scripts = require("perigee.cli.scripts")
local uv = require("luv")

-- A proxy's garbage is short-lived: waiting until the heap is four times what lives halves the marking. Measured
-- with `make bench`: about a tenth of the CPU of a request, for 2 MB under load.
local GC_PAUSE = 400

local FLAGS = {
  ["--listen"] = { value = "text", many = true },
  ["--stamp"] = {},
  ["--drain-timeout"] = { value = "ms" },
  ["--watch"] = { later = true },
  ["--workers"] = { later = true },
  ["--admin"] = { later = true },
  ["--no-budget"] = { later = true },
}

-- A URL of the command line that is wrong is a mistake of the command line.
local function check_listen(urls)
  for _, url in ipairs(urls or {}) do
    local ok, err = pcall(options.listener, url)
    if not ok then error({ exit = 2, cause = err }, 0) end
  end
end

local function on_signal(name, fn)
  local handle = uv.new_signal()
  handle:start(name, function()
    scheduler.enter()
    fn()
    scheduler.leave()
  end)
  handle:unref()
  return handle
end

-- The first TERM or INT drains, the second ends at once.
local function watch_signals(on_first, on_second)
  local asked = false
  local function ask()
    if asked then return on_second() end
    asked = true
    on_first()
  end
  return {
    on_signal("sigterm", ask),
    on_signal("sigint", ask),
    on_signal("sighup", function() log.warn("reload is not available in this version") end),
  }
end

-- Waits for the last of them: a state must not be closed while luv's handles are still closing.
local function close_all(handles)
  for _, handle in ipairs(handles) do
    scheduler.await(function(resume)
      handle:close(function() resume(true) end)
    end)
  end
end

local function serve(together, environments, finish)
  local stopped = promise.bare()
  local handles = watch_signals(function()
    log.info("draining")
    promise.resolve(stopped, together:stop())
  end, function() finish(1) end)
  local ok, err = pcall(function() return together:start():await() end)
  if ok then
    for _, url in ipairs(together:addresses()) do io.stderr:write("perigee: listening on ", url, "\n") end
    stopped:await()
  end
  for _, own in ipairs(environments) do own:close():await() end
  close_all(handles)
  if not ok then error(err, 0) end
end

---@param argv string[]
---@param finish fun(code: integer) ends the program now
---@return integer exit
return function(argv, finish)
  local paths, flags = arguments.parse(argv, FLAGS)
  if #paths == 0 then arguments.usage("it takes one script or more") end
  check_listen(flags.listen)
  collectgarbage("setpause", GC_PAUSE)
  local apps, environments = scripts.load(paths)
  local together = host.new(apps, {
    listen = flags.listen, stamp = flags.stamp, drain_timeout = flags.drain_timeout,
  })
  local list = scripts.checked(together.check, together)
  if #list == 0 then
    local err = errors.make("INVALID_OPTION", "there is nothing to listen on: app:listen(URL) or --listen URL")
    error({ exit = scripts.EXIT_CONFIG, cause = err }, 0)
  end
  scripts.checked(serve, together, environments, finish)
  return 0
end
