-- Build tool: luajit core/embed.lua FILE... > sources.c - puts Lua sources into C, for main.c.
-- Sources and not bytecode: a dump forgets the sizes of table constructors, which costs a tenth of a request.

local function c_string(text)
  text = text:gsub('[\\"]', "\\%0"):gsub("\n", "\\n\"\n\""):gsub("[%z\1-\9\11-\31\127-\255]", function(c)
    return ("\\%03o"):format(c:byte())
  end)
  return '"' .. text .. '"'
end

print('#include "bind/embedded.h"\n\nconst struct pge_embedded pge_embedded[] = {')
for _, path in ipairs(arg) do
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  local module = path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")
  print(('{"%s", "@%s", %d,\n%s},'):format(module, path, #text, c_string(text)))
end
print("{0, 0, 0, 0}};")
