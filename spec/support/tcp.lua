--- Raw TCP for specs: peers and servers that send and expect exact bytes.

local uv = require("luv")
local loop = require("spec.support.loop")
local wire = require("spec.support.wire")

local HOST = "127.0.0.1"

---@class spec.Peer one end of a connection
---@field private chunks string[] bytes read and not yet taken, from pos in the first one
---@field private pos integer
---@field ended nil|"EOF"|string how the other side ended it: EOF, or libuv's error name
local Peer = {}
Peer.__index = Peer

local function new_peer(handle)
  local peer = setmetatable({ handle = loop.own(handle), chunks = { "" }, pos = 1, ended = nil }, Peer)
  handle:nodelay(true)
  peer:resume()
  return peer
end

function Peer:resume()
  self.handle:read_start(function(err, data)
    if data then
      table.insert(self.chunks, data)
    else
      self.ended = err or "EOF"
    end
  end)
end

--- Stops reading, so that the other side's writes pile up.
function Peer:pause()
  self.handle:read_stop()
end

--- Writes and returns when the bytes are with the kernel. Errors of a closed connection are left to read_end.
---@param bytes string
---@param ms? integer
function Peer:write(bytes, ms)
  local done = false
  self.handle:write(bytes, function() done = true end)
  loop.wait_until(function() return done end, ms, "a write")
end

--- Writes without waiting: for bytes the other side may never take.
function Peer:push(bytes)
  self.handle:write(bytes)
end

--- Writes one byte at a time, with turns of the loop in between, so that a reader in this process sees each alone.
function Peer:drip(bytes)
  for i = 1, #bytes do
    if self.ended then return end
    self:write(bytes:sub(i, i))
    loop.turn()
  end
end

local function buffer(peer)
  if peer.chunks[2] then
    peer.chunks = { table.concat(peer.chunks):sub(peer.pos) }
    peer.pos = 1
  end
  return peer.chunks[1]
end

local function take(peer, n)
  local bytes = buffer(peer):sub(peer.pos, peer.pos + n - 1)
  peer.pos = peer.pos + n
  return bytes
end

--- The bytes read and not yet taken.
function Peer:peek()
  return buffer(self):sub(self.pos)
end

local function so_far(peer)
  return ("got %q%s"):format(peer:peek():sub(1, 500), peer.ended and (", then " .. peer.ended) or "")
end

--- The next n bytes.
function Peer:read(n, ms)
  loop.wait_until(function() return #buffer(self) - self.pos + 1 >= n end, ms, function()
    return ("%d bytes, %s"):format(n, so_far(self))
  end)
  return take(self, n)
end

--- The next line, without its CR LF.
---@return string
function Peer:read_line(ms)
  local stop
  loop.wait_until(function()
    stop = buffer(self):find("\r\n", self.pos, true)
    return stop or self.ended
  end, ms, function() return "a line, " .. so_far(self) end)
  if not stop then error("no line: " .. so_far(self), 2) end
  return take(self, stop - self.pos + 2):sub(1, -3)
end

--- The payload of the next frame; its declared length has to fit.
---@return string payload
---@return string frame as it was on the wire
function Peer:read_frame(ms)
  local frame, payload
  loop.wait_until(function()
    frame, payload = wire.first_frame(buffer(self), self.pos)
    return frame or self.ended
  end, ms, function() return "a frame, " .. so_far(self) end)
  if not frame then error("no frame: " .. so_far(self), 2) end
  return payload, take(self, #frame)
end

--- Waits for the end of the connection; returns what came before it and how it ended.
---@return string rest
---@return string how "EOF", "ECONNRESET", ...
function Peer:read_end(ms)
  loop.wait_until(function() return self.ended end, ms, "the end of the connection")
  return take(self, #buffer(self)), self.ended
end

--- Sends FIN, keeps reading.
function Peer:shutdown()
  local done = false
  self.handle:shutdown(function() done = true end)
  loop.wait_until(function() return done end, nil, "a shutdown")
end

function Peer:close()
  loop.close(self.handle)
end

--- Closes with RST.
function Peer:reset()
  self.handle:close_reset()
end

---@class spec.Server a listening socket that collects connections
---@field port integer
---@field accepted integer connections so far
---@field private waiting spec.Peer[]
local Server = {}
Server.__index = Server

--- The next connection.
---@return spec.Peer
function Server:accept(ms)
  loop.wait_until(function() return self.waiting[1] end, ms, "a connection")
  return table.remove(self.waiting, 1)
end

function Server:close()
  loop.close(self.handle)
end

local tcp = {}

--- Listens on a free port, or the given one.
---@param port? integer
---@return spec.Server
function tcp.listen(port)
  local handle = loop.own(uv.new_tcp())
  assert(handle:bind(HOST, port or 0))
  local server = setmetatable({ handle = handle, accepted = 0, waiting = {} }, Server)
  assert(handle:listen(128, function(err)
    assert(not err, err)
    local socket = uv.new_tcp()
    handle:accept(socket)
    server.accepted = server.accepted + 1
    table.insert(server.waiting, new_peer(socket))
  end))
  server.port = handle:getsockname().port
  return server
end

--- Connects, and returns once connected.
---@param port integer
---@return spec.Peer
function tcp.connect(port, ms)
  local handle = loop.own(uv.new_tcp())
  local result
  handle:connect(HOST, port, function(err) result = err or "connected" end)
  loop.wait_until(function() return result end, ms, "connecting to " .. port)
  assert(result == "connected", result)
  return new_peer(handle)
end

--- A port nobody listens on.
---@return integer
function tcp.free_port()
  local handle = uv.new_tcp()
  assert(handle:bind(HOST, 0))
  local port = handle:getsockname().port
  handle:close()
  uv.run("nowait")
  return port
end

return tcp
