--- A listener for messages: runs handlers for what the core receives and sends what they return (nest-wire 1.7-1.9).

local combinators = require("perigee.combinators")
local context = require("perigee.context")
local core = require("perigee.core")
local entry = require("perigee.entry")
local errors = require("perigee.errors")
local headers_of = require("perigee.headers")
local link = require("perigee.link")
local log = require("perigee.log")
local promise = require("perigee.promise")
local registry = require("perigee.registry")
local scheduler = require("perigee.scheduler")
local transports = require("perigee.transports")
local url_of = require("perigee.url")

local SLOTS = core.SLOTS -- number % SLOTS is the slot: a small index, used again
local VALUE, LAST, END, ERROR, FAIL = core.VALUE, core.LAST, core.END, core.ERROR, core.FAIL

---@class perigee.MessageServer
---@field handlers perigee.Handlers
---@field transport string
---@field closed perigee.Promise settles when everything is closed
---@field private core perigee.core.server
---@field private core_reply fun(core: perigee.core.server, req: integer, kind: integer, value: any): ...
---@field private core_value fun(core: perigee.core.server): any, string?
---@field private running table<integer, perigee.ServerCall> requests by number, until answered
---@field private events table<perigee.Promise, perigee.Generation> event handlers still running
---@field private subscribed? perigee.Handler[] of a broker: in the order of the subscriptions
---@field private started? perigee.Promise of a broker: settles when it has taken the first ones
local Server = {}
Server.__index = Server
Server.__name = "perigee.server"

--- Answers ------------------------------------------------------------------------------------------------------

---@class perigee.ServerCall one request: a link, so that a Reply can stream into it
local Call = link.class()

