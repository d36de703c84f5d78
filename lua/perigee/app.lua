--- What a routing script builds and returns: clients, routes, message and event handlers, listeners, hooks.

local combinators = require("perigee.combinators")
local errors = require("perigee.errors")
local generation = require("perigee.generation")
local host = require("perigee.host")
local options_of = require("perigee.options")
local patterns = require("perigee.patterns")
local promise = require("perigee.promise")
local registry = require("perigee.registry")
local response = require("perigee.response")
local router = require("perigee.router")
local strategy = require("perigee.strategy")
local where_of = require("perigee.where")

---@class perigee.App
---@field state table the script's own, carried over a reload
---@field registry perigee.Registry
---@field middleware function[]
---@field routes { method: string, path: string, handler: any, where: string }[]
---@field declared { kind: "message"|"event"|"forward", pattern: any, where: string, transport: string? }[]
---@field listens perigee.ListenerOptions[]
---@field start_hooks function[]
---@field stop_hooks function[]
---@field reload_hook? function
---@field private life? perigee.Life
local App = {}
App.__index = App
App.__name = "perigee.app"

---@return perigee.App
local function new()
  return setmetatable({
    state = {}, registry = registry.new(), middleware = {}, routes = {}, declared = {}, listens = {},
    start_hooks = {}, stop_hooks = {},
  }, App)
end

local function here()
  return where_of.text(where_of.capture())
end

local function fail(...)
  error(errors.misuse("INVALID_OPTION", string.format(...)), 0)
end

local function check_function(what, fn)
  if type(fn) ~= "function" then fail("%s takes a function, not a %s", what, type(fn)) end
end

--- Clients and values --------------------------------------------------------------------------------------------

--- Clients by name; nothing is dialled before the first call.
---@param list table[] { name =, transport =, … }, or { clients = list }
function App:clients(list) self.registry:clients(list, here()) end

--- Clients whose options a function gives when the app starts.
---@param list table[] { name =, inject = { token, … }, use_factory = function }
function App:clients_async(list) self.registry:clients_async(list, here()) end

--- A value by name, or the function that makes it.
---@param token any
---@param value any
function App:provide(token, value)
  if token == nil or value == nil then fail("provide takes a token and a value") end
  self.registry:provide(token, value, here())
end

--- A client's handle, or a provided value.
---@param token any
---@return any
function App:inject(token) return self.registry:inject(token) end

--- Puts a fake behind a token, also for handlers that already hold its handle.
---@param token any
---@param fake any
function App:override(token, fake) self.registry:override(token, fake) end

--- Handlers ------------------------------------------------------------------------------------------------------

