--- The transports there are, by name and by URL scheme. A new one is a line here.

---@class perigee.Transport
---@field name string
---@field schemes table<string, { address: "host"|"path"|"name", tls: boolean? }>
---@field client? table<string, perigee.OptionType>
---@field server? table<string, perigee.OptionType>
---@field renamed? table<string, string> options the core calls by another name

---@class perigee.OptionType
---@field type string key of the checks in options.lua
---@field default? any
---@field required? boolean

local list = {
  require("perigee.transports.tcp"),
  require("perigee.transports.local"),
  require("perigee.transports.http"),
}

-- Known to Nest and to the contract, not to this version.
local planned = {
  redis = "redis", rediss = "redis", nats = "nats", mqtt = "mqtt", mqtts = "mqtt",
  rmq = "rmq", amqp = "rmq", amqps = "rmq", kafka = "kafka", grpc = "grpc",
}

local by_name, by_scheme = {}, {}
for _, transport in ipairs(list) do
  by_name[transport.name] = transport
  for scheme in pairs(transport.schemes) do by_scheme[scheme] = transport end
end

return { by_name = by_name, by_scheme = by_scheme, planned = planned }