-- Nest's own errors have their keys in Nest's order, which an encoded table would lose.
local function nest_error(code, message)
  local parts = { '{"status":"error"' }
  if code then parts[2] = ',"code":' .. core.json_encode(code) end
  parts[#parts + 1] = ',"message":' .. (core.json_encode(message) or '""') .. "}"
  return core.slice(table.concat(parts))
end

local INTERNAL = nest_error(nil, "Internal server error")

-- Out of a message handler: the contract's rules, Nest's shapes.
local function error_packet(call, err)
  if type(err) ~= "table" then err = errors.from(err) end
  if not errors.is(err) then return err end
  if err.code == "REMOTE" then return err.err end
  -- A forward passes on what the peer said also here, as it does without middleware.
  if call.handler.kind == "forward" and err.err ~= nil then return err.err end
  if err.code == "SCRIPT" then
    log.failure(("message %s"):format(call.handler.shown), err)
    return INTERNAL
  end
  return nest_error(err.code, err.message)
end

function Call:over()
  self.closed = true
  local running, slot = self.server.running, self.req % SLOTS
  if running[slot] == self then running[slot] = nil end
end

function Call:fail(err)
  self:over()
  local packet = error_packet(self, err)
  local ok, code, message = self.server.core:reply(self.req, ERROR, packet)
  if ok or code == "CLOSED" then return end
  log.error("message %s: the error cannot be sent: %s", self.handler.shown, message)
  self.server.core:reply(self.req, ERROR, INTERNAL)
end

-- A value that cannot be encoded: Nest never answers (G6), here the call fails.
function Call:refused(code, message)
  if code == "CLOSED" then return self:over() end
  log.error("message %s: the result cannot be sent: %s", self.handler.shown, message)
  return self:fail(errors.make("INVALID_MESSAGE", message))
end

function Call:next(value)
  if self.closed then return end
  local ok, code, message = self.server.core:reply(self.req, VALUE, value)
  if ok then return end
  self:cancel()
  return self:refused(code, message)
end

function Call:complete()
  if self.closed then return end
  self.upstream = nil
  self:over()
  self.server.core:reply(self.req, END)
end

function Call:error(err)
  if self.closed then return end
  self.upstream = nil
  return self:fail(err)
end

--- The only value.
function Call:value(value)
  if self.closed then return end
  if value == nil then return self:complete() end
  self:over()
  local server = self.server
  local ok, code, message = server.core_reply(server.core, self.req, LAST, value)
  if not ok then return self:refused(code, message) end
end

--- Requests -----------------------------------------------------------------------------------------------------

local function run_all(data, ctx, all)
  local list = {}
  for i, one in ipairs(all) do list[i] = combinators.async(one.fn, data, ctx) end
  return combinators.all({ n = #list, unpack(list) }):next(function(values)
    -- Nest's join of several event handlers: {"current":…,"next":…}, nested; nil members are left out.
    local joined = values[#all]
    for i = #all - 1, 1, -1 do joined = { current = values[i], next = joined } end
    return joined
  end)
end

local function function_of(handler)
  if handler.fn then return handler.fn end
  if #handler.all == 1 then return handler.all[1].fn end
  return function(data, ctx) return run_all(data, ctx, handler.all) end
end

-- While the message is being delivered: its data stands in the core until then.
local function context_of(self, req, pattern, metadata, channel, headers)
  local ctx = context.new({
    transport = self.transport, server = self.core, req = req, cancelled = false,
    pattern_json = pattern, data_json = self.core:data(), metadata_json = metadata,
  })
  if channel then ctx.pattern = channel end
  if headers then ctx.headers = headers end
  return ctx
end

--- The handler has ended.
function Call:ended(ok, result)
  if not ok then return self:error(result) end
  self.work = entry.observe(self, result)
end

function Server:request(handler, req, pattern, has_data, metadata, channel, headers)
  local ctx = not handler.bare and context_of(self, req, pattern, metadata, channel, headers)
  local call = setmetatable({
    server = self, req = req, handler = handler, ctx = ctx, closed = false, work = false,
  }, Call)
  local value, message
  if has_data then value, message = self.core_value(self.core) end
  if message then return call:fail(errors.make("INVALID_MESSAGE", message)) end
  self.running[req % SLOTS] = call
  local task = scheduler.start_two(call, handler.fn or function_of(handler), value, ctx)
  if not call.closed and not call.work then call.work = task end
end

-- The peer has left: nobody waits for the answer any more (G7).
function Server:gone(req)
  local call = self.running[req % SLOTS]
  if not call or call.req ~= req then return end
  if call.ctx then call.ctx.cancelled = true end
  self.running[req % SLOTS] = nil
  local work = call.work
  if work == call then return call:cancel() end
  call.closed = true
  if work then work:cancel() end
end

--- Events -------------------------------------------------------------------------------------------------------

local function event_over(self, work)
  self.events[work] = nil
  if next(self.events) == nil and self.on_idle then self.on_idle() end
end

local function run_event(self, shown, one, data, ctx, on_end)
  local work = promise.bare()
  self.events[work] = one.owner
  promise.observe(work, { of = work, settle = function(_, ok, err)
    event_over(self, work)
    if not ok then log.failure("event " .. shown, err) end
    if on_end then on_end(ok) end
  end })
  promise.run(work, one.fn, data, ctx)
end

-- A broker that wants to know is told when all handlers have ended: well, or not.
local function settler(self, req, count)
  local good = true
  return function(ok)
    good, count = good and ok, count - 1
    if count == 0 then self.core:settle(req, good) end
  end
end

function Server:event(handler, req, pattern, has_data, metadata, channel, headers)
  local ctx = context_of(self, nil, pattern, metadata, channel, headers)
  ctx.is_event = true
  if req then ctx.owed = req end
  ctx.peer = self.core:peer() -- it may leave before the handler asks
  local all = handler.all or { { fn = handler.fn, owner = next(handler.owners) } }
  local value, message
  if has_data then value, message = self.core:value() end
  if message then
    log.error("event %s: %s", handler.shown, message)
    if req then self.core:settle(req, false) end
    return
  end
  local on_end = req and settler(self, req, #all)
  for _, one in ipairs(all) do
    run_event(self, handler.shown, one, value, ctx, on_end)
  end
end

--- Forwards -----------------------------------------------------------------------------------------------------

local function slice(json)
  return json and setmetatable({ json }, core.slice_mt)
end

local function event_sent(shown, kind, code, message)
  if kind == FAIL then log.warn("event %s was not passed on: %s: %s", shown, code, message) end
end

-- Untouched, and without Lua where the client's wire is the core's own. An event whose broker wants a word goes the
-- long way, which knows when it has been handed on.
function Server:forward(handler, req, pattern, has_data, metadata, channel, headers, is_event)
  local to, timeout = registry.direct(handler.client)
  if not to or is_event then
    if req and not is_event then return self:request(handler, req, pattern, has_data, metadata, channel, headers) end
    return self:event(handler, req, pattern, has_data, metadata, channel, headers)
  end
  local data = self.core:data()
  local other, flat = handler.to or pattern, headers and headers_of.flatten(headers)
  if req then return self.core:forward(req, to, other, data or "null", timeout, metadata, flat) end
  local ok, code, message = to:emit(other, slice(data or "null"), handler.shown, event_sent, slice(metadata), nil, flat,
    nil, timeout)
  if not ok then event_sent(handler.shown, FAIL, code, message) end
end

--- From a broker: the subscription it came by decides which handler runs.
function Server:deliver(req, pattern, has_data, metadata, index, channel, headers, is_event)
  local handler = self.subscribed[index]
  if handler.direct then
    return self:forward(handler, req, pattern, has_data, metadata, channel, headers, is_event)
  end
  if req and not is_event then return self:request(handler, req, pattern, has_data, metadata, channel, headers) end
  return self:event(handler, req, pattern, has_data, metadata, channel, headers)
end

function Server:receive(req, pattern, has_data, metadata)
  local handler = self.handlers:find(pattern)
  if not handler then
    if req then return self.core:no_handler(req) end
    return log.warn("There is no matching event handler defined in the remote service. Event pattern: %s",
      tostring(pattern))
  end
  if handler.direct then return self:forward(handler, req, pattern, has_data, metadata) end
  if req then return self:request(handler, req, pattern, has_data, metadata) end
  return self:event(handler, nil, pattern, has_data, metadata)
end

--- Life ---------------------------------------------------------------------------------------------------------

-- Closed means: the sockets are, and no event handler runs any more.
local function core_closed(self)
  if next(self.events) == nil then return promise.resolve(self.closed, nil) end
  self.on_idle = function() promise.resolve(self.closed, nil) end
end

-- What has become of the connection to a broker.
local function on_status(self, status, code, message)
  if status == "ready" then
    promise.resolve(self.started, nil)
  elseif status == "failed" then
    promise.reject(self.started, errors.make(code, message))
  elseif status == "lost" then
    log.warn("%s: the connection was lost (%s); reconnecting", self.shown, message)
  else
    log.info("%s: connected again", self.shown)
  end
end

-- Asks a broker for what the handlers hear, and for nothing else any more. Raises INVALID_OPTION.
local function subscribe(self, handlers)
  local list = handlers:subscriptions()
  local ok, code, message = self.core:subscribe(list)
  if not ok then error(errors.make(code, message), 0) end
  self.subscribed = {}
  for i, entry_of in ipairs(list) do self.subscribed[i] = entry_of.handler end
end

--- Listens. Raises LISTEN_FAILED, and what `subscribe` does. Over a broker it is not ready before `started` settles.
---@param handlers perigee.Handlers
---@param options perigee.ListenerOptions
---@return perigee.MessageServer
local function open(handlers, options)
  local self = setmetatable({
    handlers = handlers, transport = options.transport, running = {}, events = {}, closed = promise.pending(),
    shown = url_of.redact(options.url),
  }, Server)
  local is_broker = transports.by_name[options.transport].is_broker
  local server, code, message = core.server(options.core, {
    on_message = is_broker and function(...) return self:deliver(...) end
      or function(req, pattern, has_data, metadata) return self:receive(req, pattern, has_data, metadata) end,
    on_status = function(...) return on_status(self, ...) end,
    on_gone = function(req) return self:gone(req) end,
    on_close = function() return core_closed(self) end,
    on_fault = function(fault, peer) log.warn("%s: %s", peer, fault) end,
  })
  if not server then error(errors.make(code, message), 0) end
  self.core = server
  self.core_reply, self.core_value = server.reply, server.value -- a look-up less for each message
  if not is_broker then return self end
  self.started = promise.pending()
  local ok, err = pcall(subscribe, self, handlers)
  if not ok then
    server:close()
    error(err, 0)
  end
  return self
end

--- Raises what `use` could not do.
---@param handlers perigee.Handlers
function Server:check(handlers)
  if not self.subscribed then return end
  local ok, code, message = self.core:subscribe(handlers:subscriptions(), true)
  if not ok then error(errors.make(code, message), 0) end
end

--- From the next packet on; what runs goes on as it began. Over a broker: subscribes what is new, and nothing else any
--- more.
---@param handlers perigee.Handlers
function Server:use(handlers)
  self.handlers = handlers
  if self.subscribed then subscribe(self, handlers) end
end

--- No new peers while held.
---@param held boolean
function Server:hold(held) self.core:hold(held) end

--- How many requests and event handlers of a generation still run.
---@param owner perigee.Generation
---@return integer
function Server:calls(owner)
  local n = 0
  for _, call in pairs(self.running) do
    if call.handler.owners[owner] then n = n + 1 end
  end
  for _, of in pairs(self.events) do
    if of == owner then n = n + 1 end
  end
  return n
end

local function cancel_events(self, owner)
  local running = {}
  for work, of in pairs(self.events) do
    if not owner or of == owner then running[#running + 1] = work end
  end
  for _, work in ipairs(running) do work:cancel() end
end

-- Ends one call with what its peer is to be told.
local function cut(call, err)
  local work = call.work
  if call.ctx then call.ctx.cancelled = true end
  if work == call then
    call:cancel()
    return call:fail(err)
  end
  call:fail(err)
  if work then work:cancel() end
end

--- Cancels them; who asked is told CANCELLED.
---@param owner perigee.Generation
function Server:cut(owner)
  local calls = {}
  for _, call in pairs(self.running) do
    if call.handler.owners[owner] then calls[#calls + 1] = call end
  end
  for _, call in ipairs(calls) do cut(call, errors.make("CANCELLED", "cancelled: the service reloads")) end
  cancel_events(self, owner)
end

function Server:drain() self.core:drain() end

--- Cuts what still runs, event handlers included.
function Server:close()
  self.core:close()
  cancel_events(self)
end

---@return string
function Server:address() return self.core:address() end

return { open = open }