--- Around every handler, in order; `next()` runs the rest and returns its result.
---@param fn fun(input: any, ctx: table, next: fun(): any): any
function App:use(fn)
  check_function("use", fn)
  self.middleware[#self.middleware + 1] = fn
end

for _, name in ipairs({ "get", "post", "put", "patch", "delete", "head", "options", "any" }) do
  App[name] = function(self, path, handler)
    if not response.is_to(handler) then check_function(name, handler) end
    if type(path) ~= "string" then fail("%s takes a path, not a %s", name, type(path)) end
    local where = here()
    router.new():add(name, path, handler, where) -- a bad path is told here, where it was written
    self.routes[#self.routes + 1] = { method = name:upper(), path = path, handler = handler, where = where }
  end
end

local function declare(self, declared)
  if declared.pattern ~= patterns.any then patterns.route(declared.pattern, declared.where) end
  for _, other in ipairs(declared.kind ~= "event" and self.declared or {}) do
    local clash = other.kind ~= "event" and other.transport == declared.transport
    local same = other.pattern == declared.pattern
      or other.pattern ~= patterns.any and declared.pattern ~= patterns.any
      and patterns.route(other.pattern) == patterns.route(declared.pattern)
    if clash and same then
      error(errors.misuse("INVALID_OPTION", ("a handler for %s at %s is already defined at %s"):format(
        patterns.show(declared.pattern), declared.where, other.where), "duplicate-pattern"), 0)
    end
  end
  self.declared[#self.declared + 1] = declared
end

--- Answers requests. A second one for the same pattern is refused.
---@param pattern any
---@param handler fun(data: any, ctx: perigee.Context): any
---@param opts? { transport: string?, queue: string? } only on listeners of that transport; what brokers are told
function App:message(pattern, handler, opts)
  check_function("message", handler)
  declare(self, {
    kind = "message", pattern = pattern, handler = handler, where = here(), transport = opts and opts.transport,
    opts = opts, settings = options_of.handler(opts),
  })
end

--- Hears events. Several for one pattern all run.
---@param pattern any
---@param handler fun(data: any, ctx: perigee.Context)
---@param opts? { transport: string?, queue: string? } only on listeners of that transport; what brokers are told
function App:event(pattern, handler, opts)
  check_function("event", handler)
  declare(self, {
    kind = "event", pattern = pattern, handler = handler, where = here(), transport = opts and opts.transport,
    opts = opts, settings = options_of.handler(opts),
  })
end

--- Passes messages and events on, untouched.
---@param pattern any or perigee.any_pattern: what no other handler takes
---@param client any
---@param opts? { to: any, transport: string?, queue: string? } another pattern; the rest as for `message`
function App:forward(pattern, client, opts)
  if type(client) ~= "table" or client.send == nil then fail("forward takes a client, not a %s", type(client)) end
  local to, rest = opts and opts.to, {}
  for name, value in pairs(opts or {}) do rest[name] = value end
  rest.to = nil
  declare(self, {
    kind = "forward", pattern = pattern, client = client, where = here(), transport = rest.transport,
    settings = options_of.handler(rest),
    to = to ~= nil and patterns.encode(to) or nil,
  })
end

--- Life ----------------------------------------------------------------------------------------------------------

--- Adds a listener; it opens when the app starts. Port 0 takes a free one, see `addresses`.
---@param url string|perigee.Strategy a URL, or a listener written in Lua
---@param opts? table
function App:listen(url, opts)
  if type(url) == "table" then
    strategy.check(url)
    self.listens[#self.listens + 1] = { url = url, transport = "custom", scheme = "custom", strategy = url, core = {} }
    return
  end
  local listener = options_of.listener(url, opts)
  listener.where = here()
  self.listens[#self.listens + 1] = listener
end

--- Runs before the listeners accept, in order; may await. A raise refuses the start.
---@param fn fun(app: perigee.App)
function App:on_start(fn)
  check_function("on_start", fn)
  self.start_hooks[#self.start_hooks + 1] = fn
end

--- Runs after the listeners have drained and before the clients close; may await.
---@param fn fun(app: perigee.App)
function App:on_stop(fn)
  check_function("on_stop", fn)
  self.stop_hooks[#self.stop_hooks + 1] = fn
end

---@param fn fun(old_state: table): table?
function App:on_reload(fn)
  check_function("on_reload", fn)
  self.reload_hook = fn
end

---@class perigee.Life from one start to its stop
---@field host perigee.Host
---@field generation perigee.Generation
---@field starting? perigee.Promise
---@field stopping? perigee.Promise
---@field over boolean

local function life_of(self)
  if not self.life or self.life.over then
    self.life = { host = host.new(), generation = generation.of(self), over = false }
  end
  return self.life
end

local function serve(life)
  local generations = { life.generation }
  life.host:check(generations)
  life.generation:start()
  life.host:commit(life.host:prepare(generations))
end

local function start(life)
  local ok, err = xpcall(serve, errors.on_raise, life)
  if ok then return end
  life.generation:finish(life.host:drain_timeout())
  life.over = true
  error(err, 0)
end

local function stop(life, opts)
  if life.starting then combinators.settled({ life.starting }):await() end
  if life.over then return end
  life.host:stop(opts):await()
  if not life.starting then life.generation:finish(life.host:drain_timeout()) end
  life.over = true
end

-- Known before it runs: hooks may ask for it.
local function begin(life, name, fn, ...)
  life[name] = promise.pending()
  promise.run(life[name], fn, life, ...)
  return life[name]
end

local function start_again(self, stopping)
  combinators.settled({ stopping }):await()
  return self:start()
end

--- After a stop, or a failed start, it starts again; while it stops, when that has ended.
---@return perigee.Promise settles when all listeners accept
function App:start()
  local life = life_of(self)
  if life.stopping then return combinators.async(start_again, self, life.stopping) end
  return life.starting or begin(life, "starting", start)
end

--- Drains, runs the on_stop hooks, closes the clients. An app that never started only closes its clients.
---@param opts? { drain_timeout: integer? } ms, 30000 by default
---@return perigee.Promise
function App:stop(opts)
  local life = self.life or life_of(self)
  if not life.stopping then
    local stopping = begin(life, "stopping", stop, opts)
    promise.observe(stopping, { of = stopping, settle = function() end }) -- it goes on when nobody waits any more
  end
  return life.stopping:next()
end

--- URLs of the open listeners, with the ports they were given.
---@return string[]
function App:addresses()
  return self.life and self.life.host:addresses() or {}
end

---@return boolean
local function is(value)
  return type(value) == "table" and getmetatable(value) == App
end

return { new = new, is = is }
