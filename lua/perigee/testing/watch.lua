--- What has been started and has not ended: coroutines, timers, rejections nobody handles. While on, the scheduler's
--- `start` and `after` are replaced by versions that remember; off, nothing of this costs anything.

local errors = require("perigee.errors")
local promise = require("perigee.promise")
local scheduler = require("perigee.scheduler")
local where = require("perigee.where")

local start, start_two, after = scheduler.start, scheduler.start_two, scheduler.after

local MAX_ROUNDS = 16 -- of cancelling: what is cancelled may start more
local QUIET_TURNS, MAX_TURNS = 3, 1000 -- turns in which nothing new begins, and all of them

---@class perigee.testing.Entry
---@field func? function where it was started
---@field line? integer
---@field background boolean started while an app was loaded or started: it may last as long as the app
---@field task? perigee.Task
---@field timer? table

local watch = {}

local entries, count, limit = {}, 0, 256 -- entry -> true; ended ones are swept out when there are many
local begun = 0 -- ever
local notes = {}
local background = false

local function is_live(entry)
  if entry.task then return not entry.task.ended end
  return entry.timer ~= nil
end

local function add(entry)
  entries[entry] = true
  count, begun = count + 1, begun + 1
  if count < limit then return end
  count = 0
  for other in pairs(entries) do
    if is_live(other) then count = count + 1 else entries[other] = nil end
  end
  limit = 2 * count + 256
end

local function watched(begin)
  return function(on_done, fn, ...)
    local func, line = where.capture()
    local task = begin(on_done, fn, ...)
    if not task.ended then add({ task = task, func = func, line = line, background = background }) end
    return task
  end
end

local Timer = {}
Timer.__index = Timer

function Timer:cancel()
  self.timer = nil
  return self.real:cancel()
end

local function fire(entry)
  entry.timer = nil
  return entry.fn(entry.arg)
end

local function watched_after(ms, fn, arg)
  local func, line = where.capture()
  local entry = setmetatable({ func = func, line = line, background = background, fn = fn, arg = arg }, Timer)
  entry.real = after(ms, fire, entry)
  entry.timer = entry
  add(entry)
  return entry
end

--- Begins to remember.
function watch.on()
  scheduler.start, scheduler.start_two, scheduler.after = watched(start), watched(start_two), watched_after
  promise.watch_unhandled(function(note) notes[#notes + 1] = note end)
end

--- Ends it, and forgets.
function watch.off()
  scheduler.start, scheduler.start_two, scheduler.after = start, start_two, after
  promise.watch_unhandled(nil)
  watch.forget()
end

function watch.forget()
  entries, count, notes = {}, 0, {}
end

--- Runs fn(...) with what it starts marked as lasting as long as the app.
function watch.in_background(fn, ...)
  local before = background
  background = true
  local ok, err = pcall(fn, ...)
  background = before
  if not ok then error(err, 0) end
end

-- Timers without delay fire before time moves, so this lets everything run that needs no time.
local function turn()
  local done = promise.bare()
  after(0, function() promise.settle(done, true) end)
  done:await()
end

--- Lets run what is ready, and what that makes ready. Time does not move.
function watch.settle()
  local quiet = 0
  for _ = 1, MAX_TURNS do
    local before = begun
    turn()
    quiet = begun == before and quiet + 1 or 0
    if quiet == QUIET_TURNS then return end
  end
end

local function at(entry)
  return where.text(entry.func, entry.line)
end

-- Of what perigee itself has started for work that is in the list, nobody knows a line.
local function without_unknown(list)
  local known = {}
  for _, text in ipairs(list) do
    if text:sub(1, 2) ~= "?:" then known[#known + 1] = text end
  end
  return #known > 0 and known or list
end

--- What has not ended, one line each, background work left out; rejections nobody has handled so far.
---@param told table<any, true> errors that are known already
---@return string[]
function watch.leftovers(told)
  local list, seen = {}, {}
  local function tell(place, text)
    if seen[place] then return end
    seen[place] = true
    list[#list + 1] = place .. ": " .. text
  end
  for entry in pairs(entries) do
    local runs = entry.task and is_live(entry) and not entry.background
    if runs then tell(at(entry), "what was started here still runs") end
  end
  for entry in pairs(entries) do
    if entry.timer and not entry.background then tell(at(entry), "what was started here still waits") end
  end
  for _, note in ipairs(notes) do
    if not note.handled then
      note.handled = true
      local text = "nobody handles this failure: " .. tostring(errors.from(note.err))
      if not told[note.err] then tell(where.text(note.func, note.line), text) end
    end
  end
  table.sort(list)
  return without_unknown(list)
end

local function live(of_background)
  local list = {}
  for entry in pairs(entries) do
    if is_live(entry) and (of_background or not entry.background) then list[#list + 1] = entry end
  end
  return list
end

--- Cancels what has not ended, and what that starts meanwhile.
---@param of_background boolean that too
function watch.cancel(of_background)
  for _ = 1, MAX_ROUNDS do
    local list = live(of_background)
    if #list == 0 then break end
    for _, entry in ipairs(list) do
      if entry.task then entry.task:cancel() else entry:cancel() end
    end
    watch.settle()
  end
  notes = {} -- of what was cancelled
end

return watch
