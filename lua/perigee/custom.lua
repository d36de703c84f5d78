--- Wires made in Lua: a transport given as functions (nest-wire 9, MOD-04), and custom serialisers over a wire of the
--- core (nest-wire 1.11). Both look like core.client to client.lua.

local core = require("perigee.core")
local errors = require("perigee.errors")
local promise = require("perigee.promise")
local scheduler = require("perigee.scheduler")

local VALUE, LAST, END, ERROR, FAIL = core.VALUE, core.LAST, core.END, core.ERROR, core.FAIL
local null = core.null

local ENVELOPE = { id = true, err = true, response = true, isDisposed = true, status = true }

local function truthy(value)
  return value ~= nil and value ~= null and value ~= false and value ~= 0 and value ~= ""
end

--- What a reply packet says (nest-wire 1.6).
---@return integer kind
---@return any value
local function read_packet(packet)
  if type(packet) ~= "table" or next(packet) == nil then return LAST, packet end
  for key in pairs(packet) do
    if not ENVELOPE[key] then return LAST, packet end
  end
  if truthy(packet.err) then return ERROR, packet.err end
  if truthy(packet.isDisposed) then
    if packet.response == nil then return END end
    return LAST, packet.response
  end
  if packet.response == nil then return VALUE, null end
  return VALUE, packet.response
end

local function raw(kind, value, wanted)
  if not wanted or (kind ~= VALUE and kind ~= LAST) then return value end
  return core.slice(assert(core.json_encode(value)))
end

--- A transport in Lua -------------------------------------------------------------------------------------------

---@class perigee.LuaTransport
---@field connect fun(): any may return a Promise; called once, before the first message
---@field publish fun(packet: table, callback: fun(packet: any)): fun()? packet is { pattern, data, metadata }; returns
---what cancels it
---@field emit? fun(packet: table): any may return a Promise
---@field close? fun(): any may return a Promise

---@class perigee.CustomWire
---@field object perigee.LuaTransport
---@field private opened? perigee.Promise
---@field private calls table<integer, table>
---@field private count integer
local Wire = {}
Wire.__index = Wire

local function later(fn, ...)
  local target = promise.pending()
  promise.run(target, fn, ...)
  return target
end

local function opening(self)
  if not self.opened then
    local opened = promise.pending()
    scheduler.within(nil, promise.run, opened, self.object.connect) -- for all calls, not under the first one's deadline
    self.opened = opened
    opened:next(function()
      if self.opened == opened then self.on_event("status", "connected") end
    end, function()
      if self.opened == opened then self.opened = nil end -- the next call tries again
    end)
  end
  return self.opened
end

local function forget(self, call)
  self.calls[call.number] = nil
  call.over = true
  if call.timer then call.timer:cancel() end
  if call.deadline then call.deadline:cancel() end
end

local function finish(self, call, kind, value, message)
  if call.over then return end
  forget(self, call)
  call.on_packet(call.observer, kind, value, message)
end

local function give_up(self, call, code, message)
  if call.over then return end
  local teardown = call.teardown
  finish(self, call, FAIL, code, message)
  if teardown then scheduler.guarded(teardown) end
end

local function arm(self, call)
  if call.timer then call.timer:cancel() end
  if not call.timeout_ms then return end
  call.timer = scheduler.after(call.timeout_ms, function()
    give_up(self, call, "TIMEOUT", ("no value within %d ms"):format(call.timeout_ms))
  end)
end

local function receive(self, call, packet)
  if call.over then return end
  local kind, value = read_packet(packet)
  value = raw(kind, value, call.raw)
  if kind ~= VALUE then return finish(self, call, kind, value) end
  arm(self, call)
  call.on_packet(call.observer, VALUE, value)
end

local function publish(self, call, packet)
  opening(self):await()
  if call.over then return end
  local teardown = self.object.publish(packet, function(reply) return receive(self, call, reply) end)
  if type(teardown) ~= "function" then return end
  if call.cancelled then return teardown() end
  call.teardown = teardown
end

function Wire:send(_, data, observer, on_packet, as_raw, timeout_ms, deadline_ms, metadata, pattern)
  local call = { number = self.count + 1, observer = observer, on_packet = on_packet, raw = as_raw,
    timeout_ms = timeout_ms }
  self.count = call.number
  self.calls[call.number] = call
  arm(self, call)
  if deadline_ms then
    call.deadline = scheduler.after(deadline_ms, function()
      give_up(self, call, "TIMEOUT", "deadline exceeded")
    end)
  end
  later(publish, self, call, { pattern = pattern, data = data, metadata = metadata }):next(nil, function(err)
    if call.over then return end
    forget(self, call)
    observer:error(err)
  end)
  return call.number
end

function Wire:emit(_, data, target, _, metadata, pattern)
  promise.run(target, function()
    opening(self):await()
    if not self.object.emit then error(errors.make("UNSUPPORTED", "the transport has no function 'emit'"), 0) end
    local sent = self.object.emit({ pattern = pattern, data = data, metadata = metadata })
    if promise.follower(sent) then sent:await() end
  end)
  return true, false
