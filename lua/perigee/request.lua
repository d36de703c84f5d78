--- `req`, what an HTTP handler gets. Headers, query and body are taken apart when read.

local core = require("perigee.core")
local decode_percent = require("perigee.url").decode
local errors = require("perigee.errors")

---@class perigee.Request
---@field method string
---@field path string as sent, undecoded
---@field params table<string, string> percent-decoded
---@field query table<string, string|string[]> repeated keys make a list
---@field headers table<string, string> lower-case names
---@field peer string address
---@field raw table slice of the body, known to be JSON; reading it raises a 400 when it is not
local Request = {}
Request.__name = "perigee.request"

local make = {}

local function decode(text)
  return decode_percent((text:gsub("+", " ")))
end

local function add(query, name, value)
  local before = query[name]
  if before == nil then
    query[name] = value
  elseif type(before) == "table" then
    before[#before + 1] = value
  else
    query[name] = { before, value }
  end
end

function make.query(self)
  local query = {}
  for pair in (self.query_text or ""):gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=(.*)$")
    add(query, decode(name or pair), decode(value or ""))
  end
  return query
end

function make.headers(self)
  return self.http:headers(self.number) or {}
end

function make.params()
  return {} -- of a path without any
end

function make.peer(self)
  return self.http:peer(self.number)
end

local function refuse(message)
  error(errors.new({ code = "INVALID_MESSAGE", status = 400, message = message }), 0)
end

local function body_of(self)
  local body = self.body_text
  if body == nil or body == "" then refuse("the body is empty; it should be JSON") end
  return body
end

function make.raw(self)
  local body = body_of(self)
  local ok, message = core.json_check(body)
  if not ok then refuse("the body is not JSON: " .. message) end
  return setmetatable({ body }, core.slice_mt)
end

local methods = {}

---@return string "" when there is none
function methods.body(self)
  return self.body_text or ""
end

--- The body decoded, whatever its content type. Raises a 400 when it is empty or broken.
---@return any
function methods.json(self)
  local value, message = core.json_decode(body_of(self))
  if message then refuse("the body is not JSON: " .. message) end
  return value
end

function Request.__index(self, name)
  local method = methods[name]
  if method then return method end
  local maker = make[name]
  if not maker then return nil end
  local value = maker(self)
  rawset(self, name, value)
  return value
end

---@param fields table http, number, method, path, query_text, body_text, params
---@return perigee.Request
local function new(fields)
  return setmetatable(fields, Request)
end

return { new = new }
