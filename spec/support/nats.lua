--- Raw NATS for specs: a client of a real server, or a server that sends what no real one would.

local cjson = require("cjson")
local tcp = require("spec.support.tcp")

---@class spec.NatsPeer
---@field peer spec.Peer the connection under it
---@field connect table? as a server: what the client's CONNECT said
local Peer = {}
Peer.__index = Peer

local function words(line)
  local list = {}
  for word in line:gmatch("%S+") do list[#list + 1] = word end
  return list
end

---@class spec.NatsMessage
---@field op string "MSG", "PUB", "SUB", ...; the message of PUB and MSG is read like that of HPUB and HMSG
---@field line string
---@field subject? string
---@field sid? string of SUB, UNSUB and MSG
---@field queue? string of SUB
---@field reply_to? string
---@field headers? string the block, from "NATS/1.0" to its empty line
---@field payload? string
local function parse(line)
  local list = words(line)
  local message = { op = list[1], line = line }
  if message.op == "SUB" then
    message.subject, message.sid, message.queue = list[2], list[#list], #list == 4 and list[3] or nil
  elseif message.op == "UNSUB" then
    message.sid = list[2]
  elseif message.op:find("PUB$") or message.op:find("MSG$") then
    local sizes = message.op:sub(1, 1) == "H" and 2 or 1
    local reply_at = message.op:find("MSG$") and 4 or 3
    message.subject = list[2]
    message.sid = reply_at == 4 and list[3] or nil
    message.reply_to = #list == reply_at + sizes and list[reply_at] or nil
    message.size = tonumber(list[#list])
    message.header_size = sizes == 2 and tonumber(list[#list - 1]) or 0
  end
  return message
end

local function read(self, ms)
  local message
  repeat
    message = parse(self.peer:read_line(ms))
    if message.op == "PING" then self.peer:write("PONG\r\n") end
  until message.op ~= "PING"
  if message.op == "SUB" then self.subscriptions[message.sid] = message.subject end
  if message.op == "UNSUB" then self.subscriptions[message.sid] = nil end
  if message.size then
    local body = self.peer:read(message.size + 2, ms):sub(1, -3)
    message.headers = message.header_size > 0 and body:sub(1, message.header_size) or nil
    message.payload = body:sub(message.header_size + 1)
  end
  return message
end

--- The next line and what belongs to it. PING is answered and not told.
---@return spec.NatsMessage
function Peer:read(ms)
  return table.remove(self.kept, 1) or read(self, ms)
end

local function matches(pattern, subject)
  if pattern:sub(-1) == ">" then return subject:sub(1, #pattern - 1) == pattern:sub(1, -2) end
  if pattern:sub(-1) ~= "*" then return subject == pattern end
  local stem = pattern:sub(1, -2)
  return subject:sub(1, #stem) == stem and not subject:find(".", #stem + 1, true)
end

--- As a server: delivers to the client's subscriptions of a subject, as those read so far.
---@return integer n how many there are
function Peer:route(subject, payload, options)
  local n = 0
  for sid, pattern in pairs(self.subscriptions) do
    if matches(pattern, subject) then
      n = n + 1
      self:deliver(sid, subject, payload, options)
    end
  end
  return n
end

--- As a server: the next message the client publishes.
---@return spec.NatsMessage
function Peer:read_published(ms)
  return self:read_op("PUB$", ms)
end

--- The next message of this kind; what comes before it is dropped.
---@param op string Lua pattern, e.g. "PUB$"
---@return spec.NatsMessage
function Peer:read_op(op, ms)
  local message
  repeat message = self:read(ms) until message.op:find(op)
  return message
end

local function block(headers)
  local lines = { "NATS/1.0" }
  for _, header in ipairs(headers) do lines[#lines + 1] = header[1] .. ": " .. header[2] end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

local function write(self, op, head, payload, headers)
  head = table.concat(head, " ")
  if not headers then
    return self.peer:write(("%s %s %d\r\n%s\r\n"):format(op, head, #payload, payload))
  end
  local text = type(headers) == "string" and headers or block(headers)
  self.peer:write(("H%s %s %d %d\r\n%s%s\r\n"):format(op, head, #text, #text + #payload, text, payload))
end

--- As a client. headers: `{ name, value }` each, or a block as it is on the wire.
---@param options? { reply_to?: string, headers?: string[][]|string }
function Peer:publish(subject, payload, options)
  options = options or {}
  write(self, "PUB", { subject, options.reply_to }, payload, options.headers)
end

--- As a server: a message for a subscription.
function Peer:deliver(sid, subject, payload, options)
  options = options or {}
  write(self, "MSG", { subject, sid, options.reply_to }, payload, options.headers)
end

--- As a client: subscribes, and returns when the server has taken it.
---@return integer sid
function Peer:subscribe(subject, queue)
  self.last_sid = (self.last_sid or 0) + 1
  self.peer:write(("SUB %s %s%d\r\n"):format(subject, queue and queue .. " " or "", self.last_sid))
  self:flush()
  return self.last_sid
end

--- Returns when the other side has read all that was written, and answered it. What it sent is kept for `read`.
function Peer:flush(ms)
  self.peer:write("PING\r\n")
  local message = read(self, ms)
  while message.op ~= "PONG" do
    table.insert(self.kept, message)
    message = read(self, ms)
  end
end

--- Nothing more came until the other side had read all that was written.
function Peer:is_silent(ms)
  self:flush(ms)
  return self.kept[1] == nil
end

function Peer:close()
  self.peer:close()
end

local nats = {}

--- A client of a real server.
---@param port integer
---@param login? table members of CONNECT
---@return spec.NatsPeer
function nats.connect(port, login)
  local self = setmetatable({ peer = tcp.connect(port), kept = {}, subscriptions = {} }, Peer)
  self:read_op("^INFO")
  local connect = { verbose = false, pedantic = false, headers = true, no_responders = true, protocol = 1 }
  for name, value in pairs(login or {}) do connect[name] = value end
  self.peer:write("CONNECT " .. cjson.encode(connect) .. "\r\n")
  self:flush()
  return self
end

--- As a server, takes the next connection: INFO out, CONNECT in.
---@param server spec.Server
---@param info? table members of INFO
---@return spec.NatsPeer
function nats.accept(server, info, ms)
  local self = setmetatable({ peer = server:accept(ms), kept = {}, subscriptions = {} }, Peer)
  local all = {
    server_id = "SPEC", version = "2.10.0", proto = 1, headers = true, max_payload = 1048576,
    host = "127.0.0.1", port = server.port,
  }
  for name, value in pairs(info or {}) do all[name] = value end
  self.peer:write("INFO " .. cjson.encode(all) .. "\r\n")
  self.connect = cjson.decode(self:read_op("^CONNECT", ms).line:match("^CONNECT (.*)"))
  return self
end

return nats
