--- Options of clients and listeners: checked against each transport's table, completed with its defaults.

local core = require("perigee.core")
local errors = require("perigee.errors")
local transports = require("perigee.transports")
local url_of = require("perigee.url")
local option_types = require("perigee.option_types")
local uv = require("luv")

-- What every client has, whatever carries its messages.
local CLIENT = {
  timeout = { type = "ms_or_off", default = 5000 },
  offline = { type = "offline" },
  serialize = { type = "function" },
  deserialize = { type = "function" },
}

-- Not the connection's: two clients that differ only here still share a pool.
local PER_CLIENT = { timeout = true, serialize = true, deserialize = true, headers = true }

local check, TLS, fail = option_types.check, option_types.TLS, option_types.fail

-- Levenshtein distance with swapped neighbours counted as one mistake; for names of a few letters.
local function distance(a, b)
  local rows = { [0] = {} }
  for j = 0, #b do rows[0][j] = j end
  for i = 1, #a do
    local row, above = { [0] = i }, rows[i - 1]
    rows[i] = row
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], rows[i - 2][j - 2] + 1)
      end
    end
  end
  return rows[#a][#b]
end

--- The name that was probably meant; nil when none is near.
---@param name string
---@param types table<string, any> by the known names
---@param most? integer mistakes, 3; in short names no more than half of the letters
---@return string?
local function nearest(name, types, most)
  local best, best_distance
  for known in pairs(types) do
    local far = distance(name, known)
    if not best or far < best_distance or far == best_distance and known < best then
      best, best_distance = known, far
    end
  end
  if best and best_distance <= math.min(most or 3, math.floor(#name / 2)) then return best end
end

local function refuse_unknown(name, types)
  if type(name) ~= "string" then fail("options have names; %s is none", tostring(name)) end
  local near = nearest(name, types)
  fail("unknown option '%s'%s", name, near and (" (did you mean '%s'?)"):format(near) or "")
end

local complete

-- A table of options of its own, under the option's name.
local function check_fields(name, value, fields)
  if type(value) ~= "table" then fail("option '%s' must be a table", name) end
  local prefixed, types = {}, {}
  for field, item in pairs(value) do prefixed[name .. "." .. tostring(field)] = item end
  for field, option in pairs(fields) do types[name .. "." .. field] = option end
  return complete(prefixed, types)
end

local function check_one(name, value, option)
  if option.fields then return check_fields(name, value, option.fields) end
  local result, expected = check[option.type](value)
  if result == nil then
    fail("option '%s' must be %s, not %s", name, expected, type(value) == "string" and ("%q"):format(value)
      or type(value) == "number" and tostring(value) or type(value))
  end
  return result
end

local function merge(a, b)
  local all = {}
  for name, option in pairs(a) do all[name] = option end
  for name, option in pairs(b) do all[name] = option end
  return all
end

--- Checks each given option; a missing one takes its default.
---@return table
function complete(given, types)
  local result = {}
  for name, value in pairs(given) do
    local option = types[name]
    if not option then refuse_unknown(name, types) end
    value = check_one(name, value, option)
    -- The core knows "off" as 0; only the call's own timeout stays false.
    if value == false and option.type == "ms_or_off" and not PER_CLIENT[name] then value = 0 end
    result[name] = value
  end
  for name, option in pairs(types) do
    if result[name] == nil then
      if option.required then fail("option '%s' is missing", name) end
      result[name] = option.default
    end
  end
  return result
end

--- Turns text, from a URL or the command line, into what the option's type wants.
---@return any
local function from_text(name, text, option)
  local kind = option.type
  if kind == "boolean" or kind == "ms_or_off" then
    if text == "true" then return true end
    if text == "false" then return false end
  end
  if kind == "ms" or kind == "ms_or_off" or kind == "count" or kind == "size" or kind == "connections" then
    local number = text:find("^%d+$") and tonumber(text)
    if not number then fail("option '%s' must be a number, not %q", name, text) end
    return number
  end
  return text
end

local NOT_TEXT = { ["function"] = true, hosts = true, tls = true, headers = true }

local function add_text(given, name, text, types)
  if TLS[name] and types.tls and not types[name] then
    if type(given.tls) ~= "table" then given.tls = {} end
    given.tls[name] = from_text(name, text, { type = TLS[name] })
    return
  end
  local option = types[name]
  if not option then refuse_unknown(name, types) end
  if option.fields or NOT_TEXT[option.type] then fail("option '%s' cannot be given as text", name) end
  given[name] = from_text(name, text, option)
end

local function bad_url(text, message)
  fail("bad URL '%s': %s", url_of.redact(text), message)
end

local function unsupported(name)
  error(errors.make("UNSUPPORTED", ("transport '%s' is not available in this version"):format(name)), 0)
end

-- Where a URL points, into the same names options use.
local function add_address(given, url, address)
  if type(address) == "function" then
    local message = address(given, url)
    if message then bad_url(url.text, message) end
    return
  end
  if url.user then bad_url(url.text, "a user or a password has no meaning here") end
  if url.hosts then bad_url(url.text, "one host is enough") end
  if address == "host" then
    if url.opaque then bad_url(url.text, "'//' is missing after the scheme") end
    if url.path ~= "" and url.path ~= "/" then bad_url(url.text, "a path has no meaning here") end
    given.host, given.port = url.host, url.port
    return
  end
  if url.host or url.port then bad_url(url.text, "a host has no meaning here") end
  local value = url.opaque or url.path
  if value == "" then bad_url(url.text, "the " .. address .. " is missing") end
  given[address] = value
end

---@return perigee.Transport
---@return table given options in the names of the transport's table
local function read_url(text, role)
  local url, message = url_of.parse(text)
  if not url then bad_url(text, message) end
  local transport = transports.by_scheme[url.scheme]
  if not transport or not transport[role] then
    if transports.planned[url.scheme] then unsupported(transports.planned[url.scheme]) end
    bad_url(text, ("unknown scheme '%s'"):format(url.scheme))
  end
  local types = transport[role]
  if role == "client" then types = merge(CLIENT, types) end
  local given = {}
  local scheme = transport.schemes[url.scheme]
  add_address(given, url, scheme.address)
  local tls = scheme.tls or types.tls and url.query.tls == "true"
  if tls then given.tls = {} end
  url.query.tls = not scheme.tls and url.query.tls ~= "true" and url.query.tls or nil
  for name, value in pairs(url.query) do
    if TLS[name] and not tls and not types[name] then bad_url(text, ("'%s' is for TLS only"):format(name)) end
    add_text(given, name, value, types)
  end
  return transport, given
end

-- The same options give the same text: tables by sorted keys.
local function canonical(value)
  if type(value) ~= "table" then return type(value) == "string" and ("%q"):format(value) or tostring(value) end
  local names = {}
  for name in pairs(value) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  for i, name in ipairs(names) do names[i] = tostring(name) .. "=" .. canonical(value[name]) end
  return "{" .. table.concat(names, ",") .. "}"
end

local function pool_key(options)
  local shared = {}
  for name, value in pairs(options) do
    if not PER_CLIENT[name] then shared[name] = value end
  end
  return canonical(shared)
end

-- host, port and path become the list of hosts the core wants; entries without a port take the option's.
local function gather_hosts(options)
  if options.hosts then
    for _, host in ipairs(options.hosts) do
      if not host.path and not host.port then host.port = options.port end
    end
  elseif options.path then
    options.hosts = { { path = options.path } }
  else
    options.hosts = { { host = options.host, port = options.port } }
  end
  options.host, options.port, options.path = nil, nil, nil
end

-- What only the transport knows goes to it as it is: the core has no names for it.
local function gather_settings(options, types)
  local settings = {}
  for name, option in pairs(types) do
    if option.setting and option.fields then
      for field, value in pairs(options[name] or {}) do settings[field] = value end -- as "jetstream.stream"
    elseif option.setting then
      settings[name] = options[name]
    end
    if option.setting then options[name] = nil end
  end
  options.settings = next(settings) ~= nil and settings or nil
end

local function named_transport(name)
  if name == nil then return transports.by_name.tcp end
  if type(name) ~= "string" then fail("option 'transport' must be a string or a table, not %s", type(name)) end
  if transports.planned[name] then unsupported(transports.planned[name]) end
  local transport = transports.by_name[name]
  if transport and transport.client then return transport end
  return transports.by_name.tcp -- as Nest's factory does (MOD-06)
end

local function custom(given, transport)
  if given.offline ~= nil then fail("option 'offline' has no meaning for a transport written in Lua") end
  for _, name in ipairs({ "connect", "publish" }) do
    if type(transport[name]) ~= "function" then fail("a transport written in Lua needs the function '%s'", name) end
  end
  local options = complete(given, CLIENT)
  options.transport = transport
  return options
end

local function copy_of(value)
  if type(value) ~= "table" then fail("options must be a table or a URL, not %s", type(value)) end
  local given = {}
  for name, item in pairs(value) do given[name] = item end
  return given
end

--- What the files that TLS options name hold now: options that are equal may mean renewed certificates.
---@param tls? table
---@return string "" without files
local function fingerprint(tls)
  local parts = {}
  for _, name in ipairs(type(tls) == "table" and { "ca", "cert", "key" } or {}) do
    local path = tls[name]
    local stat = path and not path:find("-----BEGIN", 1, true) and uv.fs_stat(path)
    local file = stat and stat.type == "file" and io.open(path, "rb") -- a pipe can be read only once
    if file then
      parts[#parts + 1] = name .. core.sha256(file:read("*a") or "")
      file:close()
    end
  end
  return table.concat(parts)
end

--- Normalised options of a client: what core.client takes, and `timeout serialize deserialize` beside it.
--- `key` is equal for options that can share a pool; nil for a transport written in Lua, which is then
--- `transport` itself. Raises INVALID_OPTION or UNSUPPORTED.
---@param spec table|string
---@return table
local function client(spec)
  local transport, given
  if type(spec) == "string" then
    transport, given = read_url(spec, "client")
  else
    given = copy_of(spec)
    transport = given.transport
    given.transport = nil
    if type(transport) == "table" then return custom(given, transport) end
    transport = named_transport(transport)
  end
  local types = merge(CLIENT, transport.client)
  if transport.prepare then transport.prepare(given) end
  local options = complete(given, types)
  options.transport = transport.name
  if transport.client.hosts then gather_hosts(options) end
  gather_settings(options, types)
  options.key = pool_key(options) .. fingerprint(options.tls)
  options.message = transport.message
  return options
end

--- The options a client of that transport takes; as for the factory, TCP's for a name nobody knows.
---@param name string
---@return table<string, perigee.OptionType>? nil for a transport of a later version
local function client_types(name)
  if transports.planned[name] then return nil end
  local transport = named_transport(name)
  local types = merge(CLIENT, transport.client)
  if transport.prepare then -- what it turns into options of the table, such as `servers`, it asks for by name
    local asked = setmetatable({}, { __index = function(_, option) types[option] = types[option] or {} end })
    pcall(transport.prepare, asked)
  end
  return types
end

--- Adds options given as text ("--option connect_timeout=100") to a client's URL.
---@param url string
---@param pairs_of_text table<string, string>
---@return table options for `client`
local function client_from_text(url, pairs_of_text)
  local transport, given = read_url(url, "client")
  local types = merge(CLIENT, transport.client)
  for name, text in pairs(pairs_of_text) do add_text(given, name, text, types) end
  given.transport = transport.name
  return given
end

---@class perigee.ListenerOptions
---@field url string as given
---@field transport string "http", "tcp", "local"
---@field scheme string
---@field core table what core.http or core.server takes
---@field where? string file:line it was asked for at
---@field key string equal for listeners that a reload need not touch, unless their certificates have changed

--- Normalised options of a listener. Options in the table win over those in the URL.
---@param text string
---@param opts? table
---@return perigee.ListenerOptions
local function listener(text, opts)
  local transport, given = read_url(text, "server")
  local scheme = text:match("^[^:]+"):lower()
  local merged_tls = given.tls
  for name, value in pairs(copy_of(opts or {})) do
    if name == "tls" and merged_tls and type(value) == "table" then value = merge(merged_tls, value) end
    given[name] = value
  end
  if transport.prepare then transport.prepare(given) end
  local options = complete(given, transport.server)
  if transport.server.hosts then gather_hosts(options) end
  gather_settings(options, transport.server)
  if options.path and transport.server.path then options.host, options.port = nil, nil end
  if options.tls and not options.tls.cert and not transport.is_broker then
    fail("'%s' needs a certificate: tls = { cert =, key = }", url_of.redact(text))
  end
  for name, core_name in pairs(transport.renamed or {}) do
    options[core_name], options[name] = options[name], nil
  end
  if transport.name ~= "http" then options.transport = transport.name end
  return { url = text, transport = transport.name, scheme = scheme, core = options, key = text .. canonical(options) }
end

--- Options of `app:message` and `app:event`: `transport`, and what brokers know about a subscription.
---@param opts table?
---@return table<string, table<string, any>> settings by transport
local function handler(opts)
  local settings, known = {}, { transport = { type = "string" } }
  for name, transport in pairs(transports.by_name) do
    settings[name] = {}
    for option, kind in pairs(transport.handler or {}) do known[option] = kind end
  end
  for name, value in pairs(opts or {}) do
    if not known[name] then refuse_unknown(name, known) end
    value = check_one(name, value, known[name])
    for transport_name, transport in pairs(transports.by_name) do
      if transport.handler and transport.handler[name] then settings[transport_name][name] = value end
    end
  end
  return settings
end

return {
  client = client, client_from_text = client_from_text, listener = listener, handler = handler,
  client_types = client_types, fingerprint = fingerprint, nearest = nearest, CLIENT = CLIENT,
}
