--- The machine under the bench: processes on their cores, and what the kernel counted for them.

local ffi = require("ffi")
local uv = require("luv")
local loop = require("spec.support.loop")
local process = require("spec.support.process")
local tcp = require("spec.support.tcp")

ffi.cdef([[
typedef struct { long sec; long nsec; } pge_bench_time;
int clock_getcpuclockid(int pid, int *clock);
int clock_gettime(int clock, pge_bench_time *time);
]])

local machine = {}

local cores = #uv.cpu_info()
local pinned = cores > 1 and os.getenv("BENCH_PIN") ~= "0"

-- What is measured has the last core for itself; the load and the service behind share the others.
local PLACES = { measured = tostring(cores - 1), load = cores > 2 and ("0-" .. cores - 2) or "0" }

--- Starts a program in its place.
---@param place "measured"|"load"
---@param env? string[] added to PATH and HOME
---@return spec.Process
function machine.start(place, file, args, env)
  local all = { "PATH=" .. os.getenv("PATH"), "HOME=" .. (os.getenv("HOME") or "/") }
  for _, pair in ipairs(env or {}) do all[#all + 1] = pair end
  if not pinned then return process.start(file, args, { env = all }) end
  local line = { "-c", PLACES[place], file }
  for _, arg in ipairs(args) do line[#line + 1] = arg end
  return process.start("taskset", line, { env = all }) -- it becomes the program: the pid stays
end

--- Moves a program that runs already to its place.
---@param place "measured"|"load"
function machine.place(place, pid)
  if pinned then os.execute(("taskset -apc %s %d >/dev/null"):format(PLACES[place], pid)) end
end

-- A port that was given to it is open when it can be dialled.
local function wait_open(child)
  for _ = 1, 2000 do
    local ok, peer = pcall(tcp.connect, child.port)
    if ok then
      peer:close()
      return child.port
    end
    loop.run_for(10)
  end
  error(("port %d is not open: %s"):format(child.port, child:describe()), 0)
end

--- Waits until "listening on" or "ready" names the port, or until it is open.
---@return integer
function machine.wait_port(child)
  if child.port then return wait_open(child) end
  return tonumber((loop.wait_until(function()
    return child.stderr:match("listening on %S+:(%d+)\n") or child.stdout:match("ready (%d+)\n")
  end, 20000, function() return "a port of " .. child:describe() end)))
end

-- `perigee serve` is two processes: its supervisor and the worker that does the work. Both count.
---@param pid integer
---@return integer[] the process itself, then its children
function machine.processes(pid)
  local file = assert(io.open(("/proc/%d/task/%d/children"):format(pid, pid)))
  local pids = { pid }
  for child in file:read("*a"):gmatch("%d+") do pids[#pids + 1] = tonumber(child) end
  file:close()
  return pids
end

local function sum(pid, fn)
  local all = 0
  for _, one in ipairs(machine.processes(pid)) do all = all + fn(one) end
  return all
end

local function cpu_us(pid)
  local clock, time = ffi.new("int[1]"), ffi.new("pge_bench_time[1]")
  assert(ffi.C.clock_getcpuclockid(pid, clock) == 0 and ffi.C.clock_gettime(clock[0], time) == 0, "no such process")
  return tonumber(time[0].sec) * 1e6 + tonumber(time[0].nsec) / 1e3
end

local function resident_mb(pid)
  local file = assert(io.open(("/proc/%d/status"):format(pid)))
  local kb = file:read("*a"):match("VmRSS:%s*(%d+) kB")
  file:close()
  return tonumber(kb) / 1024
end

--- CPU time of a process and its children so far, ended threads included, in microseconds.
function machine.cpu_us(pid) return sum(pid, cpu_us) end

--- Resident memory of a process and its children now, in MB of 1024 * 1024. What they share counts twice.
function machine.resident_mb(pid) return sum(pid, resident_mb) end

---@return number[] load averages of 1, 5 and 15 minutes
function machine.load_average()
  return { uv.loadavg() }
end

function machine.describe()
  local os_name = uv.os_uname()
  return {
    cpu = uv.cpu_info()[1].model, cores = cores, pinned = pinned,
    system = ("%s %s %s"):format(os_name.sysname, os_name.release, os_name.machine),
  }
end

return machine
