--- The files of a script: itself and the modules beside it that it names. Read and parsed, not run.

local findings = require("perigee.check.findings")
local parser = require("perigee.check.parser")

local MAX_FILES, MAX_BYTES = 1000, 16 * 1024 * 1024

local sources = {}

---@class perigee.check.Source
---@field path string
---@field text? string nil: it cannot be read
---@field tree? perigee.check.Tree nil: it is not Lua source

---@param path string
---@return string? text
---@return string? message why not
function sources.from_disk(path)
  local file, message = io.open(path, "rb")
  if not file then return nil, (message:gsub("^.*: ", "")) end
  local text, why = file:read(MAX_BYTES + 1)
  file:close()
  if not text and why then return nil, why end
  if text and #text > MAX_BYTES then return nil, ("larger than %d bytes"):format(MAX_BYTES) end
  return text or ""
end

-- Half of what the rules may need: they go down the tree by recursion, and down a chain of calls again.
local MAX_DEPTH = 1000

local function shallow_tree(text)
  local tree = parser.parse(text)
  local depth = {}
  parser.walk(tree.block, function(node, parent)
    depth[node] = parent and depth[parent] + 1 or 0
    if depth[node] > MAX_DEPTH then error("stack overflow", 0) end
  end)
  return tree
end

--- Compiles and parses a text. What is wrong with it is added to the list.
---@param path string
---@param text string
---@param list perigee.Finding[]
---@return perigee.check.Tree? nil for what is not Lua, and for bytecode, in which there is nothing to read
function sources.parse(path, text, list)
  if text:byte(1) == 27 then return nil end
  local chunk, message = loadstring(text, "@" .. path)
  if not chunk then
    local prefix = debug.getinfo(loadstring("", "@" .. path), "S").short_src .. ":"
    if message:sub(1, #prefix) == prefix then message = message:sub(#prefix + 1) end
    local line, rest = message:match("^(%d+): (.*)$")
    list[#list + 1] = findings.new("syntax", path, { line = tonumber(line) or 1 }, rest or message)
    return nil
  end
  local ok, result = pcall(shallow_tree, text)
  if ok then return result end
  if not tostring(result):find("stack overflow", 1, true) then error(result, 0) end
  list[#list + 1] = findings.new("syntax", path, { line = 1 }, "this file is too deeply nested to be checked",
    { severity = "warning" })
end

-- The literal names of `require`, with where they stand.
local function required(tree)
  local names = {}
  parser.walk(tree.block, function(node)
    local fn, argument = node[1], node[2]
    if node.tag == "Call" and fn.tag == "Name" and fn.name == "require" and not fn.variable and argument
      and argument.tag == "String" then
      names[#names + 1] = { name = argument.value, node = argument }
    end
  end)
  return names
end

-- What `require` of an environment finds elsewhere: built in, loaded by the host, or on the paths.
local function is_elsewhere(name, own)
  if name == "perigee" or name:find("^perigee%.") or own.preload[name] or own.loaded[name] ~= nil then return true end
  if package.searchpath(name, own.path) then return true end
  return package.searchpath(name, own.cpath) or package.searchpath(name:match("^[^.]*"), own.cpath)
end

---@class perigee.check.Sources the files of one script
---@field list perigee.check.Source[] the script first
---@field private findings perigee.Finding[]
---@field private read fun(path: string): string?, string?
---@field private folder? string
---@field private package table
---@field private seen table<string, true>
local Sources = {}
Sources.__index = Sources

-- The script's own module of that name, as environment.lua would find it; nil when there is none.
local function own_module(self, name)
  if not self.folder or name == "perigee" or name:find("^perigee%.") or package.preload[name] then return nil end
  local path = self.folder .. name:gsub("%.", "/")
  for _, file in ipairs({ path .. ".lua", path .. "/init.lua" }) do
    if self.seen[file] or self.read(file) then return file end
  end
end

local function follow(self, source)
  for _, wanted in ipairs(required(source.tree)) do
    local file = own_module(self, wanted.name)
    if file then
      self:add(file)
    elseif not is_elsewhere(wanted.name, self.package) then
      self.findings[#self.findings + 1] = findings.new("missing-module", source.path, wanted.node,
        ("module '%s' is not found"):format(wanted.name), { severity = "warning" })
    end
  end
end

--- Reads one more file and, through its `require`s, the modules beside the script.
---@param file string
function Sources:add(file)
  if self.seen[file] or #self.list >= MAX_FILES then return end
  self.seen[file] = true
  local text, message = self.read(file)
  local source = { path = file, text = text, tree = text and sources.parse(file, text, self.findings) }
  if not text then
    self.findings[#self.findings + 1] = findings.new("file", file, { line = 1 }, message or "cannot be read")
  end
  self.list[#self.list + 1] = source
  if source.tree then follow(self, source) end
end

--- Adds those of the files that stand beside the script: modules it has asked for by names made while it ran.
---@param files table<string, string> texts by path
function Sources:add_own(files)
  local own = {}
  for file in pairs(files) do
    if self.folder and file:sub(1, #self.folder) == self.folder then own[#own + 1] = file end
  end
  table.sort(own)
  for _, file in ipairs(own) do self:add(file) end
end

--- Reads the script and, through their `require`s, its own modules.
---@param path string
---@param list perigee.Finding[] gets what is wrong with them as Lua
---@param read? fun(path: string): string?, string? text, or nil and why not; from disk by default
---@param own? table the `package` of a script that has run
---@return perigee.check.Sources
function sources.of(path, list, read, own)
  local folder = (path:match("^(.*)/[^/]*$") or ".") .. "/"
  local self = setmetatable({
    list = {}, findings = list, read = read or sources.from_disk, seen = {}, package = own or package,
    -- In a search path, as environment.lua makes it, "?" and ";" mean something.
    folder = not folder:find("[?;]") and folder or nil,
  }, Sources)
  self:add(path)
  return self
end

return sources
