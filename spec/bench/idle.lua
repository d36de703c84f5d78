--- What a connection on which nothing happens holds: bytes of process memory, beside what the kernel has of it.

local loop = require("spec.support.loop")
local process = require("spec.support.process")
local products = require("spec.bench.idle_products")
local startup = require("spec.bench.startup")
local tcp = require("spec.support.tcp")

local COUNT, FIRST, FIRST_TIMES, QUIET_MS = 10000, 100, 100, 3000

local idle = {}

local function hold(count, port, what, times)
  local child = process.start("build/bench/held", { tostring(count), tostring(port), what, tostring(times) })
  child:line("^open", 60000)
  return child
end

local function release(child)
  child:close_stdin()
  child:wait(20000)
end

-- A hundred are there before, and have asked for all that is to come: what is made once, and what the collector of
-- Lua leaves, is none of the connections'.
local function measure(make, what, count)
  local port, tcp_port = tcp.free_port(), tcp.free_port()
  local product = make(port, tcp_port)
  local child, _, pid = startup.start(product, port)
  local at = what == "nest" and tcp_port or port
  local first = hold(FIRST, at, what, FIRST_TIMES)
  loop.run_for(QUIET_MS)
  local before = startup.memory(pid)
  local all = hold(count, at, what, 1)
  local busy = startup.memory(pid)
  loop.run_for(QUIET_MS)
  local after = startup.memory(pid)
  release(all)
  release(first)
  release(child)
  return {
    product = product.name, what = what, count = count, before_mb = before.own, after_mb = after.own,
    bytes_at_once = (busy.own - before.own) * 1024 * 1024 / count,
    bytes = (after.own - before.own) * 1024 * 1024 / count,
  }
end

---@param count? integer
---@return { product: string, what: string, bytes: number }[]
function idle.measure(count)
  products.build("spawned")
  products.build("held")
  count = count or COUNT
  local result = {}
  for _, row in ipairs({
    { products.perigee, "open" }, { products.perigee, "http" }, { products.perigee, "nest" },
    { products.nginx, "open" }, { products.nginx, "http" },
    { products.haproxy, "open" }, { products.haproxy, "http" },
  }) do
    result[#result + 1] = measure(row[1], row[2], count)
  end
  return result
end

local TEXTS = { open = "just opened", http = "after one request", nest = "Nest TCP, after one message" }

function idle.print(result)
  print(("%-12s %-28s %12s %14s"):format("idle", "connections", "bytes each", "before quiet"))
  for _, one in ipairs(result) do
    print(("%-12s %-28s %12.0f %14.0f"):format(one.product, ("%d, %s"):format(one.count, TEXTS[one.what]), one.bytes,
      one.bytes_at_once))
  end
end

return idle
