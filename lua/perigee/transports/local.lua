--- Options of the in-process transport: no socket, found by name.

---@type perigee.Transport
return {
  name = "local",
  schemes = {
    ["local"] = { address = "name" },
  },
  client = {
    name = { type = "string", required = true },
    max_pending = { type = "count", default = 65536 },
    max_waiting = { type = "count", default = 1024 },
  },
  server = {
    name = { type = "string", required = true },
  },
}
