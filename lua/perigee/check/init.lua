--- perigee.check: what is wrong with routing scripts, told without serving them.
---
---   static       reads: syntax, globals, Replies nobody asks, literals          no code runs
---   generation   the same, for the files a loaded generation was made of
---   apps         looks at loaded apps: routes, patterns, tokens, alone and together
---   run          all of it, and loads the scripts in between
---   admit        for a reload, which loads by itself: refuses for errors in a generation's files, logs warnings

local certificates = require("perigee.check.certificates")
local check_apps = require("perigee.check.apps")
local errors = require("perigee.errors")
local findings = require("perigee.check.findings")
local globals = require("perigee.check.globals")
local host = require("perigee.host")
local kinds = require("perigee.check.kinds")
local literals = require("perigee.check.literals")
local load = require("perigee.check.load")
local log = require("perigee.log")
local option_names = require("perigee.check.options")
local replies = require("perigee.check.replies")
local sources = require("perigee.check.sources")

local LOAD_MS = 5000

local check = { text = findings.text, json = findings.json, apps = check_apps }

--- Reading --------------------------------------------------------------------------------------------------------

---@class perigee.check.Report
---@field list perigee.Finding[]
---@field comments table<string, perigee.check.Comment[]> by file
---@field files string[] in the order they were read
---@field known table<string, true> the same as a set

local function new_report()
  return { list = {}, comments = {}, files = {}, known = {} }
end

local function finished(report)
  return findings.sorted(findings.audible(report.list, report.comments), report.files)
end

local function check_source(source, tokens, declared, list)
  local facts = kinds.facts(source.tree, tokens)
  globals.check(facts, source.path, list, declared)
  replies(facts, source.path, list)
  option_names(facts, source.path, list)
  literals(facts, source.path, list)
end

-- Adds what the rules tell of the files of one script, which share their globals and tokens.
local function check_sources(files, report)
  local declared, tokens, parsed = {}, { clients = {}, values = {} }, {}
  for _, source in ipairs(files.list) do
    report.files[#report.files + 1] = source.path
    report.known[source.path] = true
    if source.tree then
      parsed[#parsed + 1] = source
      globals.declared(source.tree, declared)
      kinds.tokens(source.tree, tokens)
    end
  end
  for _, source in ipairs(parsed) do
    check_source(source, tokens, declared, report.list)
    report.comments[source.path] = source.tree.comments
  end
end

--- What reading the scripts and their own modules tells.
---@param paths string[]
---@param reader? fun(path: string): string?, string? gives a file's text, or nil and why not; the disk by default
---@return perigee.Finding[]
function check.static(paths, reader)
  local report = new_report()
  for _, path in ipairs(paths) do check_sources(sources.of(path, report.list, reader), report) end
  return finished(report)
end

--- What reading the files tells that a generation was made of.
---@param generation perigee.Generation
---@return perigee.Finding[]
function check.generation(generation)
  local report, texts = new_report(), generation:files()
  local files = sources.of(generation.path, report.list, function(path)
    if texts[path] then return texts[path] end
    return sources.from_disk(path) -- a module that is asked for later
  end, generation:package())
  files:add_own(texts)
  check_sources(files, report)
  return finished(report)
end

--- For a reload: raises the first error in the files of a generation as script.load does, logs the warnings. Hints are
--- for `perigee check`.
---@param generation perigee.Generation
function check.admit(generation)
  for _, finding in ipairs(check.generation(generation)) do
    local where = finding.file .. ":" .. finding.line
    if finding.severity == "warning" then log.warn("%s: %s [%s]", where, finding.message, finding.rule) end
    if finding.severity == "error" then
      local is_told = not finding.code -- texts of SCRIPT say where
      local cause = errors.make(finding.code or "SCRIPT", (is_told and where .. ": " or "") .. finding.message)
      error({ cause = cause, where = not is_told and where or nil }, 0)
    end
  end
  certificates(generation.app, function(listener, message, code)
    if not code then log.warn("%s: %s [certificate]", listener.where, message) end -- the others are told as they open
  end)
end

--- Loading --------------------------------------------------------------------------------------------------------

-- Whether the script itself can be loaded at all, going by what was found in it.
local function is_lua(path, list, first)
  for i = first, #list do
    local one = list[i]
    local is_hopeless = one.severity == "error" and (one.rule == "syntax" or one.rule == "file")
    if one.file == path and is_hopeless then return false end
  end
  return true
end

local function check_script(path, report, limit)
  local first = #report.list + 1
  local files, generation = sources.of(path, report.list), nil
  for _, source in ipairs(files.list) do report.known[source.path] = true end
  if is_lua(path, report.list, first) then
    generation, report.list[#report.list + 1] = load.script(path, report.known, limit)
    if generation then files:add_own(generation:files()) end
  end
  check_sources(files, report)
  return generation
end

-- All that would refuse them as a reload, each and together.
local function check_together(generations, report)
  local apps, first = {}, #report.list
  for i, generation in ipairs(generations) do apps[i] = generation.app end
  for _, finding in ipairs(check_apps(apps)) do
    finding.file = load.full_name(finding.file, report.known)
    report.list[#report.list + 1] = finding
  end
  if #report.list > first or #generations == 0 then return apps end
  local together = host.new()
  local ok, err = xpcall(together.check, errors.on_raise, together, generations)
  if not ok then
    report.list[first + 1] = load.finding(err, nil, generations[#generations].path, report.known)
  end
  return apps
end

--- Everything. It runs the scripts' chunks, so that the program should be cut off from the world (cli/offline.lua) and
--- have nothing else to do. To be called in a coroutine.
---@param paths string[]
---@param options? { limit: integer? } ms a script may take to load, 5000 by default
---@return perigee.Finding[]
---@return perigee.App[] apps those that loaded
function check.run(paths, options)
  local report, generations = new_report(), {}
  for _, path in ipairs(paths) do
    generations[#generations + 1] = check_script(path, report, options and options.limit or LOAD_MS)
  end
  local apps = check_together(generations, report)
  for _, generation in ipairs(generations) do generation:finish(1) end
  return finished(report), apps
end

return check
