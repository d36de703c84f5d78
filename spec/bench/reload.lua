--- Reloads, quiet ones and under full load: a minute of wrk with twenty reloads a second, one in five broken, beside
--- half as long without any. What must hold: no request fails, each answer is of one generation, memory comes back, and
--- the slow ones are not much slower. A reload takes from the signal until the new generation is told to serve.

local figures = require("spec.bench.table")
local loop = require("spec.support.loop")
local machine = require("spec.bench.machine")
local uv = require("luv")

local RELOAD_MS, QUIET_MS, QUIET_RELOADS = 50, 1000, 20
local SCRIPT = "build/bench/reload_app.lua"

local APP = [[
local perigee = require("perigee")
local app = perigee.app()
app:get("/", function() return { generation = %d } end)
app:listen("http://127.0.0.1:0")
return app
]]

local function write(text)
  local file = assert(io.open(SCRIPT .. ".new", "w"))
  file:write(text)
  file:close()
  assert(os.rename(SCRIPT .. ".new", SCRIPT))
end

local function wrk(port, seconds)
  local args = { "-t1", "-c64", ("-d%ds"):format(seconds), "-s", "spec/bench/generation.lua",
    ("http://127.0.0.1:%d/"):format(port) }
  local child = machine.start("load", "wrk", args)
  return child, function()
    child:wait(seconds * 1000 + 10000)
    local told = {}
    for key, value in (child.stdout:match("bench (requests[^\n]*)") or ""):gmatch("(%w+)=(%d+)") do
      told[key] = tonumber(value)
    end
    return told
  end
end

-- Puts a script in place and has it loaded. How long it took until a line says what came of it, in ms.
local function load_script(child, text, told)
  write(text)
  local before, from = #child.stderr, uv.hrtime()
  child:kill("sighup")
  loop.wait_until(function() return child.stderr:find(told, before + 1) end, 5000, function()
    return "a reload of " .. child:describe():sub(-2000)
  end)
  return (uv.hrtime() - from) / 1e6
end

local function load_generation(child, n) return load_script(child, APP:format(n), "%d+ serves[^\n]*\n") end

local function reload_quietly(child, serving)
  local times = {}
  for i = 1, QUIET_RELOADS do times[i] = load_generation(child, serving + i) end
  return times, serving + QUIET_RELOADS
end

-- Reloads until wrk has ended: the next generation, or every fifth time what is no Lua.
local function keep_reloading(child, load, serving)
  local times, refused, i = {}, 0, 0
  while not load.exit_code do
    i = i + 1
    local took
    if i % 5 == 0 then
      refused = refused + 1
      took = load_script(child, "x x", "the reload is refused[^\n]*\n")
    else
      serving = serving + 1
      took = load_generation(child, serving)
      times[#times + 1] = took
    end
    if took < RELOAD_MS then loop.run_for(math.ceil(RELOAD_MS - took)) end
  end
  return times, refused
end

local function middle_and_max(times)
  return { p50 = (figures.median(times)), max = math.max(unpack(times)) }
end

local reload = {}

--- One table, in numbers: seconds, requests, failed, odd, reloads, refused, p99_us and rss_mb without and with reloads,
--- reload_ms quiet and loaded.
---@param seconds integer
function reload.measure(seconds)
  write(APP:format(1))
  local child = machine.start("measured", "build/bin/perigee", { "serve", SCRIPT, "--stamp", "--admin", "off" })
  local port = machine.wait_port(child)
  local function run(length)
    local load, finish = wrk(port, length)
    return load, finish
  end
  local _, warm = run(3)
  warm()
  local _, finish = run(math.max(1, math.floor(seconds / 2)))
  local calm = finish()
  loop.run_for(QUIET_MS)
  local quiet, serving = reload_quietly(child, 1)
  loop.run_for(QUIET_MS)
  local before = machine.resident_mb(child.pid)
  local load, finish_loaded = run(seconds)
  local times, refused = keep_reloading(child, load, serving)
  local busy = finish_loaded()
  loop.run_for(QUIET_MS)
  local result = {
    seconds = seconds, requests = busy.requests, failed = busy.failed, odd = busy.odd, reloads = #times,
    refused = refused, p99_us = { calm = calm.p99, reloading = busy.p99 },
    reload_ms = { quiet = middle_and_max(quiet), loaded = middle_and_max(times) },
    rss_mb = { before = before, after = machine.resident_mb(child.pid) },
  }
  child:stop()
  return result
end

function reload.print(r)
  print(("reloads: %d s, %d requests, %d failed, %d of two generations; %d reloads, %d more refused"):format(r.seconds,
    r.requests, r.failed, r.odd, r.reloads, r.refused))
  local quiet, loaded = r.reload_ms.quiet, r.reload_ms.loaded
  print(("         a reload takes %.1f ms, %.1f at most; under load %.1f ms, %.1f at most"):format(quiet.p50, quiet.max,
    loaded.p50, loaded.max))
  print(("         p99 %.2f ms without, %.2f ms with; resident %.1f MB before, %.1f MB a quiet second after"):format(
    r.p99_us.calm / 1000, r.p99_us.reloading / 1000, r.rss_mb.before, r.rss_mb.after))
end

return reload
