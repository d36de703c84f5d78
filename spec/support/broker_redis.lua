--- Redis for specs: one server, or a master with a replica watched by three sentinels.

local certs = require("spec.support.certs")
local life = require("spec.support.broker_life")
local loop = require("spec.support.loop")

local redis = {}

-- Debian's redis-tools has the server's program under another name: its own name tells it what to be.
local function program(dir)
  local path = life.find_program("redis-server")
  if path then return path end
  path = assert(life.find_program("redis-check-rdb"), "no redis-server here")
  os.execute(("ln -s %s %s/redis-server"):format(path, dir))
  return dir .. "/redis-server"
end

local function quote(value)
  return '"' .. tostring(value):gsub('[\\"]', "\\%0") .. '"'
end

local function server_lines(dir, port, options)
  local lines = { "bind 127.0.0.1", "dir " .. dir, 'save ""', "appendonly no", 'logfile ""' }
  local function add(...) lines[#lines + 1] = table.concat({ ... }, " ") end
  if options.tls then
    local files = certs.paths()
    add("port 0")
    add("tls-port", port)
    add("tls-cert-file", files.server_cert)
    add("tls-key-file", files.server_key)
    add("tls-ca-cert-file", files.ca)
    add("tls-auth-clients", options.tls == "mutual" and "yes" or "no")
  else
    add("port", port)
  end
  if options.unix then add("unixsocket", dir .. "/redis.sock") end
  if options.username then
    add("user default off")
    add("user", options.username, "on", ">" .. options.password, "~* &* +@all")
  elseif options.password then
    add("requirepass", quote(options.password))
    add("masterauth", quote(options.password))
  end
  for _, line in ipairs(options.config or {}) do add(line) end
  return lines
end

local function make_server(options)
  return function(dir, port)
    local path = life.write_file(dir .. "/redis.conf", table.concat(server_lines(dir, port, options), "\n") .. "\n")
    return { program = program(dir), args = { path }, ready = "Ready to accept connections" }
  end
end

local function credentials(options)
  if not options.password then return "" end
  return (options.username or "") .. ":" .. options.password .. "@"
end

--- A server on a free port; `url` is where. It keeps nothing on disk.
---@class spec.RedisOptions
---@field password? string `username` beside it makes it that user's, and the default user is off
---@field username? string
---@field tls? boolean|"mutual" certificates of spec.support.certs; "mutual" asks clients for theirs
---@field unix? boolean also listens on `path`
---@field config? string[] more lines of redis.conf
---@param options? spec.RedisOptions
---@return spec.Broker
function redis.server(options)
  options = options or {}
  local broker = life.launch(make_server(options))
  local scheme = options.tls and "rediss" or "redis"
  broker.url = ("%s://%s%s:%d"):format(scheme, credentials(options), broker.host, broker.port)
  if options.unix then broker.path = broker.dir .. "/redis.sock" end
  return broker
end

local function make_sentinel(master, options)
  return function(dir, port)
    local lines = {
      "port " .. port,
      "bind 127.0.0.1",
      "dir " .. dir,
      'logfile ""',
      ("sentinel monitor %s %s %d 2"):format(options.name, master.host, master.port),
      ("sentinel down-after-milliseconds %s %d"):format(options.name, options.down_after_ms),
      ("sentinel failover-timeout %s 3000"):format(options.name),
    }
    if options.password then
      lines[#lines + 1] = ("sentinel auth-pass %s %s"):format(options.name, options.password)
    end
    if options.sentinel_password then
      lines[#lines + 1] = "requirepass " .. quote(options.sentinel_password)
      lines[#lines + 1] = "sentinel sentinel-pass " .. quote(options.sentinel_password)
    end
    local path = life.write_file(dir .. "/sentinel.conf", table.concat(lines, "\n") .. "\n")
    return { program = program(dir), args = { path, "--sentinel" }, ready = "+monitor master" }
  end
end

---@class spec.RedisGroup
---@field name string the master's, as clients ask for it
---@field master spec.Broker the first one
---@field replica spec.Broker what takes over
---@field sentinels spec.Broker[]
---@field addresses { host: string, port: integer }[] of the sentinels
local Group = {}
Group.__index = Group

-- A sentinel that knows the replica and both others can take part in a failover.
local function is_informed(sentinel)
  local log, others = sentinel:log(), 0
  for _ in log:gmatch("%+sentinel sentinel ") do others = others + 1 end
  return others >= 2 and log:find("+slave slave ", 1, true)
end

--- Waits until every sentinel has switched to a server.
---@param broker spec.Broker
function Group:await_master(broker, ms)
  local text = ("%s %d\n"):format(broker.host, broker.port)
  for _, sentinel in ipairs(self.sentinels) do
    loop.wait_until(function()
      for line in sentinel:log():gmatch("%+switch%-master [^\n]*\n") do
        if line:sub(-#text) == text then return true end
      end
    end, ms or 20000, function() return "the switch to " .. text .. sentinel:log() end)
  end
end

function Group:stop()
  for _, sentinel in ipairs(self.sentinels) do sentinel:stop() end
  self.replica:stop()
  self.master:stop()
end

--- A master, its replica, and three sentinels that know each other.
---@param options? { name?: string, password?: string, sentinel_password?: string, down_after_ms?: integer }
---@return spec.RedisGroup
function redis.group(options)
  local all = { name = "mymaster", down_after_ms = 500 }
  for name, value in pairs(options or {}) do all[name] = value end
  local master = redis.server({ password = all.password, config = { "repl-diskless-sync-delay 0" } })
  local replica = redis.server({
    password = all.password,
    config = { "repl-diskless-sync-delay 0", ("replicaof %s %d"):format(master.host, master.port) },
  })
  replica:await_log("Finished with success", 10000)
  local group = setmetatable({ name = all.name, master = master, replica = replica, sentinels = {}, addresses = {} },
    Group)
  for i = 1, 3 do
    local sentinel = life.launch(make_sentinel(master, all))
    group.sentinels[i] = sentinel
    group.addresses[i] = { host = sentinel.host, port = sentinel.port }
  end
  for _, sentinel in ipairs(group.sentinels) do
    loop.wait_until(function() return is_informed(sentinel) end, 20000, function()
      return "sentinels that know each other: " .. sentinel:log()
    end)
  end
  return group
end

return redis
