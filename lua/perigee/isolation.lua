--- The globals of one script: reads fall through to the host's, a write to a name nobody declared is refused.
--- `rawset(_G, "name", value)` declares one. Code compiled from texts and files sees the same globals.

-- The place of the environment among the arguments: where a script gives one, it stays.
local COMPILERS = { load = 4, loadstring = 4, loadfile = 3 }

local function refuse(_, name)
  error(("undeclared global '%s'; use local"):format(tostring(name)), 2)
end

---@param path string of the script
---@return table globals with `arg`, and without `require`
local function new(path)
  local globals = { arg = { [0] = path } }
  globals._G = globals
  for name, place in pairs(COMPILERS) do
    local compile = _G[name]
    globals[name] = function(...)
      local chunk, message = compile(...)
      if not chunk then return nil, message end
      return select("#", ...) < place and setfenv(chunk, globals) or chunk
    end
  end
  function globals.dofile(file)
    local chunk, message = globals.loadfile(file)
    if not chunk then error(message, 0) end
    return chunk()
  end
  return setmetatable(globals, { __index = _G, __newindex = refuse })
end

return { new = new }
