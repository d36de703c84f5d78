--- One HTTP request without a socket: its bytes, and the reply taken apart.

local core = require("perigee.core")
local errors = require("perigee.errors")
local json = require("perigee.json")
local promise = require("perigee.promise")

---@class perigee.testing.Request
---@field method? string GET, or POST with a body
---@field path string with its query
---@field headers? table<string, string|number|(string|number)[]>
---@field body? string as it is
---@field json? any encoded as the body, with its content type

---@class perigee.testing.Response
---@field status integer
---@field headers table<string, string|string[]> lower-case names; of a repeated one the list
---@field body string "" without one
local Response = {}
Response.__index = Response
Response.__name = "perigee.testing.response"

--- The body decoded. Raises INVALID_MESSAGE when it is not JSON.
---@return any
function Response:json()
  return json.decode(self.body)
end

local KNOWN = { method = true, path = true, headers = true, body = true, json = true }

local function fail(...)
  error(errors.misuse("INVALID_OPTION", string.format(...)), 0)
end

local function check(request)
  if type(request) ~= "table" then fail("request takes a table, not a %s", type(request)) end
  for name in pairs(request) do
    if not KNOWN[name] then
      fail("unknown option '%s' of request (known: body, headers, json, method, path)", tostring(name))
    end
  end
  local path, method = request.path, request.method
  if type(path) ~= "string" or path:find("[%c ]") then fail("request: path is text without spaces") end
  if method ~= nil and (type(method) ~= "string" or not method:find("^%u+$")) then
    fail("request: method is a name such as GET")
  end
  if request.body ~= nil and type(request.body) ~= "string" then fail("request: body is a string; see json") end
  if request.body ~= nil and request.json ~= nil then fail("request: either body or json") end
end

local function add_headers(lines, headers)
  local given = {}
  for name, value in pairs(headers or {}) do
    if type(name) ~= "string" or name:find("[%c:]") then fail("request: a header's name is text") end
    given[name:lower()] = true
    for _, item in ipairs(type(value) == "table" and value or { value }) do
      item = tostring(item)
      if item:find("[\r\n%z]") then fail("request: the header '%s' is one line", name) end
      lines[#lines + 1] = name .. ": " .. item
    end
  end
  return given
end

---@param request perigee.testing.Request
---@return string
local function bytes_of(request)
  check(request)
  local body = request.body
  if request.json ~= nil then body = json.encode(request.json) end
  local method = request.method or (body and "POST" or "GET")
  local lines = { ("%s %s HTTP/1.1"):format(method, request.path), "connection: close" }
  local given = add_headers(lines, request.headers)
  if not given.host then lines[#lines + 1] = "host: test" end
  if request.json ~= nil and not given["content-type"] then lines[#lines + 1] = "content-type: application/json" end
  if body and not given["content-length"] then lines[#lines + 1] = "content-length: " .. #body end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or "")
end

local function dechunk(text)
  local parts, at = {}, 1
  while true do
    local _, stop, size = text:find("^(%x+)[^\r\n]*\r\n", at)
    local n = size and tonumber(size, 16)
    if not n or n == 0 then return table.concat(parts) end
    parts[#parts + 1] = text:sub(stop + 1, stop + n)
    at = stop + n + 3
  end
end

local function add(headers, name, value)
  local before = headers[name]
  if before == nil then
    headers[name] = value
  elseif type(before) == "table" then
    before[#before + 1] = value
  else
    headers[name] = { before, value }
  end
end

---@param text string
---@return perigee.testing.Response
local function read(text)
  text = text:gsub("^HTTP/1%.1 100[^\r]*\r\n\r\n", "")
  local head, body = text:match("^(.-\r\n)\r\n(.*)$")
  local status = head and tonumber(head:match("^HTTP/1%.[01] (%d%d%d)"))
  if not status then error(errors.make("CONNECTION_CLOSED", "the connection was closed before the reply"), 0) end
  local headers = {}
  for name, value in head:gmatch("\r\n([^:\r\n]+):[ \t]*([^\r\n]*)") do add(headers, name:lower(), value) end
  if headers["transfer-encoding"] == "chunked" then body = dechunk(body) end
  return setmetatable({ status = status, headers = headers, body = body }, Response)
end

--- Sends the request to a server of the core that listens nowhere, and waits for the reply.
---@param server perigee.core.http
---@param request perigee.testing.Request
---@return perigee.testing.Response
local function run(server, request)
  local whole = promise.bare()
  local ok, code = server:inject(bytes_of(request), function(text) promise.settle(whole, true, text) end)
  if not ok then error(errors.make("CONNECTION_CLOSED", "the app does not take requests: " .. code), 0) end
  return read(whole:await())
end

-- The server opened with option `memory` is handed to the function that is that option's value.
local open = core.http

function core.http(options, events)
  local server, code, message = open(options, events)
  if server and type(options.memory) == "function" then options.memory(server) end
  return server, code, message
end

return { run = run }
