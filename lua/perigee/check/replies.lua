--- Rules unasked-reply and emit-answer: a send that sends nothing, an emit whose answer somebody wants.

local findings = require("perigee.check.findings")
local kinds = require("perigee.check.kinds")
local parser = require("perigee.check.parser")

local PROMISE = { await = true, next = true, catch = true, finally = true, timeout = true, cancel = true }

-- The `send` at the beginning of a chain of operators.
local function origin(facts, node)
  while node.tag == "Paren" or node.tag == "Method" and kinds.of(facts, node[1]) == "sent" do node = node[1] end
  return node
end

local UNASKED = "so nothing is sent: await it, return it, or use emit"

local function unasked_variables(facts, add)
  for _, variable in ipairs(facts.tree.variables) do
    if variable.reads == 0 and variable.values then
      for _, value in ipairs(variable.values) do
        if kinds.of(facts, value) == "sent" then
          add("unasked-reply", origin(facts, value), ("the Reply in '%s' is never asked, %s"):format(variable.name,
            UNASKED))
        end
      end
    end
  end
end

-- Whether the parent wants a value of its i-th child. A return hands on that there is none: that is fine, and so is
-- what comes after `and` and `or`.
local function is_wanted(parent, i)
  if parent.tag == "Block" or parent.tag == "Return" or parent.tag == "Paren" then return false end
  if parent.op == "and" or parent.op == "or" then return i == 1 end
  if parent.tag == "Local" then
    local variable = parent.variables[i]
    return variable ~= nil and variable.reads > 0
  end
  return true
end

-- function(value) … end, where `value` is read
local function reads_value(fn)
  return fn and fn.tag == "Function" and fn.parameters[1] and fn.parameters[1].reads > 0
end

local ALWAYS_NIL = "emit has no answer: %s is always nil; use send"

local function check_emit(facts, node, parent, i, add)
  if node.tag == "Method" and kinds.of(facts, node) == "nothing" and is_wanted(parent, i) then
    add("emit-answer", node, ALWAYS_NIL:format("this"))
  end
  if node.tag ~= "Method" and node.tag ~= "Index" then return end
  local base = kinds.of(facts, node[1])
  if base ~= "emitted" then return end
  if node.tag == "Index" then
    local name = node[2].value
    if not PROMISE[name] then add("emit-answer", node, "emit has no answer, only a Promise: use send") end
  elseif not PROMISE[node.name] then
    add("emit-answer", node, ("emit gives a Promise, which has no '%s': use send for an answer"):format(node.name))
  elseif node.name == "next" and reads_value(node[2]) then
    add("emit-answer", node[2].parameters[1], ALWAYS_NIL:format("'" .. node[2].parameters[1].name .. "'"))
  end
end

---@param facts perigee.check.Facts
---@param file string
---@param list perigee.Finding[] gets more
return function(facts, file, list)
  local function add(rule, at, message) list[#list + 1] = findings.new(rule, file, at, message) end
  unasked_variables(facts, add)
  parser.walk(facts.tree.block, function(node, parent, i)
    if parent and parent.tag == "Block" and kinds.of(facts, node) == "sent" then
      add("unasked-reply", origin(facts, node), "the Reply of this send is never asked, " .. UNASKED)
    end
    if parent then check_emit(facts, node, parent, i, add) end
  end)
end
