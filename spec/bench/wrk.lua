--- HTTP load on one contender: wrk, one thread, as many connections as are to be in flight.

local cjson = require("cjson")
local loop = require("spec.support.loop")
local machine = require("spec.bench.machine")
local tcp = require("spec.support.tcp")

local wrk = {}

local function run(contender, options, seconds, check)
  local url = ("http://127.0.0.1:%d%s"):format(contender.port, contender.path)
  local args = { "-t1", "-c" .. options.in_flight, ("-d%ds"):format(seconds), "-s", "spec/bench/post.lua", url }
  local child = machine.start("load", "wrk", args, { "BENCH_CHECK=" .. (check and "1" or "0") })
  local code = child:wait(seconds * 1000 + 10000)
  if code ~= 0 then error("wrk failed: " .. child:describe(), 0) end
  local told, line = {}, child.stdout:match("bench (requests[^\n]*)")
  for key, value in line:gmatch("(%w+)=(%d+)") do told[key] = tonumber(value) end
  if told.requests == 0 or told.failed > 0 or told.refused > 0 or told.odd > 0 then
    error(("%s %s: answers are missing or wrong:\n%s"):format(contender.row, contender.product, child.stdout), 0)
  end
  return told, child.stdout
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

--- Warms the contender up, and looks at every answer while that lasts.
function wrk.check(contender, options)
  local told, out = run(contender, options, options.warm_seconds, true)
  local sent, body = out:match("bench sent ([^\n]*)"), out:match("bench body ([^\n]*)")
  if not same(cjson.decode(sent), cjson.decode(body)) then
    error(("%s %s answered %s"):format(contender.row, contender.product, body), 0)
  end
  contender.answer_bytes = told.bytes / told.requests
end

--- Loads it for so long. Answers as long as those that were checked, none failed: wrk looks no closer at full speed.
---@return { requests: integer, seconds: number, p50_us: integer, p99_us: integer }
function wrk.load(contender, options)
  local told = run(contender, options, options.seconds, false)
  local bytes = told.bytes / told.requests
  if math.abs(bytes / contender.answer_bytes - 1) > 0.01 then
    error(("%s %s: answers of %g bytes, not %g"):format(contender.row, contender.product, bytes,
      contender.answer_bytes), 0)
  end
  return { requests = told.requests, seconds = told.us / 1e6, p50_us = told.p50, p99_us = told.p99 }
end

-- A port that was given to it is open when it can be dialled.
local function wait_open(child)
  return loop.wait_until(function()
    local ok, peer = pcall(tcp.connect, child.port)
    if ok then peer:close() end
    return ok and child.port
  end, 20000, function() return "port " .. child.port .. " of " .. child:describe() end)
end

--- Waits until "listening on" or "ready" names the port, or until it is open.
function wrk.wait_port(child)
  if child.port then return wait_open(child) end
  return tonumber(loop.wait_until(function()
    return child.stderr:match("listening on %S+:(%d+)\n") or child.stdout:match("ready (%d+)\n")
  end, 20000, function() return "a port of " .. child:describe() end))
end

return wrk
