--- Calls without pause, for specs that break things meanwhile: every call has to end, in time, with a value or a code.

local perigee = require("perigee")
local loop = require("spec.support.loop")
local uv = require("luv")

local AFTER_FAILURE_MS = 5 -- what a caller with manners waits
local SLACK_MS = 1000 -- a busy machine's

---@class spec.Load
---@field answered integer
---@field failed table<string, integer> by code
---@field wrong string[] calls that ended otherwise than calls may
local Load = {}
Load.__index = Load

local function call(self, pattern, timeout)
  self.asked = self.asked + 1
  local token, began = self.asked, uv.hrtime()
  local reply = self.client:send(pattern, { token = token }, { timeout = timeout })
  local ok, got = pcall(reply.await, reply)
  local ms = (uv.hrtime() - began) / 1e6
  if ms > timeout + SLACK_MS then table.insert(self.wrong, ("a call of %d ms"):format(ms)) end
  if ok then
    self.answered = self.answered + 1
    if type(got) ~= "table" or got.token ~= token then table.insert(self.wrong, "another call's answer") end
    return true
  end
  local code = type(got) == "table" and got.code
  if not code then table.insert(self.wrong, tostring(got)) end
  self.failed[code or "?"] = (self.failed[code or "?"] or 0) + 1
end

local function lane(self, patterns, first, timeout)
  local i = first
  while self.is_running do
    if not call(self, patterns[i % #patterns + 1], timeout) and self.is_running then
      perigee.sleep(AFTER_FAILURE_MS):await()
    end
    i = i + 1
  end
end

--- Waits until n more calls have been answered.
---@return integer ms how long that took
function Load:await_answers(n, ms)
  local wanted, began = self.answered + n, uv.hrtime()
  loop.wait_until(function() return self.answered >= wanted end, ms or 10000, function()
    local codes = {}
    for code, count in pairs(self.failed) do codes[#codes + 1] = code .. " " .. count end
    return ("%d answers of %d; failed: %s"):format(wanted, self.answered, table.concat(codes, ", "))
  end)
  return (uv.hrtime() - began) / 1e6
end

--- Ends it when all calls have ended.
function Load:stop()
  self.is_running = false
  perigee.all(self.lanes):await()
  return self
end

--- Starts it. The service has to answer a call with its data.
---@param client perigee.Client
---@param patterns any[]
---@param options? { width?: integer, timeout?: integer } calls at once, 16; ms, 2000
---@return spec.Load
local function start(client, patterns, options)
  local self = setmetatable({
    client = client, asked = 0, answered = 0, failed = {}, wrong = {}, lanes = {}, is_running = true,
  }, Load)
  for i = 1, options and options.width or 16 do
    self.lanes[i] = perigee.async(lane, self, patterns, i, options and options.timeout or 2000)
  end
  return self
end

return { start = start }
