--- Bundles as text: what all scripts of a generation were made of, on its way from one worker to the others.
---
---   "script" path number, then its files: "file" path text        each record: "kind length length\nfirstsecond"

local bundle = {}

local function record(parts, kind, first, second)
  parts[#parts + 1] = ("%s %d %d\n"):format(kind, #first, #second)
  parts[#parts + 1] = first
  parts[#parts + 1] = second
end

---@param scripts perigee.BundledScript[]
---@return string
function bundle.encode(scripts)
  local parts = {}
  for _, one in ipairs(scripts) do
    record(parts, "script", one.path, tostring(one.number))
    for path, text in pairs(one.files) do record(parts, "file", path, text) end
  end
  return table.concat(parts)
end

---@param text string as encode made it
---@return perigee.BundledScript[]
function bundle.decode(text)
  local scripts, at = {}, 1
  while at <= #text do
    local kind, first_size, second_size, from = text:match("^(%l+) (%d+) (%d+)\n()", at)
    local middle = from + tonumber(first_size)
    at = middle + tonumber(second_size)
    local first, second = text:sub(from, middle - 1), text:sub(middle, at - 1)
    if kind == "script" then
      scripts[#scripts + 1] = { path = first, number = tonumber(second), files = {} }
    else
      scripts[#scripts].files[first] = second
    end
  end
  return scripts
end

return bundle
