--- The scripts that are served, and the reloads that replace them by newer versions of themselves.
---
---   prepare: load, check, on_reload, on_start, listeners bound but held -> a candidate
---   commit:  swap in one step                                  abort: nothing has happened
---
--- Each script reloads on its own: one that is refused goes on with the generation it has, and the others are
--- swapped all the same. What a candidate was made of is its bundle; from it another worker makes the same one.

local combinators = require("perigee.combinators")
local core = require("perigee.core")
local errors = require("perigee.errors")
local host = require("perigee.host")
local promise = require("perigee.promise")
local scheduler = require("perigee.scheduler")
local script = require("perigee.script")

-- A generation that has gone is given back to the allocator once reloads have been quiet for so long.
local QUIET_MS, STEP_MS, STEP_SIZE, MAX_STEPS = 300, 5, 400, 2000
local EXIT_CONFIG = 78
local FINISH_MS = 1000 -- for a stop hook of a generation that never served

---@class perigee.BundledScript
---@field path string
---@field number integer of its generation
---@field files table<string, string> sources by path

---@class perigee.Refusal
---@field script string path
---@field error any
---@field where? string file:line the error was raised at, when its text does not say
---@field exit integer the status of a program that cannot start for it: 78 for what the script says, else 1

---@class perigee.ReloadSet
---@field private scripts string[]
---@field private load_ms? integer how long one script may take to load
---@field private host perigee.Host
---@field private current table<integer, perigee.Generation> by index of the script
---@field private under_way? perigee.Preparation
---@field private stopping? perigee.Promise
---@field private cancelled integer calls that drain timeouts have ended, ever
local Set = {}
Set.__index = Set
Set.__name = "perigee.reload"

---@class perigee.Preparation a reload between the call of prepare and its commit or abort
---@field work? perigee.Promise of the candidate
---@field ended perigee.Promise settles when nothing is left of it to do
---@field candidate? perigee.Candidate

---@class perigee.Candidate
---@field bundle perigee.BundledScript[] one for each script
---@field changes { script: string, old: integer?, new: integer }[] what commit will swap
---@field refused perigee.Refusal[]
---@field is_same boolean no script has changed since it was last loaded
---@field private set perigee.ReloadSet
---@field private plan perigee.Plan
---@field private is_over boolean it was committed or aborted
local Candidate = {}
Candidate.__index = Candidate
Candidate.__name = "perigee.candidate"

--- Collecting ---------------------------------------------------------------------------------------------------

-- In small steps, so that no request waits for a whole collection. Traces and idle coroutines keep the functions
-- they have run.
local function collect(set, token, steps)
  if set.quiet ~= token then return end
  if steps == 0 then
    scheduler.trim()
    jit.flush()
  end
  local ended = collectgarbage("step", STEP_SIZE)
  if ended then set.cycles = set.cycles + 1 end
  if set.cycles == 2 or steps == MAX_STEPS then return end -- what the first finalises, the second frees
  scheduler.after(STEP_MS, function() collect(set, token, steps + 1) end)
end

local function collect_later(set)
  local token = {}
  set.quiet, set.cycles = token, 0
  scheduler.after(QUIET_MS, function()
    if next(set.host.retiring) == nil then collect(set, token, 0) end
  end)
end

---@param options { scripts: string[], listen?: string[], stamp?: boolean, drain_timeout?: integer, load_ms?: integer }
---@return perigee.ReloadSet
local function new(options)
  local self = setmetatable({
    scripts = options.scripts, load_ms = options.load_ms, current = {}, cancelled = 0,
  }, Set)
  self.host = host.new({ listen = options.listen, stamp = options.stamp, drain_timeout = options.drain_timeout })
  self.host.on_retired = function(generation)
    self.cancelled = self.cancelled + generation.cancelled
    collect_later(self)
  end
  return self
end

--- Preparing ----------------------------------------------------------------------------------------------------

local function refusal_of(path, err)
  if type(err) == "table" and errors.field(err, "cause") ~= nil and not errors.is(err) then -- as script.load raises it
    return { script = path, error = err.cause, where = err.where, exit = EXIT_CONFIG }
  end
  local is_config = errors.is(err) and (err.code == "INVALID_OPTION" or err.message:find("^listen EAI_NONAME "))
  return { script = path, error = err, exit = is_config and EXIT_CONFIG or 1 }
end

