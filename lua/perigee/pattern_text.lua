--- A pattern as a client's wire takes it: JSON text, remembered, since most scripts use a few patterns, often; or a
--- table, which the wire encodes itself.

local json_encode = require("perigee.core").json_encode

local MAX_TEXTS = 4096

-- Of strings; and of tables of one pair of strings, as { cmd = "charge" }: by key, the texts of its values.
local texts, pair_texts, count = {}, {}, 0

-- One more will be remembered.
local function make_room()
  if count >= MAX_TEXTS then texts, pair_texts, count = {}, {}, 0 end
  count = count + 1
end

local function of_pair(pattern, key, value)
  local of = pair_texts[key]
  local text = of and of[value]
  if text then return text end
  text = json_encode(pattern)
  if not text then return pattern end -- the wire says what is wrong with it
  make_room()
  of = pair_texts[key] or {}
  pair_texts[key], of[value] = of, text
  return text
end

local function of_table(pattern)
  local key, value = next(pattern)
  local is_pair = type(key) == "string" and type(value) == "string" and next(pattern, key) == nil
  if is_pair and not getmetatable(pattern) then return of_pair(pattern, key, value) end
  return pattern
end

---@param pattern any
---@return string|table|nil text nil: it cannot be encoded
return function(pattern)
  local text = texts[pattern]
  if text then return text end
  if type(pattern) == "table" then return of_table(pattern) end
  text = json_encode(pattern)
  if type(pattern) == "string" and text then
    make_room()
    texts[pattern] = text
  end
  return text
end
