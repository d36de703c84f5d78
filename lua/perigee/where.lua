--- Which line of the user's code called into perigee. Cheap to capture, turned into text only when asked.

local core = require("perigee.core")

local getinfo, caller = debug.getinfo, core.caller

-- Everything below this folder (or, in the one-file program, chunk name prefix) is perigee itself.
local HERE = getinfo(1, "S").source:match("^(.*)where%.lua$") or "@perigee/"

local own = setmetatable({}, { __mode = "k" }) -- function -> is it one of ours

--- Whether the function is perigee's, or C.
---@param func function
---@return boolean
local function is_own(func)
  local known = own[func]
  if known == nil then
    local source = getinfo(func, "S").source
    known = source:sub(1, #HERE) == HERE or source:sub(1, 2) == "=["
    own[func] = known
  end
  return known
end

--- The innermost caller outside perigee. It makes no garbage: text is made by `text`, since it is rarely needed.
---@param level? integer how many frames up to begin, as in error; 3
---@return function|nil func
---@return integer|nil line
local function capture(level)
  level = level or 3
  local func, line = caller(level)
  while func and is_own(func) do
    level = level + 1
    func, line = caller(level)
  end
  return func, line
end

---@param func function|nil
---@param line integer|nil
---@return string "file:line", or "?" when nothing but perigee was on the stack
local function text(func, line)
  if not func then return "?" end
  return getinfo(func, "S").short_src .. ":" .. tostring(line)
end

return { own = own, capture = capture, text = text, is_own = is_own }
