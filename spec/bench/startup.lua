--- From the start of a program to its first accepted connection, and what it holds when nothing happens.

local figures = require("spec.bench.table")
local loop = require("spec.support.loop")
local machine = require("spec.bench.machine")
local process = require("spec.support.process")
local products = require("spec.bench.idle_products")
local tcp = require("spec.support.tcp")

local ROUNDS, QUIET_MS = 21, 1500
local SLOW = { ["Nest 12"] = 3 } -- rounds of what takes a second each

local startup = {}

local function environment(product)
  local list = { "PATH=" .. os.getenv("PATH"), "HOME=" .. (os.getenv("HOME") or "/") }
  for _, pair in ipairs(product.env or {}) do list[#list + 1] = pair end
  return list
end

local function field(path, name)
  local file = io.open(path)
  local text = file and file:read("*a") or ""
  if file then file:close() end
  return tonumber(text:match("\n" .. name .. ":%s*(%d+) kB") or 0) / 1024
end

--- What a program and its children hold, in MB of 1024 * 1024. `pss`: what they share with others is divided.
---@param pid integer
---@return { rss: number, pss: number, own: number, processes: { rss: number, pss: number, own: number }[] }
function startup.memory(pid)
  local sum = { rss = 0, pss = 0, own = 0, processes = {} }
  for _, one in ipairs(machine.processes(pid)) do
    local held = {
      rss = field(("/proc/%d/status"):format(one), "VmRSS"),
      own = field(("/proc/%d/status"):format(one), "RssAnon"),
      pss = field(("/proc/%d/smaps_rollup"):format(one), "Pss"),
    }
    for name, value in pairs(held) do sum[name] = sum[name] + value end
    table.insert(sum.processes, held)
  end
  return sum
end

--- Starts a product under spawned.c.
---@param product bench.Product
---@param port integer that it will listen on
---@return spec.Process
---@return number ms
---@return integer pid
function startup.start(product, port)
  local args = { tostring(port), unpack(product.line) }
  local child = process.start("build/bench/spawned", args, { env = environment(product) })
  local _, us, pid = child:line("^ready (%d+) (%d+)$", 25000)
  return child, tonumber(us) / 1000, tonumber(pid)
end

local function stop(child)
  child:close_stdin()
  child:wait(10000)
end

local function run(make, list)
  local port = tcp.free_port()
  local product = make(port)
  local one = list[product.name] or { product = product.name, starts = {} }
  list[product.name] = one
  if #one.starts >= (SLOW[product.name] or math.huge) then return end
  local child, ms, pid = startup.start(product, port)
  one.starts[#one.starts + 1] = ms
  if #one.starts == 1 then
    loop.run_for(QUIET_MS)
    one.memory = startup.memory(pid)
  end
  stop(child)
end

--- Alternating, so that what the machine does beside hits all of them.
---@param rounds? integer
---@return { product: string, starts: number[], median: number, spread: number, memory: table }[]
function startup.measure(rounds)
  products.build("spawned")
  local list, result = {}, {}
  local made = { products.perigee, products.nginx, products.haproxy, products.nest }
  for _ = 1, rounds or ROUNDS do
    for _, make in ipairs(made) do run(make, list) end
  end
  for _, make in ipairs(made) do
    local one = list[make(0).name]
    one.median, one.spread = figures.median(one.starts)
    one.least = math.min(unpack(one.starts))
    result[#result + 1] = one
  end
  return result
end

function startup.print(result)
  print(("%-12s %10s %8s %8s %11s %8s %8s"):format("start-up", "median ms", "spread", "least", "RSS MB", "own", "Pss"))
  for _, one in ipairs(result) do
    local parts = {}
    for i, each in ipairs(one.memory.processes) do parts[i] = ("%.1f"):format(each.rss) end
    print(("%-12s %10.1f %7.0f%% %8.1f %11.1f %8.1f %8.1f  %s"):format(one.product, one.median, one.spread * 100,
      one.least, one.memory.rss, one.memory.own, one.memory.pss, table.concat(parts, " + ")))
  end
end

return startup
