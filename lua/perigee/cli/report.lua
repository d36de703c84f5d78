--- How the program tells errors: "perigee: CODE: message" on stderr.

local core = require("perigee.core")
local errors = require("perigee.errors")

local report = {}

local function text_of(err)
  if errors.is(err) then return tostring(err) end
  if type(err) ~= "table" then return tostring(err) end
  local mt = getmetatable(err)
  if mt and mt.__tostring then return tostring(err) end
  if type(err.message) == "string" then return errors.make(err.code, err.message) end
  return core.json_encode(err) or tostring(err)
end

---@param err any
---@param where? string file:line
function report.error(err, where)
  local text = tostring(text_of(err)):gsub("[%z\1-\8\10-\31\127]", " ")
  if where then text = text .. " (" .. where .. ")" end
  io.stderr:write("perigee: ", text, "\n")
end

--- The traceback of a fault, for whoever wrote the script.
---@param err any
function report.traceback(err)
  local traceback = type(err) == "table" and rawget(err, "traceback")
  if type(traceback) == "string" then io.stderr:write(traceback, "\n") end
end

return report
