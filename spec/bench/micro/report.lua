--- What the programs of `make bench-micro` have found, beside the figures kept in the file `baseline`.
--
--   luajit spec/bench/micro/report.lua FOLDER [keep]     FOLDER has the files times, counts and dumps/*

local machine = require("spec.bench.machine")
local uv = require("luv")

local folder, keep = ...
local BASELINE = "spec/bench/micro/baseline"
local MARKED = 0.03 -- instructions: a change beyond it is worth a look

local function output_of(command)
  local pipe = assert(io.popen(command))
  local line = pipe:read("*l")
  pipe:close()
  return line
end

-- "NAME <tab> number" lines: each name's number, and the names in their order.
local function read_lines(path)
  local numbers, names = {}, {}
  for line in io.lines(path) do
    local name, number = line:match("^(.+)\t([%d.]+)$")
    if not numbers[name] then names[#names + 1] = name end
    numbers[name] = tonumber(number)
  end
  return numbers, names
end

-- What callgrind counted for each name, one figure for each run.
local function read_dumps(path)
  local totals = {}
  for file in uv.fs_scandir_next, uv.fs_scandir(path) do
    local text = assert(io.open(path .. "/" .. file)):read("*a")
    local name = text:match("\ndesc: Trigger: Client Request: ([^\n]+)")
    if name then
      totals[name] = totals[name] or {}
      table.insert(totals[name], tonumber(text:match("\ntotals: (%d+)")))
    end
  end
  return totals
end

local function read_baseline()
  local kept, head = {}, nil
  local file = io.open(BASELINE)
  for line in file and file:lines() or function() end do
    local name, instructions, ns = line:match("^(%S.-)%s+([%d.]+)%s+([%d.]+)$")
    if name then
      kept[name] = { instructions = tonumber(instructions), ns = tonumber(ns) }
    else
      head = head or line:match("^# (.+)")
    end
  end
  if file then file:close() end
  return kept, head
end

local function write_baseline(head, list)
  local file = assert(io.open(BASELINE, "w"))
  file:write("# ", head, "\n# operation, instructions, ns; written by `make bench-micro KEEP=1`\n")
  for _, op in ipairs(list) do file:write(("%-26s %12.2f %10.1f\n"):format(op.name, op.instructions, op.ns)) end
  file:close()
end

local function gather()
  local ns, names = read_lines(folder .. "/times")
  local operations = read_lines(folder .. "/counts")
  local totals, list = read_dumps(folder .. "/dumps"), {}
  for i, name in ipairs(names) do
    local runs = assert(totals[name], "nothing was counted of " .. name)
    list[i] = { name = name, ns = ns[name], instructions = math.min(unpack(runs)) / operations[name] }
  end
  return list
end

local function mark(ratio)
  if ratio > 1 + MARKED then return "  more" end
  return ratio < 1 - MARKED and "  less" or ""
end

local function print_beside(list, kept)
  print(("%-26s %10s %12s %10s %10s"):format("operation", "ns", "instructions", "to kept", "ns to kept"))
  for _, op in ipairs(list) do
    local line, old = ("%-26s %10.1f %12.1f"):format(op.name, op.ns, op.instructions), kept[op.name]
    if old then
      local ratio = op.instructions / old.instructions
      print(line .. ("%11.3f%11.2f%s"):format(ratio, op.ns / old.ns, mark(ratio)))
    else
      print(line .. ("%11s%11s"):format("new", "new"))
    end
  end
end

local head = ("%s, %s, %s"):format(machine.describe().cpu, output_of((os.getenv("CC") or "cc") .. " --version"),
  jit.version)
local list, kept, kept_head = gather(), read_baseline()
print_beside(list, kept)
if kept_head and kept_head ~= head then print("kept from " .. kept_head .. "\nnow on    " .. head) end
if keep == "1" then write_baseline(head, list) end
