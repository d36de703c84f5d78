--- Command-line arguments: flags wherever they stand, "--name value" or "--name=value", "--" ends them. "-5" is none.

local errors = require("perigee.errors")

local arguments = {}

---@class perigee.Flag
---@field value? "text"|"ms"|"mib"|"pair" nil: a switch
---@field many? boolean may be repeated: a list, or for pairs a table
---@field later? boolean of a later version

--- Raises what ends the program with status 2.
function arguments.usage(...)
  error({ usage = errors.make("INVALID_OPTION", string.format(...)) }, 0)
end

--- Raises what says that this version lacks something.
---@param name string of the command or flag
function arguments.later(name)
  error({ usage = errors.make("UNSUPPORTED", name .. " is not available in this version") }, 0)
end

local usage = arguments.usage

--- All of standard input, for an argument "-".
---@return string
function arguments.read_stdin()
  local text, why = io.read("*a")
  if not text then error(errors.make("INVALID_OPTION", "cannot read standard input: " .. why), 0) end
  return text
end

local UNITS = { ms = "milliseconds", mib = "mebibytes" }

local function read_number(name, text, unit)
  local n = text:find("^%d+$") and tonumber(text)
  if not n or n == 0 or n > 2 ^ 31 - 1 then usage("%s takes %s, not '%s'", name, UNITS[unit], text) end
  return n
end

local function store(flags, name, flag, text)
  local key = name:sub(3):gsub("-", "_")
  if flag.value == "pair" then
    local left, right = text:match("^([^=]+)=(.*)$")
    if not left then usage("%s takes NAME=VALUE, not '%s'", name, text) end
    flags[key] = flags[key] or {}
    flags[key][left] = right
    return
  end
  local value = UNITS[flag.value] and read_number(name, text, flag.value) or text
  if flag.many then
    flags[key] = flags[key] or {}
    table.insert(flags[key], value)
  else
    flags[key] = value
  end
end

---@param argv string[]
---@param known table<string, perigee.Flag>
---@param pass_on? integer after that many positional arguments unknown flags are arguments too
---@return string[] positional
---@return table<string, any> flags by name, without dashes in front, "_" for "-"
function arguments.parse(argv, known, pass_on)
  local positional, flags = {}, {}
  local i, open = 1, true
  while i <= #argv do
    local text = argv[i]
    local name, inline = text:match("^(%-%-[^=]+)=?(.*)$")
    local flag = open and name and known[name]
    if open and text == "--" then
      open = false
    elseif flag then
      if flag.later then arguments.later(name) end
      local has_inline = text:find("=", 1, true) ~= nil
      if not flag.value then
        if has_inline then usage("%s takes no value", name) end
        flags[name:sub(3):gsub("-", "_")] = true
      else
        if not has_inline then
          i = i + 1
          inline = argv[i]
          if not inline then usage("%s takes a value", name) end
        end
        store(flags, name, flag, inline)
      end
    elseif open and text:find("^%-%D") and not (pass_on and #positional >= pass_on) then
      usage("unknown option '%s'", name or text)
    else
      positional[#positional + 1] = text
    end
    i = i + 1
  end
  return positional, flags
end

return arguments
