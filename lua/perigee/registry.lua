--- An app's tokens: clients and values by name, made when first needed, replaced in tests by `override`.

local client = require("perigee.client")
local combinators = require("perigee.combinators")
local errors = require("perigee.errors")
local fake = require("perigee.fake")
local promise = require("perigee.promise")
local reply = require("perigee.reply")

---@class perigee.Binding
---@field token any
---@field where string file:line
---@field kind "client"|"async"|"value"|"factory"
---@field value any once made
---@field made boolean
---@field fake? table

---@class perigee.Registry
---@field new_client fun(options: table, token: any): perigee.Client how clients are made: `perigee.testing` has its own
---@field private bindings table<any, perigee.Binding>
---@field private order perigee.Binding[]
local Registry = {}
Registry.__index = Registry
Registry.__name = "perigee.registry"

---@return perigee.Registry
local function new()
  return setmetatable({ new_client = client.new, bindings = {}, order = {} }, Registry)
end

local function fail(...)
  error(errors.misuse("INVALID_OPTION", string.format(...)), 0)
end

--- Handles ------------------------------------------------------------------------------------------------------

---@class perigee.Handle stands for a client; which one is looked up at each call
---@field private binding perigee.Binding
local Handle = {}
Handle.__index = Handle
Handle.__name = "perigee.handle"

local function current(binding)
  if binding.fake then return binding.fake end
  if not binding.made then
    error(errors.misuse("UNSUPPORTED", ("'%s' is made when the app starts: it cannot be used before")
      :format(tostring(binding.token))), 0)
  end
  return binding.value
end

-- What a fake object leaves out does nothing.
local function call(binding, name, ...)
  local target = current(binding)
  local method = target[name]
  if method then return method(target, ...) end
  if name == "connect" or name == "close" or name == "emit" then return promise.resolved() end
  if name == "status" then return { state = "connected", hosts = {} } end
  if name == "send" then
    error(errors.misuse("UNSUPPORTED", ("the fake for '%s' has no send"):format(tostring(binding.token))), 0)
  end
end

---@return perigee.Reply
function Handle:send(pattern, data, opts)
  local result = call(self.binding, "send", pattern, data, opts)
  if reply.is(result) then return result end
  return combinators.from(promise.is(result) and result or combinators.of(result)) -- a fake may return its value
end

---@return perigee.Promise
function Handle:emit(pattern, data, opts)
  local result = call(self.binding, "emit", pattern, data, opts)
  return promise.is(result) and result or promise.resolved(result)
end

for _, name in ipairs({ "connect", "close", "on", "status", "unwrap", "on_dispatch" }) do
  Handle[name] = function(self, ...) return call(self.binding, name, ...) end
end

--- The client behind a handle; anything else is returned as it is.
---@param object any
---@return any
local function resolve(object)
  if getmetatable(object) == Handle then return current(object.binding) end
  return object
end

--- The core's client behind an object, for passing packets on without Lua; nil when something in Lua wants to see
--- them: a fake, a transport or serialiser in Lua, a dispatch hook.
---@param object any
---@return perigee.core.client?
---@return number|false|nil timeout ms
local function direct(object)
  local target = resolve(object)
  if not target.core or target.dispatch_hooks then return nil end
  return target.core, target.timeout
end

--- Declaring ----------------------------------------------------------------------------------------------------

