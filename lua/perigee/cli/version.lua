--- perigee version.

local uv = require("luv")
local version = require("perigee.version")

---@return integer exit
return function()
  io.stdout:write(("perigee %s (%s, libuv %s)\n"):format(version, jit.version, uv.version_string()))
  return 0
end
