--- Reloads under full load: a minute of wrk with twenty reloads a second, one in five broken, beside half as long
--- without any. What must hold: no request fails, each answer is of one generation, memory comes back, and the slow
--- ones are not much slower.

local loop = require("spec.support.loop")
local machine = require("spec.bench.machine")
local uv = require("luv")

local RELOAD_MS, QUIET_MS = 50, 1000
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

local function count(text, what) return select(2, text:gsub(what, "")) end

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

-- Reloads until wrk has ended: the next generation, or every fifth time what is no Lua.
local function keep_reloading(child, load)
  local serving, refused, i = 1, 0, 0
  while not load.exit_code do
    i = i + 1
    local from = uv.hrtime()
    if i % 5 == 0 then
      refused = refused + 1
      write("x x")
    else
      serving = serving + 1
      write(APP:format(serving))
    end
    child:kill("sighup")
    local before = #child.stderr
    loop.wait_until(function()
      return child.stderr:find("\n", before + 1, true) and count(child.stderr, "%d+ serves") >= serving - 1
    end, 5000, function() return "reload " .. i .. " of " .. child:describe():sub(-2000) end)
    local rest = RELOAD_MS - (uv.hrtime() - from) / 1e6
    if rest > 0 then loop.run_for(math.ceil(rest)) end
  end
  return serving - 1, refused
end

local reload = {}

--- One table, in numbers: seconds, requests, failed, odd, reloads, refused, p99_us and rss_mb without and with reloads.
---@param seconds integer
function reload.measure(seconds)
  write(APP:format(1))
  local child = machine.start("measured", "build/bin/perigee", { "serve", SCRIPT, "--stamp", "--admin", "off" })
  local port = loop.wait_until(function() return child.stderr:match("listening on %S+:(%d+)\n") end, 20000, "a port")
  local function run(length)
    local load, finish = wrk(port, length)
    return load, finish
  end
  local _, warm = run(3)
  warm()
  local _, finish = run(math.max(1, math.floor(seconds / 2)))
  local calm = finish()
  loop.run_for(QUIET_MS)
  local before = machine.resident_mb(child.pid)
  local load, finish_loaded = run(seconds)
  local reloads, refused = keep_reloading(child, load)
  local busy = finish_loaded()
  loop.run_for(QUIET_MS)
  local result = {
    seconds = seconds, requests = busy.requests, failed = busy.failed, odd = busy.odd, reloads = reloads,
    refused = refused, p99_us = { calm = calm.p99, reloading = busy.p99 },
    rss_mb = { before = before, after = machine.resident_mb(child.pid) },
  }
  child:stop()
  return result
end

function reload.print(r)
  print(("reloads: %d s, %d requests, %d failed, %d of two generations; %d reloads, %d more refused"):format(r.seconds,
    r.requests, r.failed, r.odd, r.reloads, r.refused))
  print(("         p99 %.2f ms without, %.2f ms with; resident %.1f MB before, %.1f MB a quiet second after"):format(
    r.p99_us.calm / 1000, r.p99_us.reloading / 1000, r.rss_mb.before, r.rss_mb.after))
end

return reload
