--- Rules literal-host and literal-credential: settings that stand in the script and belong to the environment.
--- `os.getenv(...) or "..."` is a default, not a setting: only what is nothing but a literal is told.

local findings = require("perigee.check.findings")
local kinds = require("perigee.check.kinds")
local places = require("perigee.check.places")
local transports = require("perigee.transports")

local SECRETS = {
  password = true, pass = true, token = true, secret = true, nkey = true, seed = true, jwt = true,
  sentinel_password = true,
}
local ADDRESSES = { hosts = true, servers = true, sentinels = true, url = true, urls = true, brokers = true }
local INSIDE = { tls = true, sasl = true, clients = true }

local resolve = kinds.resolve

local literals = {}
literals.__index = literals

--- Values ---------------------------------------------------------------------------------------------------------

-- The text of a literal, or the literal beginning of a concatenation or a format; whether that is all; and where.
local function text_of(node)
  local found = resolve(node)
  if found.tag == "String" then return found.value, true, node end
  if found.tag == "Binary" and found.op == ".." then
    local text, whole, at = text_of(found[1])
    local rest = resolve(found[2])
    if text and whole and rest.tag == "String" then return text .. rest.value, true, at end
    return text, false, at
  end
  if found.tag == "Method" and found.name == "format" then
    local text, _, at = text_of(found[1])
    return text and text:match("^[^%%]*"), false, at
  end
end

local function is_local(host, listening)
  host = host:lower():gsub("^%[", ""):gsub("%]$", "")
  if host == "" or host == "localhost" or host:find("%.localhost$") or host:find("^127%.") or host == "::1" then
    return true
  end
  return listening and (host == "0.0.0.0" or host == "::" or host == "*")
end

-- "tcp://user:secret@host:3000/path" -> "user:secret", "host". Of a text that goes on, only what ends in it.
local function parts(text, whole, is_bare)
  local scheme, rest = text:match("^(%a[%w+.-]*)://(.*)$")
  if not scheme and not is_bare then return nil end
  if scheme and not (transports.by_scheme[scheme:lower()] or transports.planned[scheme:lower()]) then return nil end
  rest = rest or text
  local user, after = rest:match("^([^@/?]*)@(.*)$")
  rest = after or rest
  local host, ending = rest:match("^(%[[^%]]*%])(.*)$")
  if not host then host, ending = rest:match("^([^:/?,]*)(.*)$") end
  if not whole and ending == "" then host = nil end
  return user, host
end

--- Findings -------------------------------------------------------------------------------------------------------

function literals:add(rule, node, message)
  self.list[#self.list + 1] = findings.new(rule, self.file, node, message)
end

function literals:host(node, host)
  if is_local(host, self.listening) then return end
  self:add("literal-host", node, ("the host '%s' stands in the script: take it from the environment, as with os.getenv")
    :format(host))
end

function literals:credential(node, what)
  self:add("literal-credential", node, what
    .. " stands in the script: take it from the environment, as with os.getenv")
end

-- is_bare: "host:port" will do too.
function literals:url(node, is_bare)
  local text, whole, at = text_of(node)
  if not text then return end
  local user, host = parts(text, whole, is_bare)
  if user and user ~= "" and user ~= ":" then self:credential(at, "a credential in the URL") end
  if host then self:host(at, host) end
end

-- One URL or host, or a list of them, also as tables.
function literals:addresses(node)
  local made = resolve(node)
  if made.tag ~= "Table" then return self:url(node, true) end
  for _, item in ipairs(made) do
    if resolve(item).tag == "Table" then self:options(item) elseif item.tag ~= "Pair" then self:url(item, true) end
  end
end

function literals:option(name, value)
  local text, whole = text_of(value)
  if name == "host" then
    if text and whole then self:host(value, text) end
  elseif ADDRESSES[name] then
    self:addresses(value)
  elseif SECRETS[name] then
    if text and text ~= "" then self:credential(value, ("the option '%s'"):format(name)) end
  elseif name == "key" or name == "creds" then -- a file, or what stands in one
    if text and text:find("-----BEGIN", 1, true) then self:credential(value, "a private key") end
  elseif INSIDE[name] then
    self:options(value)
  end
end

-- A table of options, or a list of such.
function literals:options(node)
  local made = resolve(node)
  if made.tag ~= "Table" then return end
  for _, item in ipairs(made) do
    if item.tag == "Pair" then
      if item[1].tag == "String" then self:option(item[1].value, item[2]) end
    else
      self:options(item)
    end
  end
end

---@param facts perigee.check.Facts
---@param file string
---@param list perigee.Finding[] gets more
return function(facts, file, list)
  local self = setmetatable({ file = file, list = list, listening = false }, literals)
  for _, place in ipairs(places(facts)) do
    self.listening = place.role == "listen"
    if place.role ~= "value" then self:url(place.node) end
    self:options(place.node)
  end
end
