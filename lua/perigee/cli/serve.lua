--- perigee serve SCRIPT...: runs routing scripts on one set of listeners until TERM or INT.

local arguments = require("perigee.cli.arguments")
local combinators = require("perigee.combinators")
local garbage = require("perigee.garbage")
local log = require("perigee.log")
local options = require("perigee.options")
local promise = require("perigee.promise")
local reload = require("perigee.reload")
local report = require("perigee.cli.report")
local scheduler = require("perigee.scheduler")
local uv = require("luv")

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
local function watch_signals(on_stop, on_second, on_reload)
  local asked = false
  local function ask()
    if asked then return on_second() end
    asked = true
    on_stop()
  end
  return { on_signal("sigterm", ask), on_signal("sigint", ask), on_signal("sighup", on_reload) }
end

-- Waits for the last of them: a state must not be closed while luv's handles are still closing.
local function close_all(handles)
  for _, handle in ipairs(handles) do
    scheduler.await(function(resume)
      handle:close(function() resume(true) end)
    end)
  end
end

local function reload_now(set)
  combinators.spawn(function()
    local ok, result = pcall(function() return set:prepare():await() end)
    if ok then result:commit() end
    report.reload(ok and result or nil, result)
  end)
end

local function first_generation(set)
  local ok, result = pcall(function() return set:prepare():await() end)
  if ok then return result:commit() end
  if reload.is_refusal(result) and result.exit ~= 1 then
    error({ exit = result.exit, cause = result.error, where = result.where }, 0)
  end
  error(reload.is_refusal(result) and result.error or result, 0)
end

local function serve(set, finish)
  local stopped = promise.bare()
  local handles = watch_signals(function()
    log.info("draining")
    promise.resolve(stopped, set:stop())
  end, function() finish(1) end, function() reload_now(set) end)
  local ok, err = pcall(first_generation, set)
  if ok then
    for _, url in ipairs(set:addresses()) do io.stderr:write("perigee: listening on ", url, "\n") end
    stopped:await()
  end
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
  garbage.start()
  serve(reload.new({
    scripts = paths, listen = flags.listen, stamp = flags.stamp, drain_timeout = flags.drain_timeout,
  }), finish)
  return 0
end
