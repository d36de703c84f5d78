--- perigee status: what a running `perigee serve` is at.

local arguments = require("perigee.cli.arguments")
local door = require("perigee.cli.door")
local json = require("perigee.json")

local FLAGS = { ["--admin"] = { value = "text" }, ["--pid"] = { value = "text" }, ["--json"] = {} }

local function say(...) io.stdout:write(string.format(...), "\n") end

local function given(value)
  if value == json.null then return nil end
  return value
end

local function time(seconds) return os.date("%Y-%m-%d %H:%M:%S", seconds) end

local UNITS = { { "d", 86400 }, { "h", 3600 }, { "min", 60 }, { "s", 1 } }

-- The two largest units: "3 h 12 min".
local function span(seconds)
  local parts = {}
  for _, unit in ipairs(UNITS) do
    local n = math.floor(seconds / unit[2])
    if (n > 0 or parts[1]) and #parts < 2 then parts[#parts + 1] = n .. " " .. unit[1] end
    seconds = seconds - n * unit[2]
  end
  return parts[1] and table.concat(parts, " ") or "0 s"
end

-- One line for each generation of a script, though each worker has it: they are the same, unless one is catching up.
-- A worker that was replaced has loaded it later.
local function say_scripts(workers)
  local list, seen = {}, {}
  for _, worker in ipairs(workers) do
    local status = given(worker.status)
    for _, one in ipairs(status and status.scripts or {}) do
      local key = ("%s: generation %d, %%s, sha256 %s"):format(one.file:gsub("%%", "%%%%"), one.generation,
        one.hash:sub(1, 16))
      if not seen[key] then list[#list + 1] = key end
      seen[key] = math.min(seen[key] or one.loaded_at, one.loaded_at)
    end
  end
  for _, key in ipairs(list) do say(key, "loaded " .. time(seen[key])) end
end

local function say_worker(worker)
  local status = given(worker.status) or { scripts = {}, old = {}, cancelled = 0 }
  local calls = 0
  for _, one in ipairs(status.scripts) do calls = calls + one.calls end
  say("worker %d: %s%s, %d calls, %d restarts, heard %d ms ago", worker.index, worker.state,
    given(worker.pid) and (", pid %d"):format(worker.pid) or "", calls, worker.restarts, worker.heard_ms_ago)
  for _, one in ipairs(status.old) do
    say("  %s: generation %d still has %d calls", one.file, one.generation, one.calls)
  end
  if status.cancelled > 0 then say("  calls that the drain timeout has ended: %d", status.cancelled) end
end

local function say_last(last)
  if not last then return end
  say("last reload %s: %s", time(last.at / 1000), last.ok and "good" or "refused: " .. last.error)
end

---@param argv string[]
---@return integer exit
return function(argv)
  local rest, flags = arguments.parse(argv, FLAGS)
  if rest[1] then arguments.usage("it takes no '%s'", rest[1]) end
  local status, text = door.ask(door.find(flags), "GET", "/status")
  if flags.json then
    io.stdout:write(text, "\n")
    return 0
  end
  say("perigee, pid %d, up %s%s", status.pid, span(status.uptime_ms / 1000), status.stopping and ", ending" or "")
  for _, url in ipairs(status.listening) do say("listening on %s", url) end
  say_scripts(status.workers)
  for _, worker in ipairs(status.workers) do say_worker(worker) end
  say_last(given(status.last_reload))
  return 0
end
