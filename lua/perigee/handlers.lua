--- The message and event handlers of one set of apps, found by the pattern of a packet (nest-wire 1.4, 1.9).

local core = require("perigee.core")
local entry = require("perigee.entry")
local errors = require("perigee.errors")
local log = require("perigee.log")
local patterns = require("perigee.patterns")
local registry = require("perigee.registry")

-- Patterns as peers spell them, remembered with what they lead to. Peers choose them, so there is a bound.
local MAX_CACHED = 4096

---@class perigee.Handler
---@field kind "message"|"event"|"forward"
---@field shown string the pattern, for logs
---@field where string
---@field owners table<perigee.Generation, true> whose it is: an event may have several
---@field fn? fun(data: any, ctx: table): any with its middleware
---@field bare? boolean it does not look at its second parameter
---@field all? { fn: function, owner: perigee.Generation }[] of an event, in order of registration
---@field client? any of a forward: a client or a handle
---@field to? string of a forward: JSON of the other pattern
---@field direct? boolean a forward without middleware
---@field settings? table<string, any> what a broker is told about its subscription

---@class perigee.Handlers
---@field private by_route table<any, perigee.Handler>
---@field private any? perigee.Handler
---@field private cache table<string, perigee.Handler|false>
---@field private cached integer
---@field private transport string
local Handlers = {}
Handlers.__index = Handlers
Handlers.__name = "perigee.handlers"

---@param declared table
---@return table<string, any> what a broker of this transport is told
function Handlers:settings_of(declared)
  return declared.settings and declared.settings[self.transport] or {}
end

local function refuse(declared, other)
  error(errors.make("INVALID_OPTION", ("a handler for %s at %s is already defined at %s"):format(
    patterns.show(declared.pattern), declared.where, other.where)), 0)
end

local function add_message(self, declared, owner)
  local key = patterns.route(declared.pattern)
  local other = self.by_route[key]
  if other and other.kind ~= "event" then refuse(declared, other) end
  self.by_route[key] = {
    kind = "message", where = declared.where, shown = patterns.show(declared.pattern), owners = { [owner] = true },
    fn = entry.compose(owner.app.middleware, declared.handler), settings = self:settings_of(declared),
    bare = not entry.takes_context(owner.app.middleware, declared.handler),
  }
end

-- One subscription serves them all.
local function check_same(declared, event, settings)
  for _, names in ipairs({ settings, event.settings }) do
    for name in pairs(names) do
      if settings[name] ~= event.settings[name] then
        error(errors.make("INVALID_OPTION", ("event handlers for %s at %s and %s differ in '%s'"):format(event.shown,
          event.where, declared.where, name)), 0)
      end
    end
  end
end

local function add_event(self, declared, owner, warned)
  local key = patterns.route(declared.pattern)
  local other = self.by_route[key]
  local one = { fn = entry.compose(owner.app.middleware, declared.handler), owner = owner }
  if not other then
    self.by_route[key] = {
      kind = "event", where = declared.where, shown = patterns.show(declared.pattern), owners = { [owner] = true },
      all = { one }, settings = self:settings_of(declared),
    }
  elseif other.kind == "event" then
    check_same(declared, other, self:settings_of(declared))
    other.owners[owner] = true
    other.all[#other.all + 1] = one
  elseif warned and not warned[declared] then
    warned[declared] = true
    log.warn("%s: the event handler for %s never runs: the message handler at %s serves both",
      declared.where, patterns.show(declared.pattern), other.where)
  end
end

local function forward_in_lua(forward)
  return function(_, ctx)
    local client, target = forward.client, registry.resolve(forward.client)
    local pattern = core.json_decode(forward.to or ctx.pattern_json)
    local opts = { metadata = ctx.metadata_json and ctx.metadata or nil }
    if target.message and target.message.headers and next(ctx.headers) then opts.headers = ctx.headers end
    if ctx.is_event then return client:emit(pattern, ctx.raw, opts) end
    return client:send(pattern, ctx.raw, opts):raw()
  end
end

local function add_forward(self, declared, owner)
  local any = declared.pattern == patterns.any
  local key = not any and patterns.route(declared.pattern)
  local other = any and self.any or self.by_route[key]
  if other and other.kind ~= "event" then refuse(declared, other) end
  local forward = {
    kind = "forward", where = declared.where, shown = patterns.show(declared.pattern), owners = { [owner] = true },
    client = declared.client, to = declared.to, direct = #owner.app.middleware == 0,
    settings = self:settings_of(declared),
  }
  forward.fn = entry.compose(owner.app.middleware, forward_in_lua(forward))
  if any then self.any = forward else self.by_route[key] = forward end
end

local ADD = { message = add_message, forward = add_forward, event = add_event }

--- The handlers of all for listeners of one transport. Two for one pattern are refused, both places named.
---@param generations perigee.Generation[]
---@param transport string
---@param warned? table<table, true> warns about handlers that never run, of each once
---@return perigee.Handlers
local function new(generations, transport, warned)
  local self = setmetatable({ by_route = {}, cache = {}, cached = 0, transport = transport }, Handlers)
  -- Events last: a message handler for the same pattern serves both, whichever came first.
  for _, kinds in ipairs({ { message = true, forward = true }, { event = true } }) do
    for _, owner in ipairs(generations) do
      for _, declared in ipairs(owner.app.declared) do
        local fits = not declared.transport or declared.transport == transport
        if kinds[declared.kind] and fits then ADD[declared.kind](self, declared, owner, warned) end
      end
    end
  end
  return self
end

--- Raises what `new` would for any transport, and warns about handlers that never run.
---@param generations perigee.Generation[]
local function check(generations)
  local transports, warned = { tcp = true }, {}
  for _, owner in ipairs(generations) do
    for _, declared in ipairs(owner.app.declared) do
      if declared.transport then transports[declared.transport] = true end
    end
  end
  for transport in pairs(transports) do new(generations, transport, warned) end
end

local function look_up(self, json)
  local key = core.lookup_key(json)
  if key == nil then return nil end
  return self.by_route[key] or self.any
end

---@param json string? the pattern as received
---@return perigee.Handler?
function Handlers:find(json)
  if json == nil then return nil end
  local found = self.cache[json]
  if found == nil then
    found = look_up(self, json) or false
    if self.cached >= MAX_CACHED then
      self.cache, self.cached = {}, 0
    end
    self.cache[json], self.cached = found, self.cached + 1
  end
  return found or nil
end

-- A route is text but for the three patterns that Nest leaves as they are (nest-wire 1.3).
local function route_text(key)
  return type(key) == "string" and key or core.json_encode(key)
end

--- What a broker is asked for: one subscription a handler, by route. Raises for `forward(any_pattern)`.
---@return { route: string, settings: table<string, any>, handler: perigee.Handler }[]
function Handlers:subscriptions()
  if self.any then
    error(errors.make("INVALID_OPTION",
      ("perigee.any_pattern at %s: a %s broker sends what it is asked for; name the patterns, with its wildcards")
      :format(self.any.where, self.transport)), 0)
  end
  local list = {}
  for key, handler in pairs(self.by_route) do
    list[#list + 1] = { route = route_text(key), settings = handler.settings, handler = handler }
  end
  table.sort(list, function(a, b) return a.route < b.route end)
  return list
end

return { new = new, check = check }
