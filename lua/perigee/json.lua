--- JSON as perigee reads and writes it: nothing is lost on the way (CONTRACT "Values").

local core = require("perigee.core")
local errors = require("perigee.errors")

local json = { null = core.null }

--- Raises INVALID_MESSAGE for what JSON cannot say.
---@param value any
---@return string
function json.encode(value)
  local text, message = core.json_encode(value)
  if not text then error(errors.make("INVALID_MESSAGE", message), 2) end
  return text
end

--- Raises INVALID_MESSAGE with the position of the fault.
---@param text string
---@return any
function json.decode(text)
  if type(text) ~= "string" then
    if getmetatable(text) ~= core.slice_mt then
      error(errors.make("INVALID_MESSAGE", "JSON text is a string, not a " .. type(text)), 2)
    end
    text = text[1]
  end
  local value, message = core.json_decode(text)
  if value == nil then error(errors.make("INVALID_MESSAGE", message), 2) end
  return value
end

--- Marks the table as a list, so that an empty one is written as [].
---@generic T: table
---@param list? T
---@return T
function json.array(list)
  return setmetatable(list or {}, core.array_mt)
end

return json
