-- core/dump.lua: the bytecode that perigee's own modules are inside the program as.
local dump = dofile("core/dump.lua")

local SOURCE = [[
local kept = {}
local function make(id, n, ...)
  for i = 1, n do kept[i] = { id = id, kind = "order", to = id and i or 0, sum = i + 1, at = false, by = "x" } end
  for i = 1, n do kept[n + i] = { id, kind = "list", i, i + 1 } end
  for i = 1, n do kept[2 * n + i] = { kind = "rest", ... } end
  return kept
end
return make
]]

-- What the tables of 1000 calls take.
local function bytes_of(chunk)
  local make = chunk()
  make(1, 1000, 1)
  collectgarbage()
  local before = collectgarbage("count")
  local kept = make(2, 1000, 1)
  collectgarbage()
  local after = collectgarbage("count")
  assert.equal(3000, #kept)
  return after - before, kept
end

-- What making them takes besides: a table that grows leaves its former self behind.
local function garbage_of(chunk)
  local make = chunk()
  make(1, 1000, 1)
  collectgarbage()
  collectgarbage("stop")
  local before = collectgarbage("count")
  make(2, 1000, 1)
  local after = collectgarbage("count")
  collectgarbage("restart")
  return after - before
end

describe("the bytecode in the program", function()
  it("makes tables as large as the source makes them", function()
    local source, made = loadstring(SOURCE), loadstring(dump(SOURCE, "@x.lua"))
    -- In kB; 3000 tables that grow would be a hundred.
    assert.near(bytes_of(source), bytes_of(made), 8)
    assert.near(garbage_of(source), garbage_of(made), 8)
  end)

  it("makes tables of the same content", function()
    local _, kept = bytes_of(loadstring(dump(SOURCE, "@x.lua")))
    assert.same({ id = 2, kind = "order", to = 3, sum = 4, at = false, by = "x" }, kept[3])
    assert.same({ 2, 3, 4, kind = "list" }, kept[1003])
    assert.same({ 1, kind = "rest" }, kept[2003])
  end)

  it("has a value in the template for each key that is set in any case, so that none can lose its place", function()
    local made = dump("local a, b = ... return { one = a, two = b and a or 2, three = a == b, four = b + 1 }", "@x.lua")
    assert.equal(#made, #string.dump(loadstring(made))) -- which leaves out what is nil
    assert.same({ one = 3, two = 3, three = false, four = 5 }, loadstring(made)(3, 4))
    assert.same({ two = 2, three = false, four = 1 }, loadstring(made)(nil, 0))
  end)

  it("lets nobody see a value that is not set yet", function()
    local text = [[
      local seen = {}
      local function see(t) seen[#seen + 1] = t.b == nil and t.c == nil end
      local function branch(x) local t = { a = x } if x then t.b = 1 end see(t) t.c = 1 return t end
      local function call(x) local t = { a = x } see(t) t.b, t.c = 1, 2 return t end
      local function read(x) local t = { a = x } seen[#seen + 1] = t.b == nil t.b = 1 return t end
      local function capture(x)
        local t = { a = x }
        local function look() return see(t) end
        look()
        t.b, t.c = 1, 2
        return t
      end
      local function loop(n) local t = { a = 1 } for i = 1, n do t.b = i end see(t) t.c = 1 return t end
      local function compare(x) local t = { a = x } if t == x then t.b = 1 end see(t) t.b = 1 return t end
      return seen, branch(false), call(1), read(1), capture(1), loop(0), compare(1)
    ]]
    local seen, branch, call, read, capture, loop, compare = loadstring(dump(text, "@x.lua"))()
    assert.same({ true, true, true, true, true, true }, seen)
    assert.same({ { a = false, c = 1 }, { a = 1, b = 1, c = 2 }, { a = 1, b = 1 }, { a = 1, b = 1, c = 2 },
      { a = 1, c = 1 }, { a = 1, b = 1 } }, { branch, call, read, capture, loop, compare })
  end)

  it("lets nobody see it in a table that an outer local already has", function()
    local text = [[
      local function captured(c, t)
        local function look() return t.b end
        t = { a = 1 }
        local seen = look()
        t.b = 2
        return seen
      end
      local function repeated(c, t, seen)
        repeat
          if t then seen = t.b end
          t = { a = 1 }
        until c()
        t.b = 2
        return seen
      end
      local function while_true(c, t, seen)
        while not c() do
          if t then seen = t.b end
          t = { a = 1 }
        end
        t.b = 2
        return seen
      end
      local function captured_later(c, t, look, seen)
        repeat
          t = { a = 1 }
          if look then seen = look() end
          t.b = 2
          look = function() return t.b end
        until c()
        return seen
      end
      local function counter()
        local n = 0
        return function() n = n + 1 return n > 2 end
      end
      return captured(counter()), repeated(counter()), while_true(counter()), captured_later(counter())
    ]]
    assert.same({ n = 4 }, { n = select("#", loadstring(dump(text, "@x.lua"))()), loadstring(dump(text, "@x.lua"))() })
  end)

  it("keeps the chunk's name, lines, and constants of all kinds", function()
    local text = "local t = { 1.5, -2, true, [7] = 3, none = nil, x = 0x123456789abcdefLL, y = 2i }\n" ..
      "local function f() error('here') end\nreturn t, f"
    local t, f = loadstring(dump(text, "@dir/x.lua"))()
    assert.equal("0+2i", tostring(t.y)) -- such are equal to nothing
    t.y = nil
    assert.same({ 1.5, -2, true, [7] = 3, x = 0x123456789abcdefLL }, t)
    assert.equal("dir/x.lua:2: here", select(2, pcall(f)))
  end)

  it("is the same at each build", function()
    assert.equal(dump(SOURCE, "@x.lua"), dump(SOURCE, "@x.lua"))
  end)

  it("is made of every module", function()
    for path in io.popen("find lua -name '*.lua'"):lines() do
      local file = io.open(path, "rb")
      local text = file:read("*a")
      file:close()
      assert.equal("\27LJ", dump(text, "@" .. path):sub(1, 3))
    end
  end)
end)
