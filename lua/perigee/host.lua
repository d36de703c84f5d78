--- Runs apps: resolves their clients, runs their hooks, opens one set of listeners for all of them, and ends it all.
---
---   clients_async -> on_start hooks, in order -> listeners          (a failure closes what was opened)
---   listeners drain, then are cut -> on_stop hooks -> clients close

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

---@class perigee.Host
---@field private apps perigee.App[]
---@field private options { listen: string[]?, stamp: boolean?, drain_timeout: integer? }
---@field private listeners { options: perigee.ListenerOptions, server: perigee.HttpServer|perigee.MessageServer }[]
---@field private running boolean has started without a failure
---@field over boolean has stopped, or failed to start: another host may take the apps
---@field private starting? perigee.Promise
---@field private stopping? perigee.Promise
local Host = {}
Host.__index = Host
Host.__name = "perigee.host"

---@param apps perigee.App[]
---@param options? { listen: string[]?, stamp: boolean?, drain_timeout: integer? }
---@return perigee.Host
local function new(apps, options)
  return setmetatable({ apps = apps, options = options or {}, listeners = {}, running = false, over = false }, Host)
end

--- Tables -------------------------------------------------------------------------------------------------------

local function make_router(apps)
  local routes = router.new()
  for _, app in ipairs(apps) do
    for _, route in ipairs(app.routes) do
      local plain = #app.middleware == 0
      routes:add(route.method, route.path, {
        fn = entry.compose(app.middleware, route.handler),
        takes_context = entry.takes_context(app.middleware, route.handler),
        to = plain and response.is_to(route.handler) and route.handler or nil,
        on_error = function(code, message) log.warn("%s %s: %s: %s", route.method, route.path, code, message) end,
      }, route.where)
    end
  end
  return routes
end

-- Scripts that name the same URL share its listener; one script's own listeners are all its own.
local function wanted(self)
  local list, owner = {}, {}
  local function add(listener, who)
    if owner[listener.url] and owner[listener.url] ~= who then return end
    owner[listener.url] = who
    list[#list + 1] = listener
  end
  for _, app in ipairs(self.apps) do
    for _, listener in ipairs(app.listens) do add(listener, app) end
  end
  for _, url in ipairs(self.options.listen or {}) do add(options_of.listener(url), self) end
  return list
end

--- Raises what is wrong with the apps together: two routes or handlers for one thing, unknown tokens.
---@return perigee.ListenerOptions[] listeners they want
function Host:check()
  make_router(self.apps)
  handlers.check(self.apps)
  for _, app in ipairs(self.apps) do app.registry:check() end
  return wanted(self)
end

--- Start --------------------------------------------------------------------------------------------------------

local function open_listeners(self, list)
  local routes, tables = make_router(self.apps), {}
  for _, options in ipairs(list) do
    local opened
    if options.transport == "http" then
      opened = http.open(routes, options)
      if self.options.stamp then opened:stamp("perigee-generation", "1") end
    elseif options.strategy then
      opened = strategy.open(self.apps, options.strategy)
    else
      tables[options.transport] = tables[options.transport] or handlers.new(self.apps, options.transport)
      opened = server.open(tables[options.transport], options)
    end
    self.listeners[#self.listeners + 1] = { options = options, server = opened }
  end
end

local function close_listeners(self)
  local closing = {}
  for i, listener in ipairs(self.listeners) do
    listener.server:close()
    closing[i] = listener.server.closed
  end
  combinators.settled(closing):await()
end

local function close_clients(self)
  local closing = {}
  for i, app in ipairs(self.apps) do closing[i] = app.registry:close() end
  combinators.settled(closing):await()
end

local function start(self)
  local list = self:check()
  for _, app in ipairs(self.apps) do app.registry:start() end
  for _, app in ipairs(self.apps) do
    for _, hook in ipairs(app.start_hooks) do combinators.async(hook, app):await() end
  end
  open_listeners(self, list)
  self.running = true
end

--- Settles when all listeners accept. Asked again, the same Promise.
---@return perigee.Promise
function Host:start()
  if self.starting then return self.starting end
  self.starting = combinators.async(function()
    local ok, err = xpcall(start, errors.on_raise, self)
    if ok then return end
    close_listeners(self)
    close_clients(self)
    self.over = true
    error(err, 0)
  end)
  return self.starting
end

--- Stop ---------------------------------------------------------------------------------------------------------

-- What runs may end by itself for a while; then it is cut.
local function drain(self, timeout_ms)
  local closing = {}
  for i, listener in ipairs(self.listeners) do
    listener.server:drain()
    closing[i] = listener.server.closed
  end
  local timer = scheduler.after(timeout_ms, function()
    log.warn("the drain timeout of %d ms has passed: what still runs is cut", timeout_ms)
    for _, listener in ipairs(self.listeners) do listener.server:close() end
  end)
  combinators.settled(closing):await()
  timer:cancel()
end

local function stop(self, timeout_ms)
  if self.starting then combinators.settled({ self.starting }):await() end
  drain(self, timeout_ms)
  for _, app in ipairs(self.running and self.apps or {}) do
    for _, hook in ipairs(app.stop_hooks) do
      local outcome = combinators.settled({ combinators.async(hook, app) }):await()[1]
      if outcome.reason then log.failure("in on_stop", outcome.reason) end
    end
  end
  close_clients(self)
  self.over = true
end

--- Settles when all is closed. Failures of hooks are logged. Asked again, the same Promise.
---@param options? { drain_timeout: integer? } ms, 30000 by default
---@return perigee.Promise
function Host:stop(options)
  if not self.stopping then
    local timeout_ms = options and options.drain_timeout or self.options.drain_timeout or DRAIN_TIMEOUT_MS
    self.stopping = combinators.async(stop, self, timeout_ms)
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
    urls[i] = scheme .. (listener.options.core.host and "://" or ":") .. at
  end
  return urls
end

return { new = new }
