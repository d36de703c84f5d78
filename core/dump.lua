--- Build tool: bytecode that remembers the sizes of its tables.
--
-- `{ id = id, kind = "x" }` starts as a copy of a template, { id = nil, kind = "x" }, whose keys all have their
-- places. string.dump leaves out what is nil: the copies would grow with every assignment, which costs a tenth of a
-- request. Here the keys are put back, as the instructions behind the template name them: with false where they set
-- it before anybody can look. A key whose value is nil would lose its place to the next that hashes alike.

local VERSION = 2 -- of the dump: luajit's lj_bcdump.h says what it looks like
local BIG_ENDIAN, STRIPPED = 1, 2
local CHILD, TABLE, INT64, UINT64, COMPLEX, STRING = 0, 1, 2, 3, 4, 5 -- constants of a function
local NIL, FALSE, INTEGER, NUMBER = 0, 1, 3, 4 -- constants in a table; STRING as above
local SHARED, UNCHANGED = 0x80, 0x40 -- captures of the maker's registers; of those that are assigned to once

--- Reading ------------------------------------------------------------------------------------------------------

local Reader = {}
Reader.__index = Reader

function Reader:byte()
  self.at = self.at + 1
  return self.text:byte(self.at - 1)
end

-- ULEB128. Numbers stay as they were written: only lengths and types are looked at.
function Reader:number()
  local value, unit = 0, 1
  repeat
    local byte = self:byte()
    value, unit = value + byte % 128 * unit, unit * 128
  until byte < 128
  return value
end

function Reader:skip(n) self.at = self.at + n end

function Reader:since(from) return self.text:sub(from, self.at - 1) end

