--- The bench: what stands side by side in a row is started together and loaded in turn, round after round (A B A B), so
--- that what the machine does beside hits all of it. See the file `run` for how it is called.

local cjson = require("cjson")
local broker = require("spec.support.broker")
local chart = require("spec.bench.chart")
local figures = require("spec.bench.table")
local goals = require("spec.bench.goals")
local machine = require("spec.bench.machine")
local process = require("spec.support.process")

local LOADS = { http = require("spec.bench.http"), calls = require("spec.bench.calls") }
local OUT, CHART = "build/bench/bench.json", "build/bench/bench.svg"

-- What is measured once, beside the rows. Each is a module of spec/bench: measure(seconds) gives a plain table, which
-- the JSON has under this name, and print(table) shows it. `seconds` may be set, 0 leaves it out.
local ONCE = {
  { name = "reload", seconds = 30, setting = "BENCH_RELOAD_SECONDS" },
  { name = "startup" }, { name = "idle" }, { name = "copies" },
}

local function setting(name, default) return tonumber(os.getenv(name) or default) end

local options = {
  rounds = setting("BENCH_ROUNDS", 3), seconds = setting("BENCH_SECONDS", 2), warm_seconds = setting("BENCH_WARM", 2),
}
local side_options = {
  rounds = math.min(options.rounds, 2), seconds = math.min(options.seconds, 1.5),
  warm_seconds = math.min(options.warm_seconds, 1.5),
}
local only = os.getenv("BENCH_ONLY") or ""

local function say(...) io.stderr:write(string.format(...), "\n") end

local function measure(row, contender, seconds)
  local pid = contender.process.pid
  local before = machine.cpu_us(pid)
  local good, round = pcall(LOADS[row.load].run, contender, seconds, row.rate)
  if not good then
    error(("%s, %s: %s\nof %s"):format(row.name, contender.product, round, contender.process:describe()), 0)
  end
  local cpu_us = machine.cpu_us(pid) - before
  round.cpu_us = cpu_us / round.requests
  round.rate = round.requests / round.seconds
  round.busy = cpu_us / 1e6 / round.seconds
  round.rss_mb = machine.resident_mb(pid)
  return round
end

-- The first load is to warm up: just-in-time compilers, caches, pools. It also tells what a product can do at most.
local function warm_up(row, seconds)
  local rate
  for _, contender in ipairs(row.contenders) do
    contender.rounds = {}
    contender.process = contender.start(row)
    LOADS[row.load].open(contender, row)
    local peak = measure(row, contender, seconds).rate
    if contender.product == row.half_of then rate = peak / 2 end
  end
  row.rate = rate
end

local function run(row)
  local times, split = row.side and side_options or options, row.split or 1
  local rounds, seconds = times.rounds * split, times.seconds / split
  say("%s: %d rounds of %.3g s, load average %.2f", row.name, rounds, seconds, machine.load_average()[1])
  warm_up(row, times.warm_seconds)
  for _ = 1, rounds do
    for _, contender in ipairs(row.contenders) do
      local round = measure(row, contender, seconds)
      table.insert(contender.rounds, round)
      say("  %-11s %8.1f us/req %9.0f req/s", contender.product, round.cpu_us, round.rate)
    end
  end
  for _, contender in ipairs(row.contenders) do
    LOADS[row.load].close(contender)
    contender.process:stop()
  end
end

local function sum_up(row, results)
  local first
  for _, contender in ipairs(row.contenders) do
    local result = {
      row = row.name, product = contender.product, in_flight = row.in_flight, connections = row.connections,
      bytes = row.bytes, offered_rate = row.rate,
    }
    for _, field in ipairs({ "cpu_us", "rate", "p50_us", "p99_us", "p999_us", "max_us", "rss_mb", "busy" }) do
      result[field] = figures.sum_up(contender.rounds, field)
    end
    if first then result.ratio = figures.ratio(result.cpu_us.rounds, first.cpu_us.rounds) end
    first = first or result
    results[#results + 1] = result
  end
end

local function run_rows()
  local results = {}
  for _, row in ipairs(require("spec.bench.rows")) do
    if row.name:find(only) then
      run(row)
      sum_up(row, results)
    end
  end
  return results
end

local failures = {} -- of these: they do not lose what else was measured

-- BENCH_ONLY may name one of them as well.
local function measure_once()
  local once = {}
  for _, one in ipairs(ONCE) do
    local seconds = one.setting and setting(one.setting, one.seconds)
    if seconds ~= 0 and one.name:find(only) then
      say("%s", one.name)
      local good, result = xpcall(require("spec.bench." .. one.name).measure, debug.traceback, seconds)
      if good then once[one.name] = result else failures[#failures + 1] = ("%s: %s"):format(one.name, result) end
    end
  end
  return once
end

local function write_json(all)
  local file = assert(io.open(OUT, "w"))
  file:write(cjson.encode(all), "\n")
  file:close()
end

local function print_all(about, results, once, judged)
  print(("\n%s, %d cores%s, %s\n%d rounds of %g s, in rows beside %d of %g s; medians, spread is (max - min) / median")
    :format(about.cpu, about.cores, about.pinned and " (one for what is measured)" or "", about.system, options.rounds,
      options.seconds, side_options.rounds, side_options.seconds))
  figures.print(results)
  for _, one in ipairs(ONCE) do
    if once[one.name] then require("spec.bench." .. one.name).print(once[one.name]) end
  end
  goals.print(judged)
  print("written to " .. OUT .. " and " .. CHART)
end

local function bench()
  local loads = { machine.load_average() }
  local results, once = run_rows(), measure_once()
  loads[2] = machine.load_average()
  local about, judged = machine.describe(), goals.judge(results, once)
  local all = {
    at = os.date("!%Y-%m-%dT%H:%M:%SZ"), machine = about, options = options, load_average = loads, results = results,
    goals = judged,
  }
  for name, result in pairs(once) do all[name] = result end
  write_json(all)
  chart.write(CHART, results, goals.lines(judged), all)
  print_all(about, results, once, judged)
  if #failures > 0 then error(table.concat(failures, "\n"), 0) end
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
