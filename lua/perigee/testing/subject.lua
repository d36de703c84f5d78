--- A script under test: loaded in an environment of its own, served without a listener, its clients without a wire.

local app_of = require("perigee.app")
local client_of = require("perigee.client")
local core = require("perigee.core")
local environment = require("perigee.environment")
local errors = require("perigee.errors")
local exchange = require("perigee.testing.exchange")
local options_of = require("perigee.options")
local patterns = require("perigee.patterns")
local peer_of = require("perigee.testing.peer")
local watch = require("perigee.testing.watch")

---@class perigee.testing.Subject
---@field path string
---@field app perigee.App
---@field private session perigee.testing.Session
---@field private environment perigee.Environment
---@field private peers table<any, perigee.testing.Peer> by token, or by URL
---@field private background perigee.Promise[] what ran already when the app had started
---@field private clients table<string, perigee.Client> to its message listeners, by transport
---@field private transports string[] of its message listeners
---@field private first_log integer
local Subject = {}
Subject.__index = Subject
Subject.__name = "perigee.testing.subject"

local number = 0 -- of subjects: names of their local listeners

local function fail(...)
  error(errors.misuse("INVALID_OPTION", string.format(...)), 0)
end

--- Clients ------------------------------------------------------------------------------------------------------

-- How a client without a token is called: "tcp://127.0.0.1:3001", whatever its other options are.
local function url_of(spec)
  local options = options_of.client(spec)
  local host = options.hosts and options.hosts[1]
  if not host then return options.transport .. ":" .. tostring(options.name or "lua") end
  if host.path then return "unix:" .. host.path end
  local scheme = options.tls and options.transport == "tcp" and "tls" or options.transport
  return ("%s://%s:%s"):format(scheme, host.host, host.port)
end

local function peer_named(self, name)
  local found = self.peers[name]
  if not found then
    found = peer_of.new(tostring(name), self.session)
    self.peers[name] = found
  end
  return found
end

