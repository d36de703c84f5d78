local bit = require("bit")
local lexer = require("perigee.check.lexer")
local parser = require("perigee.check.parser")
local util = require("jit.util")
local vmdef = require("jit.vmdef")

-- Globals a function reads ("r:x") and writes ("w:x"), by LuaJIT's own account.
local function from_bytecode(fn, found)
  for pc = 1, math.huge do
    local instruction = util.funcbc(fn, pc)
    if not instruction then break end
    local at = bit.band(instruction, 0xff) * 6
    local name = vmdef.bcnames:sub(at + 1, at + 6):gsub("%s", "")
    if name == "GGET" or name == "GSET" then
      found[(name == "GGET" and "r:" or "w:") .. util.funck(fn, -bit.rshift(instruction, 16) - 1)] = true
    end
  end
  for i = -1, -math.huge, -1 do
    local constant = util.funck(fn, i)
    if constant == nil then break end
    if type(constant) == "proto" then from_bytecode(constant, found) end
  end
  return found
end

-- The same by the parser's.
local function from_tree(text)
  local found = {}
  parser.walk(parser.parse(text).block, function(node, parent, i)
    if node.tag == "Name" and not node.variable then
      local is_written = parent.tag == "Assign" and i <= parent.targets
      found[(is_written and "w:" or "r:") .. node.name] = true
    end
  end)
  return found
end

local function compare(text, name)
  local chunk = assert(loadstring(text, "=" .. name))
  assert.are.same(from_bytecode(chunk, {}), from_tree(text), name)
end

describe("the parser of check", function()
  it("sees the globals that LuaJIT sees, in every Lua file here", function()
    local names = io.popen("find lua scripts spec core -name '*.lua'")
    local count = 0
    for path in names:lines() do
      local file = assert(io.open(path, "rb"))
      compare(file:read("*a"), path)
      file:close()
      count = count + 1
    end
    names:close()
    assert.is_true(count > 100)
  end)

  for _, text in ipairs({
    "", "a();", "return", "return;", "a = 1", "a, b.c, d[e] = f()", "local a = b local a = a",
    "local a = a", "local function a() return a end", "local a = function() return a end",
    "function a.b.c:d(...) self.x = e end",
    "function a(b) b = c end", "repeat local a = b until a", "for i = a, i do i = b end",
    "for a, b in c, a do d(a, b) end",
    "while a do local b = c break end b()", "if a then local a elseif a then b = a else c = a end",
    "do local a end a()",
    "goto continue ::continue::", "local goto = 1 goto = 2", "goto = a", "::a:: b()", "f{a = b, [c] = d; e}",
    "f'a'.b[[c]]:d{}",
    "f [==[ ]] ]=] ]==]", "return -a^-b .. c .. not d and #e or f == g ~= h",
    "a = 0x1p+4 + 1e-3 + .5 + 3. + 0xffULL + 2i + 1LL",
    "a = 1 .. 2", "--[[ a() ]] b() --[==[\n]]\n]==] c() -- d()\ne()", "#!/usr/bin/perigee a\nb()", "\239\187\191a()",
    "a = '\\'' b = \"\\\"\\\\\" c()", "a = 'x\\\ny' b()", "a = '\\z  \n  b' c()", "a()\r\nb = c\n\rd()",
    "a.b = function() local a a = 1 end", "local a; (a or b)()",
    "local t = { a, b = a, function() return a, c end, ... }",
    "h\195\169 = 1", "return function(a, ...) return a, b, ... end", "a{}{}'' [[]] :b():c()", "local a, b = b, a",
  }) do
    it(("takes %q"):format(text), function() compare(text, "text") end)
  end

  it("tells lines and columns, whatever ends a line", function()
    local tokens, comments = lexer.lex("a\nb\r\nc\rd\n\r  e -- f\n--[[\n]] g")
    local places = {}
    for i, token in ipairs(tokens) do places[i] = ("%s %d:%d"):format(token.text, token.line, token.column) end
    assert.are.same({ "a 1:1", "b 2:1", "c 3:1", "d 4:1", "e 5:3", "g 7:4", " 7:5" }, places)
    assert.are.same({
      { line = 5, column = 5, text = " f" }, { line = 6, column = 1, text = "\n" },
    }, comments)
  end)

  it("decodes strings as LuaJIT does", function()
    local values = {}
    parser.walk(parser.parse([==[return "a\n\x41\065\u{20ac}", 'b', [[
c]], [=[]]]=]]==]).block, function(node) values[#values + 1] = node.value end)
    assert.are.same({ "a\nAA\226\130\172", "b", "c", "]]" }, values)
  end)

  it("knows what a variable can hold, and whether it is read", function()
    local variables = {}
    local tree = parser.parse("local a = 1 a = 2 local b, c = f(), a for d in c do end local e")
    for _, variable in ipairs(tree.variables) do
      variables[variable.name] = { variable.reads, variable.values and #variable.values }
    end
    assert.are.same({ a = { 1, 2 }, b = { 0, 1 }, c = { 1, 1 }, d = { 0, false }, e = { 0, 0 } }, variables)
    local several = parser.parse("local a, b = f()").variables
    assert.are.same({ 1, false }, { #several[1].values, several[2].values })
  end)

  it("raises for what it does not understand", function()
    for _, text in ipairs({ "local", "x = = 1", "f(", "if", "for", "function", "return return", "a.b:c", "}" }) do
      assert.is_false((pcall(parser.parse, text)), text)
    end
  end)
end)
