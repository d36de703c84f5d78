--- Rules global-write and undeclared-global: names that are neither local nor there for every script.
--- `rawset(_G, "name", value)` declares one, for the script and its modules.

local findings = require("perigee.check.findings")
local nearest = require("perigee.options").nearest
local parser = require("perigee.check.parser")

local globals = {}

local function is_global(node, name)
  return node.tag == "Name" and node.name == name and not node.variable
end

--- Adds the names the file declares.
---@param tree perigee.check.Tree
---@param declared table<string, true>
function globals.declared(tree, declared)
  parser.walk(tree.block, function(node)
    local is_rawset = node.tag == "Call" and is_global(node[1], "rawset") and node[2] and is_global(node[2], "_G")
    if is_rawset and node[3] and node[3].tag == "String" then declared[node[3].value] = true end
  end)
end

-- In a file that changes environments nobody can tell which names are global.
local function changes_environment(tree)
  local found = false
  parser.walk(tree.block, function(node)
    local called = node.tag == "Call" and node[1]
    if called and (is_global(called, "setfenv") or is_global(called, "module")) then found = true end
  end)
  return found
end

local function is_known(name, declared)
  return declared[name] or name == "arg" or rawget(_G, name) ~= nil
end

-- A local of the file or a global that differs by a letter or two.
local function hint(name, tree, declared)
  local names = {}
  for known in pairs(_G) do
    if type(known) == "string" then names[known] = true end
  end
  for known in pairs(declared) do names[known] = true end
  for _, variable in ipairs(tree.variables) do names[variable.name] = true end
  names[name] = nil
  local near = nearest(name, names, #name > 4 and 2 or 1)
  return near and (" (did you mean '%s'?)"):format(near) or ""
end

-- The global an assignment's target names: x, _G.x, _G["x"].
local function written(target)
  if target.tag == "Name" and not target.variable then return target.name end
  if target.tag == "Index" and is_global(target[1], "_G") and target[2].tag == "String" then return target[2].value end
end

---@param facts perigee.check.Facts
---@param file string
---@param list perigee.Finding[] gets more
---@param declared table<string, true>
function globals.check(facts, file, list, declared)
  local tree = facts.tree
  if changes_environment(tree) then return end
  parser.walk(tree.block, function(node, parent, i)
    local is_target = parent and parent.tag == "Assign" and i <= parent.targets
    if is_target then
      local name = written(node)
      if name and not declared[name] then
        list[#list + 1] = findings.new("global-write", file, node, ("undeclared global '%s'; use local"):format(name))
      end
    elseif node.tag == "Name" and not node.variable and not is_known(node.name, declared) then
      list[#list + 1] = findings.new("undeclared-global", file, node,
        ("undeclared global '%s' is read%s"):format(node.name, hint(node.name, tree, declared)))
    end
  end)
end

return globals
