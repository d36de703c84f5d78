--- `ctx`, the second argument of handlers: what is known of a message besides its data. Most is made when read.

local core = require("perigee.core")
local errors = require("perigee.errors")
local scope = require("perigee.scope")

---@class perigee.Context
---@field pattern string as received: a string, or the JSON text of anything else
---@field transport string
---@field metadata table
---@field headers table<string, string|string[]> names as they came; a list where one repeats
---@field raw table? slice of the data
---@field peer string
---@field deadline? number ms left to the code that reads it
---@field cancelled boolean the peer has gone
---@field private owed? integer the event its broker waits to hear about
local Context = {}
Context.__name = "perigee.context"

local make = {}

function make.pattern(self)
  local json = self.pattern_json
  if json and json:byte() == 34 then return core.json_decode(json) end
  return json
end

function make.metadata(self)
  local metadata = self.metadata_json and core.json_decode(self.metadata_json)
  return type(metadata) == "table" and metadata or {}
end

function make.headers()
  return {}
end

function make.raw(self)
  return self.data_json and setmetatable({ self.data_json }, core.slice_mt)
end

function make.peer(self)
  return (self.server:peer(self.req))
end

-- Tells the broker before the handler has ended; what it returns or raises later changes nothing.
local function settle(self, ok)
  if not self.owed then
    error(errors.misuse("UNSUPPORTED", ("this message of the transport '%s' has no acknowledgements")
      :format(self.transport)), 0)
  end
  self.server:settle(self.owed, ok)
end

local methods = {
  ack = function(self) settle(self, true) end,
  nack = function(self) settle(self, false) end,
}

function Context.__index(self, name)
  if name == "deadline" then return scope.left() end
  local maker = make[name]
  if not maker then return methods[name] end
  local value = maker(self)
  rawset(self, name, value)
  return value
end

---@return perigee.Context
local function new(fields)
  return setmetatable(fields, Context)
end

return { new = new }
