--- What is wrong with loaded apps, each and together: all of it, where Host:check raises the first.

local certificates = require("perigee.check.certificates")
local findings = require("perigee.check.findings")
local odd_pattern = require("perigee.check.patterns")
local patterns = require("perigee.patterns")
local router = require("perigee.router")

-- "file:line" as perigee keeps it.
local function place(where)
  local file, line = where:match("^(.*):(%d+)$")
  return file or where, { line = tonumber(line) or 1 }
end

local function add(list, rule, where, message, code)
  local file, at = place(where)
  list[#list + 1] = findings.new(rule, file, at, message, { code = code })
end

local function check_routes(apps, list)
  local routes = router.new()
  for _, app in ipairs(apps) do
    for _, route in ipairs(app.routes) do
      local ok, err = pcall(routes.add, routes, route.method, route.path, route.handler, route.where)
      if not ok then add(list, "duplicate-route", route.where, err.message, err.code) end
    end
  end
end

local function overlap(a, b)
  return not a.transport or not b.transport or a.transport == b.transport
end

local function key_of(declared)
  if declared.pattern == patterns.any then return patterns.any end
  return patterns.route(declared.pattern)
end

local function first_clash(declared, others)
  for _, other in ipairs(others) do
    if overlap(declared, other) then return other end
  end
end

-- The handlers of all apps that answer or pass on, by their pattern's key. A second one is refused, as in handlers.lua.
local function check_answering(apps, list)
  local by_key = {}
  for _, app in ipairs(apps) do
    for _, declared in ipairs(app.declared) do
      if declared.kind ~= "event" then
        local key = key_of(declared)
        by_key[key] = by_key[key] or {}
        local other = first_clash(declared, by_key[key])
        if other then
          add(list, "duplicate-pattern", declared.where, ("a handler for %s at %s is already defined at %s"):format(
            patterns.show(declared.pattern), declared.where, other.where), "INVALID_OPTION")
        end
        table.insert(by_key[key], declared)
      end
    end
  end
  return by_key
end

local NEVER_RUNS = "the event handler for %s never runs: the %s at %s serves both"

local function check_events(apps, by_key, list)
  for _, app in ipairs(apps) do
    for _, declared in ipairs(app.declared) do
      for _, other in ipairs(declared.kind == "event" and by_key[key_of(declared)] or {}) do
        if not other.transport or other.transport == declared.transport then
          add(list, "unreachable-handler", declared.where, NEVER_RUNS:format(patterns.show(declared.pattern),
            other.kind == "forward" and "forward" or "message handler", other.where))
          break
        end
      end
    end
  end
end

---@param apps perigee.App[]
---@return perigee.Finding[]
return function(apps)
  local list = {}
  check_routes(apps, list)
  check_events(apps, check_answering(apps, list), list)
  for _, app in ipairs(apps) do
    certificates(app, function(listener, message, code)
      add(list, "certificate", listener.where, message, code)
    end)
    app.registry:check(function(err, where) add(list, "unknown-token", where, err.message, err.code) end)
    for _, declared in ipairs(app.declared) do
      local rule, message = odd_pattern(declared.pattern)
      if rule then add(list, rule, declared.where, message) end
    end
  end
  return list
end
