--- perigee serve SCRIPT...: runs routing scripts on one set of listeners until TERM or INT. This is a worker's half;
--- the supervisor that started it is C (core/supervisor).

local arguments = require("perigee.cli.arguments")
local budget = require("perigee.cli.budget")
local door = require("perigee.cli.door")
local garbage = require("perigee.garbage")
local log = require("perigee.log")
local options = require("perigee.options")
local reload = require("perigee.reload")
local uv = require("luv")
local worker = require("perigee.cli.worker")

local DRAIN_TIMEOUT_MS = 30000
local BUDGET_MS, LOAD_BUDGET_MS = 1000, 5000
local MAX_WORKERS = 256

local FLAGS = {
  ["--listen"] = { value = "text", many = true },
  ["--stamp"] = {},
  ["--drain-timeout"] = { value = "ms" },
  ["--watch"] = {},
  ["--workers"] = { value = "text" },
  ["--admin"] = { value = "text" },
}
for name, flag in pairs(budget.FLAGS) do FLAGS[name] = flag end

-- A URL of the command line that is wrong is a mistake of the command line.
local function check_listen(urls)
  for _, url in ipairs(urls or {}) do
    local ok, err = pcall(options.listener, url)
    if not ok then error({ exit = 2, cause = err }, 0) end
  end
end

local function worker_count(text)
  if not text then return 1 end
  local n = text == "auto" and uv.available_parallelism() or text:find("^%d+$") and tonumber(text)
  if not n or n < 1 or n > MAX_WORKERS then
    arguments.usage("--workers takes a number from 1 to %d, or auto, not '%s'", MAX_WORKERS, text)
  end
  return n
end

-- What concerns the supervisor.
local function hello_of(flags)
  return {
    workers = worker_count(flags.workers),
    admin = flags.admin and door.parse(flags.admin) or nil,
    watch = flags.watch and 1 or 0,
    drain_timeout = flags.drain_timeout or DRAIN_TIMEOUT_MS,
    budget = flags.no_budget and 0 or flags.budget or BUDGET_MS,
    load_budget = flags.no_budget and 0 or flags.load_budget or LOAD_BUDGET_MS,
  }
end

---@param argv string[]
---@param finish fun(code: integer) ends the program now
---@param control? integer the descriptor of the supervisor's channel
---@return integer exit
return function(argv, finish, control)
  local paths, flags = arguments.parse(argv, FLAGS)
  if #paths == 0 then arguments.usage("it takes one script or more") end
  check_listen(flags.listen)
  local hello = hello_of(flags)
  garbage.start()
  io.stdout:setvbuf("line") -- whoever reads along sees it at once, and workers do not cut each other's lines
  budget.start(flags, true)
  local set = reload.new({
    scripts = paths, listen = flags.listen, stamp = flags.stamp, drain_timeout = flags.drain_timeout,
    load_ms = hello.load_budget > 0 and hello.load_budget or nil,
  })
  worker.run(control, set, hello, function(why)
    log.failure("the worker ends", why)
    finish(1)
  end)
  return 0
end
