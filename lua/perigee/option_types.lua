--- The types an option can have: what is taken, and what the message says when it is not.

local errors = require("perigee.errors")
local headers_of = require("perigee.headers")
local url_of = require("perigee.url")

local MAX_HOSTS, MAX_CONNECTIONS = 64, 64 -- as core/engine/client.h

local TLS = { ca = "string", cert = "string", key = "string", server_name = "string", verify = "boolean" }

local function fail(...)
  error(errors.make("INVALID_OPTION", string.format(...)), 0)
end

local function integer(value, lowest, highest)
  if type(value) ~= "number" or value ~= math.floor(value) or value < lowest or value > highest then return nil end
  return value
end

local function port_from(lowest)
  return function(value)
    if type(value) == "string" and value:find("^%d+$") then value = tonumber(value) end
    local port = integer(value, lowest, 65535)
    return port, ("a port from %d to 65535"):format(lowest)
  end
end

local function tls_of(value)
  if value == true then return {} end
  if type(value) ~= "table" then return nil, "a table of ca, cert, key, server_name, verify" end
  local copy = {}
  for name, item in pairs(value) do
    if TLS[name] == nil then
      fail("unknown option 'tls.%s' (known: ca, cert, key, server_name, verify)", tostring(name))
    end
    if type(item) ~= TLS[name] then fail("option 'tls.%s' must be a %s, not %s", name, TLS[name], type(item)) end
    copy[name] = item
  end
  if (copy.cert == nil) ~= (copy.key == nil) then fail("options 'tls.cert' and 'tls.key' go together") end
  return copy
end

local check = {
  string = function(value) -- C would read it to its first NUL
    return type(value) == "string" and value ~= "" and not value:find("%z") and value or nil, "a non-empty string"
  end,
  boolean = function(value)
    if type(value) == "boolean" then return value end
    return nil, "true or false"
  end,
  ["function"] = function(value) return type(value) == "function" and value or nil, "a function" end,
  count = function(value) return integer(value, 1, 2 ^ 31 - 1), "a whole number from 1" end,
  connections = function(value)
    return integer(value, 1, MAX_CONNECTIONS), ("a whole number from 1 to %d"):format(MAX_CONNECTIONS)
  end,
  size = function(value) return integer(value, 0, 2 ^ 31 - 1), "a whole number from 0" end,
  port = port_from(1),
  listen_port = port_from(0),
  tls = tls_of,
}

-- Milliseconds of a wait that must have an end.
function check.ms(value)
  if type(value) == "number" and value > 0 and value <= 2 ^ 31 - 1 then return value end
  return nil, "milliseconds above 0"
end

-- The same for a wait that may be turned off: by false, or by 0 as in Nest.
function check.ms_or_off(value)
  if value == false or value == 0 then return false end
  local ms = check.ms(value)
  return ms, "milliseconds, or false for none"
end

-- { name = "value", other = { "a", "b" } }
function check.headers(value)
  if type(value) ~= "table" then return nil, "a table of headers" end
  local _, message = headers_of.flatten(value)
  if message then return nil, "headers: " .. message end
  return value
end

-- Names on a NATS server; quotes would need escapes there.
function check.subject(value)
  local good = type(value) == "string" and #value <= 100 and value:find('^[^%s%c"\\]+$')
  return good and value or nil, "1 to 100 characters without white space and quotes"
end

function check.stream_name(value)
  local good = check.subject(value) and not value:find("[.*>]")
  return good and value or nil, "1 to 100 characters without white space, quotes, dots and wildcards"
end

-- { "nats://a:4222", "b:4222" }, or one: transports turn them into hosts.
function check.servers(value)
  return (type(value) == "table" and value[1] or type(value) == "string") and value or nil, "a URL or a list of URLs"
end

-- Events emitted without a connection: fail (the default), wait for it, or vanish.
function check.offline(value)
  local known = value == "fail" or value == "queue" or value == "drop"
  return known and value or nil, '"fail", "queue" or "drop"'
end

local function refuse_host(i, ...)
  fail("option 'hosts', entry %d: %s", i, string.format(...))
end

-- "host:port", and nothing else that a URL can have.
local function host_of_text(i, text)
  local parsed, message = url_of.parse("tcp://" .. text)
  if not parsed or not parsed.host then refuse_host(i, "%s", message or "no host") end
  if parsed.user or parsed.hosts or parsed.path ~= "" or next(parsed.query) ~= nil then
    refuse_host(i, "'%s' is not host or host:port", url_of.redact("//" .. text):sub(3))
  end
  return { host = parsed.host, port = parsed.port }
end

local HOST = { host = "string", path = "string", port = "port" }

local function host_of(i, item)
  for name, value in pairs(item) do
    if not HOST[name] then refuse_host(i, "unknown '%s' (known: host, path, port)", tostring(name)) end
    local good, expected = check[HOST[name]](value)
    if good == nil then refuse_host(i, "%s must be %s", name, expected) end
  end
  if not item.path and not item.host then refuse_host(i, "it needs a host or a path") end
  return item.path and { path = item.path } or { host = item.host, port = check.port(item.port) }
end

-- { "a:3001", "[::1]:3001", { host =, port = }, { path = } }
function check.hosts(value)
  if type(value) ~= "table" or #value == 0 or #value > MAX_HOSTS then
    return nil, ("a list of 1 to %d hosts"):format(MAX_HOSTS)
  end
  local list, n = {}, 0
  for i, item in pairs(value) do
    if type(item) == "string" and type(i) == "number" then item = host_of_text(i, item) end
    if type(item) ~= "table" or type(i) ~= "number" then return nil, "a list of hosts" end
    list[i], n = host_of(i, item), n + 1
  end
  if n ~= #value then return nil, "a list of hosts" end
  return list
end

return { check = check, TLS = TLS, fail = fail }
