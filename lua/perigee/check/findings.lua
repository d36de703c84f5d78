--- What `perigee check` finds: its rules, how findings are silenced, ordered and shown.

local core = require("perigee.core")
local json = require("perigee.json")
local nearest = require("perigee.options").nearest

---@class perigee.Finding
---@field file string
---@field line integer 1 where the whole file is meant
---@field column? integer in bytes, from 1
---@field severity "error"|"warning"|"hint" error: it does not load, or will fail
---@field rule string
---@field code? string of the error the script would raise, such as "INVALID_OPTION"
---@field message string one line

local findings = {}

--- The rules, and how bad what they find is.
findings.RULES = {
  ["file"] = "error", -- cannot be read
  ["syntax"] = "error",
  ["load"] = "error", -- a fault while the script loads
  ["missing-module"] = "error",
  ["option"] = "error",
  ["pattern"] = "error", -- it cannot be written as JSON
  ["certificate"] = "error", -- of a listener: it cannot be used, or has expired
  ["unknown-token"] = "error",
  ["duplicate-token"] = "error",
  ["duplicate-route"] = "error",
  ["duplicate-pattern"] = "error",
  ["exit"] = "error", -- os.exit while the script loads
  ["runaway"] = "error", -- it does not finish loading
  ["no-app"] = "error",
  ["global-write"] = "error",
  ["undeclared-global"] = "warning",
  ["unknown-transport"] = "warning",
  ["unreachable-pattern"] = "warning",
  ["ambiguous-pattern"] = "warning",
  ["unreachable-handler"] = "warning",
  ["unasked-reply"] = "warning",
  ["emit-answer"] = "warning",
  ["ignore"] = "warning", -- a comment that ignores a rule there is not
  ["literal-host"] = "hint",
  ["literal-credential"] = "hint",
}

---@param rule string
---@param file string
---@param at { line: integer, column: integer? }
---@param message string
---@param more? { severity: string?, code: string? }
---@return perigee.Finding
function findings.new(rule, file, at, message, more)
  return {
    rule = rule, file = file, line = at.line, column = at.column, message = message,
    severity = more and more.severity or findings.RULES[rule], code = more and more.code,
  }
end

-- What the comments `-- perigee: ignore RULE, RULE (why)` silence: line -> true for all, or a set of rules.
local function ignored(file, comments, list)
  local lines = {}
  for _, comment in ipairs(comments) do
    local rest = comment.text:match("^%s*perigee:%s*ignore%f[^%w-]([^(]*)")
    local names = rest and {}
    for name in (rest or ""):gmatch("[^%s,]+") do
      if findings.RULES[name] then
        names[name] = true
      else
        local near = nearest(name, findings.RULES)
        list[#list + 1] = findings.new("ignore", file, comment, ("there is no rule '%s'%s"):format(name,
          near and (" (did you mean '%s'?)"):format(near) or ""))
      end
    end
    if names then lines[comment.line] = rest:find("[^%s,]") and names or true end
  end
  return lines
end

--- Leaves out what comments on the line itself silence. Errors cannot be silenced: the script would still fail.
---@param list perigee.Finding[]
---@param comments table<string, perigee.check.Comment[]> by file
---@return perigee.Finding[]
function findings.audible(list, comments)
  local result, silence = {}, {}
  for file, of_file in pairs(comments) do silence[file] = ignored(file, of_file, result) end
  for _, finding in ipairs(list) do
    local silent = silence[finding.file] and silence[finding.file][finding.line]
    if finding.severity == "error" or not silent or silent ~= true and not silent[finding.rule] then
      result[#result + 1] = finding
    end
  end
  return result
end

local function key_of(finding)
  return ("%s:%s:%s"):format(finding.file, finding.rule, finding.message)
end

-- What reading told: by what it says, and the errors by line.
local function read_ones(list)
  local read = { by_key = {}, errors = {} }
  for _, finding in ipairs(list) do
    local is_read = finding.column or finding.rule == "syntax"
    local key = key_of(finding)
    if is_read then
      read.by_key[key] = read.by_key[key] or {}
      table.insert(read.by_key[key], finding)
      if finding.severity == "error" then read.errors[finding.file .. finding.line] = finding end
    end
  end
  return read
end

-- The same thing is seen by reading and by running. What reading tells has the column, and the line in a call over
-- many; running may know that it is worse.
local function is_told_by_reading(finding, read)
  if finding.column or finding.rule == "syntax" then return false end
  if finding.rule == "load" then return read.errors[finding.file .. finding.line] ~= nil end
  local same
  for _, other in ipairs(read.by_key[key_of(finding)] or {}) do
    if not same or other.line == finding.line then same = other end
  end
  if same then same.severity, same.code = finding.severity, finding.code end
  return same ~= nil
end

--- In order of file, line and column, each thing once.
---@param list perigee.Finding[]
---@param files string[] in their order; others come after them, as first seen
---@return perigee.Finding[]
function findings.sorted(list, files)
  local order, place, n = {}, {}, #files
  for i, file in ipairs(files) do order[file] = order[file] or i end
  for i, finding in ipairs(list) do
    place[finding] = i
    if not order[finding.file] then
      n = n + 1
      order[finding.file] = n
    end
  end
  local all = { unpack(list) }
  table.sort(all, function(a, b)
    if a.file ~= b.file then return order[a.file] < order[b.file] end
    if a.line ~= b.line then return a.line < b.line end
    if a.column ~= b.column then return (a.column or math.huge) < (b.column or math.huge) end
    return place[a] < place[b]
  end)
  local result, told, read = {}, {}, read_ones(all)
  for _, finding in ipairs(all) do
    local exact = ("%d:%s:%s"):format(finding.line, finding.column, key_of(finding)) -- two scripts may share a module
    if not told[exact] and not is_told_by_reading(finding, read) then result[#result + 1] = finding end
    told[exact] = true
  end
  return result
end

--- "orders.lua:8: error: INVALID_OPTION: unknown option 'hots' (did you mean 'host'?) [option]"
---@param finding perigee.Finding
---@return string
function findings.text(finding)
  local code = finding.code and finding.code .. ": " or ""
  local text = ("%s:%d: %s: %s%s [%s]"):format(finding.file, finding.line, finding.severity, code, finding.message,
    finding.rule)
  return (text:gsub("[%z\1-\31\127]", " "))
end

-- Names of files and in sources need not be UTF-8, JSON must.
local function as_utf8(text)
  return type(text) == "string" and not core.json_encode(text) and text:gsub("[\128-\255]", "?") or text
end

--- An array of objects, keys as in perigee.Finding; "[]" when there is none.
---@param list perigee.Finding[]
---@return string
function findings.json(list)
  local copies = {}
  for i, finding in ipairs(list) do
    copies[i] = {}
    for name, value in pairs(finding) do copies[i][name] = as_utf8(value) end
  end
  return (core.json_encode(json.array(copies)))
end

return findings
