--- Brokers of the bench, each with a service of perigee's behind it that answers with what it was sent.

local broker = require("spec.support.broker")
local machine = require("spec.bench.machine")
local perigee = require("spec.support.perigee")

local PERIGEE = "build/bin/perigee"

local urls = {}

local brokers = {}

--- Where one is; it is started when it is first asked for.
---@param name "nats"|"redis"
---@return string
function brokers.url(name)
  if urls[name] then return urls[name] end
  local server = broker[name]()
  machine.place("load", server.process.pid)
  perigee.urls(machine.start("load", PERIGEE, { "serve", "spec/bench/charge.lua" }, { "BROKER=" .. server.url }))
  urls[name] = server.url
  return server.url
end

--- Its port alone, for clients that take no URL.
---@param name "nats"|"redis"
---@return integer
function brokers.port(name) return tonumber(brokers.url(name):match(":(%d+)$")) end

return brokers
