--- Serves generations of scripts on one set of listeners, and swaps them.
---
---   prepare: tables of routes and handlers, new listeners bound but held   -> a plan; a failure leaves all as it was
---   commit:  in one step the listeners use the new tables; listeners nobody wants any more drain
---   retire:  a generation whose calls have ended runs its stop hooks; after the drain timeout they are cut

local combinators = require("perigee.combinators")
local entry = require("perigee.entry")
local errors = require("perigee.errors")
local handlers = require("perigee.handlers")
local http = require("perigee.http")
local log = require("perigee.log")
local options_of = require("perigee.options")
local response = require("perigee.response")
local router = require("perigee.router")
local scheduler = require("perigee.scheduler")
local server = require("perigee.server")
local strategy = require("perigee.strategy")

local DRAIN_TIMEOUT_MS = 30000
local MIN_HOOK_MS = 1000 -- a stop hook gets this much even when the drain has used up its time
local POLL_MS, MAX_POLL_MS = 5, 100 -- between two looks at the calls of an old generation

---@class perigee.HostOptions
---@field listen? string[] URLs beside those of the scripts
---@field stamp? boolean
---@field drain_timeout? integer ms

---@class perigee.HostListener
---@field options perigee.ListenerOptions
---@field key string
---@field server perigee.HttpServer|perigee.MessageServer|perigee.StrategyServer

---@class perigee.Plan
---@field generations perigee.Generation[]
---@field routes perigee.Router
---@field tables table<string, perigee.Handlers>
---@field listeners perigee.HostListener[] those kept and those opened for it
---@field opened perigee.HostListener[]

---@class perigee.Host
---@field generations perigee.Generation[] those that get new requests
---@field retiring table<perigee.Generation, true> those that still end their calls
---@field private options perigee.HostOptions
---@field private listeners perigee.HostListener[]
---@field private leaving table<perigee.HostListener, true> drain
local Host = {}
Host.__index = Host
Host.__name = "perigee.host"

---@param options? perigee.HostOptions
---@return perigee.Host
local function new(options)
  return setmetatable({ generations = {}, retiring = {}, options = options or {}, listeners = {}, leaving = {} }, Host)
end

--- Tables -------------------------------------------------------------------------------------------------------

local function add_routes(routes, owner)
  local app = owner.app
  for _, route in ipairs(app.routes) do
    local plain = #app.middleware == 0
    routes:add(route.method, route.path, {
      fn = entry.compose(app.middleware, route.handler),
      takes_context = entry.takes_context(app.middleware, route.handler),
      to = plain and response.is_to(route.handler) and route.handler or nil,
      on_error = function(code, message) log.warn("%s %s: %s: %s", route.method, route.path, code, message) end,
      owner = owner,
    }, route.where)
  end
end

local function make_router(generations)
  local routes = router.new()
  for _, owner in ipairs(generations) do add_routes(routes, owner) end
  return routes
end

local function check_shared(options, who, other)
  if options.key == other.options.key then return end
  error(errors.make("INVALID_OPTION", ("the listener %s has other options in %s than in %s"):format(
    options.url, who.path, other.who.path)), 0)
end

