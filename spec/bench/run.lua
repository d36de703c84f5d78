--- The bench: every contender is started once, then each is loaded in turn, round after round (A B A B), so that what
--- the machine does beside hits all of them. See the file `run` for how it is called.

local cjson = require("cjson")
local broker = require("spec.support.broker")
local figures = require("spec.bench.table")
local machine = require("spec.bench.machine")
local process = require("spec.support.process")
local reload = require("spec.bench.reload")
local wrk = require("spec.bench.wrk")

local LOADS = { wrk = wrk, calls = require("spec.bench.calls") }
local OUT = "build/bench/bench.json"

local function setting(name, default) return tonumber(os.getenv(name) or default) end

local options = {
  rounds = setting("BENCH_ROUNDS", 3), seconds = setting("BENCH_SECONDS", 5), warm_seconds = setting("BENCH_WARM", 5),
  in_flight = setting("BENCH_IN_FLIGHT", 64), reload_seconds = setting("BENCH_RELOAD_SECONDS", 60),
}

local function say(...) io.stderr:write(string.format(...), "\n") end

local function chosen()
  local only, list = os.getenv("BENCH_ONLY") or "", {}
  for _, contender in ipairs(require("spec.bench.rows")) do
    if contender.row:find(only) then list[#list + 1] = contender end
  end
  return list
end

local function start(contender, service_port)
  contender.process = contender.start(service_port, options)
  if contender.load == "wrk" then
    contender.port = wrk.wait_port(contender.process)
  else
    contender.process:line("^ready", 20000)
  end
  contender.rounds = {}
  LOADS[contender.load].check(contender, options)
end

local function measure(contender)
  local pid = contender.process.pid
  local before = machine.cpu_us(pid)
  local round = LOADS[contender.load].load(contender, options)
  local cpu_us = machine.cpu_us(pid) - before
  round.cpu_us = cpu_us / round.requests
  round.rate = round.requests / round.seconds
  round.busy = cpu_us / 1e6 / round.seconds
  round.rss_mb = machine.resident_mb(pid)
  table.insert(contender.rounds, round)
  return round
end

local function sum_up(contenders)
  local results, first = {}, {}
  for _, contender in ipairs(contenders) do
    local result = { row = contender.row, product = contender.product }
    for _, field in ipairs({ "cpu_us", "rate", "p50_us", "p99_us", "rss_mb", "busy" }) do
      result[field] = figures.sum_up(contender.rounds, field)
    end
    local base = first[contender.row]
    if base then result.ratio = figures.ratio(base.rounds, contender.rounds, "cpu_us") end
    first[contender.row] = base or contender
    results[#results + 1] = result
  end
  return results
end

local function write_json(results, loads, reloads)
  local file = assert(io.open(OUT, "w"))
  file:write(cjson.encode({
    at = os.date("!%Y-%m-%dT%H:%M:%SZ"), machine = machine.describe(), options = options, load_average = loads,
    results = results, reloads = reloads,
  }), "\n")
  file:close()
end

local function bench()
  local service = machine.start("load", "build/bench/service", {})
  local service_port = wrk.wait_port(service)
  local contenders, loads = chosen(), {}
  for _, contender in ipairs(contenders) do
    say("warming up   %-20s %s", contender.row, contender.product)
    start(contender, service_port)
  end
  for number = 1, options.rounds do
    loads[number] = machine.load_average()
    say("round %d of %d, load average %.2f", number, options.rounds, loads[number][1])
    for _, contender in ipairs(contenders) do
      local round = measure(contender)
      say("  %-20s %-9s %8.1f us/req %9.0f req/s", contender.row, contender.product, round.cpu_us, round.rate)
    end
  end
  local results, about = sum_up(contenders), machine.describe()
  local reloads = options.reload_seconds > 0 and reload.measure(options.reload_seconds) or nil
  write_json(results, loads, reloads)
  print(("\n%s, %d cores%s, %s\n%d rounds of %d s, %d in flight; medians, spread is (max - min) / median"):format(
    about.cpu, about.cores, about.pinned and " (one for what is measured)" or "", about.system, options.rounds,
    options.seconds, options.in_flight))
  figures.print(results)
  if reloads then reload.print(reloads) end
  print("written to " .. OUT)
end

local ok, err = xpcall(bench, function(fault)
  return type(fault) == "string" and fault or debug.traceback(tostring(fault))
end)
broker.stop_all()
process.stop_all()
if not ok then
  say("bench: %s", err)
  os.exit(1)
end
