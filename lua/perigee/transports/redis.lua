--- Options of the Redis transport, those of ioredis that matter here (nest-wire 3.1): a server, a unix socket, or
--- Sentinels that know where the master is.

local option_types = require("perigee.option_types")

local fail = option_types.fail

local SENTINEL_PORT = 26379

local function setting(type, default) return { type = type, default = default, setting = true } end

local both = {
  host = { type = "string", default = "localhost" },
  port = { type = "port", default = 6379 },
  path = { type = "string" },
  hosts = { type = "hosts" },
  tls = { type = "tls" },
  connect_timeout = { type = "ms", default = 2000 },
  username = setting("string"),
  password = setting("string"),
  db = setting("size"),
  connection_name = setting("string"),
  -- Silence after which a connection is asked; after as much again it is lost.
  ping_interval = setting("ms", 15000),
  sentinels = { type = "hosts" },
  name = setting("string"), -- of the master, for Sentinels
  sentinel_username = setting("string"),
  sentinel_password = setting("string"),
  enable_tls_for_sentinel_mode = setting("boolean"),
  -- Nest does not reconnect without them. We always do: they are taken, and change nothing.
  retry_attempts = { type = "size" },
  retry_delay = { type = "size" },
  max_buffer_size = { type = "count", default = 16777216 }, -- bytes of one message
}

local function with(more)
  local all = {}
  for name, option in pairs(both) do all[name] = option end
  for name, option in pairs(more) do all[name] = option end
  return all
end

local function check_together(given)
  if given.username and not given.password then fail("option 'username' needs 'password' beside it") end
  if given.connection_name and tostring(given.connection_name):find("[^!-~]") then
    fail("option 'connection_name' must be printable, without spaces")
  end
  if not given.sentinels then
    for _, name in ipairs({ "name", "sentinel_username", "sentinel_password", "enable_tls_for_sentinel_mode" }) do
      if given[name] ~= nil then fail("option '%s' is for 'sentinels' only", name) end
    end
    return
  end
  if not given.name then fail("option 'sentinels' needs the master's 'name' beside it") end
  for _, name in ipairs({ "host", "port", "path", "hosts" }) do
    if given[name] ~= nil then fail("options '%s' and 'sentinels' exclude each other", name) end
  end
end

--- Sentinels are what is dialled first: to the core they are the hosts, and the master's name says what they are.
local function prepare(given)
  check_together(given)
  if not given.sentinels then return end
  local hosts, expected = option_types.check.hosts(given.sentinels)
  if not hosts then fail("option 'sentinels' must be %s, not %s", expected, type(given.sentinels)) end
  for _, host in ipairs(hosts) do host.port = host.port or (not host.path and SENTINEL_PORT or nil) end
  given.hosts, given.sentinels = hosts, nil
end

--- "redis://user:password@host:6379/db", "redis:/run/redis.sock".
---@return string? what is wrong
local function address(given, url)
  if url.opaque then
    if url.opaque:sub(1, 1) ~= "/" then return "'//' is missing after the scheme" end
    given.path = url.opaque
    return
  end
  local db = url.path:match("^/?(%d*)$")
  if not db then return ("'%s' is not the number of a database"):format(url.path) end
  if url.user and not url.pass then return "a user needs a password: user:password@host" end
  if url.hosts then given.hosts = url.hosts else given.host, given.port = url.host, url.port end
  given.username, given.password = url.user, url.pass
  if given.username == "" then given.username = nil end
  given.db = tonumber(db)
end

---@type perigee.Transport
return {
  name = "redis",
  is_broker = true,
  schemes = {
    redis = { address = address },
    rediss = { address = address, tls = true },
  },
  prepare = prepare,
  client = with({
    max_pending = { type = "count", default = 65536 },
    max_waiting = { type = "count", default = 1024 },
    max_send_buffer_size = { type = "size", default = 16777216 },
    resume = { type = "boolean" },
    -- A request that nobody receives fails with NO_HANDLER at once; Nest's waits.
    no_responders = setting("boolean"),
  }),
  server = with({
    wildcards = setting("boolean"),
    max_send_buffer_size = { type = "size", default = 16777216 },
    write_timeout = { type = "ms", default = 30000 },
  }),
}
