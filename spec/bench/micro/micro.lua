--- The Lua operations of `make bench-micro`.
--
--   perigee run spec/bench/micro/micro.lua once          each is done once and its result checked
--   perigee run spec/bench/micro/micro.lua time NAME     prints "NAME <tab> nanoseconds"
--   valgrind ... run spec/bench/micro/micro.lua count NAME LIBRARY   prints "NAME <tab> operations", leaves a dump

local figures = require("spec.bench.table")
local uv = require("luv")

local mode, only, library = ...

local WARM, COUNTED = 1000, 3000 -- what is counted runs as machine code
local ROUNDS, ROUND_NS = 7, 20e6

-- Its own code for each operation, so that none runs on another's traces.
local function looping(op)
  local text = "local op = ... return function(n) local last for _ = 1, n do last = op() end return last end"
  return loadstring(text)(op)
end

local function time(loop)
  local n, ns = 64
  repeat
    n = n * 2
    local from = uv.hrtime()
    loop(n)
    ns = uv.hrtime() - from
  until ns >= ROUND_NS
  local rounds = {}
  for i = 1, ROUNDS do
    collectgarbage()
    local from = uv.hrtime()
    loop(n)
    rounds[i] = (uv.hrtime() - from) / n
  end
  return ("%.1f"):format(figures.median(rounds))
end

local function count(loop, op)
  local ffi = require("ffi")
  ffi.cdef("void micro_count_begin(void); void micro_count_end(const char *);")
  local callgrind = ffi.load(library)
  local n = op.counted or COUNTED
  loop(WARM)
  collectgarbage()
  callgrind.micro_count_begin()
  loop(n)
  callgrind.micro_count_end(op.name)
  return n
end

local MODES = { once = function() return "ok" end, time = time, count = count }

for _, op in ipairs(require("spec.bench.micro.ops")) do
  if not only or op.name == only then
    local loop = looping(op.setup())
    local result = loop(1)
    if result ~= op.wants then error(("%s gives %s, not %s"):format(op.name, tostring(result), tostring(op.wants))) end
    print(op.name .. "\t" .. MODES[mode](loop, op))
    if op.teardown then op.teardown() end
  end
end
