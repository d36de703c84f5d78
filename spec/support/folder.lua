--- Folders for specs.

local uv = require("luv")

local folder = {}

--- A new, empty one.
---@return string path
function folder.new()
  return assert(uv.fs_mkdtemp((os.getenv("TMPDIR") or "/tmp") .. "/perigee-spec-XXXXXX"))
end

--- Removes it with all that is in it.
---@param path string
function folder.remove(path)
  for name, kind in uv.fs_scandir_next, assert(uv.fs_scandir(path)) do
    if kind == "directory" then folder.remove(path .. "/" .. name) else os.remove(path .. "/" .. name) end
  end
  os.remove(path)
end

return folder
