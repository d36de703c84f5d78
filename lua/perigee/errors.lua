--- Error tables: what perigee raises, rejects with and hands to error callbacks.

---@class perigee.Error
---@field code? string one of the contract's codes, such as "TIMEOUT"
---@field message string
---@field status? integer HTTP status, when an HTTP handler raises it
---@field cause? any what made it happen
---@field err? any what the peer sent, for REMOTE
---@field traceback? string where it was raised, for SCRIPT
---@field errors? any[] all failures, from `any`
---@field failures? { step: string, error: any }[] what a saga could not undo
---@field rule? string of `perigee check`, where the code alone does not tell
---@field over_budget? boolean the script was ended for the time or memory it took
local Error = {}
Error.__index = Error
Error.__name = "perigee.error"

local function get(err, name) return err[name] end

--- A field of a table that was raised. Scripts raise tables of their own, and to read one may raise as well.
---@param err table
---@param name string
---@return any
local function field(err, name)
  local ok, value = pcall(get, err, name)
  if ok then return value end
end

--- One line for any error, its own tostring where it has one.
---@param err any
---@return string
local function text(err)
  local mt = getmetatable(err)
  if type(err) ~= "table" or type(mt) == "table" and mt.__tostring then
    local ok, shown = pcall(tostring, err)
    return ok and shown or "an error that cannot be shown"
  end
  return tostring(field(err, "message") or field(err, "code") or err)
end

--- "charge (TIMEOUT: no value within 5 ms), reserve (…)".
---@param failures { step: string, error: any }[]
---@return string
local function list(failures)
  local texts = {}
  for i, failure in ipairs(failures) do texts[i] = ("%s (%s)"):format(failure.step, text(failure.error)) end
  return table.concat(texts, ", ")
end

function Error.__tostring(self)
  local message = self.message == nil and "" or tostring(self.message)
  if type(self.failures) == "table" then message = ("%s; not undone: %s"):format(message, list(self.failures)) end
  if self.code == nil then return message end
  return tostring(self.code) .. ": " .. message
end

--- Makes the table an error. It is the caller's own table, not a copy.
---@param fields { code?: string, message?: string, status?: integer, cause?: any, [string]: any }
---@return perigee.Error
local function new(fields)
  if type(fields) ~= "table" then fields = { message = tostring(fields) } end
  if fields.message == nil then fields.message = fields.code or "unknown error" end
  return setmetatable(fields, Error)
end

--- Shorthand for the common case.
---@param code string
---@param message string
---@return perigee.Error
local function make(code, message)
  return setmetatable({ code = code, message = message }, Error)
end

--- For mistakes of the caller, who needs to know where: with a traceback.
---@param code "UNSUPPORTED"|"INVALID_OPTION"
---@param message string
---@param rule? string of `perigee check`
---@return perigee.Error
local function misuse(code, message, rule)
  local err = make(code, message)
  err.rule = rule
  err.traceback = (debug.traceback("", 2):gsub("^\n", ""))
  return err
end

---@param value any
---@return boolean
local function is(value)
  return type(value) == "table" and getmetatable(value) == Error
end

--- Turns anything raised into an error table. Tables keep their identity: message handlers send them
--- unchanged and HTTP handlers read their `.status`.
---@param value any
---@param traceback? string
---@return table
local function from(value, traceback)
  if type(value) == "table" then return value end
  return new({ code = "SCRIPT", message = tostring(value), traceback = traceback })
end

--- Message handler for xpcall. Only texts and faults get a traceback: taking one is slow, and error
--- tables are ordinary outcomes.
---@param value any
---@return table
local function on_raise(value)
  if type(value) == "table" then return value end
  return from(value, (debug.traceback("", 2):gsub("^\n", "")))
end

return {
  field = field, text = text, list = list, new = new, make = make, misuse = misuse, is = is, from = from,
  on_raise = on_raise,
}
