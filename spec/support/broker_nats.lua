--- NATS for specs: one server, or a cluster of three.

local cjson = require("cjson")
local certs = require("spec.support.certs")
local life = require("spec.support.broker_life")
local nest = require("spec.support.nest")
local tcp = require("spec.support.tcp")

local nats = {}

local function quote(text)
  return cjson.encode(text):gsub("\\/", "/")
end

local function tls_block(mode)
  local files = certs.paths()
  return ("tls { cert_file: %s, key_file: %s, ca_file: %s, verify: %s, timeout: 5 }"):format(
    quote(files.server_cert), quote(files.server_key), quote(files.ca), tostring(mode == "mutual"))
end

local function authorization(options)
  if options.token then return ("authorization { token: %s }"):format(quote(options.token)) end
  if options.user then
    return ("authorization { user: %s, password: %s }"):format(quote(options.user), quote(options.pass))
  end
end

-- Logins by key: the server's lines.
local function key_lines(login, keys)
  if login == "nkey" then return { ("authorization { users: [ { nkey: %s } ] }"):format(keys.nkey) } end
  return {
    "operator: " .. keys.operator,
    "resolver: MEMORY",
    ("resolver_preload { %s: %s }"):format(keys.account, keys.account_jwt),
  }
end

local function config_lines(dir, port, options)
  local lines = { 'host: "127.0.0.1"', "port: " .. port }
  local function add(line) lines[#lines + 1] = line end
  if options.tls then add(tls_block(options.tls)) end
  add(authorization(options))
  if options.jetstream then add(("jetstream { store_dir: %s }"):format(quote(dir .. "/jetstream"))) end
  if options.max_payload then add("max_payload: " .. options.max_payload) end
  for _, line in ipairs(options.login and key_lines(options.login, options.keys) or {}) do add(line) end
  for _, line in ipairs(options.config or {}) do add(line) end
  return lines
end

local function make_server(options)
  return function(dir, port)
    local path = life.write_file(dir .. "/nats.conf", table.concat(config_lines(dir, port, options), "\n") .. "\n")
    return {
      program = assert(life.find_program("nats-server"), "no nats-server here"),
      args = { "-c", path },
      ready = "Server is ready",
    }
  end
end

local function url_login(options)
  if options.token then return options.token .. "@" end
  return options.user and options.user .. ":" .. options.pass .. "@" or ""
end

--- A server on a free port; `url` is where, with user and password or the token in it.
---@class spec.NatsOptions
---@field user? string
---@field pass? string
---@field token? string
---@field login? "nkey"|"creds" by key: the broker's `seed`, or its `creds`, a file's name
---@field tls? boolean|"mutual" certificates of spec.support.certs; "mutual" asks clients for theirs
---@field jetstream? boolean
---@field max_payload? integer
---@field config? string[] more lines of its configuration
---@param options? spec.NatsOptions
---@return spec.Broker
function nats.server(options)
  local keys = options and options.login and nest.output("nats_keys.js")
  options = setmetatable({ keys = keys }, { __index = options })
  local broker = life.launch(make_server(options), { seed = keys and keys.seed })
  if keys then broker.creds = life.write_file(broker.dir .. "/user.creds", keys.creds) end
  broker.url = ("nats://%s%s:%d"):format(url_login(options), broker.host, broker.port)
  return broker
end

---@class spec.NatsCluster
---@field servers spec.Broker[]
---@field urls string[]
local Cluster = {}
Cluster.__index = Cluster

--- Waits until a server tells its clients of n servers, itself among them.
---@param broker spec.Broker
---@param n integer
function Cluster:await_members(broker, n)
  local peer = tcp.connect(broker.port)
  peer:write(("CONNECT %s\r\nPING\r\n"):format(cjson.encode({
    verbose = false, protocol = 1, user = self.options.user, pass = self.options.pass, auth_token = self.options.token,
  })))
  local known
  repeat
    local line = peer:read_line(10000)
    local info = line:match("^INFO (.*)")
    if line == "PING" then peer:write("PONG\r\n") end
    if info then known = #(cjson.decode(info).connect_urls or {}) end
  until known and known >= n
  peer:close()
  return self
end

function Cluster:stop()
  for _, server in ipairs(self.servers) do server:stop() end
end

local function start_cluster(self)
  local ports, routes = {}, {}
  for i = 1, 3 do
    ports[i] = tcp.free_port()
    routes[i] = ('"nats://127.0.0.1:%d"'):format(ports[i])
  end
  for i = 1, 3 do
    local own = {}
    for name, value in pairs(self.options) do own[name] = value end
    own.config = {
      ('server_name: "n%d"'):format(i),
      ('cluster { name: "spec", host: "127.0.0.1", port: %d, routes: [ %s ] }'):format(ports[i],
        table.concat(routes, ", ")),
    }
    for _, line in ipairs(self.options.config or {}) do table.insert(own.config, line) end
    self.servers[i] = nats.server(own)
    self.urls[i] = self.servers[i].url
  end
  for _, server in ipairs(self.servers) do self:await_members(server, 3) end
end

--- Three servers with routes to each other. Their ports were free when they were looked for: should another have taken
--- one since, all begin again.
---@param options? spec.NatsOptions for each of them; without TLS, and with no other login than a password or a token
---@return spec.NatsCluster
function nats.cluster(options)
  local self = setmetatable({ servers = {}, urls = {}, options = options or {} }, Cluster)
  if pcall(start_cluster, self) then return self end
  self:stop()
  self.servers, self.urls = {}, {}
  start_cluster(self)
  return self
end

return nats