local function known_names(self)
  local names = {}
  for _, binding in ipairs(self.app.registry.order) do
    if self.app.registry:has_client(binding.token) then names[#names + 1] = tostring(binding.token) end
  end
  for name in pairs(self.peers) do
    if not self.app.registry:has_client(name) then names[#names + 1] = tostring(name) end
  end
  table.sort(names)
  return #names > 0 and table.concat(names, ", ") or "none"
end

local function named_peer(self, name)
  if self.app.registry:has_client(name) then return peer_named(self, name) end
  local is_url, url = pcall(url_of, name)
  if type(name) == "string" and is_url then return peer_named(self, url) end
  return self.peers[name] or fail("%s has no client '%s' (known: %s)", self.path, tostring(name), known_names(self))
end

--- Answers for a client, by its name in the app, or by its URL when the script made it itself: pattern -> a value,
--- a Reply, `testing.never`, or a function(data, opts) that returns or raises. Replaces what was said before.
---@param name any
---@param answers table<any, any>
---@return perigee.testing.Subject self
function Subject:fake(name, answers)
  named_peer(self, name):answer(answers)
  return self
end

--- What that client was asked and told, in order.
---@param name any
---@param pattern? any only these
---@return perigee.testing.Call[]
function Subject:calls(name, pattern)
  local list = named_peer(self, name).calls
  if pattern == nil then return list end
  local wanted, found = patterns.route(pattern), {}
  for _, call in ipairs(list) do
    if patterns.route(call.pattern) == wanted then found[#found + 1] = call end
  end
  return found
end

local function same(a, b)
  return patterns.encode(a) == patterns.encode(b)
end

local function show(calls)
  local lines = {}
  for i, call in ipairs(calls) do
    lines[i] = ("  %s %s %s"):format(call.kind, patterns.show(call.pattern), core.json_encode(call.data) or "")
  end
  return #lines > 0 and "it was:\n" .. table.concat(lines, "\n") or "it was not called at all"
end

--- The last call with that pattern, and with that data when it is given. Raises when there is none.
---@param name any
---@param pattern any
---@param data? any
---@return perigee.testing.Call
function Subject:called(name, pattern, data)
  local calls = self:calls(name, pattern)
  for i = #calls, 1, -1 do
    if data == nil or same(calls[i].data, data) then return calls[i] end
  end
  local what = patterns.show(pattern) .. (data ~= nil and " with " .. patterns.encode(data) or "")
  error(("'%s' was not called for %s; %s"):format(tostring(name), what, show(self:calls(name))), 2)
end

--- Loading ------------------------------------------------------------------------------------------------------

local function own_perigee(self)
  local own = self.environment.loaded.perigee
  local make_app = own.app
  function own.client(spec)
    return peer_named(self, url_of(spec)):client(spec)
  end
  function own.app(...)
    local app = make_app(...)
    app.registry.new_client = function(options, token) return peer_named(self, token):client(options) end
    return app
  end
end

-- The HTTP listeners' limits stay; where they listen does not.
local function http_listener(self, listens)
  local options
  for _, listener in ipairs(listens) do
    if listener.transport == "http" then options = options or listener.core end
  end
  local own = {}
  for name, value in pairs(options or options_of.listener("http://127.0.0.1:0").core) do own[name] = value end
  own.host, own.port, own.path, own.tls = nil, nil, nil, nil
  own.memory = function(server) self.http = server end
  return { url = "memory:", key = "memory:", transport = "http", scheme = "http", core = own }
end

local function message_transports(app)
  local list, seen = {}, {}
  local function add(name)
    if not name or name == "http" or seen[name] then return end
    seen[name] = true
    list[#list + 1] = name
  end
  for _, listener in ipairs(app.listens) do add(listener.strategy and listener.strategy.name or listener.transport) end
  for _, declared in ipairs(app.declared) do add(declared.transport) end
  if #list == 0 then add("tcp") end
  return list
end

local function replace_listeners(self)
  local app = self.app
  local listens = { http_listener(self, app.listens) }
  self.transports = message_transports(app)
  for _, transport in ipairs(self.transports) do
    local name = ("perigee.testing.%d.%s"):format(number, transport)
    listens[#listens + 1] = {
      url = "local:" .. name, key = name, transport = transport, scheme = "local",
      core = { transport = "local", name = name },
    }
    self.clients[transport] = client_of.new({ transport = "local", name = name, timeout = false })
  end
  app.listens = listens
end

local function run(self)
  local ok, result, where = self.environment:run()
  if not ok then
    if where then error(("%s: %s"):format(where, tostring(result.message or result)), 0) end
    error(type(result) == "table" and result.message or result, 0)
  end
  if not app_of.is(result) then fail("%s does not return an app: it should end with 'return app'", self.path) end
  self.app = result
  replace_listeners(self)
end

--- Loads a routing script for this test. Its app starts with the first request, message or event, or by `start`;
--- it is stopped at the end of the test.
---@param path string
---@param session perigee.testing.Session
---@return perigee.testing.Subject
local function load(path, session)
  if type(path) ~= "string" then fail("load takes the path of a script, not a %s", type(path)) end
  number = number + 1
  local self = setmetatable({
    path = path, session = session, peers = {}, clients = {}, first_log = #session.logs + 1, background = {},
    environment = environment.new(path, { is_served = true }),
  }, Subject)
  self.environment.globals.arg = { [0] = path }
  own_perigee(self)
  session.subjects[#session.subjects + 1] = self
  watch.in_background(run, self)
  return self
end

--- Life ---------------------------------------------------------------------------------------------------------

local function start(self)
  self.app:start():await()
  for work in pairs(self.environment.spawned) do self.background[#self.background + 1] = work end
end

--- Runs the factories and the on_start hooks. Asked again, nothing.
---@return perigee.testing.Subject self
function Subject:start()
  if self.stopped then
    error(errors.misuse("UNSUPPORTED", self.path .. " was stopped, at the latest with the test that loaded it: load it "
      .. "in before_each"), 0)
  end
  if self.started then return self end
  self.started = true
  watch.in_background(start, self)
  return self
end

--- Drains, runs the on_stop hooks, cancels what the app had started for itself. At the latest at the test's end. What
--- goes wrong there is only logged, so here it fails the test.
function Subject:stop()
  if self.stopped then return end
  self.stopped = true
  local first = #self.session.logs + 1
  if self.app then self.app:stop():await() end
  for _, work in ipairs(self.background) do work:cancel() end
  for _, client in pairs(self.clients) do client:close():await() end
  self.environment:close():await()
  for i = first, #self.session.logs do
    local entry = self.session.logs[i]
    if entry.level == "error" then self.session:fail(entry.text) end
  end
end

--- Traffic ------------------------------------------------------------------------------------------------------

--- An HTTP request, through the listener's own parser, router and replies; waits for the reply.
---@param request perigee.testing.Request
---@return perigee.testing.Response
function Subject:request(request)
  self:start()
  return exchange.run(self.http, request)
end

---@class perigee.testing.MessageOptions
---@field transport? string which listener it comes to; the first
---@field metadata? table
---@field timeout? number ms of silence; none

---@class perigee.testing.Answer
---@field value any the last value
---@field values any[]
---@field err any what the peer sees as its `err`; nil when all went well

local function client_for(self, options)
  self:start()
  local transport = options.transport or self.transports[1]
  local client = self.clients[transport]
  if not client then
    fail("%s has no handlers for the transport '%s' (known: %s)", self.path, tostring(transport),
      table.concat(self.transports, ", "))
  end
  return client, { metadata = options.metadata, timeout = options.timeout }
end

--- A request from a peer; waits for the end of its answer.
---@param pattern any
---@param data any
---@param options? perigee.testing.MessageOptions
---@return perigee.testing.Answer
function Subject:message(pattern, data, options)
  local client, opts = client_for(self, options or {})
  local values = {}
  local ok, err = pcall(function()
    for value in client:send(pattern, data, opts):values() do values[#values + 1] = value end
  end)
  if ok then return { value = values[#values], values = values } end
  if not errors.is(err) or err.code ~= "REMOTE" and err.code ~= "NO_HANDLER" then error(err, 0) end
  return { value = values[#values], values = values, err = err.err }
end

--- An event from a peer. Returns when its handlers have done what takes no time.
---@param pattern any
---@param data any
---@param options? perigee.testing.MessageOptions
function Subject:event(pattern, data, options)
  local client, opts = client_for(self, options or {})
  client:emit(pattern, data, opts):await()
  watch.settle()
end

--- What was logged since the script was loaded.
---@return { level: string, text: string }[]
function Subject:logs()
  local list = {}
  for i = self.first_log, #self.session.logs do list[#list + 1] = self.session.logs[i] end
  return list
end

return { load = load }
