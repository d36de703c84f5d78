--- Turns Lua source that is known to compile into a tree whose names are resolved to their variables.
---
--- A node is a table: `tag`, `line`, `column`, and its children in order as the list part. Beside them:
---   Name name variable (nil: a global) | String Number value | Method name | Binary Unary op | Function parameters
---   Index Call Method Table Pair Paren Nil True False Vararg
---   Local variables | Assign targets (how many of the children) | Do While Repeat If NumericFor GenericFor Return
---   Block Call Method Break Goto Label

local expressions = require("perigee.check.expressions")
local lexer = require("perigee.check.lexer")

local Parser, node = expressions.Parser, expressions.node
local variable_of, add_value = expressions.variable_of, expressions.add_value

local BLOCK_END = { ["end"] = true, ["else"] = true, ["elseif"] = true, ["until"] = true, ["end of file"] = true }

--- Statements -----------------------------------------------------------------------------------------------------

function Parser:block(keep_open)
  local result = node("Block", self.token)
  self:open()
  while not BLOCK_END[self.token.kind] do
    result[#result + 1] = self:statement()
    self:accept(";")
  end
  if not keep_open then self:close() end
  return result
end

local statements = {}

statements["do"] = function(self, token)
  local result = node("Do", token, { self:block() })
  self:expect("end")
  return result
end

statements["while"] = function(self, token)
  local condition = self:expression()
  self:expect("do")
  local result = node("While", token, { condition, self:block() })
  self:expect("end")
  return result
end

-- The condition sees the locals of the body.
statements["repeat"] = function(self, token)
  local body = self:block(true)
  self:expect("until")
  local result = node("Repeat", token, { body, self:expression() })
  self:close()
  return result
end

statements["if"] = function(self, token)
  local result = node("If", token)
  repeat
    result[#result + 1] = self:expression()
    self:expect("then")
    result[#result + 1] = self:block()
  until not self:accept("elseif")
  if self:accept("else") then result[#result + 1] = self:block() end
  self:expect("end")
  return result
end

statements["for"] = function(self, token)
  local names = { self:expect("name") }
  while self:accept(",") do names[#names + 1] = self:expect("name") end
  local result = node(self:accept("=") and "NumericFor" or self:expect("in") and "GenericFor", token)
  self:expressions(result)
  self:expect("do")
  self:open()
  for _, name in ipairs(names) do self:declare(variable_of(name, false)) end
  result[#result + 1] = self:block()
  self:close()
  self:expect("end")
  return result
end

local function assigned(targets, values)
  for i, target in ipairs(targets) do
    local variable = target.variable
    if variable then
      variable.reads = variable.reads - 1 -- it was read as a name
      add_value(variable, values[i])
    end
  end
  local result = node("Assign", targets[1], targets)
  result.targets = #targets
  for _, value in ipairs(values) do result[#result + 1] = value end
  return result
end

statements["function"] = function(self, token)
  local target = self:name()
  local is_method = false
  while self.token.kind == "." or self.token.kind == ":" do
    local dot = self:next()
    is_method = dot.kind == ":"
    target = node("Index", dot, { target, self:key() })
  end
  return assigned({ target }, { self:function_body(token, is_method) })
end

local function local_function(self, token)
  local variable = self:declare(variable_of(self:expect("name"), {}))
  local result = node("Local", token, { self:function_body(token) })
  add_value(variable, result[1])
  result.variables = { variable }
  return result
end

statements["local"] = function(self, token)
  if self:accept("function") then return local_function(self, token) end
  local names = {}
  repeat names[#names + 1] = self:expect("name") until not self:accept(",")
  local result = node("Local", token)
  if self:accept("=") then self:expressions(result) end
  result.variables = {}
  for i, name in ipairs(names) do
    local variable = self:declare(variable_of(name, {}))
    if #result > 0 then add_value(variable, result[i]) end -- else nothing yet
    result.variables[i] = variable
  end
  return result
end

statements["return"] = function(self, token)
  local result = node("Return", token)
  if not BLOCK_END[self.token.kind] and self.token.kind ~= ";" then self:expressions(result) end
  return result
end

statements["break"] = function(_, token) return node("Break", token) end

statements["::"] = function(self, token)
  self:expect("name")
  self:expect("::")
  return node("Label", token)
end

local function call_or_assignment(self)
  local targets = { self:suffixed() }
  while self:accept(",") do targets[#targets + 1] = self:suffixed() end
  if #targets == 1 and self.token.kind ~= "=" then return targets[1] end
  self:expect("=")
  return assigned(targets, self:expressions({}))
end

function Parser:statement()
  local token = self.token
  local parse = statements[token.kind]
  if parse then
    self:next()
    return parse(self, token)
  end
  if token.text == "goto" and self.tokens[self.at + 1].kind == "name" then
    self:next()
    self:next()
    return node("Goto", token)
  end
  return call_or_assignment(self)
end

---@class perigee.check.Tree
---@field block perigee.check.Node
---@field variables perigee.check.Variable[] all there are
---@field comments perigee.check.Comment[]

--- Raises a text when it does not understand the source, which LuaJIT then must not either.
---@param source string
---@return perigee.check.Tree
local function parse(source)
  local tokens, comments = lexer.lex(source)
  local self = setmetatable({ tokens = tokens, token = tokens[1], at = 1, variables = {} }, Parser)
  local block = self:block()
  self:expect("end of file")
  return { block = block, variables = self.variables, comments = comments }
end

--- Calls visit(node, parent, i) for the node and all below it, parents first; below a node for which it returns
--- false it does not go.
---@param tree perigee.check.Node
---@param visit fun(node: perigee.check.Node, parent: perigee.check.Node?, i: integer?): boolean?
local function walk(tree, visit, parent, i)
  if visit(tree, parent, i) == false then return end
  for j = 1, #tree do walk(tree[j], visit, tree, j) end
end

return { parse = parse, walk = walk }
