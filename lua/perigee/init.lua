--- perigee: clients for message-driven services, and apps that proxy them. CONTRACT of the names: README.

local app = require("perigee.app")
local client = require("perigee.client")
local combinators = require("perigee.combinators")
local core = require("perigee.core")
local errors = require("perigee.errors")
local json = require("perigee.json")
local patterns = require("perigee.patterns")
local response = require("perigee.response")
local saga = require("perigee.saga")

---@class perigee
local perigee = {
  _VERSION = require("perigee.version"),
  client = client.new,
  app = app.new,
  any_pattern = patterns.any,
  to = response.to,
  response = response.response,
  saga = saga.new,
  json = json,
  array = json.array,
  null = core.null,
}

for name, combinator in pairs(combinators) do perigee[name] = combinator end
perigee.error = errors.new

return perigee
