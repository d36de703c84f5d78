--- What a script holds to reach one service: `send` gives a cold Reply, `emit` a hot Promise (nest-wire 1.5).
---
---   Client -> core.client (pool, pending calls, wire)          or -> custom.lua (a transport written in Lua)

local core = require("perigee.core")
local custom = require("perigee.custom")
local errors = require("perigee.errors")
local headers_of = require("perigee.headers")
local log = require("perigee.log")
local option_types = require("perigee.option_types")
local options_of = require("perigee.options")
local pattern_text = require("perigee.pattern_text")
local promise = require("perigee.promise")
local reply = require("perigee.reply")
local scheduler = require("perigee.scheduler")
local scope = require("perigee.scope")
local unasked = require("perigee.unasked")

local VALUE, LAST, END, ERROR, FAIL = core.VALUE, core.LAST, core.END, core.ERROR, core.FAIL
local park, unpark, wake = scheduler.park, scheduler.unpark, scheduler.wake
local asked, deadline_of_task, unasked_add = unasked.asked, scheduler.deadline, unasked.add
local null, json_encode = core.null, core.json_encode

local NO_HANDLER = "There is no matching message handler defined in the remote service."

---@class perigee.Client
---@field core? perigee.core.client nil when packets are made or carried in Lua
---@field timeout number|false ms of silence
---@field message? table<string, perigee.OptionType> what its transport takes with one message
---@field private headers? table<string, string|string[]> of every message
---@field private flat_headers? string[] the same, as the core takes them
---@field private wire perigee.core.client|perigee.CustomWire
---@field private asker function|false sends and waits in one, see `ask`; false: the long way must be taken
---@field private cancel_ask? fun(task: perigee.Task)
---@field private dispatch_hooks? function[]
---@field private listeners table<string, function[]>
---@field private last_status? "connected"|"disconnected"|"reconnecting"
local Client = {}
Client.__index = Client
Client.__name = "perigee.client"

local function missing(value)
  return value == nil or value == null
end

local function invalid(message)
  return errors.make("INVALID_MESSAGE", message or "The invalid data or message pattern (undefined/null)")
end

--- Errors of the peer -------------------------------------------------------------------------------------------

local function remote_message(err)
  if type(err) == "string" then return err end
  if type(err) == "table" and type(err.message) == "string" then return err.message end
  return json_encode(err) or tostring(err)
end

--- The error a packet's `err` stands for. A transport in Lua can also fail a call with an error of ours.
---@param err any decoded
---@return perigee.Error
local function remote_error(err)
  if errors.is(err) then return err end
  if err == NO_HANDLER then return errors.new({ code = "NO_HANDLER", message = NO_HANDLER, err = err }) end
  return errors.new({ code = "REMOTE", message = remote_message(err), err = err })
end

--- Sending ------------------------------------------------------------------------------------------------------

---@class perigee.CallOptions
---@field timeout? number|false ms of silence: until the first value, then between values
---@field deadline? number ms in all; that of whoever sends bounds it too
---@field metadata? table<string, string>
---@field headers? table<string, string|string[]> where the transport carries them

local CALL_OPTIONS = { timeout = "number", deadline = "number", metadata = "table" }

