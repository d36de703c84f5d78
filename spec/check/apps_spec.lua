local check_apps = require("perigee.check.apps")
local loop = require("spec.support.loop")
local perigee = require("perigee")
local log = require("perigee.log")

before_each(function() log.set_sink(function() end) end)

after_each(function()
  log.set_sink()
  loop.finish()
end)

-- "LINE: SEVERITY: MESSAGE [RULE]" of chunks named a.lua, b.lua, … that build an app each.
local function found(...)
  local apps = {}
  for i, text in ipairs({ ... }) do
    apps[i] = perigee.app()
    setfenv(assert(loadstring(text, ("@%s.lua"):format(("abc"):sub(i, i)))), setmetatable({
      app = apps[i], perigee = perigee, handler = function() end,
    }, { __index = _G }))()
  end
  local list = {}
  for i, finding in ipairs(check_apps(apps)) do
    list[i] = ("%s:%d: %s: %s [%s]"):format(finding.file, finding.line, finding.severity, finding.message, finding.rule)
  end
  return list
end

describe("rule duplicate-route", function()
  it("names both places, of each pair, also of several scripts", function()
    assert.are.same({
      "a.lua:3: error: GET /x/:b at a.lua:3 is already routed at a.lua:1 as /x/:a [duplicate-route]",
      "b.lua:2: error: GET /x/:a at b.lua:2 is already routed at a.lua:1 [duplicate-route]",
      "b.lua:3: error: POST /y at b.lua:3 is already routed at a.lua:2 [duplicate-route]",
    }, found("app:get('/x/:a', handler)\napp:post('/y', handler)\napp:get('/x/:b', handler)",
      "\napp:get('/x/:a', handler)\napp:post('/y', handler)"))
  end)

  it("says nothing of routes that differ in method or shape", function()
    assert.are.same({}, found("app:get('/x/:a', handler) app:post('/x/:a', handler) app:any('/x/:a', handler)",
      "app:get('/x/y', handler) app:get('/x/*rest', handler) app:get('/x', handler)"))
  end)
end)

describe("rule duplicate-pattern", function()
  local FORWARD = "\napp:forward(perigee.any_pattern, { send = print })\n"

  it("names both places, of each pair", function()
    assert.are.same({
      'b.lua:1: error: a handler for {"a":1,"b":2} at b.lua:1 is already defined at a.lua:1 [duplicate-pattern]',
      "b.lua:2: error: a handler for perigee.any_pattern at b.lua:2 is already defined at a.lua:2 [duplicate-pattern]",
      "b.lua:3: error: a handler for 42 at b.lua:3 is already defined at a.lua:3 [duplicate-pattern]",
    }, found("app:message({ b = 2, a = 1 }, handler)" .. FORWARD .. "app:message(42, handler)",
      "app:message({ a = 1, b = 2 }, handler)" .. FORWARD .. "app:message('42', handler)"))
  end)

  it("tells of one for all transports beside one for a single one", function()
    assert.are.same({ "a.lua:2: error: a handler for x at a.lua:2 is already defined at a.lua:1 [duplicate-pattern]" },
      found("app:message('x', handler)\napp:message('x', handler, { transport = 'tcp' })"))
  end)

  it("says nothing of events, of other patterns, of other transports", function()
    assert.are.same({}, found("app:event('x', handler) app:event('x', handler) app:message('y', handler)",
      "app:event('x', handler) app:message({ y = 1 }, handler) app:message({ y = '1' }, handler)",
      "app:message('z', handler, { transport = 'tcp' }) app:message('z', handler, { transport = 'local' })"))
  end)
end)

describe("rule unreachable-handler", function()
  it("tells of an event handler beside a message handler or a forward (G14)", function()
    assert.are.same({
      "a.lua:1: warning: the event handler for x never runs: the message handler at a.lua:2 serves both "
        .. "[unreachable-handler]",
      "b.lua:1: warning: the event handler for y never runs: the forward at a.lua:3 serves both [unreachable-handler]",
    }, found("app:event('x', handler)\napp:message('x', handler)\napp:forward('y', { send = print })",
      "app:event('y', handler)"))
  end)

  it("says nothing where another transport keeps it reachable", function()
    assert.are.same({}, found("app:event('x', handler) app:message('x', handler, { transport = 'tcp' })"
      .. "app:event('y', handler) app:forward(perigee.any_pattern, { send = print })"))
  end)
end)

describe("rule unknown-token", function()
  it("tells of each, at the place of its factory", function()
    local missing = "is registered as '%s' (known: A, B) [unknown-token]"
    local at = "a.lua:2: error: nothing "
    assert.are.same({ at .. missing:format("C"), at .. missing:format("D") }, found("app:provide('A', 1)\n"
      .. "app:clients_async({ { name = 'B', inject = { 'C', 'A', 'D' }, use_factory = print } })"))
  end)
end)

describe("rule unreachable-pattern", function()
  for pattern, message in pairs({
    ["'1.0'"] = [[the pattern "1.0" is a string that is JSON: requests for it look for 1]],
    ["'true'"] = [[the pattern "true" is a string that is JSON: requests for it look for true]],
    ["'null'"] = [[the pattern "null" is a string that is JSON: requests for it look for null]],
    [ [=['{"b":1,"a":2}']=] ] =
      [[the pattern "{\"b\":1,\"a\":2}" is a string that is JSON: requests for it look for {"a":2,"b":1}]],
    ["perigee.null"] = "the pattern is null: no Nest client sends that",
    ["0/0"] = "the pattern has NaN in it, which JSON cannot carry: null stands there instead",
    ["{ a = { b = math.huge } }"] =
      "the pattern has an infinite number in it, which JSON cannot carry: null stands there instead",
    ["{ id = 9007199254740993LL }"] = "the pattern has an integer beyond 2^53 in it, which JavaScript rounds",
  }) do
    it("tells of " .. pattern .. " (GEN-10)", function()
      assert.are.same({ "a.lua:1: warning: " .. message .. " [unreachable-pattern]" },
        found(("app:message(%s, handler)"):format(pattern)))
    end)
  end

  it("says nothing of patterns a Nest client can send", function()
    for _, pattern in ipairs({
      "'x'", "''", "42", "'42'", "-0", "true", "{ cmd = 'x' }", "{ a = perigee.null, b = false }", "{}", "{ 'a', 'b' }",
      [=['{"a":1}']=], "'orders.*'", "' x '", "perigee.json.decode('1e21')", "{ a = 'l\\nf' }",
    }) do assert.are.same({}, found(("app:message(%s, handler)"):format(pattern)), pattern) end
  end)
end)

describe("rule ambiguous-pattern", function()
  it("tells of more than 20 keys and of more than 6 levels (GEN-06, GEN-05)", function()
    local keys = {}
    for i = 1, 20 do keys[i] = ("k%d = 1"):format(i) end
    local twenty = ("app:message({ %s }, handler)"):format(table.concat(keys, ", "))
    assert.are.same({}, found(twenty))
    assert.are.same({ "a.lua:1: warning: the pattern has more than 20 keys: it is the same as any other such pattern "
      .. "[ambiguous-pattern]" }, found((twenty:gsub("{", "{ k21 = 1, "))))
    assert.are.same({}, found("app:message({ a = { b = { c = { d = { e = { f = 1 } } } } } }, handler)"))
    assert.are.same({
      "a.lua:1: warning: the pattern is deeper than 6 objects: what is below does not tell it from others "
        .. "[ambiguous-pattern]",
    }, found("app:message({ a = { b = { c = { d = { e = { f = {} } } } } } }, handler)"))
  end)
end)
