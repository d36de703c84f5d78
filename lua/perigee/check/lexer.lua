--- Cuts Lua source into tokens. LuaJIT has compiled it before, so that it is known to be Lua: nothing here can fail.

---@class perigee.check.Token
---@field kind string "name", "string", "number", "end of file", a keyword or an operator
---@field text string as written
---@field line integer
---@field column integer in bytes, from 1

---@class perigee.check.Comment
---@field line integer
---@field column integer
---@field text string without the dashes and brackets

local KEYWORDS = {}
for word in ([[and break do else elseif end false for function if in local nil not or repeat return then true until
  while]]):gmatch("%a+") do KEYWORDS[word] = true end -- "goto" is a name too, see parser.lua

local find, sub, byte = string.find, string.sub, string.byte

-- LuaJIT takes \n, \r, \r\n and \n\r for one end of a line each. Returns where each line starts.
local function line_starts(source)
  local starts, at = { 1 }, 1
  while true do
    local newline = find(source, "[\r\n]", at)
    if not newline then return starts end
    local pair = sub(source, newline, newline + 1)
    at = newline + ((pair == "\r\n" or pair == "\n\r") and 2 or 1)
    starts[#starts + 1] = at
  end
end

-- Where the long bracket that starts at `at` ends, and the text in it; nil when none starts there.
local function long_bracket(source, at)
  local _, opened, level = find(source, "^%[(=*)%[", at)
  if not opened then return nil end
  local closing, closed = find(source, "]" .. level .. "]", opened + 1, true)
  return closed, sub(source, opened + 1, closing - 1)
end

local function quoted(source, at)
  local quote = sub(source, at, at)
  local stop = quote == '"' and '["\\]' or "['\\]"
  local i = find(source, stop, at + 1)
  while byte(source, i) == 92 do i = find(source, stop, i + 2) end
  return i
end

local function number(source, at)
  local exponent = find(source, "^0[xX]", at) and "[pP]" or "[eE]"
  local _, last = find(source, "^[%w.]+", at)
  while find(source, "^" .. exponent .. "[+-]", last) do
    last = select(2, find(source, "^[+-][%w.]*", last + 1))
  end
  return last
end

local OPERATORS = { ["..."] = true, [".."] = true, ["=="] = true, ["~="] = true, ["<="] = true, [">="] = true,
  ["::"] = true }

local function operator(source, at)
  for length = 3, 2, -1 do
    if OPERATORS[sub(source, at, at + length - 1)] then return at + length - 1 end
  end
  return at
end

-- The kind of the token at `at`, and where it ends.
local function scan(source, at)
  local _, last = find(source, "^[%a_\128-\255][%w_\128-\255]*", at)
  if last then
    local word = sub(source, at, last)
    return KEYWORDS[word] and word or "name", last
  end
  if find(source, "^%.?%d", at) then return "number", number(source, at) end
  if find(source, "^[\"']", at) then return "string", quoted(source, at) end
  last = long_bracket(source, at)
  if last then return "string", last end
  last = operator(source, at)
  return sub(source, at, last), last
end

-- Where the comment at `at` ends, and its text; nil when there is none.
local function comment(source, at)
  if not find(source, "^%-%-", at) then return nil end
  local last, text = long_bracket(source, at + 2)
  if last then return last, text end
  local _, ended = find(source, "^[^\r\n]*", at + 2)
  return ended, sub(source, at + 2, ended)
end

---@param source string
---@return perigee.check.Token[] tokens the last is "end of file"
---@return perigee.check.Comment[] comments
local function lex(source)
  local tokens, comments, starts, line = {}, {}, line_starts(source), 1
  local at = select(2, find(source, "^\239\187\191")) or 0 -- a byte order mark
  at = at + 1
  if byte(source, at) == 35 then at = find(source, "[\r\n]", at) or #source + 1 end -- "#!" of a program
  while true do
    at = find(source, "[^%s%z]", at)
    local from = at or #source + 1
    while starts[line + 1] and starts[line + 1] <= from do line = line + 1 end
    if not at then
      tokens[#tokens + 1] = { kind = "end of file", text = "", line = line, column = from - starts[line] + 1 }
      return tokens, comments
    end
    local last, text = comment(source, at)
    if last then
      comments[#comments + 1] = { line = line, column = at - starts[line] + 1, text = text }
    else
      local kind
      kind, last = scan(source, at)
      tokens[#tokens + 1] = { kind = kind, text = sub(source, at, last), line = line, column = at - starts[line] + 1 }
    end
    at = last + 1
  end
end

return { lex = lex }
