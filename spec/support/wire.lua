--- Nest's TCP frames as specs write and read them, apart from the engine's own codec (nest-wire 2.2).

local wire = {}

--- UTF-16 code units of valid UTF-8.
---@param text string
---@return integer
function wire.units(text)
  local count = 0
  for i = 1, #text do
    local byte = text:byte(i)
    if byte < 0x80 or byte >= 0xC0 then count = count + 1 end
    if byte >= 0xF0 then count = count + 1 end
  end
  return count
end

---@param payload string JSON
---@return string
function wire.frame(payload)
  return wire.units(payload) .. "#" .. payload
end

--- The first whole frame in a buffer: as on the wire, and its payload; nil while it is incomplete.
---@param buffer string
---@param from? integer where to start
---@return string? frame
---@return string? payload
function wire.first_frame(buffer, from)
  from = from or 1
  local digits = buffer:match("^(%d+)#", from)
  if not digits then return nil end
  local missing, start = tonumber(digits), from + #digits + 1
  local i = start
  while missing > 0 do
    local byte = buffer:byte(i)
    if not byte then return nil end
    local width = byte < 0x80 and 1 or byte < 0xE0 and 2 or byte < 0xF0 and 3 or 4
    missing = missing - (width == 4 and 2 or 1)
    i = i + width
  end
  if i - 1 > #buffer then return nil end
  return buffer:sub(from, i - 1), buffer:sub(start, i - 1)
end

--- A packet with its id taken out, and the id: ids differ in every run, the rest is compared byte for byte.
---@param payload string JSON of one packet with a string id
---@return string without `"I"` in place of the id
---@return string? id
function wire.strip_id(payload)
  local id
  local text = payload:gsub('"id":"([^"]*)"', function(found)
    id = found
    return '"id":"I"'
  end, 1)
  return text, id
end

--- A frame of a request whose id is "I", an event when id is false.
---@param pattern string JSON
---@param data? string JSON
---@param id? string|false JSON, `"I"` by default
function wire.request(pattern, data, id)
  local parts = { '"pattern":' .. pattern }
  if data then parts[#parts + 1] = '"data":' .. data end
  if id ~= false then parts[#parts + 1] = '"id":' .. (id or '"I"') end
  return wire.frame("{" .. table.concat(parts, ",") .. "}")
end

return wire
