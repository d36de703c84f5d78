--- What an expression is to perigee, as far as reading alone can tell: "client", "sent" (the Reply of a send),
--- "emitted" (the Promise of an emit), "nothing" (what awaiting that gives), … nil when it may be anything.

local parser = require("perigee.check.parser")

local kinds = {}

local function all(names, kind, into)
  for name in names:gmatch("[%w_]+") do into[name] = kind end
  return into
end

local OPERATORS = "map filter tap scan reduce take timeout default catch_error retry raw"

-- What methods give.
local METHODS = {
  app = { inject = "client" },
  client = { send = "sent", emit = "emitted", connect = "promise", close = "promise" },
  sent = all("next catch finally first last collect", "promise", all(OPERATORS, "sent", {})),
  emitted = { timeout = "emitted", await = "nothing", next = "promise", catch = "promise", finally = "promise" },
}

-- What the functions of `perigee` give.
local FUNCTIONS = { ["perigee.client"] = "client", ["perigee.app"] = "app" }

---@class perigee.check.Tokens of an app
---@field clients table<string, true> what `name = "..."` stands in some table
---@field values table<string, true> what is provided

---@class perigee.check.Facts
---@field tree perigee.check.Tree
---@field tokens perigee.check.Tokens
---@field fields table<perigee.check.Variable, table<string, perigee.check.Node[]>|false> of tables in variables
---@field private known table<perigee.check.Variable, string|false>

--- Through parentheses and variables that are assigned once: what stands there in the end.
---@param node perigee.check.Node
---@return perigee.check.Node
function kinds.resolve(node)
  for _ = 1, 20 do
    local variable = node.tag == "Name" and node.variable
    if node.tag == "Paren" then
      node = node[1]
    elseif variable and variable.values and #variable.values == 1 then
      node = variable.values[1]
    else
      break
    end
  end
  return node
end

local function text_of(node)
  local found = node and kinds.resolve(node)
  return found and found.tag == "String" and found.value or nil
end

--- Adds the tokens that a file of the script mentions.
---@param tree perigee.check.Tree
---@param tokens perigee.check.Tokens
function kinds.tokens(tree, tokens)
  parser.walk(tree.block, function(node)
    if node.tag == "Pair" and node[1].value == "name" then
      local token = text_of(node[2])
      if token then tokens.clients[token] = true end
    elseif node.tag == "Method" and node.name == "provide" then
      local token = text_of(node[2])
      if token then tokens.values[token] = true end
    end
  end)
end

local function note_field(fields, target, value)
  local variable = target[1].tag == "Name" and target[1].variable
  if not variable or fields[variable] == false then return end
  if target[2].tag ~= "String" or not value then
    fields[variable] = false
    return
  end
  fields[variable] = fields[variable] or {}
  local list = fields[variable][target[2].value] or {}
  fields[variable][target[2].value] = list
  list[#list + 1] = value
end

---@param tree perigee.check.Tree
---@param tokens perigee.check.Tokens
---@return perigee.check.Facts
function kinds.facts(tree, tokens)
  local facts = { tree = tree, tokens = tokens, fields = {}, known = {} }
  parser.walk(tree.block, function(node)
    for i = 1, node.tag == "Assign" and node.targets or 0 do
      if node[i].tag == "Index" then note_field(facts.fields, node[i], node[node.targets + i]) end
    end
  end)
  return facts
end

-- The kind that all values share.
local function common(facts, values)
  local kind
  for i, value in ipairs(values) do
    local one = kinds.of(facts, value)
    if not one or i > 1 and one ~= kind then return nil end
    kind = one
  end
  return kind
end

local function of_variable(facts, variable)
  local known = facts.known[variable]
  if known == nil then
    facts.known[variable] = false -- for one that is made from itself
    known = variable.values and common(facts, variable.values) or false
    facts.known[variable] = known
  end
  return known or nil
end

-- A field of a table that a variable holds, when all that is ever put there is in sight.
local function of_field(facts, variable, name)
  local fields = facts.fields[variable]
  if fields == false or not variable.values then return nil end
  local values = {}
  for _, made in ipairs(variable.values) do
    if made.tag ~= "Table" then return nil end
    for _, pair in ipairs(made) do
      if pair.tag == "Pair" and pair[1].value == name then values[#values + 1] = pair[2] end
    end
  end
  for _, value in ipairs(fields and fields[name] or {}) do values[#values + 1] = value end
  return common(facts, values)
end

local of = {}

function of.Paren(facts, node) return kinds.of(facts, node[1]) end

function of.Name(facts, node)
  return node.variable and of_variable(facts, node.variable)
end

function of.Index(facts, node)
  if node[2].tag ~= "String" then return nil end
  if kinds.of(facts, node[1]) == "perigee" then return "perigee." .. node[2].value end
  local variable = node[1].tag == "Name" and node[1].variable
  return variable and of_field(facts, variable, node[2].value)
end

function of.Call(facts, node)
  local fn, argument = node[1], node[2]
  if fn.tag == "Name" and not fn.variable and fn.name == "require" then
    return argument and argument.value == "perigee" and "perigee" or nil
  end
  return FUNCTIONS[kinds.of(facts, fn)]
end

function of.Method(facts, node)
  local base = kinds.of(facts, node[1])
  if base == "app" and node.name == "inject" then
    local token = text_of(node[2])
    if not token or not facts.tokens.clients[token] or facts.tokens.values[token] then return nil end
  elseif base == "client" and node.name == "emit" and #node > 3 then
    return nil -- some options of some transports make an answer
  end
  return METHODS[base] and METHODS[base][node.name]
end

---@param facts perigee.check.Facts
---@param node perigee.check.Node
---@return string?
function kinds.of(facts, node)
  local fn = of[node.tag]
  return fn and fn(facts, node) or nil
end

return kinds
