--- retry: asks again when the request fails.

local core = require("perigee.core")
local errors = require("perigee.errors")
local link = require("perigee.link")
local scheduler = require("perigee.scheduler")
local scope = require("perigee.scope")

local DEFAULT_ATTEMPTS = 3
local MAX_DELAY = 86400000 -- a day, in ms
local KNOWN = { attempts = true, backoff = true, factor = true, jitter = true, on = true }

local Attempt = link.class() -- one request; `down` is the Retry
local Retry = link.class()

function Attempt:error(err)
  if self.closed then return end
  self.closed, self.upstream = true, nil
  return self.down:failed(err)
end

-- A source that fails at once comes back here before `connect` returns: then the loop goes on, not the stack.
function Retry:ask()
  self.timer = nil
  if self.asking then
    self.again = true
    return
  end
  self.asking = true
  repeat
    self.again = false
    self.attempt = setmetatable({ down = self, closed = false }, Attempt)
    link.connect(self.state.up, self.attempt, self.ctx)
  until not self.again or self.closed
  self.asking = false
end

local function wants(on, err)
  if on == nil then return true, true end
  if type(on) == "table" then
    for i = 1, #on do
      if on[i] == errors.field(err, "code") then return true, true end
    end
    return true, false
  end
  return scheduler.protect(on, err)
end

local function delay(options, n)
  if options.backoff == 0 then return 0 end -- 0 times a factor grown to infinity is not a number
  local ms = math.min(options.backoff * options.factor ^ (n - 1), MAX_DELAY)
  return ms * (1 + options.jitter * (2 * math.random() - 1))
end

-- Whoever asks is out of time: every further attempt would fail at once.
function Retry:is_late()
  return self.ctx and self.ctx.deadline and self.ctx.deadline <= core.now()
end

function Retry:failed(err)
  if self.closed then return end
  local options = self.state.options
  self.n = (self.n or 0) + 1
  if self.n > options.attempts or errors.field(err, "over_budget") then return self:error(err) end
  local ok, wanted = wants(options.on, err)
  if self.closed then return end -- `on` has cancelled us
  if not ok then return self:error(wanted) end
  if not wanted then return self:error(err) end
  if self:is_late() then return self:error(scope.too_late(err)) end
  local ms = delay(options, self.n)
  if ms <= 0 then return self:ask() end
  self.timer = scheduler.after(ms, self.ask, self)
end

function Retry:release()
  if self.timer then self.timer:cancel() end
  self.timer = nil
  if self.attempt then self.attempt:cancel() end
end

local function source(observer, ctx, state)
  local self = setmetatable({ down = observer, state = state, ctx = ctx, closed = false }, Retry)
  self:ask()
  return self
end

local function check(options)
  if type(options) == "number" then options = { attempts = options } end
  if type(options) ~= "table" then
    error(errors.misuse("INVALID_OPTION", "retry takes a number or a table, got " .. type(options)), 0)
  end
  for name in pairs(options) do
    if not KNOWN[name] then
      local text = ("retry: unknown option '%s' (known: attempts, backoff, factor, jitter, on)"):format(tostring(name))
      error(errors.misuse("INVALID_OPTION", text), 0)
    end
  end
  local checked = {
    attempts = options.attempts or DEFAULT_ATTEMPTS, backoff = options.backoff or 0,
    factor = options.factor or 2, jitter = options.jitter or 0,
  }
  for name, value in pairs(checked) do
    if type(value) ~= "number" or value < 0 or value ~= value or name == "jitter" and value > 1 then
      error(errors.misuse("INVALID_OPTION", ("retry: %s = %s"):format(name, tostring(value))), 0)
    end
  end
  if options.on ~= nil and type(options.on) ~= "function" and type(options.on) ~= "table" then
    error(errors.misuse("INVALID_OPTION", "retry: on is a function or a list of codes"), 0)
  end
  checked.on = options.on
  return checked
end

---@class perigee.RetryOptions
---@field attempts? integer retries after the first request, as RxJS counts; 3
---@field backoff? number ms before the first retry; 0
---@field factor? number each further delay is longer by this; 2
---@field jitter? number 0 to 1: delays vary by up to this part of themselves, both ways; 0
---@field on? string[]|fun(err: perigee.Error): boolean which errors: codes, or a function; any

--- Values that came before the failure have been passed on already.
---@param self perigee.Reply
---@param options integer|perigee.RetryOptions
---@return perigee.Reply
return function(self, options)
  return link.lift(self, source, { options = check(options) })
end
