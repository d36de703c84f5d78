--- The half of the parser that knows tokens, variables and expressions; parser.lua adds the statements.

---@class perigee.check.Node
---@field tag string
---@field line integer
---@field column integer

---@class perigee.check.Variable
---@field name string
---@field line integer
---@field column integer
---@field values perigee.check.Node[]|false what is ever assigned to it; false: what nobody can tell
---@field reads integer

---@class perigee.check.Parser
---@field tokens perigee.check.Token[]
---@field token perigee.check.Token tokens[at]
---@field at integer
---@field variables perigee.check.Variable[] all that were declared
---@field private scope table the innermost
local Parser = {}
Parser.__index = Parser

-- Left and right power of the operators, as in LuaJIT's own parser.
local POWER = {
  ["or"] = { 1, 1 }, ["and"] = { 2, 2 },
  ["<"] = { 3, 3 }, [">"] = { 3, 3 }, ["<="] = { 3, 3 }, [">="] = { 3, 3 }, ["~="] = { 3, 3 }, ["=="] = { 3, 3 },
  [".."] = { 5, 4 }, ["+"] = { 6, 6 }, ["-"] = { 6, 6 },
  ["*"] = { 7, 7 }, ["/"] = { 7, 7 }, ["%"] = { 7, 7 }, ["^"] = { 10, 9 },
}
local UNARY, UNARY_POWER = { ["not"] = true, ["-"] = true, ["#"] = true }, 8

--- Tokens ---------------------------------------------------------------------------------------------------------

function Parser:next()
  local token = self.token
  self.at = self.at + 1
  self.token = self.tokens[self.at]
  return token
end

function Parser:accept(kind)
  if self.token.kind == kind then return self:next() end
end

function Parser:expect(kind)
  if self.token.kind ~= kind then
    error(("line %d: '%s' instead of '%s'"):format(self.token.line, self.token.text, kind), 0)
  end
  return self:next()
end

local function node(tag, token, children)
  children = children or {}
  children.tag, children.line, children.column = tag, token.line, token.column
  return children
end

--- Variables ------------------------------------------------------------------------------------------------------

function Parser:open() self.scope = { outer = self.scope } end

function Parser:close() self.scope = self.scope.outer end

local function variable_of(token, values)
  return { name = token.text, line = token.line, column = token.column, values = values, reads = 0 }
end

function Parser:declare(variable)
  self.scope[#self.scope + 1] = variable
  self.variables[#self.variables + 1] = variable
  return variable
end

function Parser:resolve(name)
  local scope = self.scope
  while scope do
    for i = #scope, 1, -1 do
      if scope[i].name == name then return scope[i] end
    end
    scope = scope.outer
  end
end

-- Of `a, b = f()` only the first has a value that can be told.
local function add_value(variable, value)
  if not variable.values then return end
  if value then
    table.insert(variable.values, value)
  else
    variable.values = false
  end
end

--- Expressions ----------------------------------------------------------------------------------------------------

function Parser:name()
  local token = self:expect("name")
  local variable = self:resolve(token.text)
  if variable then variable.reads = variable.reads + 1 end
  local result = node("Name", token)
  result.name, result.variable = token.text, variable
  return result
end

function Parser:string()
  local token = self:expect("string")
  local result = node("String", token)
  result.value = assert(loadstring("return " .. token.text))() -- so its escapes are LuaJIT's own
  return result
end

function Parser:key()
  local token = self:expect("name")
  local result = node("String", token)
  result.value = token.text
  return result
end

function Parser:pair(token)
  if self:accept("[") then
    local key = self:expression()
    self:expect("]")
    self:expect("=")
    return node("Pair", token, { key, self:expression() })
  end
  local following = self.tokens[self.at + 1]
  if token.kind == "name" and following.kind == "=" then
    local key = self:key()
    self:next()
    return node("Pair", token, { key, self:expression() })
  end
  return self:expression()
end

function Parser:table()
  local result = node("Table", self:expect("{"))
  while self.token.kind ~= "}" do
    result[#result + 1] = self:pair(self.token)
    if not self:accept(",") and not self:accept(";") then break end
  end
  self:expect("}")
  return result
end

-- Parameters and body; `self` is a parameter of methods.
function Parser:function_body(token, is_method)
  local result = node("Function", token)
  result.parameters = {}
  self:open()
  if is_method then self:declare(variable_of({ text = "self", line = token.line, column = token.column }, false)) end
  self:expect("(")
  while self.token.kind ~= ")" do
    if not self:accept("...") then
      result.parameters[#result.parameters + 1] = self:declare(variable_of(self:expect("name"), false))
    end
    if not self:accept(",") then break end
  end
  self:expect(")")
  result[1] = self:block()
  self:close()
  self:expect("end")
  return result
end

function Parser:arguments(into)
  local kind = self.token.kind
  if kind == "string" then
    into[#into + 1] = self:string()
  elseif kind == "{" then
    into[#into + 1] = self:table()
  else
    self:expect("(")
    if self.token.kind ~= ")" then self:expressions(into) end
    self:expect(")")
  end
  return into
end

function Parser:primary()
  local token = self.token
  if self:accept("(") then
    local inner = self:expression()
    self:expect(")")
    return node("Paren", token, { inner })
  end
  return self:name()
end

function Parser:suffixed()
  local result = self:primary()
  while true do
    local token = self.token
    if self:accept(".") then
      result = node("Index", token, { result, self:key() })
    elseif self:accept("[") then
      result = node("Index", token, { result, self:expression() })
      self:expect("]")
    elseif self:accept(":") then
      local name = self:expect("name")
      result = self:arguments(node("Method", name, { result }))
      result.name = name.text
    elseif token.kind == "(" or token.kind == "{" or token.kind == "string" then
      result = self:arguments(node("Call", token, { result }))
    else
      return result
    end
  end
end

local CONSTANT = { ["nil"] = "Nil", ["true"] = "True", ["false"] = "False", ["..."] = "Vararg", number = "Number" }

function Parser:simple()
  local token = self.token
  local tag = CONSTANT[token.kind]
  if tag then
    local result = node(tag, self:next())
    if tag == "Number" then result.value = tonumber(token.text) end
    return result
  end
  if token.kind == "string" then return self:string() end
  if token.kind == "{" then return self:table() end
  if self:accept("function") then return self:function_body(token) end
  return self:suffixed()
end

function Parser:unary()
  local token = self.token
  if not UNARY[token.kind] then return self:simple() end
  self:next()
  local result = node("Unary", token, { self:expression(UNARY_POWER) })
  result.op = token.kind
  return result
end

---@param limit? integer only operators that bind stronger
function Parser:expression(limit)
  local left = self:unary()
  local operator = self.token
  local power = POWER[operator.kind]
  while power and power[1] > (limit or 0) do
    self:next()
    left = node("Binary", operator, { left, self:expression(power[2]) })
    left.op = operator.kind
    operator = self.token
    power = POWER[operator.kind]
  end
  return left
end

function Parser:expressions(into)
  repeat into[#into + 1] = self:expression() until not self:accept(",")
  return into
end

return { Parser = Parser, node = node, variable_of = variable_of, add_value = add_value }
