--- Options of the NATS transport (nest-wire 4.1): Nest's in snake_case, and what a URL says.

local option_types = require("perigee.option_types")
local url_of = require("perigee.url")

local fail = option_types.fail
local PORT = 4222

-- A durable pull consumer of a stream.
local JETSTREAM = {
  stream = { type = "stream_name", required = true },
  durable = { type = "stream_name", required = true },
  filter = { type = "subject" },
  dead_letter = { type = "subject" },
  batch = { type = "count", default = 64 }, -- messages with handlers, or on their way, at once
  ack_wait = { type = "ms", default = 30000 },
  max_deliver = { type = "count", default = 5 },
  retry_delay = { type = "ms", default = 1000 },
}

-- "nats://user:pass@a:4222", "token@a", "a:4222,b:4222": what each says goes where it belongs.
local function add_server(given, text, hosts)
  if type(text) ~= "string" then fail("option 'servers' must be a URL or a list of URLs") end
  local url, message = url_of.parse(text:find("://", 1, true) and text or "nats://" .. text)
  if not url or not url.host then fail("option 'servers': %s", message or "no host") end
  if url.scheme ~= "nats" and url.scheme ~= "tls" then fail("option 'servers': unknown scheme '%s'", url.scheme) end
  if url.scheme == "tls" and not given.tls then given.tls = true end
  for _, host in ipairs(url.hosts or { { host = url.host, port = url.port } }) do
    hosts[#hosts + 1] = { host = host.host, port = host.port or PORT }
  end
  if not url.user then return end
  if not url.pass then
    given.token = given.token or url.user
  else
    given.user, given.pass = given.user or url.user, given.pass or url.pass
  end
end

-- The whole text of a .creds file, from its path or as it is.
local function read_creds(given)
  local creds = given.creds
  if type(creds) ~= "string" or creds:find("-----BEGIN", 1, true) then return end
  local file, message = io.open(creds)
  if not file then fail("option 'creds': %s", message) end
  given.creds = file:read(65536)
  file:close()
  if not given.creds then fail("option 'creds': %s is empty", creds) end
end

local function prepare(given)
  local servers = given.servers
  if servers ~= nil then
    given.servers, given.hosts = nil, {}
    for _, text in ipairs(type(servers) == "table" and servers or { servers }) do
      add_server(given, text, given.hosts)
    end
    if #given.hosts == 0 then fail("option 'servers' is empty") end
  end
  if (given.user == nil) ~= (given.pass == nil) then fail("options 'user' and 'pass' go together") end
  if given.tls_first and not given.tls then fail("option 'tls_first' needs 'tls'") end
  read_creds(given)
end

---@type fun(given: table, url: perigee.Url): string?
local function read_url(given, url)
  if url.opaque then return "'//' is missing after the scheme" end
  if url.path ~= "" and url.path ~= "/" then return "a path has no meaning here" end
  if not url.host then return "the host is missing" end
  local hosts = {}
  for i, host in ipairs(url.hosts or { { host = url.host, port = url.port } }) do
    hosts[i] = { host = host.host, port = host.port or PORT }
  end
  given.hosts = hosts
  if url.pass then
    given.user, given.pass = url.user, url.pass
  else
    given.token = url.user
  end
end

local function both(more)
  local all = {
    host = { type = "string", default = "localhost" },
    port = { type = "port", default = PORT },
    path = { type = "string" },
    hosts = { type = "hosts" },
    servers = { type = "servers" },
    tls = { type = "tls" },
    connect_timeout = { type = "ms", default = 2000 },
    -- Bytes of one message that comes in, and of what waits to go out.
    max_buffer_size = { type = "count", default = 16777216 },
    max_send_buffer_size = { type = "size", default = 16777216 },
    tls_first = { type = "boolean", setting = true },
    user = { type = "string", setting = true },
    pass = { type = "string", setting = true },
    token = { type = "string", setting = true },
    nkey = { type = "string", setting = true },
    creds = { type = "string", setting = true },
    name = { type = "string", setting = true },
    no_echo = { type = "boolean", setting = true },
    ping_interval = { type = "ms", default = 30000, setting = true },
    max_ping_out = { type = "count", default = 2, setting = true },
  }
  for name, option in pairs(more) do all[name] = option end
  return all
end

---@type perigee.Transport
return {
  name = "nats",
  is_broker = true,
  schemes = { nats = { address = read_url } },
  prepare = prepare,
  client = both({
    max_pending = { type = "count", default = 65536 },
    max_waiting = { type = "count", default = 1024 },
    resume = { type = "boolean" },
    headers = { type = "headers" },
    inbox_prefix = { type = "subject", setting = true },
    jetstream = { type = "boolean", setting = true },
  }),
  server = both({
    jetstream = { fields = JETSTREAM, setting = true },
    queue = { type = "subject", setting = true },
    max_requests = { type = "count", default = 65536 },
    write_timeout = { type = "ms", default = 30000 },
    -- Nest waits so long on closing. Here a drain ends when nothing runs any more: they are taken, and change nothing.
    graceful_shutdown = { type = "boolean", setting = true },
    grace_period = { type = "ms", setting = true },
  }),
  handler = { queue = { type = "subject" } },
  message = { headers = { type = "headers" }, jetstream = { type = "boolean" } },
}
