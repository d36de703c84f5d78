--- Redis' protocol by hand: a connection to a real server, and a server that says what the spec wants.

local tcp = require("spec.support.tcp")

local resp = {}

---@param args string[]
---@return string
function resp.command(args)
  local parts = { "*" .. #args .. "\r\n" }
  for _, arg in ipairs(args) do parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#tostring(arg), arg) end
  return table.concat(parts)
end

--- The next value: a string, a number, a list, false for nil, { error = text } for an error.
local function read(peer, ms)
  local line = peer:read_line(ms)
  local kind, rest = line:sub(1, 1), line:sub(2)
  if kind == "+" then return rest end
  if kind == "-" then return { error = rest } end
  if kind == ":" then return tonumber(rest) end
  if rest == "-1" then return false end
  if kind == "$" then return (peer:read(tonumber(rest) + 2, ms):sub(1, -3)) end
  assert(kind == "*", "no RESP2: " .. line)
  local list = {}
  for i = 1, tonumber(rest) do list[i] = read(peer, ms) end
  return list
end

---@class spec.RespPeer
---@field peer spec.Peer
local Peer = {}
Peer.__index = Peer

local function wrap(peer) return setmetatable({ peer = peer }, Peer) end

--- Sends a command and reads its reply.
function Peer:call(...)
  self.peer:write(resp.command({ ... }))
  return read(self.peer)
end

function Peer:send(...) self.peer:write(resp.command({ ... })) end
function Peer:write(bytes) self.peer:write(bytes) end
function Peer:read(ms) return read(self.peer, ms) end
function Peer:close() self.peer:close() end

--- What a server's connection is told next, as a list.
function Peer:command(ms) return read(self.peer, ms) end

--- Whether anything more has come.
function Peer:is_quiet() return self.peer:peek() == "" end

--- Answers a login as a server without passwords does; returns what was said before the PING.
function Peer:login()
  local said = {}
  while true do
    local command = self:command()
    if command[1] == "PING" then
      self:write("+PONG\r\n")
      return said
    end
    said[#said + 1] = table.concat(command, " ")
    self:write("+OK\r\n")
  end
end

--- Acknowledges a SUBSCRIBE or an UNSUBSCRIBE; returns it.
function Peer:acknowledge(command)
  local kind, name = command[1]:lower(), command[2]
  self:write(("*3\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n:1\r\n"):format(#kind, kind, #name, name))
  return command
end

function Peer:message(channel, payload)
  self.peer:write(resp.command({ "message", channel, payload }))
end

--- To a real server.
---@return spec.RespPeer
function resp.connect(port) return wrap(tcp.connect(port)) end

local ESCAPES = { n = "\n", r = "\r", t = "\t", a = "\a", b = "\b" }

local function unescape(text)
  text = text:gsub("\\x(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  return (text:gsub("\\(.)", function(char) return ESCAPES[char] or char end))
end

--- What clients tell a real server, by MONITOR: publishes and subscriptions in the order they were carried out.
---@class spec.RespMonitor
local Monitor = {}
Monitor.__index = Monitor

function resp.monitor(port)
  local peer = resp.connect(port)
  assert(peer:call("MONITOR") == "OK")
  return setmetatable({ peer = peer }, Monitor)
end

--- The next n commands about channels, each as one line; ids are written I.
function Monitor:take(n)
  local lines = {}
  while #lines < n do
    local args = {}
    -- A closing quote has an even number of backslashes before it; none of ours has an odd one inside.
    for arg in self.peer:read():gsub('\\\\', "\\x5c"):gsub('\\"', "\\x22"):gmatch('"([^"]*)"') do
      args[#args + 1] = unescape(arg)
    end
    args[1] = args[1]:upper()
    if args[1]:find("PUBLISH") or args[1]:find("SUBSCRIBE") then
      lines[#lines + 1] = table.concat(args, " "):gsub('"id":"%x+"', '"id":"I"')
    end
  end
  return lines
end

--- Whether nothing more about channels was said, up to a word that the spec says itself.
function Monitor:is_quiet(port)
  local spy = resp.connect(port)
  spy:call("ECHO", "the end")
  spy:close()
  while true do
    local line = self.peer:read()
    if line:find('"the end"', 1, true) then return true end
    if line:upper():find('PUBLISH"', 1, true) or line:upper():find('SUBSCRIBE"', 1, true) then return false, line end
  end
end

function Monitor:close() self.peer:close() end

--- A server that a spec plays. Each end of ours has two connections: the first publishes.
---@class spec.RespServer
---@field port integer
local Server = {}
Server.__index = Server

function resp.listen(port)
  local server = tcp.listen(port)
  return setmetatable({ server = server, port = server.port }, Server)
end

---@return spec.RespPeer
function Server:accept(ms) return wrap(self.server:accept(ms)) end

--- The next two connections, logged in: what publishes, what subscribes.
function Server:pair()
  local pub, sub = self:accept(), self:accept()
  pub:login()
  sub:login()
  return pub, sub
end

function Server:close() self.server:close() end

return resp
