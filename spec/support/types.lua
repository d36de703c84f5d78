-- Types for editors: reads the definitions in lua/perigee/types, and writes the one file of them that follows from the
-- transports' tables:
--   LUA_PATH='lua/?.lua;lua/?/init.lua;;' LUA_CPATH='build/lib/?.so;;' luajit spec/support/types.lua

local FOLDER = "lua/perigee/types/"
local OPTIONS = FOLDER .. "options.lua"

local types = { FOLDER = FOLDER, OPTIONS = OPTIONS }

--- Reading --------------------------------------------------------------------------------------------------------

---@class spec.TypeClass
---@field parent? string
---@field fields table<string, { type: string, optional: boolean }>
---@field methods table<string, string> parameter names: "a, b, ..."; with "self, " in front of those called with ":"

---@param path string
---@param classes table<string, spec.TypeClass> added to
---@param aliases table<string, string[]> added to: the literal texts of each
function types.read(path, classes, aliases)
  local class, alias
  local by_variable = {}
  for line in io.lines(path) do
    local name, rest = line:match("^%-%-%-@class ([%w_.]+)(.*)$")
    if name then
      class = { fields = {}, methods = {}, parent = rest:match("^: ([%w_.]+)") }
      assert(not classes[name], name .. " is there twice")
      classes[name] = class
    end
    local field, optional, kind = line:match("^%-%-%-@field ([%w_]+)(%??) (.+)$")
    if field then class.fields[field] = { type = kind, optional = optional == "?" } end
    local variable = line:match("^local ([%a_]+) = {}$")
    if variable then by_variable[variable] = class end
    local owner, mark, method, parameters = line:match("^function ([%a_]+)([.:])([%w_]+)%((.-)%) end$")
    if owner then
      if mark == ":" then parameters = parameters == "" and "self" or "self, " .. parameters end
      local methods = by_variable[owner].methods
      methods[method] = parameters
    end
    alias = line:match("^%-%-%-@alias ([%w_.]+)") or (line:find("^%-%-%-|") and alias)
    if alias then
      aliases[alias] = aliases[alias] or {}
      table.insert(aliases[alias], line:match('^%-%-%-| "([^"]+)"'))
    end
  end
end

--- Writing --------------------------------------------------------------------------------------------------------

-- What is written of an option's type; of one that is not here, "any".
local WRITTEN = {
  string = "string", boolean = "boolean", ["function"] = "function", count = "integer", size = "integer",
  connections = "integer", port = "integer|string", listen_port = "integer|string", ms = "number",
  ms_or_off = "number|false", tls = "perigee.TlsOptions|true", hosts = "(string|perigee.HostOption)[]",
  offline = '"fail"|"queue"|"drop"', headers = "table<string, string|string[]>", servers = "string|string[]",
  subject = "string", stream_name = "string",
}

local UNITS = { ms = " ms", ms_or_off = " ms" }

local function sorted(set)
  local names = {}
  for name in pairs(set) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- "{ stream: string, batch?: integer }"
local written
function written(option)
  if not option.fields then return WRITTEN[option.type] or "any" end
  local fields = {}
  for i, name in ipairs(sorted(option.fields)) do
    local field = option.fields[name]
    fields[i] = ("%s%s: %s"):format(name, field.required and "" or "?", written(field))
  end
  return "{ " .. table.concat(fields, ", ") .. " }"
end

-- A listener's may all stand in its URL.
local function add_options(lines, role, options)
  for _, name in ipairs(sorted(options)) do
    local option = options[name]
    local required = option.required and role == "ClientOptions"
    local line = ("---@field %s%s %s"):format(name, required and "" or "?", written(option))
    if option.default ~= nil then
      line = line .. (" %s%s by default"):format(tostring(option.default), UNITS[option.type] or "")
    elseif UNITS[option.type] then
      line = line .. UNITS[option.type]
    end
    lines[#lines + 1] = line
  end
end

local function class_name(role, transport)
  return ("perigee.%s.%s"):format(role, transport)
end

local function add_class(lines, role, transport, options, more)
  lines[#lines + 1] = ""
  lines[#lines + 1] = "---@class " .. class_name(role, transport)
  for _, line in ipairs(more or {}) do lines[#lines + 1] = line end
  add_options(lines, role, options)
  return class_name(role, transport)
end

local HEAD = {
  "---@meta",
  "-- Made by spec/support/types.lua of the transports' own tables: do not edit.",
  "",
  "---@class perigee.TlsOptions",
  "---@field ca? string PEM, a file or its text",
  "---@field cert? string PEM, a file or its text",
  "---@field key? string PEM, a file or its text",
  "---@field server_name? string what the peer must prove",
  "---@field verify? boolean true by default",
  "",
  "---@class perigee.HostOption",
  "---@field host? string",
  "---@field port? integer|string",
  "---@field path? string of a unix socket",
}

--- The text of options.lua.
---@return string
function types.options()
  local transports, common = require("perigee.transports"), require("perigee.options").CLIENT
  local lines, clients, listeners = { unpack(HEAD) }, {}, {}
  for _, name in ipairs(sorted(transports.by_name)) do
    local transport = transports.by_name[name]
    if transport.client then
      local options = {}
      for _, from in ipairs({ common, transport.client }) do
        for option, how in pairs(from) do options[option] = how end
      end
      local mark = ('---@field transport%s "%s"'):format(name == "tcp" and "?" or "", name)
      clients[#clients + 1] = add_class(lines, "ClientOptions", name, options, { mark })
    end
    if transport.server then
      listeners[#listeners + 1] = add_class(lines, "ListenerOptions", name, transport.server)
    end
  end
  clients[#clients + 1] = add_class(lines, "ClientOptions", "lua", common, {
    "---@field transport perigee.LuaTransport",
  })
  lines[#lines + 1] = ""
  lines[#lines + 1] = "---@alias perigee.ClientOptions " .. table.concat(clients, "|")
  lines[#lines + 1] = "---@alias perigee.ListenerOptions " .. table.concat(listeners, "|")
  return table.concat(lines, "\n") .. "\n"
end

if arg and arg[0] and arg[0]:find("types%.lua$") then
  local file = assert(io.open(OPTIONS, "w"))
  file:write(types.options())
  file:close()
end

return types
