--- Takes service URLs apart: "tcp://host:port?x=1", "tcp://[::1]:3000", "unix:/run/x.sock", "local:name".

---@class perigee.Url
---@field text string as given
---@field scheme string lower case
---@field opaque? string what follows "scheme:" without "//", percent-decoded; then there is no host
---@field host? string without brackets, nil when empty
---@field port? string as written
---@field user? string percent-decoded; a lone one may be a token
---@field pass? string
---@field hosts? { host: string, port: string? }[] more than one, divided by commas; the first is host and port
---@field path string "" when there is none, percent-decoded
---@field query table<string, string> percent-decoded; of a repeated name the last one

local MAX_LENGTH = 8192

local function decode(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- "[::1]:80", "host:80", "host"; an IPv6 address without brackets would be ambiguous.
local function split_authority(authority)
  local host, rest = authority:match("^%[([%x:.%%%w]+)%](.*)$")
  if not host then
    host, rest = authority:match("^([^%[%]:@%s]*)(.*)$")
    if not host then return nil end
    host = decode(host)
  end
  if rest == "" then return host end
  local port = rest:match("^:(%d+)$")
  if not port then return nil end
  return host, port
end

-- "user:pass@" or "token@" before the hosts.
local function split_login(url, authority)
  local login, rest = authority:match("^(.*)@([^@]*)$")
  if not login then return authority end
  local user, pass = login:match("^([^:]*):(.*)$")
  url.user, url.pass = decode(user or login), pass and decode(pass)
  return rest
end

-- "a:1,b:2" into url.hosts. Returns what is not a host.
local function split_hosts(url, authority)
  if not authority:find(",", 1, true) then
    local host, port = split_authority(authority)
    if not host then return authority end
    if host ~= "" then url.host = host end
    url.port = port
    return
  end
  url.hosts = {}
  for item in (authority .. ","):gmatch("([^,]*),") do
    local host, port = split_authority(item)
    if not host or host == "" then return item end
    url.hosts[#url.hosts + 1] = { host = host, port = port }
  end
  url.host, url.port = url.hosts[1].host, url.hosts[1].port
end

local function parse_query(text)
  local query = {}
  for pair in text:gmatch("[^&]+") do
    local name, value = pair:match("^([^=]+)=(.*)$")
    if not name then return nil, ("'%s' in its query is not name=value"):format(pair) end
    query[decode(name)] = decode(value)
  end
  return query
end

---@param text string
---@return perigee.Url?
---@return string? message what is wrong with it
local function parse(text)
  if type(text) ~= "string" then return nil, "a URL is a string, not a " .. type(text) end
  if #text > MAX_LENGTH then return nil, "it is too long" end
  if text:find("[%z\1-\32\127]") then return nil, "it has a space or a control character" end
  local scheme, rest = text:match("^(%a[%w+.-]*):(.*)$")
  if not scheme then return nil, "it has no scheme, such as tcp://" end
  if rest:find("#", 1, true) then return nil, "it has a fragment" end
  local url = { text = text, scheme = scheme:lower(), query = {}, path = "" }
  local body, query = rest:match("^([^?]*)%?(.*)$")
  if query then
    local message
    url.query, message = parse_query(query)
    if not url.query then return nil, message end
  end
  body = body or rest
  local authority, path = body:match("^//([^/]*)(.*)$")
  if not authority then
    url.opaque = decode(body)
    return url
  end
  url.path = decode(path)
  local wrong = split_hosts(url, split_login(url, authority))
  if wrong then return nil, ("'%s' is not host or host:port"):format(wrong) end
  return url
end

--- The text without a password or token, for logs and messages.
---@param text string
---@return string
local function redact(text)
  return (tostring(text):gsub("//[^/@]*@", "//***@"))
end

--- "host:port", with brackets around IPv6.
---@param host string
---@param port integer|string
---@return string
local function authority(host, port)
  if host:find(":", 1, true) then host = "[" .. host .. "]" end
  return host .. ":" .. tostring(port)
end

return { parse = parse, authority = authority, decode = decode, redact = redact }
