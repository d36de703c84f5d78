--- perigee test [PATH]...: runs specs of scripts on busted, on the LuaJIT of this program, in the main chunk.

local arguments = require("perigee.cli.arguments")
local errors = require("perigee.errors")
local uv = require("luv")

local DEFAULT_PATH = "spec"
local PATTERN = "_spec%.lua$"

local function fail(...)
  error(errors.make("UNSUPPORTED", string.format(...)), 0)
end

local function load_busted()
  local ok, core = pcall(require, "busted.core")
  if ok then return core() end
  if not tostring(core):find("module 'busted.core' not found", 1, true) then error(core, 0) end
  fail("busted is not installed: it is the package lua-busted of Debian and Ubuntu, or: luarocks install busted")
end

local function check_paths(paths)
  for _, path in ipairs(paths) do
    local stat = uv.fs_stat(path)
    if not stat then arguments.usage("there is no file or folder '%s'", path) end
    if stat.type ~= "directory" and not path:find("%.lua$") then
      arguments.usage("'%s' is no spec: the name of one ends in .lua", path)
    end
  end
end

-- As busted's own runner counts.
local function count(busted)
  local counts = { passed = 0, failed = 0 }
  local function failed()
    counts.failed = counts.failed + 1
    return nil, true
  end
  busted.subscribe({ "error" }, failed)
  busted.subscribe({ "failure" }, failed)
  busted.subscribe({ "test", "end" }, function(_, _, status)
    if status == "success" then counts.passed = counts.passed + 1 end
    return nil, true
  end)
  return counts
end

local function show_progress(busted)
  local output = require("busted.modules.output_handler_loader")()
  output(busted, "plainTerminal", { defaultOutput = "plainTerminal", language = "en", arguments = {} })
end

local function load_files(busted, paths)
  local load = require("busted.modules.test_file_loader")(busted, { "lua" })
  local files = load(paths, { PATTERN }, { excludes = {}, recursive = true })
  if #files == 0 then fail("there are no specs, *_spec.lua, in %s", table.concat(paths, ", ")) end
end

---@param argv string[]
---@return integer exit
return function(argv)
  local paths = arguments.parse(argv, {})
  if #paths == 0 then paths = { DEFAULT_PATH } end
  check_paths(paths)
  local busted = load_busted()
  require("busted")(busted)
  local counts = count(busted)
  show_progress(busted)
  require("busted.luajit")()
  -- Before any spec file: busted forgets what a file has loaded, and these are one for all.
  require("perigee")
  require("perigee.testing")
  load_files(busted, paths)
  require("busted.execute")(busted)(1, {})
  busted.publish({ "exit" })
  io.stdout:write(("%d passed, %d failed\n"):format(counts.passed, counts.failed))
  return counts.failed > 0 and 1 or 0
end
