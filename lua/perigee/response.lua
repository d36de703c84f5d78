--- What an HTTP handler can return besides values: a response with status and headers, or `to`, which passes on.

local core = require("perigee.core")
local errors = require("perigee.errors")
local patterns = require("perigee.patterns")

---@class perigee.Response
---@field status? integer 200, or 204 without a body
---@field headers? table<string, string|number|(string|number)[]> a list sends the header several times
---@field body? any a string as it is, else JSON; a Reply or Promise is waited for
local Response = {}
Response.__name = "perigee.response"

local KNOWN = { status = true, headers = true, body = true }

---@param fields { status?: integer, headers?: table, body?: any }
---@return perigee.Response
local function response(fields)
  if type(fields) ~= "table" then
    error(errors.misuse("INVALID_OPTION", "response takes a table, not a " .. type(fields)), 0)
  end
  for name in pairs(fields) do
    if not KNOWN[name] then
      error(errors.misuse("INVALID_OPTION", ("unknown option '%s' of response (known: status, headers, body)")
        :format(tostring(name))), 0)
    end
  end
  return setmetatable({ status = fields.status, headers = fields.headers, body = fields.body }, Response)
end

local function is(value)
  return type(value) == "table" and getmetatable(value) == Response
end

local function add(flat, name, item)
  if type(item) == "number" then item = tostring(item) end
  if type(item) ~= "string" then return ("the header '%s' is not text"):format(name) end
  local n = #flat
  flat[n + 1], flat[n + 2] = name, item
end

local function add_all(flat, name, value)
  if type(value) ~= "table" then return add(flat, name, value) end
  for _, item in ipairs(value) do
    local message = add(flat, name, item)
    if message then return message end
  end
end

--- Headers as the core takes them: name, value, name, value, ... in a fixed order. What HTTP forbids in texts, the
--- core refuses.
---@param made perigee.Response
---@return string[]? headers nil: none
---@return string? message why it cannot be sent
local function flat_headers(made)
  local status = made.status
  if status ~= nil and (type(status) ~= "number" or status % 1 ~= 0) then
    return nil, "the status is not a whole number"
  end
  if made.headers == nil then return nil end
  if type(made.headers) ~= "table" then return nil, "the headers are not a table" end
  local names, flat = {}, {}
  for name in pairs(made.headers) do
    if type(name) ~= "string" then return nil, "a header name is not text" end
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local message = add_all(flat, name, made.headers[name])
    if message then return nil, message end
  end
  return flat
end

---@class perigee.To an HTTP handler: the body goes to a service untouched, the answer comes back untouched
---@field client any a client or a handle
---@field pattern any
---@field json string the pattern's JSON
local To = {}
To.__index = To
To.__name = "perigee.to"

--- The same in Lua, for when middleware, a fake or a transport in Lua is in the way.
---@param req perigee.Request
function To:__call(req)
  local body = req:body() ~= "" and req.raw or setmetatable({ "{}" }, core.slice_mt)
  return self.client:send(self.pattern, body):raw()
end

---@param client any
---@param pattern any
---@return perigee.To
local function to(client, pattern)
  if type(client) ~= "table" or type(client.send) ~= "function" then
    error(errors.misuse("INVALID_OPTION", "to takes a client and a pattern, not a " .. type(client)), 0)
  end
  return setmetatable({ client = client, pattern = pattern, json = patterns.encode(pattern) }, To)
end

local function is_to(value)
  return type(value) == "table" and getmetatable(value) == To
end

return { response = response, is = is, flat_headers = flat_headers, to = to, is_to = is_to }
