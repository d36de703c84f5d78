--- The other end of a client in a test: a transport in Lua whose answers the test gives. The client in front of it is
--- the real one, so timeouts, deadlines, retries and hooks are.

local client = require("perigee.client")
local core = require("perigee.core")
local errors = require("perigee.errors")
local handled = require("perigee.handled")
local link = require("perigee.link")
local log = require("perigee.log")
local options_of = require("perigee.options")
local patterns = require("perigee.patterns")
local promise = require("perigee.promise")

local NO_HANDLER = "There is no matching message handler defined in the remote service."

---@class perigee.testing.Call
---@field kind "send"|"emit"
---@field pattern any
---@field data any as the peer decodes it
---@field metadata table? as the peer decodes it
---@field at number ms of the virtual clock since the test began

---@class perigee.testing.Peer
---@field name string
---@field calls perigee.testing.Call[]
---@field private session perigee.testing.Session
---@field private answers? table<any, any> by route; nil: nobody stands in for it
---@field private any? any the answer to what has none of its own
local Peer = {}
Peer.__index = Peer

--- An answer that never comes: as a fake's value, or returned by its function.
local function never()
  return promise.pending()
end

-- As over a wire: what one side changes, the other does not see.
local function copy(value)
  if value == nil then return nil end
  local text, message = core.json_encode(value)
  if not text then error(errors.make("INVALID_MESSAGE", message), 0) end
  return (core.json_decode(text))
end

local function refuse(self, what)
  local text = ("%s: the client '%s' has no fake, and a test opens no connection: t:fake(%q, { ... })")
    :format(what, self.name, self.name)
  local err = errors.make("UNSUPPORTED", text)
  self.session:fail(text, err)
  error(err, 0)
end

local function record(self, kind, packet)
  local call = {
    kind = kind, pattern = packet.pattern, data = copy(packet.data), metadata = copy(packet.metadata),
    at = self.session:now(),
  }
  self.calls[#self.calls + 1] = call
  return call
end

local function find(self, pattern)
  local found = self.answers[patterns.lookup(pattern)]
  if found == nil then return self.any end
  return found
end

local function run(found, call)
  local result = found
  if type(found) == "function" then
    result = found(copy(call.data), { pattern = call.pattern, metadata = call.metadata or {} })
  end
  if result == never then return never() end
  return result
end

-- Between the fake's answer, a Reply, and the callback of the transport's packets.
local Answer = link.class()

function Answer:next(value)
  if self.closed then return end
  local ok, result = pcall(copy, value)
  if not ok then
    self:cancel()
    return self:failed(result)
  end
  if result == nil then result = core.null end
  return self.callback({ response = result })
end

function Answer:complete()
  if self.closed then return end
  self.closed, self.upstream = true, nil
  return self.callback({ isDisposed = true })
end

function Answer:error(err)
  if self.closed then return end
  self.closed, self.upstream = true, nil
  return self:failed(err)
end

-- An error of ours is what the wire comes to; another table is what the peer sends; a text is its fault.
function Answer:failed(err)
  if errors.is(err) and err.code ~= "SCRIPT" and err.code ~= "REMOTE" then
    return self.callback({ err = err, isDisposed = true })
  end
  if errors.is(err) and err.code == "REMOTE" then err = err.err end
  local is_fault = errors.is(err) or self.peer.session.is_failure(err)
  local ok, sent = pcall(copy, err)
  if is_fault or not ok then
    self.peer:fault(self.call, err)
    sent = { status = "error", message = "Internal server error" }
  end
  return self.callback({ err = sent, isDisposed = true })
end

function Peer:fault(call, err)
  if self.session.is_failure(err) then return self.session:fail(err) end
  log.failure(("the fake of '%s', %s"):format(self.name, patterns.show(call.pattern)), err)
end

local function publish(self, packet, callback)
  if not self.answers then refuse(self, "send " .. patterns.show(packet.pattern)) end
  local call = record(self, "send", packet)
  local found = find(self, packet.pattern)
  if found == nil then
    callback({ err = NO_HANDLER, isDisposed = true })
    return
  end
  local answer = setmetatable({ peer = self, call = call, callback = callback, closed = false }, Answer)
  link.connect(handled(run, found, call), answer)
  return function() answer:cancel() end
end

-- An event nobody stands in for is gone, as on the wire. What its function returns may be waited for.
local function emit(self, packet)
  if not self.answers then refuse(self, "emit " .. patterns.show(packet.pattern)) end
  local call = record(self, "emit", packet)
  local found = find(self, packet.pattern)
  if type(found) ~= "function" then return end
  local ok, result = pcall(run, found, call)
  if ok then return result end
  if errors.is(result) then error(result, 0) end
  self:fault(call, result)
end

--- A client whose wire leads here. Its options are checked as if it were to dial.
---@param options table|string
---@return perigee.Client
function Peer:client(options)
  local checked = options_of.client(options)
  return client.new({
    timeout = checked.timeout,
    transport = {
      connect = function() end,
      publish = function(packet, callback) return publish(self, packet, callback) end,
      emit = function(packet) return emit(self, packet) end,
    },
  })
end

--- Answers from now on: pattern -> value | function(data, opts). `perigee.any_pattern` is for all others.
---@param answers table
function Peer:answer(answers)
  if type(answers) ~= "table" then
    error(errors.misuse("INVALID_OPTION", "a fake is a table of patterns, not a " .. type(answers)), 0)
  end
  self.answers, self.any = {}, nil
  for pattern, value in pairs(answers) do
    if pattern == patterns.any then
      self.any = value
    else
      local key = patterns.lookup(pattern)
      if key ~= nil then self.answers[key] = value end
    end
  end
end

---@param name string
---@param session perigee.testing.Session
---@return perigee.testing.Peer
local function new(name, session)
  return setmetatable({ name = name, calls = {}, session = session }, Peer)
end

return { new = new, never = never, copy = copy }
