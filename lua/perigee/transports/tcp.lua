--- Options of Nest's TCP transport, plain, over TLS or over a unix socket (nest-wire 2.1).

local limits = {
  -- UTF-16 units and bytes; Nest's own default, 134217728, is to be had by option.
  max_buffer_size = { type = "count", default = 16777216 },
  max_send_buffer_size = { type = "size", default = 16777216 },
  incomplete_message_timeout = { type = "ms_or_off", default = 30000 },
  tls = { type = "tls" },
  host = { type = "string", default = "localhost" },
  path = { type = "string" },
  -- Nest has them for a listening socket that closes by itself. Ours does not: they are taken, and change nothing.
  retry_attempts = { type = "size" },
  retry_delay = { type = "size" },
}

local function with(more)
  local all = {}
  for name, option in pairs(limits) do all[name] = option end
  for name, option in pairs(more) do all[name] = option end
  return all
end

---@type perigee.Transport
return {
  name = "tcp",
  schemes = {
    tcp = { address = "host" },
    tls = { address = "host", tls = true },
    unix = { address = "path" },
  },
  client = with({
    port = { type = "port", default = 3000 },
    hosts = { type = "hosts" },
    connections = { type = "connections", default = 1 },
    connect_timeout = { type = "ms", default = 2000 },
    max_pending = { type = "count", default = 65536 },
    max_waiting = { type = "count", default = 1024 },
  }),
  server = with({
    port = { type = "listen_port", default = 3000 },
    max_connections = { type = "count", default = 10000 },
    write_timeout = { type = "ms", default = 30000 },
  }),
}
