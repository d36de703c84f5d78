--- Headers of a message: { ["x-a"] = "1", ["x-multi"] = { "a", "b" } }, and the flat list the core takes.

local MAX_COUNT, MAX_BYTES = 64, 16384 -- as core/base/settings.h

-- What may stand on a line of its own: visible ASCII without ':', and a value of one line.
local function is_name(name)
  return type(name) == "string" and name ~= "" and not name:find("[^!-9;-~]")
end

local function is_value(value)
  return type(value) == "string" and not value:find("[%z\r\n]")
end

local function add(list, name, value)
  if not is_value(value) then
    return ("the value of header '%s' must be a string of one line, not %s"):format(name,
      type(value) == "string" and ("%q"):format(value) or type(value))
  end
  list[#list + 1], list[#list + 2] = name, value
  list.bytes = list.bytes + #name + #value
end

local function add_all(list, name, value)
  if not is_name(name) then return ("%q is no name for a header"):format(tostring(name)) end
  if type(value) ~= "table" then return add(list, name, value) end
  if #value == 0 then return ("header '%s' has an empty list"):format(name) end
  for _, item in ipairs(value) do
    local message = add(list, name, item)
    if message then return message end
  end
end

--- { name, value, … }, by name; `defaults` fill in the names that are not there (nest-wire 4.3).
---@param headers table<string, string|string[]>?
---@param defaults table<string, string|string[]>?
---@return string[]? flat nil: none
---@return string? message what is wrong with them
local function flatten(headers, defaults)
  local names, all = {}, {}
  for name, value in pairs(defaults or {}) do all[name] = value end
  for name, value in pairs(headers or {}) do all[name] = value end
  for name in pairs(all) do names[#names + 1] = name end
  if #names == 0 then return nil end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  local list = { bytes = 0 }
  for _, name in ipairs(names) do
    local message = add_all(list, name, all[name])
    if message then return nil, message end
  end
  if #list / 2 > MAX_COUNT then return nil, ("more than %d headers"):format(MAX_COUNT) end
  if list.bytes > MAX_BYTES then return nil, ("more than %d bytes of headers"):format(MAX_BYTES) end
  list.bytes = nil
  return list
end

return { flatten = flatten }
