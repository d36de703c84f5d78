--- Nest 12 beside a spec: services to call, clients to be called by (spec/peers).

local cjson = require("cjson")
local loop = require("spec.support.loop")
local process = require("spec.support.process")

local PEERS = "build/peers"
local SLOW_MS = 20000 -- a cold node on a busy machine: it still loads while its first operations run

local installed = false

local function install()
  if installed then return end
  local code = os.execute("sh spec/peers/setup")
  assert(code == 0 or code == true, "spec/peers/setup failed")
  installed = true
end

local function start(script, options)
  install()
  -- Packages are looked up from where the link is, not from where it leads.
  return process.start(PEERS .. "/node", {
    "--preserve-symlinks", "--preserve-symlinks-main", PEERS .. "/" .. script, cjson.encode(options or {}),
  })
end

local nest = {}

---@class spec.NestServer
---@field port integer
---@field process spec.Process

local function start_server(script, options)
  local child = start(script, options)
  local _, port = child:line("^ready (%d+)", SLOW_MS)
  return { port = tonumber(port), process = child, stop = function() child:stop() end }
end

--- A Nest service on a free port, or with `transport` "nats" or "redis" on a broker. Options are ServerTCP's,
--- ServerNats' or ServerRedis', in Nest's names; `tls` takes file names, so does `creds`, and `nkey` a seed.
---@return spec.NestServer
function nest.service(options)
  return start_server("service.js", options)
end

--- The Nest HTTP gateway; `service = { port = }` is where it sends.
---@return spec.NestServer
function nest.gateway(options)
  return start_server("gateway.js", options)
end

--- A TLS end before the plain server at port `to`; `tls` takes file names.
---@param options { to: integer, tls: table }
---@return spec.NestServer
function nest.tls_relay(options)
  return start_server("relay.js", options)
end

--- What a script of spec/peers prints, JSON in one line.
---@return any
function nest.output(script, options)
  local child = start(script, options)
  local line = child:line(nil, SLOW_MS)
  child:wait()
  return cjson.decode(line)
end

---@class spec.NestClient
---@field private process spec.Process
---@field private outcomes table<integer, table>
---@field private values table<integer, any[]>
local Client = {}
Client.__index = Client

--- Nest's client. Options are its own, in Nest's names, as those of a service.
---@return spec.NestClient
function nest.client(options)
  local child = start("client.js", options)
  child:line("^ready", SLOW_MS)
  return setmetatable({ process = child, last_id = 0, outcomes = {}, values = {} }, Client)
end

--- Starts an operation of client.js; its outcome is fetched by id.
---@param command { op: string, pattern?: any, data?: any, headers?: string[][], of?: integer, live?: boolean }
---@return integer id
function Client:start(command)
  self.last_id = self.last_id + 1
  local id = self.last_id
  command.id = id
  self.values[id] = {}
  self.process:write(cjson.encode(command) .. "\n")
  return id
end

local function take_lines(self)
  while self.process.lines[1] do
    local told = cjson.decode(table.remove(self.process.lines, 1))
    if told.values then
      self.outcomes[told.id] = told
    else
      table.insert(self.values[told.id], told.value)
    end
  end
end

--- Waits until n values of a live send have come.
---@return any[]
function Client:live_values(id, n, ms)
  loop.wait_until(function()
    take_lines(self)
    return #self.values[id] >= n
  end, ms, function() return ("%d values of %s"):format(n, self.process:describe()) end)
  return self.values[id]
end

--- Whether an operation is over, without waiting.
function Client:is_over(id)
  take_lines(self)
  return self.outcomes[id] ~= nil
end

--- Waits for an outcome: its values, and its error or nil.
---@return any[] values
---@return any error
function Client:outcome(id, ms)
  local told = loop.wait_until(function()
    take_lines(self)
    return self.outcomes[id]
  end, ms or SLOW_MS, function() return ("outcome %d of %s"):format(id, self.process:describe()) end)
  return told.values, told.error
end

--- send, seen to its end.
function Client:send(pattern, data, ms)
  return self:outcome(self:start({ op = "send", pattern = pattern, data = data }), ms)
end

--- emit, seen to its end.
function Client:emit(pattern, data, ms)
  return self:outcome(self:start({ op = "emit", pattern = pattern, data = data }), ms)
end

--- emit of a pattern given as JSON text, for what cjson cannot write.
function Client:emit_json(pattern_json, ms)
  self.last_id = self.last_id + 1
  self.values[self.last_id] = {}
  self.process:write(('{"id":%d,"op":"emit","pattern":%s,"data":1}\n'):format(self.last_id, pattern_json))
  return self:outcome(self.last_id, ms)
end

--- Any other operation, seen to its end.
function Client:run(op, data)
  return self:outcome(self:start({ op = op, data = data }))
end

function Client:stop()
  self.process:stop()
end

return nest
