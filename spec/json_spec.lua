--- Values (CONTRACT.md): JSON text and Lua values, both ways.

local core = require("perigee.core")
local cjson = require("cjson")
local ffi = require("ffi")

local null = core.null

local function array(list)
  return setmetatable(list, core.array_mt)
end

--- The message of a refused value.
local function refusal(value)
  local json, message = core.json_encode(value)
  assert.is_nil(json)
  return message
end

local function nest(depth, make)
  local value = make()
  for _ = 2, depth do value = make(value) end
  return value
end

describe("encoding", function()
  it("writes null, booleans and strings", function()
    assert.equal("null", core.json_encode(null))
    assert.equal("true", core.json_encode(true))
    assert.equal("false", core.json_encode(false))
    assert.equal('"a"', core.json_encode("a"))
    assert.equal('""', core.json_encode(""))
  end)

  it("escapes in strings what JSON.stringify escapes, and nothing else", function()
    assert.equal([["\"\\/\b\f\n\r\t\u0000\u001f]] .. "\127\226\128\168\240\159\152\128\"",
      core.json_encode("\"\\/\b\f\n\r\t\0\31\127\226\128\168\240\159\152\128"))
  end)

  it("writes numbers as JavaScript does", function()
    for text, number in pairs({
      ["0"] = -0, ["1"] = 1, ["-1"] = -1.0, ["1.5"] = 1.5, ["0.1"] = 0.1, ["0.3333333333333333"] = 1 / 3,
      ["1e+21"] = 1e21, ["100000000000000000000"] = 1e20, ["1e-7"] = 1e-7, ["0.000001"] = 1e-6,
      ["123456789012345"] = 123456789012345, ["9007199254740992"] = 2 ^ 53, ["1152921504606847000"] = 2 ^ 60,
      ["5e-324"] = 5e-324, ["1.7976931348623157e+308"] = 1.7976931348623157e308,
    }) do
      assert.equal(text, core.json_encode(number))
    end
  end)

  it("writes NaN and infinities as null", function()
    assert.equal("[null,null,null]", core.json_encode({ 0 / 0, 1 / 0, -1 / 0 }))
  end)

  it("writes 64-bit integers with all their digits", function()
    assert.equal("[9007199254740993,-9223372036854775808,18446744073709551615,0]",
      core.json_encode({ 9007199254740993LL, ffi.cast("int64_t", 2 ^ 63), 18446744073709551615ULL, 0ULL }))
    assert.equal("-1", core.json_encode(-1LL))
  end)

  it("writes a sequence as an array, an empty table as an object", function()
    assert.equal("[1,[2,3],{}]", core.json_encode({ 1, { 2, 3 }, {} }))
    assert.equal("{}", core.json_encode({}))
  end)

  it("writes a marked list as an array, even empty", function()
    assert.equal("[]", core.json_encode(array({})))
    assert.equal('{"a":[],"b":[1]}', core.json_encode({ a = array({}), b = array({ 1 }) }))
  end)

  it("writes a sequence as an array in whatever order it was filled", function()
    local backwards, scattered = {}, {}
    for i = 40, 1, -1 do backwards[i] = i end
    for i = 1, 40 do scattered[i * 7 % 41] = i * 7 % 41 end
    local ordered = {}
    for i = 1, 40 do ordered[i] = i end
    assert.equal(core.json_encode(ordered), core.json_encode(backwards))
    assert.equal(core.json_encode(ordered), core.json_encode(scattered))
    assert.equal('[[{"a":1}],2]', core.json_encode({ [2] = 2, [1] = { { a = 1 } } }))
  end)

  it("sorts keys bytewise", function()
    assert.equal('{"":0,"10":1,"9":2,"A":3,"B":4,"_":5,"a":6,"a\\u0000":7,"aa":8,"b":9,"é":10}', core.json_encode({
      b = 9, a = 6, A = 3, B = 4, _ = 5, ["9"] = 2, ["10"] = 1, [""] = 0, aa = 8, ["a\0"] = 7, ["é"] = 10,
    }))
    assert.equal('{"prefix_of_both":1,"prefix_of_both2":2,"prefix_of_boti":3}', core.json_encode({
      prefix_of_boti = 3, prefix_of_both2 = 2, prefix_of_both = 1,
    }))
  end)

  it("sorts the keys of objects of every size", function()
    for _, size in ipairs({ 2, 15, 16, 17, 31, 32, 33, 34, 64, 65, 200, 20000 }) do
      local value, parts = {}, {}
      for i = 1, size do
        local key = ("k%d\0%s"):format(i * 7919 % 100003, i % 2 == 0 and "\0" or "")
        key = i % 3 == 0 and key or key:gsub("%z", "")
        value[key] = { i }
        parts[i] = { key, i }
      end
      table.sort(parts, function(a, b) return a[1] < b[1] end)
      for i, part in ipairs(parts) do parts[i] = ('"%s":[%d]'):format(part[1]:gsub("%z", "\\u0000"), part[2]) end
      assert.is_true("{" .. table.concat(parts, ",") .. "}" == core.json_encode(value), "size " .. size)
    end
  end)

  it("keeps big objects inside big objects apart", function()
    local function wide(inner)
      local value = { inner = inner }
      for i = 1, 39 do value["k" .. i] = i end
      return value
    end
    local text = core.json_encode(nest(512, wide))
    local depth = 0
    local value = core.json_decode(text)
    while value do
      depth = depth + 1
      assert.equal(39, value.k39)
      value = value.inner
    end
    assert.equal(512, depth)
  end)

  it("says where it found what cannot be JSON", function()
    assert.equal("a function at items[3] cannot be JSON", refusal({ items = { 1, 2, print } }))
    assert.equal('a coroutine at a["b c"][1].d cannot be JSON',
      refusal({ a = { ["b c"] = { { d = coroutine.create(print) } } } }))
    assert.equal("a userdata cannot be JSON", refusal(io.stdout))
    assert.equal("nil cannot be JSON", refusal(nil))
    assert.equal("a cdata other than a 64-bit integer at x cannot be JSON", refusal({ x = ffi.new("int32_t", 1) }))
    assert.equal("a cdata other than a 64-bit integer at x cannot be JSON", refusal({ x = ffi.new("double[2]") }))
  end)

  it("keeps its messages short and UTF-8, however odd the path", function()
    assert.equal('a function at ["?\195\169"] cannot be JSON', refusal({ ["\1\195\169"] = print }))
    assert.equal('a key with invalid UTF-8 at a["??x"] cannot be JSON', refusal({ a = { ["\255\1x"] = 1 } }))
    assert.equal('a function at ["' .. ("k"):rep(40) .. '..."] cannot be JSON', refusal({ [("k"):rep(1000)] = print }))
    local message = refusal(nest(500, function(inner) return { key = inner or print } end))
    assert.matches("^a function at key%.key%.key.+%.%.%. cannot be JSON$", message)
    assert.is_true(#message < 256)
  end)

  it("refuses lists with holes", function()
    assert.equal("a list with holes cannot be JSON", refusal({ 1, nil, 3 }))
    assert.equal("a list with holes at a cannot be JSON", refusal({ a = { [5] = 1 } }))
    assert.equal("a list with holes cannot be JSON", refusal(array({ [2] = 1 })))
    assert.equal("a list with holes cannot be JSON", refusal({ [2] = 1, [3] = 2 }))
  end)

  it("refuses tables with both list items and named keys", function()
    assert.equal("a list with named keys cannot be JSON", refusal({ 1, 2, x = 3 }))
    assert.equal("a list with named keys at l cannot be JSON", refusal({ l = array({ x = 1 }) }))
    local value = { x = 1 }
    value[10] = 1
    assert.equal("a list with named keys cannot be JSON", refusal(value))
  end)

  it("refuses keys that are neither names nor list indices", function()
    for _, key in ipairs({ 1.5, 0, -1, 2 ^ 60, 1 / 0, true, print }) do
      assert.matches("^a table with a .+ cannot be JSON$", refusal({ [key] = 1 }))
      -- Which of the two keys Lua finds first is its own affair.
      assert.matches("^a .+ with .+ cannot be JSON$", refusal({ a = 1, [key] = 1 }))
    end
  end)

  it("refuses cycles, but not a table met twice", function()
    local value = { x = {} }
    value.x.y = value
    assert.equal("a table that contains itself at x.y cannot be JSON", refusal(value))
    local list = {}
    list[1] = list
    assert.equal("a table that contains itself at [1] cannot be JSON", refusal(list))
    local shared = { 1 }
    assert.equal('{"a":[1],"b":[1]}', core.json_encode({ a = shared, b = shared }))
  end)

  it("takes 512 levels and refuses 513", function()
    local function wrap(inner) return { inner } end
    assert.equal(("["):rep(511) .. "{}" .. ("]"):rep(511), core.json_encode(nest(512, wrap)))
    assert.matches("^a table nested deeper than 512 levels at ", refusal(nest(513, wrap)))
  end)

  it("refuses invalid UTF-8 in values and keys", function()
    for _, text in ipairs({ "\255", "\192\175", "\237\160\128", "\244\144\128\128", "ab\195", "\128" }) do
      assert.equal("a string with invalid UTF-8 at s cannot be JSON", refusal({ s = text }))
      assert.matches("^a key with invalid UTF%-8 at ", refusal({ [text] = 1 }))
    end
  end)

  it("runs no metamethods", function()
    local function fail() error("a metamethod ran") end
    local mt = { __index = fail, __newindex = fail, __len = fail, __tostring = fail, __pairs = fail, __ipairs = fail,
      __metatable = "hidden", __eq = fail, __lt = fail, __call = fail, __concat = fail }
    assert.equal('[{"a":1},[1]]', core.json_encode({ setmetatable({ a = 1 }, mt), setmetatable({ 1 }, mt) }))
    local big = {}
    for i = 1, 100 do big["k" .. i] = i end
    assert.equal(core.json_encode(big), core.json_encode(setmetatable(big, mt)))
  end)

  it("writes error tables as plain tables", function()
    local errors = require("perigee.errors")
    assert.equal('{"code":"TIMEOUT","message":"late"}', core.json_encode(errors.make("TIMEOUT", "late")))
  end)

  it("leaves the value as it was", function()
    local value = { 1, { a = 2 }, array({}) }
    core.json_encode(value)
    assert.same({ 1, { a = 2 }, {} }, value)
    assert.equal(core.array_mt, getmetatable(value[3]))
  end)

  it("works in a coroutine and from a finalizer", function()
    assert.equal('{"a":[1]}', coroutine.wrap(function() return core.json_encode({ a = { 1 } }) end)())
    local collected = 0
    for _ = 1, 50 do
      getmetatable(newproxy(true)).__gc = function()
        collected = collected + 1
        core.json_encode({ gc = ("x"):rep(100) })
      end
    end
    local i = 0
    while collected < 50 do
      i = i + 1
      assert.equal(('{"i":%d}'):format(i), core.json_encode({ i = i }))
    end
  end)
end)

describe("encoding what was encoded before", function()
  -- Keys and values of an object, written the long way.
  local function expected(object)
    local keys, parts = {}, {}
    for key in pairs(object) do keys[#keys + 1] = key end
    table.sort(keys)
    for i, key in ipairs(keys) do parts[i] = core.json_encode(key) .. ":" .. core.json_encode(object[key]) end
    return "{" .. table.concat(parts, ",") .. "}"
  end

  it("says the same however often, with other values, and filled in another order", function()
    for i = 1, 10 do
      local one = { z = i, ["a\n\"\228\184\128"] = "x" .. i, [""] = false, m = { z = i, a = { i } } }
      assert.equal(([[{"":false,"a\n\"%s":"x%d","m":{"a":[%d],"z":%d},"z":%d}]]):format("\228\184\128", i, i, i, i),
        core.json_encode(one))
      local other = {}
      other.m, other[""], other.z = i, i + 1, i + 2
      assert.equal(expected(other), core.json_encode(other))
    end
  end)

  it("knows an object with one key more, one less or another from the one before", function()
    local keys = { "a", "b", "c", "d", "e", "f", "g", "h" }
    for round = 1, 3 do
      for bits = 1, 255 do
        local object = {}
        for i, key in ipairs(keys) do
          if math.floor(bits / 2 ^ (i - 1)) % 2 == 1 then object[key] = round * bits end
        end
        for _ = 1, 3 do assert.equal(expected(object), core.json_encode(object)) end
      end
    end
  end)

  it("tells keys apart that come to stand where collected ones stood", function()
    for i = 1, 300 do
      local object = { ["key" .. i] = i, ["other" .. i] = { ["inner" .. i] = true } }
      for _ = 1, 3 do assert.equal(expected(object), core.json_encode(object)) end
      if i % 20 == 0 then collectgarbage() end
    end
  end)

  it("writes objects at the limits of what it remembers", function()
    for _, count in ipairs({ 15, 16, 17, 31, 32, 33, 100 }) do
      local object = {}
      for i = 1, count do object[("k"):rep(i % 7 + 1) .. i] = i end
      for _ = 1, 4 do assert.equal(expected(object), core.json_encode(object)) end
    end
    local long = { [("long"):rep(100)] = 1, short = 2 }
    for _ = 1, 4 do assert.equal(expected(long), core.json_encode(long)) end
  end)

  it("still tells where the fault is", function()
    for _ = 1, 4 do
      assert.equal("a function at order.lines[2].price cannot be JSON",
        refusal({ order = { id = 1, lines = { { price = 1, sku = "a" }, { price = print, sku = "b" } } } }))
      assert.equal('{"order":{"id":1,"lines":[{"price":1,"sku":"a"}]}}',
        core.json_encode({ order = { id = 1, lines = { { price = 1, sku = "a" } } } }))
    end
  end)
end)

describe("decoding", function()
  it("gives perigee.null, which is cjson.null, for null", function()
    assert.equal(cjson.null, null)
    assert.equal(null, core.json_decode("null"))
    local value = core.json_decode('{"a":null}')
    assert.equal(null, value.a)
    assert.is_nil(value.b)
  end)

  it("gives booleans, strings and numbers", function()
    assert.is_true(core.json_decode(" true "))
    assert.is_false((core.json_decode("false")))
    assert.equal("a", core.json_decode('"a"'))
    assert.equal("", core.json_decode('""'))
    for text, number in pairs({ ["0"] = 0, ["-1"] = -1, ["1.5e3"] = 1500, ["1E-2"] = 0.01, ["0.1"] = 0.1,
      ["123456789012345"] = 123456789012345, ["1e400"] = 1 / 0, ["-1e400"] = -1 / 0, ["1e-400"] = 0 }) do
      assert.equal(number, core.json_decode(text))
    end
    assert.equal(-1 / 0, 1 / core.json_decode("-0"))
  end)

  it("gives doubles up to 2^53 and 64-bit integers beyond", function()
    for _, digits in ipairs({ "9007199254740992", "-9007199254740992", "9007199254740991" }) do
      assert.equal("number", type(core.json_decode(digits)))
      assert.equal(digits, core.json_encode(core.json_decode(digits)))
    end
    for digits, ctype in pairs({
      ["9007199254740993"] = "int64_t", ["-9007199254740993"] = "int64_t", ["9223372036854775807"] = "int64_t",
      ["-9223372036854775808"] = "int64_t", ["9223372036854775808"] = "uint64_t",
      ["18446744073709551615"] = "uint64_t",
    }) do
      local value = core.json_decode(digits)
      assert.is_true(ffi.istype(ctype, value), digits)
      assert.equal(digits, tostring(value):match("^-?%d+"))
      assert.equal(digits, core.json_encode(value))
    end
  end)

  it("gives doubles for integers beyond 64 bits, fractions and exponents", function()
    for text, number in pairs({
      ["18446744073709551616"] = 2 ^ 64, ["-9223372036854775809"] = -2 ^ 63, ["9007199254740993.0"] = 2 ^ 53,
      ["9007199254740993e0"] = 2 ^ 53, ["100000000000000000000000"] = 1e23,
    }) do
      local value = core.json_decode(text)
      assert.equal("number", type(value), text)
      assert.equal(number, value)
    end
  end)

  it("undoes every escape", function()
    assert.equal("\"\\/\b\f\n\r\t\0A\195\169\226\130\172\240\159\152\128",
      core.json_decode([["\"\\\/\b\f\n\r\t\u0000\u0041\u00E9\u20ac\ud83d\uDE00"]]))
    assert.equal("\239\191\189x\239\191\189", core.json_decode([["\ud800x\udc00"]]))
    assert.equal(("\n"):rep(5000), core.json_decode('"' .. ("\\n"):rep(5000) .. '"'))
    assert.equal('a"', core.json_decode('{"k\\"":"a\\""}')['k"'])
  end)

  it("marks every array, so that it encodes as one again", function()
    local value = core.json_decode('{"a":[],"b":{},"c":[[],[1]]}')
    assert.equal(core.array_mt, getmetatable(value.a))
    assert.equal(core.array_mt, getmetatable(value.c[2]))
    assert.is_nil(getmetatable(value.b))
    assert.is_nil(getmetatable(value))
    value.c[1][1] = "new"
    assert.equal('{"a":[],"b":{},"c":[["new"],[1]]}', core.json_encode(value))
  end)

  it("lets the last of equal keys win", function()
    assert.equal('{"a":3,"b":4}', core.json_encode(core.json_decode('{"a":1,"b":2,"\\u0061":3,"b":4}')))
  end)

  it("reads lists and objects of every size", function()
    for _, size in ipairs({ 0, 1, 15, 16, 17, 32, 33, 100, 5000 }) do
      local items, members = {}, {}
      for i = 1, size do
        items[i] = tostring(i)
        members[i] = ('"k%05d":[%d]'):format(i, i)
      end
      for _, text in ipairs({ "[" .. table.concat(items, ",") .. "]", "{" .. table.concat(members, ",") .. "}" }) do
        assert.is_true(text == core.json_encode(core.json_decode(text)), "size " .. size)
      end
    end
  end)

  it("skips white space everywhere", function()
    assert.equal('{"a":[1,{}],"b":"x y"}',
      core.json_encode(core.json_decode('\r\n\t { "a" : [ 1 , { } ] ,\n"b"\t:\r"x y" } \n')))
  end)

  it("takes 512 levels and refuses more, at any depth", function()
    local deep = ("["):rep(512) .. ("]"):rep(512)
    assert.equal(deep, core.json_encode(core.json_decode(deep)))
    local objects = ('{"a":'):rep(511) .. "[]" .. ("}"):rep(511)
    assert.equal(objects, core.json_encode(core.json_decode(objects)))
    for _, depth in ipairs({ 513, 200000 }) do
      local value, message = core.json_decode(("["):rep(depth) .. ("]"):rep(depth))
      assert.is_nil(value)
      assert.equal("JSON nested deeper than 512 levels", message)
    end
  end)

  it("says where bad JSON is bad", function()
    for text, at in pairs({ ["[1,]"] = 3, ["{'a':1}"] = 1, ["1 2"] = 2, ["nul"] = 3, ['"a'] = 2, [""] = 0 }) do
      local value, message = core.json_decode(text)
      assert.is_nil(value)
      assert.matches("^invalid JSON: .+ at position %d+$", message)
      assert.equal(at, tonumber(message:match("%d+$")), text .. ": " .. message)
    end
  end)
end)

describe("decoding what was decoded before", function()
  it("gives the same for objects of any size behind one first key", function()
    for _, count in ipairs({ 1, 5, 0, 16, 17, 3, 40, 2, 300, 1 }) do
      local parts = {}
      for i = 1, count do parts[i] = ('"k%d":%d'):format(i, i * 10) end
      local value = core.json_decode("{" .. table.concat(parts, ",") .. "}")
      local n = 0
      for key, number in pairs(value) do
        n = n + 1
        assert.equal(tonumber(key:sub(2)) * 10, number)
      end
      assert.equal(count, n)
    end
    assert.equal(2, core.json_decode('{"k1":1,"k1":2}').k1)
  end)

  -- A text of an object with these keys, and the values that are to be in it.
  local function object(keys, salt)
    local parts, expected = {}, {}
    for i, key in ipairs(keys) do
      local value = ({ salt * i, "v" .. salt, true, null })[i % 4 + 1]
      parts[i] = core.json_encode(key) .. (salt % 3 == 0 and " : " or ":") .. core.json_encode(value)
      expected[key] = value
    end
    return "{" .. table.concat(parts, salt % 2 == 0 and "," or " ,\n") .. "}", expected
  end

  local function check(keys, times)
    for i = 1, times do
      local text, expected = object(keys, i)
      assert.same(expected, core.json_decode(text))
    end
  end

  it("gives objects that come again and again the same members as others", function()
    check({ "id", "amount", "currency", "note" }, 30)
    check({ "id" }, 3) -- fewer
    check({ "id", "amount", "currency", "note", "more" }, 3)
    check({ "id", "currency", "amount", "note" }, 3) -- another order
    check({ "id", "amount", "currency" }, 30) -- and now these again and again
    check({ "id", "amount", "currency", "note" }, 30)
    check({ "ide", "amount" }, 3)
    check({ "", "a b", "\228\184\128", "if", "a.b" }, 30)
    check({ "with \"quotes\"", "x" }, 30)
    check({ ("long"):rep(80), "x" }, 30)
    for count = 15, 18 do
      local keys = {}
      for i = 1, count do keys[i] = "k" .. i end
      check(keys, 30)
    end
  end)

  it("keeps apart objects whose first keys share a place in memory", function()
    local decode, count = core.json_decode, 150 -- of 64 places
    for i = 1, count do
      for _ = 1, 20 do decode(('{"k%d":1,"b":2}'):format(i)) end
      for j = 1, count do
        local name = "k" .. j
        local value = decode(('[{"%s":1},{"%s":{"%s":2},"b":3}]'):format(name, name, name))
        if #value ~= 2 or value[1][name] ~= 1 or value[2][name][name] ~= 2 or value[2].b ~= 3 then
          assert.same({ { [name] = 1 }, { [name] = { [name] = 2 }, b = 3 } }, value, ("after k%d"):format(i))
        end
      end
    end
  end)

  it("is not confused by a finalizer that decodes meanwhile", function()
    local decode, ran = core.json_decode, false
    local strings = {}
    for i = 1, 200000 do strings[i] = ('"s%d"'):format(i) end
    local long = "[" .. table.concat(strings, ",") .. "]"
    for _ = 1, 20 do decode('{"k":1,"a":2,"b":3}') end
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = function()
      ran = true
      for _ = 1, 100 do decode('{"k":1,"c":2,"d":3}') end
    end
    proxy = nil -- luacheck: ignore
    local value = decode('{"k":' .. long .. ',"c":4,"d":5}')
    assert.is_true(ran, "it ran meanwhile")
    assert.equal(200000, #value.k)
    assert.equal(4, value.c)
    assert.equal(5, value.d)
    assert.is_nil(value.a)
  end)

  it("is not confused by one that decodes while a maker is made", function()
    local decode, wrong = core.json_decode, 0
    local ran, armed, other
    local multiplier = collectgarbage("setstepmul", 200)
    for i = 1, 20 do
      for _ = 1, 500 do
        getmetatable(newproxy(true)).__gc = function()
          ran = true
          if armed then decode(other) end
        end
      end
      ran = false
      collectgarbage("setstepmul", 200)
      repeat collectgarbage("step", 0) until ran
      collectgarbage("setstepmul", 1) -- from here on one runs for each kB
      local text = ('{"k%d":1,"a":2,"b":3}'):format(i)
      other = ('{"k%d":1,"c":2,"d":3}'):format(i)
      for _ = 1, 7 do decode(text) end
      armed = true
      decode(text)
      armed = false
      for _ = 1, 12 do
        local value = decode(other)
        if value.a or value.c ~= 2 or value.d ~= 3 then wrong = wrong + 1 end
      end
    end
    collectgarbage("setstepmul", multiplier)
    assert.equal(0, wrong)
  end)

  it("knows keys that are spelt in another way, or come twice", function()
    for _ = 1, 20 do assert.same({ a = 1, b = 2 }, core.json_decode('{"a":1,"b":2}')) end
    assert.same({ a = 1, b = 2 }, core.json_decode('{"\\u0061":1,"b":2}'))
    assert.same({ a = 1, b = 2 }, core.json_decode('{"a":1,"\\u0062":2}'))
    assert.same({ a = 3, b = 2 }, core.json_decode('{"a":1,"b":2,"a":3}'))
    for _ = 1, 20 do assert.same({ a = 2 }, core.json_decode('{"a":1,"a":2}')) end
    for _ = 1, 20 do assert.same({ a = 1, b = 2 }, core.json_decode('{"a":1,"\\u0062":2}')) end
  end)

  it("takes objects within objects that begin with the same key", function()
    local text, expected = '{"id":1,"of":2}', { id = 1, of = 2 }
    for depth = 1, 40 do
      for _ = 1, 12 do assert.same(expected, core.json_decode(text)) end
      if depth % 3 == 0 then
        text, expected = '{"id":' .. text .. ',"other":' .. depth .. "}", { id = expected, other = depth }
      else
        text, expected = '{"id":' .. text .. ',"of":[' .. text .. "]}", { id = expected, of = array({ expected }) }
      end
      if #text > 100000 then break end
    end
    local deep = ('{"id":'):rep(600) .. "1" .. ("}"):rep(600)
    for _ = 1, 20 do assert.is_nil((core.json_decode(deep))) end
    local fits = ('{"id":'):rep(500) .. "1" .. ("}"):rep(500)
    for _ = 1, 20 do assert.is_table(core.json_decode(fits)) end
  end)

  it("takes any mixture as cjson takes it", function()
    local seed = 7
    local function random(n)
      seed = (seed * 16807) % 2147483647
      return seed % n + 1
    end
    local names = { "a", "b", "ab", "abc", "id", "key", "order", "orders" }
    local few = #names
    for i = 1, 200 do names[#names + 1] = "name" .. i end
    local function name_of() return names[random(random(2) == 1 and few or #names)] end
    local function make(depth)
      local parts, used = {}, {}
      for i = 1, random(6) - 1 do
        local name = name_of()
        if not used[name] then
          used[name] = true
          local value = depth < 3 and random(3) == 1 and make(depth + 1) or tostring(random(99))
          parts[#parts + 1] = ('"%s":%s'):format(name, value)
        end
        if i > 5 then break end
      end
      return "{" .. table.concat(parts, ",") .. "}"
    end
    for _ = 1, 3000 do
      local text = make(1)
      for _ = 1, random(12) do assert.same(cjson.decode(text), core.json_decode(text)) end
    end
  end)

  it("reads whole numbers of every length", function()
    for digits = 1, 15 do
      local text = ("9"):rep(digits)
      assert.equal(tonumber(text), core.json_decode(text))
      assert.equal(-tonumber(text), core.json_decode("[-" .. text .. "]")[1])
      assert.equal(tonumber(text .. ".5"), core.json_decode(text .. ".5"))
      assert.equal(tonumber(text .. "e2"), core.json_decode('{"a":' .. text .. "e2}").a)
    end
  end)
end)

describe("json_check", function()
  it("accepts valid JSON at any depth and says what is wrong otherwise", function()
    assert.is_true(core.json_check(("["):rep(200000) .. ("]"):rep(200000)))
    local ok, message = core.json_check('{"a"}')
    assert.is_false(ok)
    assert.matches("at position 4$", message)
  end)
end)

describe("slices", function()
  local text = ' { "b" : 1.0, "a":[ ], "n": 123456789012345678901234567890 } '

  it("go out byte for byte as they came", function()
    local slice = core.slice(text)
    assert.equal(text, core.json_encode(slice))
    assert.equal('{"data":[' .. text .. "]}", core.json_encode({ data = { slice } }))
  end)

  it("turn into text and into a value", function()
    local slice = core.slice(text)
    assert.equal(core.slice_mt, getmetatable(slice))
    assert.equal(text, tostring(slice))
    assert.equal(#text, core.slice_mt.__len(slice))
    assert.equal(1, slice:decode().b)
    assert.equal(core.array_mt, getmetatable(slice:decode().a))
    assert.equal(null, core.slice("null"):decode())
  end)

  it("are never made of what is not JSON", function()
    local slice, message = core.slice("{")
    assert.is_nil(slice)
    assert.matches("^invalid JSON", message)
    assert.is_nil((core.slice('"\255"')))
  end)

  it("are checked again before they are decoded", function()
    local slice = core.slice("[1]")
    slice[1] = "[1"
    assert.is_nil((slice:decode()))
    slice[1] = nil
    assert.equal("a slice without its text cannot be JSON", refusal(slice))
    assert.has_error(function() slice:decode() end)
  end)

  it("of any depth may be sent, but not decoded", function()
    local deep = ("["):rep(1000) .. ("]"):rep(1000)
    local slice = core.slice(deep)
    assert.equal(deep, core.json_encode(slice))
    local value, message = slice:decode()
    assert.is_nil(value)
    assert.equal("JSON nested deeper than 512 levels", message)
  end)
end)

describe("routes", function()
  it("GEN-01 normalise a pattern", function()
    assert.equal('{"a":{"0":1,"1":2},"b":{"a":"x\\"y\\\\z","z":1}}',
      core.route('{"b":{"z":1,"a":"x\\"y\\\\z"},"a":[1,2]}'))
    assert.equal("sum", core.route('"sum"'))
    assert.equal("1", core.route("1.0"))
  end)

  it("leave booleans and null as they are, and know what is no JSON", function()
    assert.is_true(core.route("true"))
    assert.is_false(core.route("false"))
    assert.equal(null, core.route("null"))
    assert.is_nil(core.route("sum"))
    assert.is_nil(core.lookup_key("{"))
  end)

  it("GEN-09 take a string that is JSON for that JSON when looked up", function()
    assert.equal('{"a":1,"b":2}', core.lookup_key('"{\\"b\\":2,\\"a\\":1}"'))
    assert.equal("sum", core.lookup_key('"sum"'))
    assert.equal("1", core.lookup_key('"1.0"'))
    assert.is_true(core.lookup_key('"true"'))
  end)
end)
