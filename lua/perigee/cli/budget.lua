--- What scripts may use up in the program: time without yielding, and memory. See core/bind/budget.h.

local core = require("perigee.core")
local errors = require("perigee.errors")
local scheduler = require("perigee.scheduler")

local MIB = 1024 * 1024
local SLICE_MS, LOAD_MS, MEMORY_MIB = 1000, 5000, 256

-- Chunk names of perigee's own code, as in where.lua.
local OWN = debug.getinfo(1, "S").source:match("^(.*)cli/budget%.lua$") or "@perigee/"

local budget = {}

--- The flags, for a command that has them all.
---@type table<string, perigee.Flag>
budget.FLAGS = {
  ["--budget"] = { value = "ms" },
  ["--load-budget"] = { value = "ms" },
  ["--max-memory"] = { value = "mib" },
  ["--no-budget"] = {},
}

-- Called where the script is stopped: the traceback shows what it was doing.
local function on_over(message)
  local err = errors.make("SCRIPT", message)
  err.over_budget = true -- nobody tries that again
  err.traceback = (debug.traceback("", 2):gsub("^\n", ""))
  return err
end

--- Limits what runs from now on. Once in a process.
---@param limits { slice: integer?, load: integer?, max_memory: integer?, ends: boolean? } ms and bytes; nil: none;
--- ends: a process whose scripts hold all the memory they may is of no use, and ends
function budget.limit(limits)
  if not limits.slice and not limits.max_memory then return end
  core.budget({
    slice = limits.slice, load = limits.load, max_memory = limits.max_memory, ends = limits.ends,
    slices = scheduler.slices, own = OWN, on_over = on_over, trim = scheduler.trim,
  })
end

--- The limits of a routing script, as the flags change them.
---@param flags table<string, any> parsed by budget.FLAGS
---@param ends? boolean see `limit`
function budget.start(flags, ends)
  local off = flags.no_budget
  local slice = flags.budget or (not off and SLICE_MS) or nil
  local memory = flags.max_memory or (not off and MEMORY_MIB) or nil
  budget.limit({
    slice = slice, load = slice and (flags.load_budget or math.max(LOAD_MS, slice)),
    max_memory = memory and memory * MIB, ends = ends,
  })
end

return budget
