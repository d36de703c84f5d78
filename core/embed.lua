-- Build tool: luajit core/embed.lua VERSION FILE... > sources.c - puts Lua modules into C, for main.c: as bytecode,
-- since compiling them all takes longer than the rest of a start. As text when this luajit is not of the VERSION that
-- the program is linked with, or dumps in a way that dump.lua does not know.

local dump = dofile(arg[0]:match("^.*/") .. "dump.lua")
local is_same = jit.version == "LuaJIT " .. arg[1]

local function c_string(text)
  local lines = {}
  for at = 1, #text, 64 do
    lines[#lines + 1] = text:sub(at, at + 63):gsub('[%z\1-\31"\\?\127-\255]', function(c)
      return ("\\%03o"):format(c:byte())
    end)
  end
  return '"' .. table.concat(lines, '"\n"') .. '"'
end

print('#include "bind/embedded.h"\n\nconst struct pge_embedded pge_embedded[] = {')
for i = 2, #arg do
  local path = arg[i]
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  local module = path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")
  text = is_same and dump(text, "@" .. path) or text
  print(('{"%s", "@%s", %d,\n%s},'):format(module, path, #text, c_string(text)))
end
print("{0, 0, 0, 0}};")