-- Scripts that name the same URL share its listener; one script's own listeners are all its own, hence the counting.
local function wanted(self, generations)
  local list, owner, seen = {}, {}, {}
  local function add(options, who)
    local other = owner[options.url]
    if other and other.who ~= who then
      if who ~= self then check_shared(options, who, other) end
      return
    end
    owner[options.url] = { who = who, options = options }
    local key = options.key or options.strategy
    seen[key] = (seen[key] or 0) + 1
    if options.key then key = key .. "#" .. seen[key] .. options_of.fingerprint(options.core.tls) end
    list[#list + 1] = { options = options, key = key }
  end
  for _, generation in ipairs(generations) do
    for _, options in ipairs(generation.app.listens) do add(options, generation) end
  end
  for _, url in ipairs(self.options.listen or {}) do add(options_of.listener(url), self) end
  return list
end

--- Raises what is wrong with them together: two routes or handlers for one thing, options of a shared
--- listener that differ, unknown tokens.
---@param generations perigee.Generation[]
---@return integer listeners how many they want
function Host:check(generations)
  make_router(generations)
  handlers.check(generations)
  for _, generation in ipairs(generations) do generation.app.registry:check() end
  return #wanted(self, generations)
end

--- Swapping -----------------------------------------------------------------------------------------------------

local function table_of(plan, transport)
  plan.tables[transport] = plan.tables[transport] or handlers.new(plan.generations, transport)
  return plan.tables[transport]
end

local function open(plan, options)
  if options.transport == "http" then return http.open(plan.routes, options) end
  if options.strategy then return strategy.open(plan.generations, options.strategy) end
  return server.open(table_of(plan, options.transport), options)
end

local function open_new(plan, known)
  for _, listener in ipairs(plan.listeners) do
    local old = known[listener.key]
    if old then
      listener.server = old.server
      if old.server.check then old.server:check(table_of(plan, listener.options.transport)) end
    else
      listener.server = open(plan, listener.options)
      plan.opened[#plan.opened + 1] = listener
      if listener.server.hold then listener.server:hold(true) end
    end
  end
  for _, listener in ipairs(plan.opened) do
    if listener.server.started then listener.server.started:await() end -- a broker has to answer first
  end
end

local function close_all(listeners)
  local closing = {}
  for i, listener in ipairs(listeners) do
    listener.server:close()
    closing[i] = listener.server.closed
  end
  return combinators.settled(closing)
end

--- Makes ready to serve them instead of the present ones. In a coroutine; raises LISTEN_FAILED and what check raises.
---@param generations perigee.Generation[] started
---@return perigee.Plan
function Host:prepare(generations)
  local plan = { generations = generations, routes = make_router(generations), tables = {}, opened = {} }
  plan.listeners = wanted(self, generations)
  local known = {}
  for _, listener in ipairs(self.listeners) do known[listener.key] = listener end
  local ok, err = pcall(open_new, plan, known)
  if ok then return plan end
  close_all(plan.opened):await()
  error(err, 0)
end

--- Gives a plan up.
---@param plan perigee.Plan
---@return perigee.Promise
function Host.abort(_, plan)
  return close_all(plan.opened)
end

local function use(self, plan, listener)
  local options = listener.options
  if options.transport == "http" then
    listener.server:use(plan.routes)
    -- What no route answers is nobody's: it bears the first script's number.
    if self.options.stamp then listener.server:stamp(plan.generations[1].number) end
  elseif not options.strategy then
    listener.server:use(table_of(plan, options.transport))
  end
end

local function leave(self, listener)
  self.leaving[listener] = true
  listener.server:drain()
  local timer = scheduler.after(self:drain_timeout(), function() listener.server:close() end)
  combinators.settled({ listener.server.closed }):next(function()
    timer:cancel()
    self.leaving[listener] = nil
  end)
end

local function set_of(list, field)
  local set = {}
  for _, item in ipairs(list) do set[field and item[field] or item] = true end
  return set
end

--- From the next request on, the plan's generations serve; those they replace retire.
---@param plan perigee.Plan
function Host:commit(plan)
  local listeners, generations = self.listeners, self.generations
  self.listeners, self.generations = plan.listeners, plan.generations
  for _, listener in ipairs(plan.listeners) do use(self, plan, listener) end
  for _, listener in ipairs(plan.opened) do
    if listener.server.hold then listener.server:hold(false) end
  end
  local kept = set_of(plan.listeners, "key")
  for _, listener in ipairs(listeners) do
    if not kept[listener.key] then leave(self, listener) end
  end
  kept = set_of(plan.generations)
  for _, generation in ipairs(generations) do
    if not kept[generation] then self:retire(generation) end
  end
end

--- Retiring -----------------------------------------------------------------------------------------------------

---@return integer ms
function Host:drain_timeout() return self.options.drain_timeout or DRAIN_TIMEOUT_MS end

local function each_server(self, fn)
  for _, listener in ipairs(self.listeners) do fn(listener.server) end
  for listener in pairs(self.leaving) do fn(listener.server) end
end

--- How many calls a generation still has to end.
---@param generation perigee.Generation
---@return integer
function Host:calls(generation)
  local n = generation:forwards()
  each_server(self, function(one)
    if one.calls then n = n + one:calls(generation) end
  end)
  return n
end

local function cut(self, generation, n, timeout_ms)
  generation.cancelled = n
  log.warn("%s: %d calls still ran after %d ms: they are cancelled", generation:name(), n, timeout_ms)
  each_server(self, function(one)
    if one.cut then one:cut(generation) end
  end)
end

-- Looked at now and then instead of counted: a request pays nothing for being part of a generation.
local function await_calls(self, generation, timeout_ms)
  local left, pause = timeout_ms, POLL_MS
  while true do
    local n = self:calls(generation)
    if n == 0 then return left end
    if left <= 0 then
      cut(self, generation, n, timeout_ms)
      return 0
    end
    combinators.sleep(math.min(pause, left)):await()
    left, pause = left - pause, math.min(pause * 2, MAX_POLL_MS)
  end
end

--- Ends a generation that gets no new requests: waits for its calls, then finishes it.
---@param generation perigee.Generation
---@return perigee.Promise
function Host:retire(generation)
  self.retiring[generation] = true
  return combinators.spawn(function()
    local left = await_calls(self, generation, self:drain_timeout())
    generation:finish(math.max(left, MIN_HOOK_MS))
    self.retiring[generation] = nil
    if self.on_retired then self.on_retired(generation) end
  end)
end

--- Stop ---------------------------------------------------------------------------------------------------------

-- What runs may end by itself for a while; then it is cut.
local function drain(listeners, timeout_ms)
  local closing = {}
  for i, listener in ipairs(listeners) do
    listener.server:drain()
    closing[i] = listener.server.closed
  end
  local timer = scheduler.after(timeout_ms, function()
    log.warn("the drain timeout of %d ms has passed: what still runs is cut", timeout_ms)
    for _, listener in ipairs(listeners) do listener.server:close() end
  end)
  combinators.settled(closing):await()
  timer:cancel()
end

local function stop(self, timeout_ms)
  local listeners = {}
  for i, listener in ipairs(self.listeners) do listeners[i] = listener end
  for listener in pairs(self.leaving) do listeners[#listeners + 1] = listener end
  drain(listeners, timeout_ms)
  self.listeners = {}
  for _, generation in ipairs(self.generations) do self:retire(generation) end
  self.generations = {}
  while next(self.retiring) do combinators.sleep(POLL_MS):await() end
end

--- Settles when all is closed. Failures of hooks are logged. Asked again, the same Promise.
---@param options? { drain_timeout: integer? } ms, 30000 by default
---@return perigee.Promise
function Host:stop(options)
  if not self.stopping then
    if options and options.drain_timeout then self.options.drain_timeout = options.drain_timeout end
    self.stopping = combinators.async(stop, self, self:drain_timeout())
  end
  return self.stopping
end

--- URLs of the open listeners, with the ports they were given.
---@return string[]
function Host:addresses()
  local urls = {}
  for i, listener in ipairs(self.listeners) do
    local scheme = listener.options.scheme
    local at = listener.server:address()
    urls[i] = scheme .. ((listener.options.core.host or listener.options.core.hosts) and "://" or ":") .. at
  end
  return urls
end

return { new = new }