local function uleb(value)
  local bytes = {}
  repeat
    local rest = math.floor(value / 128)
    bytes[#bytes + 1] = string.char(value % 128 + (rest > 0 and 128 or 0))
    value = rest
  until value == 0
  return table.concat(bytes)
end

--- Tables -------------------------------------------------------------------------------------------------------

local function read_item(r)
  local from, kind = r.at, r:number()
  if kind >= STRING then
    r:skip(kind - STRING)
  elseif kind == INTEGER then
    r:number()
  elseif kind == NUMBER then
    r:number()
    r:number()
  end
  return r:since(from)
end

local function read_table(r)
  local made = { array = {}, hash = {} }
  local array_size, hash_size = r:number(), r:number()
  for i = 1, array_size do made.array[i] = read_item(r) end
  for _ = 1, hash_size do
    local key = read_item(r)
    made.hash[key] = read_item(r)
  end
  return made
end

local function write_table(made)
  local keys = {}
  for key in pairs(made.hash) do keys[#keys + 1] = key end
  table.sort(keys) -- their order is that of addresses, else: builds should be the same
  local parts = { uleb(TABLE), uleb(#made.array), uleb(#keys), table.concat(made.array) }
  for _, key in ipairs(keys) do parts[#parts + 1] = key .. made.hash[key] end
  return table.concat(parts)
end

--- Functions ----------------------------------------------------------------------------------------------------

local function read_constant(r)
  local from, kind = r.at, r:number()
  if kind == TABLE then return read_table(r) end
  if kind >= STRING then
    r:skip(kind - STRING)
  elseif kind ~= CHILD then
    assert(kind == INT64 or kind == UINT64 or kind == COMPLEX)
    for _ = 1, kind == COMPLEX and 4 or 2 do r:number() end
  end
  return r:since(from)
end

-- Operands B and C that are no registers; of these, B is one.
local BLIND = "KSTR KCDATA KSHORT KNUM KPRI UGET GGET TNEW TDUP CALL JMP"
local BY_NAME = "TGETS TGETB TSETS TSETB"

local function has_word(words, word) return (" " .. words .. " "):find(" " .. word .. " ", 1, true) ~= nil end

-- By number, which differs between versions: those that do not write to register A, those that look at registers
-- B and C (or D, their pair), and those behind which the order of instructions is no longer that of what happens.
local function opcodes(names)
  local ops = { codes = {}, reads = {}, looks_at_b = {}, looks_at_c = {}, strays = {} }
  for i = 0, #names / 6 - 1 do
    local name = names:sub(i * 6 + 1, i * 6 + 6):match("%S+")
    ops.codes[name] = i
    ops.reads[i] = name:find("^.SET") ~= nil or name:find("^IS[LGEN]") ~= nil or name == "IST" or name == "ISF"
    ops.looks_at_b[i] = not has_word(BLIND, name)
    ops.looks_at_c[i] = ops.looks_at_b[i] and not has_word(BY_NAME, name)
    ops.strays[i] = name == "FNEW" or name:find("LOOP") ~= nil or name:find("^I?FOR") ~= nil
      or name:find("^J?ITER") ~= nil or name == "ISNEXT" or name == "UCLO"
  end
  return ops
end

-- What is assigned to the table that the instruction before `from` has made. Values are computed in registers above
-- its own: what uses that one, or writes below it, comes after the constructor.
local function complete(made, code, from, register, constant, ops, captured)
  local unseen, certain_from = not captured[register], from -- up to there, a jump may pass over it
  for at = from, #code - 3, 4 do
    local op, a, c, b = code:byte(at, at + 3)
    if op == ops.codes.TSETS and b == register then
      local is_certain = unseen and at >= certain_from
      made.hash[constant(c)] = made.hash[constant(c)] or uleb(is_certain and FALSE or NIL)
    elseif op == ops.codes.TSETB and b == register then
      for i = #made.array + 1, c + 1 do made.array[i] = uleb(NIL) end
    elseif op == ops.codes.TSETM and a == register + 1 then -- `...` or a call comes last
      for i = #made.array + 1, math.max(#made.array, 1) + 1 do made.array[i] = uleb(NIL) end
      return
    elseif a == register or a < register and not ops.reads[op] then
      return
    elseif op == ops.codes.JMP then
      local to = at + 4 + (c + b * 256 - 0x8000) * 4
      if to <= at then unseen = false end -- what stands before may see the table of the turn before
      certain_from = math.max(certain_from, to)
    elseif ops.strays[op] or ops.looks_at_b[op] and b == register or ops.looks_at_c[op] and c == register then
      unseen = false
    end
  end
end

local function complete_all(code, constants, ops, captured)
  local function constant(index) return constants[#constants - index] end -- they are counted from the end
  for at = 1, #code - 3, 4 do
    local op, register, low, high = code:byte(at, at + 3)
    if op == ops.codes.TDUP then
      complete(constant(low + high * 256), code, at + 4, register, constant, ops, captured)
    end
  end
end

-- Which registers of its maker a function shares, when these are assigned to after their first value.
local function read_captures(r, count)
  local captures = {}
  for i = 1, count do
    local register, kind = r:byte(), r:byte()
    captures[i] = kind >= SHARED and kind < SHARED + UNCHANGED and register or false
  end
  return captures
end

-- Children come before their maker: their captures wait for it, in `orphans`, where its own replace them.
local function take_captured(constants, orphans)
  local captured = {}
  for _, one in ipairs(constants) do
    if one == uleb(CHILD) then
      for _, register in ipairs(table.remove(orphans)) do captured[register] = true end
    end
  end
  return captured
end

local function rewrite_function(text, is_stripped, ops, orphans)
  local r = setmetatable({ text = text, at = 1 }, Reader)
  r:skip(3) -- flags, parameters, registers
  local upvalues, constants_size, _, code_size = r:byte(), r:number(), r:number(), r:number()
  if not is_stripped and r:number() > 0 then
    r:number()
    r:number()
  end
  local code_at = r.at
  r:skip(code_size * 4)
  local code, captures = r:since(code_at), read_captures(r, upvalues)
  local head, constants = r:since(1), {}
  for i = 1, constants_size do constants[i] = read_constant(r) end
  complete_all(code, constants, ops, take_captured(constants, orphans))
  orphans[#orphans + 1] = captures
  for i, one in ipairs(constants) do constants[i] = type(one) == "table" and write_table(one) or one end
  return head .. table.concat(constants) .. text:sub(r.at)
end

local function rewrite(text, ops)
  local r = setmetatable({ text = text, at = 4 }, Reader)
  if r:byte() ~= VERSION then return nil end
  local flags = r:number()
  if flags % 2 == BIG_ENDIAN then return nil end
  local is_stripped = flags % (2 * STRIPPED) >= STRIPPED
  if not is_stripped then r:skip(r:number()) end
  local parts, orphans, size = { r:since(1) }, {}, r:number()
  while size > 0 do
    local from = r.at
    r:skip(size)
    local made = rewrite_function(r:since(from), is_stripped, ops, orphans)
    parts[#parts + 1] = uleb(#made) .. made
    size = r:number()
  end
  return table.concat(parts) .. uleb(0)
end

--- The bytecode of a chunk. nil: this LuaJIT dumps in a way that is not known here.
---@param source string
---@param chunk string its name
---@return string?
return function(source, chunk)
  local compiled = assert(loadstring(source, chunk))
  local has_names, vmdef = pcall(require, "jit.vmdef")
  if not has_names then return nil end
  local ops = opcodes(vmdef.bcnames)
  local made = rewrite(string.dump(compiled), ops)
  if not made then return nil end
  -- What was put in is left out again by the next dump, and nothing else may have changed.
  assert(rewrite(string.dump(assert(loadstring(made, chunk))), ops) == made, chunk)
  return made
end
