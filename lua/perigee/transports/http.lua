--- Options of HTTP listeners: limits and timeouts of reliability's table, under the core's names without units.

---@type perigee.Transport
return {
  name = "http",
  schemes = {
    http = { address = "host" },
    https = { address = "host", tls = true },
  },
  -- What the core calls by another name.
  renamed = {
    header_timeout = "header_timeout_ms",
    body_timeout = "body_timeout_ms",
    idle_timeout = "idle_timeout_ms",
    write_timeout = "write_timeout_ms",
  },
  server = {
    host = { type = "string", default = "localhost" },
    port = { type = "listen_port", default = 3000 },
    path = { type = "string" },
    tls = { type = "tls" },
    max_header_bytes = { type = "count", default = 16384 },
    max_headers = { type = "count", default = 100 },
    max_uri_bytes = { type = "count", default = 8192 },
    max_body_bytes = { type = "count", default = 1048576 },
    max_queued_bytes = { type = "count", default = 16777216 },
    max_connections = { type = "count", default = 10000 },
    header_timeout = { type = "ms", default = 10000 },
    body_timeout = { type = "ms", default = 30000 },
    idle_timeout = { type = "ms", default = 60000 },
    write_timeout = { type = "ms", default = 30000 },
  },
}