local function unknown_option(client, name)
  local known = { "deadline", "metadata", "timeout" }
  for option in pairs(client.message or {}) do known[#known + 1] = option end
  table.sort(known)
  return errors.make("INVALID_OPTION", ("unknown option '%s' (known: %s)"):format(tostring(name),
    table.concat(known, ", ")))
end

local function check_headers(client, value)
  if type(value) ~= "table" then
    return errors.make("INVALID_OPTION", "option 'headers' must be a table, not " .. type(value))
  end
  local good, message = option_types.check.headers(value)
  if good then good, message = true, select(2, headers_of.flatten(value, client.headers)) end
  if not good or message then return errors.make("INVALID_MESSAGE", message) end
end

local function check_extra(client, option, name, value)
  if option.type == "headers" then return check_headers(client, value) end
  local good, expected = option_types.check[option.type](value)
  if good == nil then return errors.make("INVALID_OPTION", ("option '%s' must be %s"):format(name, expected)) end
end

local function check_option(client, name, value)
  local wanted = CALL_OPTIONS[name]
  if not wanted then
    local extra = client.message and client.message[name]
    if not extra then return unknown_option(client, name) end
    return check_extra(client, extra, name, value)
  end
  local off = value == false and name ~= "metadata"
  local fits = type(value) == wanted and (wanted ~= "number" or value > 0)
  if not off and not fits then
    return errors.make("INVALID_OPTION", ("option '%s' must be a %s%s"):format(name, wanted,
      wanted == "number" and " above 0" or ""))
  end
end

local function check_options(client, opts)
  if type(opts) ~= "table" then
    return errors.make("INVALID_OPTION", "options must be a table, not " .. type(opts))
  end
  for name, value in pairs(opts) do
    local err = check_option(client, name, value)
    if err then return err end
  end
end

-- Headers and the transport's own options, flat; nothing for most messages.
local function extras_of(client, opts)
  if not opts then return client.flat_headers, nil end
  local options
  for name in pairs(client.message) do
    if opts[name] ~= nil and name ~= "headers" then
      options = options or {}
      options[#options + 1], options[#options + 2] = name, tostring(opts[name])
    end
  end
  if not opts.headers then return client.flat_headers, options end
  return headers_of.flatten(opts.headers, client.headers), options
end

-- Static: the observer is handed back by the core, so a call needs no closure.
local function on_packet(observer, kind, value, message)
  if kind == VALUE then
    observer:next(value)
  elseif kind == LAST then
    observer:next(value)
    observer:complete()
  elseif kind == END then
    observer:complete()
  elseif kind == FAIL then
    observer:error(errors.make(value, message))
  else
    observer:error(remote_error(value))
  end
end

-- Runs the hooks on the packet they may change; returns its metadata.
local function dispatch(client, call)
  local packet = { pattern = call.pattern, data = call.data, metadata = call.opts and call.opts.metadata }
  for _, hook in ipairs(client.dispatch_hooks) do hook(packet) end
  return packet.metadata
end

local function metadata_of(client, call)
  if client.dispatch_hooks then return dispatch(client, call) end
  return call.opts and call.opts.metadata
end

local function timeout_of(client, call, ctx)
  if ctx and ctx.timeout ~= nil then return ctx.timeout end
  local opts = call.opts
  if opts and opts.timeout ~= nil then return opts.timeout end
  return client.timeout
end

-- What is wrong with a message before it is sent; nil when nothing is.
local function refused(call)
  if missing(call.pattern) or missing(call.data) then return invalid() end
  if call.opts then return check_options(call.client, call.opts) end
end

-- ms: the call's own, or what is left to whoever asked. 0 or less: there is nothing left.
local function sooner(own, at)
  local left = at - core.now()
  return own and own < left and own or left
end

local function source(observer, ctx, call)
  local client = call.client
  local err = refused(call)
  if err then return observer:error(err) end
  local deadline = call.opts and call.opts.deadline or false
  if ctx and ctx.deadline then
    deadline = sooner(deadline, ctx.deadline)
    if deadline <= 0 then return observer:error(scope.too_late()) end
  end
  local metadata = metadata_of(client, call)
  local text = pattern_text(call.pattern)
  if not text then return observer:error(invalid("the pattern cannot be encoded as JSON")) end
  local wire, headers, options = client.wire, nil, nil
  if client.message then headers, options = extras_of(client, call.opts) end
  local number, code, message = wire:send(text, call.data, observer, on_packet, ctx and ctx.raw or false,
    timeout_of(client, call, ctx), deadline, metadata, call.pattern, headers, options)
  if not number then return observer:error(errors.make(code, message)) end
  return wire.cancel, wire, number
end

-- The same for a task that awaits and no stage in between: packets come to the task, and no observer is made.
local function on_awaited(task, kind, value, message)
  if kind == LAST then return wake(task, true, value) end
  if kind == VALUE then
    task.latest = value
  elseif kind == END then
    return wake(task, true, task.latest)
  elseif kind == FAIL then
    return wake(task, false, errors.make(value, message))
  else
    return wake(task, false, remote_error(value))
  end
end

core.hooks({ awaited = on_awaited })

-- What ask hands on; the core calls nobody back before it has yielded. Returns as Reply.direct.
local function ask_with(call, task, ...)
  local client = call.client
  if call.slot then asked(call) end
  task[1] = false
  park(task, client.cancel_ask, task)
  local ok, value, message = client.asker(...)
  if not unpark(task) then return ok, value end
  if task[1] then -- somebody else's resume, not a wake
    client.cancel_ask(task)
    return ok or false, value
  end
  if value then return false, errors.make(value, message) end
end

-- With options, or within a deadline.
local function ask_within(call, task, raw, text, at)
  local client, opts = call.client, call.opts
  if opts and (getmetatable(opts) or check_options(client, opts)) then return end -- may raise: the long way protects
  local deadline, timeout = opts and opts.deadline or false, client.timeout
  if at then
    deadline = sooner(deadline, at)
    if deadline <= 0 then return end
  end
  if opts and opts.timeout ~= nil then timeout = opts.timeout end
  local headers, options
  if client.message then headers, options = extras_of(client, opts) end
  return ask_with(call, task, text, call.data, task, task.co, timeout, raw, deadline, opts and opts.metadata, headers,
    options)
end

-- See Reply.direct.
local function ask(call, task, raw)
  local client, pattern, data = call.client, call.pattern, call.data
  if not client.asker or missing(pattern) or missing(data) then return end
  local text = pattern_text(pattern)
  if not text then return end
  if task.latest ~= nil then task.latest = nil end -- of a call before
  local at = deadline_of_task()
  if at or call.opts or client.message then return ask_within(call, task, raw, text, at) end
  return ask_with(call, task, text, data, task, task.co, client.timeout, raw)
end

-- What `send` returns: a Reply that is the state of its source.
local Call = reply.class(source, ask)

--- Asks: nothing is sent until somebody waits for the Reply, and then once for each who does.
---@param pattern any string or table
---@param data any not nil, not null
---@param opts? perigee.CallOptions
---@return perigee.Reply
function Client:send(pattern, data, opts)
  local call -- `slot` is for unasked.lua: named here, the table is made with room for it
  if opts == nil then
    call = { client = self, pattern = pattern, data = data, slot = false }
  else
    call = { client = self, pattern = pattern, data = data, slot = false, opts = opts }
  end
  setmetatable(call, Call)
  unasked_add(call)
  return call
end

local function on_emitted(target, kind, code, message)
  if kind == FAIL then return promise.reject(target, errors.make(code, message)) end
  if kind == ERROR then return promise.reject(target, remote_error(code)) end
  promise.resolve(target, nil)
end

local function emit(client, call, target)
  local err = refused(call)
  if err then error(err, 0) end
  local at = scheduler.deadline()
  if at and at <= core.now() then error(scope.too_late(), 0) end
  local metadata = metadata_of(client, call)
  local text = pattern_text(call.pattern)
  if not text then error(invalid("the pattern cannot be encoded as JSON"), 0) end
  local headers, options
  if client.message then headers, options = extras_of(client, call.opts) end
  local ok, done, message = client.wire:emit(text, call.data, target, on_emitted, metadata, call.pattern, headers,
    options, timeout_of(client, call))
  if not ok then error(errors.make(done, message), 0) end
  if done == true then promise.resolve(target, nil) end
end

--- Tells: leaves now. The Promise settles when the event is handed to the wire, or acknowledged where a broker does.
---@param pattern any
---@param data any not nil, not null
---@param opts? perigee.CallOptions
---@return perigee.Promise
function Client:emit(pattern, data, opts)
  local target = promise.pending()
  local call = { client = self, pattern = pattern, data = data, opts = opts }
  local ok, err = xpcall(emit, errors.on_raise, self, call, target)
  if not ok then promise.reject(target, err) end
  return target
end

--- Life ---------------------------------------------------------------------------------------------------------

--- Opens a connection now instead of with the first call.
---@return perigee.Promise
function Client:connect()
  local target = promise.pending()
  local ok, done, message = self.wire:connect(target, on_emitted)
  if not ok then
    promise.reject(target, errors.make(done, message))
  elseif done == true then
    promise.resolve(target, nil)
  end
  return target
end

--- Fails what is pending with CONNECTION_CLOSED. Settles when the last handle has closed; a later call opens anew.
---@return perigee.Promise
function Client:close()
  local target = promise.pending()
  self.wire:close(function() promise.resolve(target, nil) end)
  return target
end

local EVENTS = { status = true, connect = true, disconnect = true, error = true }

--- Events: "status" (the last one is told at once to who comes later), "connect", "disconnect", "error".
---@param event "status"|"connect"|"disconnect"|"error"
---@param fn fun(detail: any)
---@return perigee.Client self
function Client:on(event, fn)
  if not EVENTS[event] then
    error(errors.misuse("INVALID_OPTION",
      ("no event '%s' (known: connect, disconnect, error, status)"):format(tostring(event))), 2)
  end
  if type(fn) ~= "function" then error(errors.misuse("INVALID_OPTION", "on: a function is missing"), 2) end
  local list = self.listeners[event] or {}
  self.listeners[event] = list
  list[#list + 1] = fn
  if event == "status" and self.last_status then fn(self.last_status) end
  return self
end

---@return { state: string, hosts: { address: string, state: string, pending: integer }[] }
function Client:status()
  return self.wire:status()
end

--- What is underneath. Raises before the first connection, as Nest does.
---@return any
function Client:unwrap()
  if self.wire:status().state ~= "connected" then
    error(errors.misuse("UNSUPPORTED", 'Not initialized. Please call the "connect" method first.'), 2)
  end
  return self.wire.object or self.wire
end

--- fn(packet) before each message; it may set packet.metadata. What it raises fails that call.
---@param fn fun(packet: { pattern: any, data: any, metadata: table? })
---@return perigee.Client self
function Client:on_dispatch(fn)
  if type(fn) ~= "function" then error(errors.misuse("INVALID_OPTION", "on_dispatch takes a function"), 2) end
  self.dispatch_hooks, self.asker = self.dispatch_hooks or {}, false -- a hook may raise
  self.dispatch_hooks[#self.dispatch_hooks + 1] = fn
  return self
end

local function tell(client, event, detail)
  for _, fn in ipairs(client.listeners[event] or {}) do
    local ok, err = xpcall(fn, errors.on_raise, detail)
    if not ok then log.failure("in a listener for '" .. event .. "'", err) end
  end
end

-- The core holds this function, so it must not hold the client: a client nobody has is collected, and closed.
local function event_handler(client)
  local weak = setmetatable({ client }, { __mode = "v" })
  return function(name, detail)
    local self = weak[1]
    if not self then return end
    if name ~= "status" then return tell(self, name, detail) end
    if self.last_status == detail then return end
    self.last_status = detail
    tell(self, "status", detail)
    if detail == "reconnecting" then return end
    tell(self, detail == "connected" and "connect" or "disconnect")
  end
end

--- Dials nothing. Raises INVALID_OPTION or UNSUPPORTED.
---@param spec table|string options, or a URL
---@return perigee.Client
local function new(spec)
  local options = options_of.client(spec)
  local self = setmetatable({
    timeout = options.timeout, listeners = {}, message = options.message or false, headers = options.headers,
    flat_headers = headers_of.flatten(options.headers), asker = false,
  }, Client)
  local on_event = event_handler(self)
  if type(options.transport) == "table" then
    self.wire = custom.transport(options.transport, on_event)
    return self
  end
  if options.serialize or options.deserialize then
    local wire, code, message = custom.serialised(options, on_event)
    if not wire then error(errors.misuse(code, message), 2) end
    self.wire = wire
    return self
  end
  local wire, code, message = core.client(options, on_event)
  if not wire then error(errors.misuse(code, message), 2) end
  self.wire, self.core, self.asker = wire, wire, wire:asker(scheduler.TOKEN)
  self.cancel_ask = function(task) wire:cancel(task[1]) end
  return self
end

-- The wire of a client whose script has ended: what still runs of it must not dial again.
local Gone = {}

local function refuse()
  return nil, "CANCELLED", "the script that made this client has ended"
end

Gone.send, Gone.emit, Gone.connect = refuse, refuse, refuse
function Gone.close(_, done) done() end
function Gone.cancel() end
function Gone.status() return { state = "disconnected", hosts = {} } end

--- As `close`, for good.
---@param self perigee.Client
---@return perigee.Promise
local function finish(self)
  local closed = self:close()
  self.wire, self.core, self.asker = Gone, nil, false
  return closed
end

---@return boolean
local function is(value)
  return type(value) == "table" and getmetatable(value) == Client
end

return { new = new, is = is, finish = finish, remote_error = remote_error }
