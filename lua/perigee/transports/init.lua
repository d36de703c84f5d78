--- The transports there are, by name and by URL scheme. A new one is a line here.

---@class perigee.Transport
---@field name string
---@field schemes table<string, perigee.Scheme>
---@field is_broker? boolean its listeners dial, and subscribe what their handlers hear
---@field client? table<string, perigee.OptionType>
---@field server? table<string, perigee.OptionType>
---@field handler? table<string, perigee.OptionType> of app:message and app:event; the core's settings of a subscription
---@field message? table<string, perigee.OptionType> of one send or emit; without it there are no headers either
---@field prepare? fun(given: table) turns Nest's spellings into the table's, before the check; may raise INVALID_OPTION
---@field renamed? table<string, string> options the core calls by another name

---@class perigee.Scheme
---@field address "host"|"path"|"name"|fun(given: table, url: perigee.Url): string? returns what is wrong with the URL
---@field tls? boolean

---@class perigee.OptionType
---@field type? string key of the checks in option_types.lua
---@field fields? table<string, perigee.OptionType> instead: a table of options; the core knows them as "name.field"
---@field default? any
---@field required? boolean
---@field setting? boolean for the transport in C alone: it stands in `settings`

local list = {
  require("perigee.transports.tcp"),
  require("perigee.transports.local"),
  require("perigee.transports.nats"),
  require("perigee.transports.redis"),
  require("perigee.transports.http"),
}

-- Known to Nest and to the contract, not to this version.
local planned = {
  mqtt = "mqtt", mqtts = "mqtt",
  rmq = "rmq", amqp = "rmq", amqps = "rmq", kafka = "kafka", grpc = "grpc",
}

local by_name, by_scheme = {}, {}
for _, transport in ipairs(list) do
  by_name[transport.name] = transport
  for scheme in pairs(transport.schemes) do by_scheme[scheme] = transport end
end

return { by_name = by_name, by_scheme = by_scheme, planned = planned }