end

function Wire:connect(target)
  promise.resolve(target, opening(self):next(function() end))
  return true, false
end

function Wire:cancel(number)
  local call = self.calls[number]
  if not call then return end
  forget(self, call)
  call.cancelled = true
  if call.teardown then scheduler.guarded(call.teardown) end
end

function Wire:close(on_done)
  local calls, was_open = self.calls, self.opened
  self.calls, self.opened = {}, nil
  for _, call in pairs(calls) do give_up(self, call, "CONNECTION_CLOSED", "Connection closed") end
  later(function()
    local closed = was_open and self.object.close and self.object.close()
    if promise.follower(closed) then closed:await() end
  end):next(nil, function() end):next(function()
    if was_open then self.on_event("status", "disconnected") end
    on_done()
  end)
end

function Wire:status()
  local open = self.opened and self.opened.state == "fulfilled"
  local pending = 0
  for _ in pairs(self.calls) do pending = pending + 1 end
  local state = open and "connected" or "disconnected"
  return { state = state, pending = pending, hosts = { { address = "lua", state = state, pending = pending } } }
end

---@param object perigee.LuaTransport
---@param on_event fun(name: string, detail: any)
---@return perigee.CustomWire
local function transport(object, on_event)
  return setmetatable({ object = object, on_event = on_event, calls = {}, count = 0 }, Wire)
end

--- Custom serialisers -------------------------------------------------------------------------------------------

---@class perigee.SerialisedWire
---@field private core perigee.core.client
---@field private serialize? fun(packet: table): any
---@field private deserialize? fun(value: any): table
local Serialised = {}
Serialised.__index = Serialised

local unique = 0

-- What `serialize` is given is Nest's packet; what it returns goes on the wire as JSON.
local function maker(self, pattern, data, metadata)
  return function(id)
    local packet = { pattern = pattern, data = data, metadata = metadata, id = id }
    if not self.serialize then return packet end
    return self.serialize(packet)
  end
end

-- Where a broker addresses it.
local function json_of(text)
  return type(text) == "table" and core.json_encode(text) or text
end

function Serialised:send(text, data, observer, on_packet, as_raw, timeout_ms, deadline_ms, metadata, pattern, headers,
    options)
  return self.core:send_made(maker(self, pattern, data, metadata), { observer = observer, raw = as_raw },
    function(call, kind, value, message)
      return on_packet(call.observer, kind, raw(kind, value, call.raw), message)
    end, timeout_ms, deadline_ms, json_of(text), headers, options)
end

function Serialised:emit(text, data, target, on_done, metadata, pattern, headers, options, timeout_ms)
  return self.core:emit_made(maker(self, pattern, data, metadata), target, on_done, json_of(text), headers, options,
    timeout_ms)
end

function Serialised:connect(...) return self.core:connect(...) end
function Serialised:cancel(...) return self.core:cancel(...) end
function Serialised:close(...) return self.core:close(...) end
function Serialised:status() return self.core:status() end

local function id_of(packet)
  return type(packet) == "table" and packet.id
end

-- The call that the packet was for, going by what came, need not wait for its timeout.
local function refuse(self, id, err)
  local on_packet, call
  if type(id) == "string" then on_packet, call = self.core:take(id, true) end
  if not on_packet then error(err, 0) end
  return on_packet(call, FAIL, "INVALID_MESSAGE", "deserialize: " .. errors.from(err).message)
end

-- id: where the address of the reply told whose it is.
local function receive_raw(self, text, id)
  local packet = assert(core.json_decode(text))
  if self.deserialize then
    local came_for = id or id_of(packet)
    local ok, made = xpcall(self.deserialize, errors.on_raise, packet)
    if not ok then return refuse(self, came_for, made) end
    packet = made
  end
  id = id or id_of(packet)
  if type(id) ~= "string" then return end -- nobody's: as an unknown id
  local kind, value = read_packet(packet)
  local on_packet, call = self.core:take(id, kind ~= VALUE)
  if on_packet then return on_packet(call, kind, value) end
end

---@param options table normalised, with serialize or deserialize
---@param on_event fun(name: string, detail: any)
---@return perigee.SerialisedWire?
---@return string? code
---@return string? message
local function serialised(options, on_event)
  unique = unique + 1
  local self = setmetatable({ serialize = options.serialize, deserialize = options.deserialize }, Serialised)
  options.raw_packets = true
  options.key = options.key .. "#" .. unique -- its packets are read by its own functions: no sharing
  local weak = setmetatable({ self }, { __mode = "v" })
  local wire, code, message = core.client(options, function(name, detail, id)
    if name ~= "packet" then return on_event(name, detail) end
    if weak[1] then return receive_raw(weak[1], detail, id) end
  end)
  if not wire then return nil, code, message end
  self.core = wire
  return self
end

return { transport = transport, serialised = serialised }
