--- A small HTTP/1.1 client for specs, on raw sockets: what is sent and received is seen as it is.

local cjson = require("cjson")
local loop = require("spec.support.loop")
local tcp = require("spec.support.tcp")

local http = {}

---@class spec.HttpResponse
---@field status integer
---@field headers table<string, string> lower-case names; repeated ones joined by ", "
---@field body string

local function parse_head(text)
  local status = tonumber(text:match("^HTTP/1%.1 (%d%d%d)"))
  local headers = {}
  for name, value in text:gmatch("\r\n([^:\r]+):[ \t]*([^\r]*)") do
    name = name:lower()
    headers[name] = headers[name] and headers[name] .. ", " .. value or value
  end
  return { status = status, headers = headers, body = "" }
end

--- Reads one response; HEAD's have no body whatever their length says.
---@param peer spec.Peer
---@param method? string
---@return spec.HttpResponse
function http.read(peer, method)
  local stop
  loop.wait_until(function()
    stop = select(2, peer:peek():find("\r\n\r\n", 1, true))
    return stop or peer.ended
  end, nil, function() return ("a response, got %q"):format(peer:peek()) end)
  assert(stop, "the connection ended before a response: " .. tostring(peer.ended))
  local response = parse_head(peer:read(stop))
  local length = tonumber(response.headers["content-length"] or 0)
  if method ~= "HEAD" and length > 0 then response.body = peer:read(length) end
  return response
end

--- The bytes of a request.
---@param method string
---@param target string
---@param body? string
---@param headers? table<string, string>
function http.bytes(method, target, body, headers)
  local lines = { method .. " " .. target .. " HTTP/1.1", "host: spec" }
  for name, value in pairs(headers or {}) do lines[#lines + 1] = name .. ": " .. value end
  if body then lines[#lines + 1] = "content-length: " .. #body end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or "")
end

--- One request on a connection of its own.
---@param at string|integer port, or a URL that ends with one
---@return spec.HttpResponse
function http.request(at, method, target, body, headers)
  local port = type(at) == "number" and at or tonumber(at:match(":(%d+)$"))
  local peer = tcp.connect(port)
  peer:write(http.bytes(method, target, body, headers))
  local response = http.read(peer, method)
  peer:close()
  return response
end

--- The body of a response as a value.
---@param response spec.HttpResponse
function http.json(response)
  return cjson.decode(response.body)
end

return http
