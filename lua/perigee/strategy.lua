--- A listener written in Lua: Nest's custom strategy (nest-wire 9, MOD-05). It brings messages in however it likes and
--- calls the handlers it was given.

local context = require("perigee.context")
local entry = require("perigee.entry")
local errors = require("perigee.errors")
local handled = require("perigee.handled")
local promise = require("perigee.promise")

---@class perigee.Strategy what the script writes
---@field name? string as handlers name it in `transport`; without one, it gets the handlers of every transport
---@field add_handler fun(self, pattern: any, fn: perigee.StrategyHandler, is_event: boolean, extras: table)
---@field listen fun(self): perigee.Promise? may raise, or return what to wait for
---@field close? fun(self): perigee.Promise?

---@alias perigee.StrategyHandler fun(data: any, fields: table?): perigee.Reply fields: of the handler's ctx

---@class perigee.StrategyServer
---@field closed perigee.Promise
---@field private strategy perigee.Strategy
local Server = {}
Server.__index = Server
Server.__name = "perigee.strategy"

local function refuse(text)
  error(errors.misuse("INVALID_OPTION", "a listener written in Lua needs the function '" .. text .. "'"), 0)
end

--- Raises INVALID_OPTION when a function is missing.
---@param strategy perigee.Strategy
local function check(strategy)
  for _, name in ipairs({ "add_handler", "listen" }) do
    if type(strategy[name]) ~= "function" then refuse(name) end
  end
end

local function add(self, declared, middleware)
  local strategy = self.strategy
  local fn = entry.compose(middleware, declared.handler)
  strategy:add_handler(declared.pattern, function(data, fields)
    local ctx = { transport = strategy.name or "custom", cancelled = false, pattern = declared.pattern, peer = "",
      metadata = {}, headers = {} }
    for name, value in pairs(fields or {}) do ctx[name] = value end
    return handled(fn, data, context.new(ctx))
  end, declared.kind == "event", declared.opts or {})
end

--- Hands the handlers over, with their raw patterns, and listens. Runs in a coroutine.
---@param generations perigee.Generation[]
---@param strategy perigee.Strategy
---@return perigee.StrategyServer
local function open(generations, strategy)
  local self = setmetatable({ strategy = strategy, closed = promise.pending() }, Server)
  for _, owner in ipairs(generations) do
    local app = owner.app
    for _, declared in ipairs(app.declared) do
      local fits = not strategy.name or not declared.transport or declared.transport == strategy.name
      if fits and declared.kind ~= "forward" then add(self, declared, app.middleware) end
    end
  end
  local waiting = strategy:listen()
  if promise.follower(waiting) then waiting:await() end
  return self
end

function Server:drain() return self:close() end

function Server:close()
  if self.closing then return end
  self.closing = true
  local strategy = self.strategy
  promise.resolve(self.closed, handled(function() return strategy.close and strategy:close() end))
end

function Server:address() return self.strategy.name or "custom" end

return { open = open, check = check }