---@param refusal any
---@return boolean
local function is_refusal(refusal)
  return type(refusal) == "table" and refusal.script ~= nil and refusal.error ~= nil
end

-- The generations with one replaced, in the order of the scripts.
local function with(generations, i, generation, count)
  local list = {}
  for k = 1, count do
    local one = k == i and generation or k ~= i and generations[k] or nil
    if one then list[#list + 1] = one end
  end
  return list
end

-- Reading scripts may take as long as loading them.
local function admit(made)
  core.loading(true)
  local ok, err = xpcall(require("perigee.check").admit, errors.on_raise, made) -- large, and needed for a moment only
  core.loading(false)
  if not ok then error(err, 0) end
end

local function make(set, generations, i, bundled)
  local path, old = set.scripts[i], set.current[i]
  local number = bundled and bundled.number or (old and old.number or 0) + 1
  local made = script.load(path, number, bundled and bundled.files, set.load_ms)
  local ok, err = xpcall(function()
    -- A bundle was admitted where it was made.
    if not bundled then admit(made) end
    set.host:check(with(generations, i, made, #set.scripts))
    made:start(old)
  end, errors.on_raise)
  if ok then return made end
  made:finish(FINISH_MS)
  error(err, 0)
end

local function finish_all(made)
  for _, generation in pairs(made) do generation:finish(FINISH_MS) end
end

local function listen(candidate, generations)
  local list = with(generations, 0, nil, #candidate.set.scripts)
  if candidate.set.host:check(list) == 0 then
    error(errors.make("INVALID_OPTION", "there is nothing to listen on: app:listen(URL) or --listen URL"), 0)
  end
  candidate.plan = candidate.set.host:prepare(list)
end

-- Whoever asked for it has given up; a script can take that for an error of its own and go on.
local function is_unwanted(set)
  local work = set.under_way.work
  return work and work.state ~= "pending"
end

local function unwanted(set)
  return refusal_of(set.scripts[1], errors.make("CANCELLED", "given up before it served"))
end

local function load_all(candidate, bundle)
  local set, generations, made = candidate.set, {}, {}
  for i in ipairs(set.scripts) do generations[i] = set.current[i] end
  for i, path in ipairs(set.scripts) do
    if is_unwanted(set) then
      finish_all(made)
      error(unwanted(set), 0)
    end
    local same = bundle and set.current[i] and bundle[i].number == set.current[i].number
    local ok, result = true, nil
    if not same then ok, result = pcall(make, set, generations, i, bundle and bundle[i]) end
    if not ok then
      candidate.refused[#candidate.refused + 1] = refusal_of(path, result)
    elseif result then
      generations[i], made[i] = result, result
    end
  end
  for i in ipairs(set.scripts) do
    if not generations[i] then -- at the first time, all or nothing
      finish_all(made)
      error(candidate.refused[1], 0)
    end
  end
  return generations, made
end

local function same_files(a, b)
  for path, text in pairs(a) do
    if b[path] ~= text then return false end
  end
  for path in pairs(b) do
    if a[path] == nil then return false end
  end
  return true
end

local function describe(candidate, generations)
  local set = candidate.set
  candidate.is_same = true
  for i, path in ipairs(set.scripts) do
    local one, old = generations[i], set.current[i]
    candidate.bundle[i] = { path = path, number = one.number, files = one:files() }
    if one ~= old then
      candidate.changes[#candidate.changes + 1] = { script = path, old = old and old.number, new = one.number }
      if not old or not same_files(one:files(), old:files()) then candidate.is_same = false end
    end
  end
end

local function give_up(candidate)
  candidate.is_over = true
  candidate.set.host:abort(candidate.plan):await()
  finish_all(candidate.made)
end

local function prepare(set, bundle)
  local candidate = setmetatable({ set = set, bundle = {}, changes = {}, refused = {}, is_over = false }, Candidate)
  local generations, made = load_all(candidate, bundle)
  if next(made) == nil then error(candidate.refused[1], 0) end
  local ok, err = xpcall(listen, errors.on_raise, candidate, generations)
  if not ok then
    finish_all(made)
    error(refusal_of(set.scripts[1], err), 0)
  end
  candidate.generations, candidate.made = generations, made
  describe(candidate, generations)
  if not is_unwanted(set) then return candidate end
  give_up(candidate)
  error(unwanted(set), 0)
end

local function over(set)
  local ended = set.under_way.ended
  set.under_way = nil
  promise.settle(ended, true)
end

local function check_free(set)
  local err
  if set.stopping then
    err = errors.make("CANCELLED", "it is being stopped")
  elseif set.under_way then
    err = errors.make("OVERLOADED", "another reload is under way")
  end
  if err then error(refusal_of(set.scripts[1], err), 0) end
end

--- Loads each script anew. Rejects with a perigee.Refusal when there is nothing to swap: no script could be loaded, or
--- at the first time not all. While one is being prepared, or waits for its end, another is refused.
---@param bundle? perigee.BundledScript[] what to make it of instead of the files on disk; scripts whose number is that
--- of their present generation stay as they are
---@return perigee.Promise of a perigee.Candidate
function Set:prepare(bundle)
  local under_way = { ended = promise.bare() }
  under_way.work = combinators.async(function()
    check_free(self)
    self.under_way = under_way
    local ok, result = pcall(prepare, self, bundle)
    if ok then
      under_way.candidate = result
      return result
    end
    over(self)
    error(result, 0)
  end)
  return under_way.work:catch(function(err)
    if is_refusal(err) then error(err, 0) end
    error(errors.is(err) and err.code == "CANCELLED" and unwanted(self) or refusal_of(self.scripts[1], err), 0)
  end)
end

--- From the next request on, the new generations serve. Nothing when it was aborted, as a stop does.
---@return boolean is_done
function Candidate:commit()
  local set = self.set
  if self.is_over then return false end
  self.is_over = true
  over(set)
  set.current = self.generations
  set.host:commit(self.plan)
  return true
end

--- Nothing has happened, but for what on_reload and on_start did; the stop hooks run.
---@return perigee.Promise
function Candidate:abort()
  return combinators.async(function()
    if self.is_over then return end
    give_up(self)
    over(self.set)
  end)
end

--- Looking at it ------------------------------------------------------------------------------------------------

local function digest(files)
  local paths, parts = {}, {}
  for path in pairs(files) do paths[#paths + 1] = path end
  table.sort(paths)
  for i, path in ipairs(paths) do parts[i] = ("%s %d %s"):format(path, #files[path], files[path]) end
  return core.sha256(table.concat(parts, "\n"))
end

---@class perigee.ReloadStatus
---@field scripts { file: string, generation: integer, loaded_at: integer, hash: string, calls: integer }[]
---@field old { file: string, generation: integer, calls: integer }[] those that still end their calls
---@field cancelled integer calls that drain timeouts have ended, ever

---@return perigee.ReloadStatus
function Set:status()
  local status = { scripts = {}, old = {}, cancelled = self.cancelled }
  for i, path in ipairs(self.scripts) do
    local one = self.current[i]
    if one then
      one.hash = one.hash or digest(one:files())
      status.scripts[#status.scripts + 1] = {
        file = path, generation = one.number, loaded_at = one.loaded_at, hash = one.hash,
        calls = self.host:calls(one),
      }
    end
  end
  for generation in pairs(self.host.retiring) do
    status.old[#status.old + 1] = {
      file = generation.path, generation = generation.number, calls = self.host:calls(generation),
    }
  end
  table.sort(status.old, function(a, b) return a.generation < b.generation end)
  return status
end

--- The files the present generations were made of: those to watch.
---@return string[]
function Set:files()
  local seen, list = {}, {}
  for _, path in ipairs(self.scripts) do seen[path] = true end
  for _, generation in pairs(self.current) do
    for path in pairs(generation:files()) do seen[path] = true end
  end
  for path in pairs(seen) do list[#list + 1] = path end
  table.sort(list)
  return list
end

--- URLs of the open listeners.
---@return string[]
function Set:addresses() return self.host:addresses() end

local function stop(set, options)
  local under_way, drained = set.under_way, set.host:stop(options)
  if under_way then
    if under_way.candidate then
      under_way.candidate:abort():await()
    else
      under_way.work:cancel()
    end
    under_way.ended:await()
  end
  drained:await()
end

--- Drains all and ends it, a reload under way included.
---@param options? { drain_timeout: integer? }
---@return perigee.Promise
function Set:stop(options)
  if not self.stopping then
    self.stopping = promise.pending()
    promise.run(self.stopping, stop, self, options)
  end
  return self.stopping
end

return { new = new, is_refusal = is_refusal }
