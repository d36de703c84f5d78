--- How the program tells errors: "perigee: CODE: message" on stderr.

local core = require("perigee.core")
local errors = require("perigee.errors")
local log = require("perigee.log")

local report = {}

local function text_of(err)
  local mt = getmetatable(err)
  if type(err) ~= "table" or type(mt) == "table" and mt.__tostring then return errors.text(err) end
  local message = errors.field(err, "message")
  if type(message) == "string" then return errors.make(errors.field(err, "code"), message) end
  return core.json_encode(err) or errors.text(err)
end

--- "CODE: message (file:line)", on one line.
---@param err any
---@param where? string file:line
---@return string
function report.text(err, where)
  local text = tostring(text_of(err)):gsub("[%z\1-\8\10-\31\127]", " ")
  return where and text .. " (" .. where .. ")" or text
end

---@param err any
---@param where? string file:line
function report.error(err, where)
  io.stderr:write("perigee: ", report.text(err, where), "\n")
end

--- Logs what became of a reload.
---@param candidate? perigee.Candidate committed
---@param refusal? perigee.Refusal why there is none
function report.reload(candidate, refusal)
  for _, change in ipairs(candidate and candidate.changes or {}) do
    if change.old then log.info("%s: generation %d serves, %d retires", change.script, change.new, change.old) end
  end
  for _, one in ipairs(candidate and candidate.refused or { refusal }) do
    local where = one.where and (" (%s)"):format(one.where) or ""
    log.error("%s: the reload is refused: %s%s", one.script, text_of(one.error), where)
  end
end

--- The traceback of a fault, for whoever wrote the script.
---@param err any
function report.traceback(err)
  local traceback = type(err) == "table" and rawget(err, "traceback")
  if type(traceback) == "string" then io.stderr:write(traceback, "\n") end
end

return report
