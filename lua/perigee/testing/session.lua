--- One test: its clock, what it has loaded, what was logged, what has gone wrong beside its own assertions. busted's
--- tests are wrapped here; the next session begins when a test has ended, so that before_each belongs to its test.

local core = require("perigee.core")
local errors = require("perigee.errors")
local log = require("perigee.log")
local scheduler = require("perigee.scheduler")
local uv = require("luv")
local watch = require("perigee.testing.watch")

local LIMIT_MS = 10000 -- of a test, in real time; virtual time costs none

---@class perigee.testing.Session
---@field subjects perigee.testing.Subject[]
---@field logs { level: string, text: string }[]
---@field private failures any[]
---@field private told table<any, true>
---@field private start_ms number
local Session = {}
Session.__index = Session

local current
local guard -- a real timer, so that a test which never ends does
local limit_ms = LIMIT_MS

--- ms of the virtual clock since it began.
---@return number
function Session:now()
  return core.now() - self.start_ms
end

--- Fails the test at its end, whatever the script makes of the error.
---@param failure any a text, or what busted's assertions raise
---@param err? any what the script gets to see of it
function Session:fail(failure, err)
  self.failures[#self.failures + 1] = failure
  if err ~= nil then self.told[err] = true end
end

--- Whether a failed assertion of busted was raised.
function Session.is_failure(err)
  local mt = debug.getmetatable(err)
  return type(mt) == "table" and mt.__type == "failure"
end

local function collect(line, level)
  current.logs[#current.logs + 1] = { level = level, text = (line:gsub("^perigee: %a+: ", "")) }
end

local function begin()
  watch.forget()
  current = setmetatable({ subjects = {}, logs = {}, failures = {}, told = {}, start_ms = core.now() }, Session)
  log.set_sink(collect)
end

---@return perigee.testing.Session
local function get()
  return current
end

local function add_all(list, more)
  for _, item in ipairs(more) do list[#list + 1] = item end
end

-- In order: what the test has left behind, then the ends of its apps and what those leave behind.
local function finish(self)
  if self.over then return end
  self.over = true
  watch.settle()
  add_all(self.failures, watch.leftovers(self.told))
  watch.cancel(false)
  for _, subject in ipairs(self.subjects) do
    local ok, err = pcall(subject.stop, subject)
    if not ok then self:fail("stopping " .. subject.path .. ": " .. tostring(err)) end
  end
  watch.settle()
  add_all(self.failures, watch.leftovers(self.told))
  watch.cancel(true)
end

-- One that failed an assertion inside a fake is that failure; all others are told together, once each.
local function verdict(self, element)
  local texts, seen = {}, {}
  for _, failure in ipairs(self.failures) do
    if type(failure) ~= "string" then return failure end
    if not seen[failure] then texts[#texts + 1] = failure end
    seen[failure] = true
  end
  if #texts == 0 then return nil end
  local text, trace = table.concat(texts, "\n"), element.trace
  if trace and not text:find("^[^\n]-:%d+: ") then
    text = ("%s:%d: %s"):format(trace.short_src, trace.currentline, text)
  end
  return text
end

local function interrupted()
  scheduler.interrupt(errors.make("TIMEOUT", ("the test has run for %g ms and still waits"):format(limit_ms)))
end

--- busted -------------------------------------------------------------------------------------------------------

local function wrap(busted, element, run)
  return function(...)
    run(...)
    finish(current)
    local failure = verdict(current, element)
    if type(failure) == "string" then return busted.fail(failure, 0) end
    if failure ~= nil then error(failure, 0) end
  end
end

local function show_logs(self)
  io.stdout:flush()
  for _, entry in ipairs(self.logs) do io.stderr:write("perigee: ", entry.level, ": ", entry.text, "\n") end
end

-- An error that an await raises was raised in perigee; the line to show is the one that awaited.
local OWN = debug.getinfo(1, "S").short_src:match("^(.*)testing/session%.lua$")

local function trace_to_user(element)
  local file = element.run
  if type(file) ~= "table" or not file.getTrace then return end
  local get_trace = file.getTrace
  file.getTrace = function(name, info)
    for source, line in info.traceback:gmatch("\n%s*([^\n:]+):(%d+): in") do
      if OWN and source:sub(1, #OWN) ~= OWN then
        info.short_src, info.currentline = source, tonumber(line)
        break
      end
    end
    return get_trace(name, info)
  end
end

local function turn_on()
  guard = guard or uv.new_timer()
  guard:unref()
  core.virtual_clock(true)
  watch.on()
  begin()
end

local function turn_off()
  core.virtual_clock(false)
  watch.off()
  log.set_sink(nil)
  limit_ms = LIMIT_MS
  guard:stop()
end

-- busted forgets modules at the end of a file: a copy of this one that another file has loaded is no longer asked.
local function is_ours()
  return package.loaded["perigee.testing.session"] ~= nil and package.loaded["perigee.testing.session"].get == get
end

---@param busted table
local function attach(busted)
  local function on(channel, fn)
    busted.subscribe(channel, function(...)
      if is_ours() then fn(...) end
      return nil, true
    end)
  end
  on({ "file", "start" }, function(element)
    trace_to_user(element)
    turn_on()
  end)
  on({ "file", "end" }, turn_off)
  on({ "test", "start" }, function(element)
    element.run_bare = element.run
    element.run = wrap(busted, element, element.run)
    guard:start(limit_ms, 0, interrupted)
  end)
  on({ "test", "end" }, function(element, _, status)
    if element.run_bare then element.run, element.run_bare = element.run_bare, nil end
    finish(current)
    guard:stop()
    if status ~= "success" and status ~= "pending" then show_logs(current) end
    begin()
  end)
end

--- Begins: with busted a session for each test, else one for all.
local function install()
  local busted = package.loaded.busted
  if busted and busted.subscribe then attach(busted) end
  turn_on()
end

--- How long a test may take in real time: this one, or all that follow in the file.
---@param ms integer
local function set_limit(ms)
  if type(ms) ~= "number" or ms < 1 or ms > 2 ^ 31 - 1 then
    error(errors.misuse("INVALID_OPTION", "limit takes milliseconds from 1, got " .. tostring(ms)), 0)
  end
  limit_ms = ms
  if guard:is_active() then guard:start(limit_ms, 0, interrupted) end
end

return { get = get, install = install, set_limit = set_limit }