local function declare(self, token, kind, where)
  if token == nil then fail("a client needs a name") end
  local other = self.bindings[token]
  if other then
    error(errors.misuse("INVALID_OPTION", ("'%s' at %s is already defined at %s"):format(tostring(token), where,
      other.where), "duplicate-token"), 0)
  end
  local binding = { token = token, kind = kind, where = where, made = false }
  self.bindings[token] = binding
  self.order[#self.order + 1] = binding
  return binding
end

-- Both of Nest's forms: a list, or { clients = list, is_global = }, where all is global to the app anyway (MOD-01).
local function list_of(what, entries)
  if type(entries) == "table" and type(entries.clients) == "table" then entries = entries.clients end
  if type(entries) ~= "table" or #entries == 0 and next(entries) ~= nil then
    fail("%s takes a list of tables", what)
  end
  for _, entry in ipairs(entries) do
    if type(entry) ~= "table" then fail("%s takes a list of tables", what) end
  end
  return entries
end

--- Clients by their options; nothing is dialled.
---@param entries table[] { name =, transport =, host =, port =, … }
---@param where string
function Registry:clients(entries, where)
  for _, entry in ipairs(list_of("clients", entries)) do
    local options = {}
    for name, value in pairs(entry) do options[name] = value end
    -- The token; the local transport's server is then `server`, or has the token's name.
    options.name = entry.transport == "local" and (entry.server or entry.name) or nil
    options.server = nil
    local binding = declare(self, entry.name, "client", where)
    binding.value, binding.made = self.new_client(options, entry.name), true
  end
end

--- Clients whose options a function gives when the app starts; it may await.
---@param entries table[] { name =, inject = { token, … }, use_factory = function }
---@param where string
function Registry:clients_async(entries, where)
  for _, entry in ipairs(list_of("clients_async", entries)) do
    for name in pairs(entry) do
      if name ~= "name" and name ~= "inject" and name ~= "use_factory" then
        fail("unknown option '%s' of clients_async (known: name, inject, use_factory)", tostring(name))
      end
    end
    if type(entry.use_factory) ~= "function" then
      fail("clients_async: '%s' needs the function use_factory", tostring(entry.name))
    end
    local binding = declare(self, entry.name, "async", where)
    binding.factory, binding.inject = entry.use_factory, entry.inject or {}
  end
end

--- A value, or a function that makes it, once, when it is first asked for; it may await.
---@param token any
---@param value any
---@param where string
function Registry:provide(token, value, where)
  local binding = declare(self, token, type(value) == "function" and "factory" or "value", where)
  if binding.kind == "factory" then
    binding.factory = value
  else
    binding.value, binding.made = value, true
  end
end

--- Replaces what is behind a token, also for handlers that already hold it.
---@param token any
---@param replacement any for a client: see fake.lua; for a value: the other value
function Registry:override(token, replacement)
  local binding = self:find(token)
  if binding.kind == "client" or binding.kind == "async" then
    binding.fake = fake.new(replacement)
  else
    binding.value, binding.made = replacement, true
  end
end

--- Using --------------------------------------------------------------------------------------------------------

---@private
function Registry:find(token)
  local binding = self.bindings[token]
  if binding then return binding end
  local known = {}
  for i, other in ipairs(self.order) do known[i] = tostring(other.token) end
  error(errors.misuse("INVALID_OPTION", ("nothing is registered as '%s' (known: %s)"):format(tostring(token),
    #known > 0 and table.concat(known, ", ") or "nothing"), "unknown-token"), 0)
end

-- Which factory asks is told by its coroutine.
local makers = setmetatable({}, { __mode = "k" })

-- Raises when the factory that asks for the binding is, over others, what the binding waits for.
local function refuse_cycle(asking, binding)
  local path, one = tostring(asking.token), binding
  while one do
    path = path .. " -> " .. tostring(one.token)
    if one == asking then fail("'%s' cannot be made, it needs itself: %s", tostring(asking.token), path) end
    one = one.waits_for
  end
end

-- Of two that ask at once, the second waits for the first: a factory runs once.
local function make(binding)
  local asking = makers[coroutine.running() or "main"]
  if asking then
    refuse_cycle(asking, binding)
    asking.waits_for = binding
  end
  if not binding.making then
    local starts = promise.bare() -- known before the factory runs, which may come back here
    binding.making = starts
    promise.resolve(starts, combinators.async(function()
      makers[coroutine.running()] = binding
      return binding.factory()
    end))
  end
  local ok, value = pcall(binding.making.await, binding.making)
  if asking then asking.waits_for = nil end
  if not ok then error(value, 0) end
  binding.value, binding.made = value, true
  return value
end

--- A client's handle, or a provided value.
---@param token any
---@return any
function Registry:inject(token)
  local binding = self:find(token)
  if binding.kind == "client" or binding.kind == "async" then
    binding.handle = binding.handle or setmetatable({ binding = binding }, Handle)
    return binding.handle
  end
  if binding.made then return binding.value end
  return make(binding)
end

-- Factories are told the clients themselves through handles, so that their order does not matter.
local function make_client(self, binding)
  local arguments, n = {}, #binding.inject
  for i = 1, n do arguments[i] = self:inject(binding.inject[i]) end
  local options = binding.factory(unpack(arguments, 1, n))
  if promise.follower(options) then options = options:await() end
  if options == nil then fail("the factory of '%s' returned no options", tostring(binding.token)) end
  binding.value, binding.made = self.new_client(options, binding.token), true
end

--- Whether the token names a client.
---@param token any
---@return boolean
function Registry:has_client(token)
  local binding = self.bindings[token]
  return binding ~= nil and (binding.kind == "client" or binding.kind == "async")
end

--- Whether every factory's tokens exist. Raises for the first that does not, or tells each to `missing`.
---@param missing? fun(err: perigee.Error, where: string)
function Registry:check(missing)
  for _, binding in ipairs(self.order) do
    for _, token in ipairs(binding.inject or {}) do
      local ok, err = pcall(self.find, self, token)
      if not ok then
        if not missing then error(err, 0) end
        missing(err, binding.where)
      end
    end
  end
end

--- Makes what is not made yet. Runs in a coroutine; raises what a factory raises.
function Registry:start()
  self:check()
  for _, binding in ipairs(self.order) do
    if not binding.made and not binding.fake then
      if binding.kind == "factory" then make(binding) else make_client(self, binding) end
    end
  end
end

--- Requests in flight that were passed on without Lua.
---@return integer
function Registry:forwards()
  local n = 0
  for _, binding in ipairs(self.order) do
    local core = binding.made and type(binding.value) == "table" and client.is(binding.value) and binding.value.core
    if core then n = n + core:forwards() end
  end
  return n
end

--- Closes the clients made here (MOD-03). Failures to close are not worth failing for.
---@param for_good? boolean they will not be used again
---@return perigee.Promise
function Registry:close(for_good)
  local closing = {}
  for _, binding in ipairs(self.order) do
    local is_client = binding.kind == "client" or binding.kind == "async"
    if is_client and binding.made then
      local one = binding.value
      closing[#closing + 1] = for_good and client.is(one) and client.finish(one) or one:close()
    end
  end
  return combinators.settled(closing)
end

return { new = new, resolve = resolve, direct = direct }
