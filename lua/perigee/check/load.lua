--- Loads a script for `perigee check`: runs its chunk in an environment of its own, and tells what it raises as a
--- finding with file and line.

local combinators = require("perigee.combinators")
local core = require("perigee.core")
local errors = require("perigee.errors")
local findings = require("perigee.check.findings")
local limit = require("perigee.check.limit")
local script = require("perigee.script")

local load = {}

--- Lua shortens long names of files to "...end": the file that is meant.
---@param file string
---@param known table<string, true>
---@return string
function load.full_name(file, known)
  if file:sub(1, 3) == "..." then
    local rest = file:sub(4)
    for path in pairs(known) do
      if path:sub(-#rest) == rest then return path end
    end
  end
  return file
end

local function place(text, known)
  local file, line, rest = text:match("^(.-):(%d+):? ?(.*)$")
  if not file then return nil end
  file = load.full_name(file, known)
  if not known[file] then -- a module from elsewhere, or no file at all
    local there = io.open(file, "rb")
    if not there then return nil end
    there:close()
  end
  return { file = file, line = tonumber(line), rest = rest }
end

-- The innermost line of a file of the script's.
local function from_traceback(traceback, known)
  for text in tostring(traceback or ""):gmatch("[^\n]+") do
    local at = place(text:match("^%s*(.-:%d+:) in ") or "", known)
    if at and known[at.file] then return at end
  end
end

local function message_of(err)
  local message = errors.field(err, "message")
  if type(message) ~= "string" then message = core.json_encode(err) or errors.text(err) end
  return (message:match("^[^\n]*"):gsub("[%z\1-\31\127]", " "))
end

local function rule_of(err, code, message)
  local rule = errors.field(err, "rule")
  if rule and findings.RULES[rule] then return rule end
  if code == "INVALID_OPTION" then return "option" end
  if message:find("^module '.*' not found") then return "missing-module" end
  if message:find("^os%.exit ") then return "exit" end
  if message:find("does not return an app", 1, true) then return "no-app" end
  return "load"
end

-- Where the script ends: there `return app` is missing.
local function last_line(path)
  local n = 0
  for _ in io.lines(path) do n = n + 1 end
  return { file = path, line = math.max(1, n) }
end

local function runaway(at, ms)
  return findings.new("runaway", at.file, at, ("the script does not finish loading within %d ms"):format(ms))
end

--- An error of a script as a finding.
---@param err any
---@param where? string file:line, when the error's text does not say
---@param path string of the script
---@param known table<string, true> its files
---@return perigee.Finding
function load.finding(err, where, path, known)
  err = errors.from(err)
  local message = message_of(err)
  local ms, ended_at = message:match("^took longer than (%d+) ms at (.*)$") -- by a limit: see limit.lua, cli/budget.lua
  if ms then return runaway(place(ended_at, known) or { file = path, line = 1 }, ms) end
  local code = errors.field(err, "code")
  local told = code == "SCRIPT" and place(message, known)
  if told then message = told.rest end
  local rule = rule_of(err, code, message)
  local at = told or where and place(where, known) or from_traceback(errors.field(err, "traceback"), known)
    or rule == "no-app" and last_line(path) or { file = path, line = 1 }
  if type(code) ~= "string" then code = nil end
  message = message:gsub("^(module '.*') not found:?$", "%1 is not found")
  return findings.new(rule, at.file, at, message, { code = code })
end

local function run(path, ms)
  return combinators.async(function()
    local ok, result = pcall(script.load, path, 1)
    return { ok = ok, result = result }
  end):timeout(ms):await()
end

--- Runs the script. To be called in a coroutine of a program that does nothing else.
---@param path string
---@param known table<string, true> the script's files
---@param ms integer how long it may take
---@return perigee.Generation?
---@return perigee.Finding? finding why there is none
function load.script(path, known, ms)
  local ok, done, ended_at = pcall(limit.run, ms, function() return run(path, ms) end)
  if ended_at or not ok and errors.is(done) and done.code == "TIMEOUT" then
    return nil, runaway(ended_at and place(ended_at, known) or { file = path, line = 1 }, ms)
  end
  if not ok then error(done, 0) end
  if done.ok then return done.result end
  return nil, load.finding(done.result.cause, done.result.where, path, known)
end

return load
