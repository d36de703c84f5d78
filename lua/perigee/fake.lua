--- What stands in for a client in a test: a table pattern -> value | function(data), or an object with send/emit.

local combinators = require("perigee.combinators")
local core = require("perigee.core")
local errors = require("perigee.errors")
local handled = require("perigee.handled")
local patterns = require("perigee.patterns")

---@class perigee.Fake
---@field private answers table<any, any> by route
local Fake = {}
Fake.__index = Fake
Fake.__name = "perigee.fake"

local function invalid_message()
  return errors.make("INVALID_MESSAGE", "The invalid data or message pattern (undefined/null)")
end

-- What the peer would have decoded.
local function plain(data)
  if getmetatable(data) == core.slice_mt then return (core.json_decode(data[1])) end
  return data
end

local function missing(pattern, data)
  return pattern == nil or pattern == core.null or data == nil or data == core.null
end

-- Runs the answer as the remote handler would be: in a coroutine, its Reply streamed.
local function answer(self, pattern, data)
  if missing(pattern, data) then error(invalid_message(), 0) end
  local found = self.answers[patterns.lookup(pattern)]
  if found == nil then
    error(errors.make("NO_HANDLER", "There is no matching message handler defined in the remote service."), 0)
  end
  if type(found) == "function" then return found(plain(data)) end
  return found
end

---@return perigee.Reply
function Fake:send(pattern, data)
  return handled(answer, self, pattern, data)
end

--- An event nobody stands in for is simply gone, as on the wire.
---@return perigee.Promise
function Fake:emit(pattern, data)
  return combinators.async(function()
    if missing(pattern, data) then error(invalid_message(), 0) end
    local found = self.answers[patterns.lookup(pattern)]
    if type(found) == "function" then found(plain(data)) end
  end)
end

local function is_object(fake)
  return type(fake.send) == "function" or type(fake.emit) == "function"
end

--- A client made of the fake.
---@param fake table
---@return table
local function new(fake)
  if type(fake) ~= "table" then
    error(errors.misuse("INVALID_OPTION", "a fake is a table or an object, not a " .. type(fake)), 0)
  end
  if is_object(fake) then return fake end
  local answers = {}
  for pattern, value in pairs(fake) do
    local key = patterns.lookup(pattern)
    if key ~= nil then answers[key] = value end
  end
  return setmetatable({ answers = answers }, Fake)
end

return { new = new }
