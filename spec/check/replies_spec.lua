local static = require("spec.support.check").static

local HEAD = [[
local perigee = require("perigee") local app = perigee.app()
app:clients({ { name = "A" }, { name = "MAIL" } }) app:provide("MAIL", {})
local client, mail = app:inject("A"), app:inject("MAIL")
]]

-- What is found in the lines after those.
local function found(text)
  return static(HEAD .. text)
end

local UNASKED = "so nothing is sent: await it, return it, or use emit [unasked-reply]"

describe("rule unasked-reply", function()
  for _, statement in ipairs({
    "client:send(1, 2)", "client:send(1, 2):map(print):timeout(5)", "client:send(1, 2):raw()",
    "perigee.client('tcp://localhost'):send(1, 2)", "app:inject('A'):send(1, 2)",
    "do local c = client c:send(1, 2) end", "local c c = perigee.client({}) c:send(1, 2)",
    "local t = { c = client } t.c:send(1, 2)", "local t = {} t.c = client function f() t.c:send(1, 2) end",
    "local new = perigee.client new('tcp://localhost'):send(1, 2)",
    "local token = 'A' app:inject(token):send(1, 2)", "if app then (client):send(1, 2) end",
  }) do
    it("tells of " .. statement, function()
      local list = {}
      for _, text in ipairs(found(statement)) do
        if not text:find("global%-write") then list[#list + 1] = text end
      end
      local column = statement:find("send", 1, true)
      assert.are.same({ ("4:%d: warning: the Reply of this send is never asked, %s"):format(column, UNASKED) }, list)
    end)
  end

  it("tells of a variable that nobody reads", function()
    assert.are.same({ "4:22: warning: the Reply in 'reply' is never asked, " .. UNASKED },
      found("local reply = client:send(1, 2):map(print)"))
    assert.are.same({ "5:12: warning: the Reply in '_' is never asked, " .. UNASKED },
      found("local _\n_ = client:send(1, 2)"))
  end)

  it("tells the line of the send in a chain over many", function()
    assert.are.same({ "5:4: warning: the Reply of this send is never asked, " .. UNASKED },
      found("client\n  :send(1, 2)\n  :map(print)\n  :timeout(5)"))
  end)

  for _, statement in ipairs({
    "client:send(1, 2):await()", "client:send(1, 2):next(print)", "client:send(1, 2):map(print):subscribe({})",
    "client:send(1, 2):finally(print)", "client:send(1, 2):collect():await()", "return client:send(1, 2)",
    "local r = client:send(1, 2) return r", "local r = client:send(1, 2) r:await()", "print(client:send(1, 2))",
    "local list = { client:send(1, 2) } print(list)", "mail:send(1, 2)", "app:inject('MAIL'):send(1, 2)",
    "app:inject('OTHER'):send(1, 2)", "local function f(c) c:send(1, 2) end f()",
    "for _, c in ipairs({}) do c:send(1) end",
    "local c = perigee.client({}) c = { send = print } c:send(1, 2)",
    "local t = { c = client } t.c = mail t.c:send(1, 2)", "local t = { c = client } t[app] = mail t.c:send(1, 2)",
    "client:emit(1, 2)", "local perigee = { client = print } perigee.client():send(1, 2)",
    "local require = print require('perigee').client():send(1, 2)", "local socket = app.socket socket:send('x')",
  }) do
    it("says nothing of " .. statement, function() assert.are.same({}, found(statement)) end)
  end
end)

local NIL = "emit has no answer: this is always nil; use send [emit-answer]"

describe("rule unasked-reply", function()
  it("knows all operators, and what asks", function()
    for name in pairs(require("perigee.operators")) do
      assert.are.equal(1, #found(("client:send(1, 2):%s(print)"):format(name)), name)
    end
    local Reply = getmetatable(require("perigee").of(1))
    for _, name in ipairs({ "await", "next", "catch", "finally", "first", "last", "collect", "subscribe", "values" }) do
      assert.are.equal("function", type(Reply[name]))
      assert.are.same({}, found(("client:send(1, 2):%s(print)"):format(name)))
    end
  end)
end)

describe("rule emit-answer", function()
  for statement, column in pairs({
    ["local x = client:emit(1, 2):await() print(x)"] = 29, ["print(client:emit(1, 2):await())"] = 25,
    ["if client:emit(1, 2):await() then print() end"] = 22, ["local x = {} x.y = client:emit(1, 2):await()"] = 38,
    ["print(client:emit(1, 2):timeout(5):await() or 1)"] = 36,
    ["local e = client:emit(1, 2) print(e:await() == 1)"] = 37,
    ["print({ client:emit(1, 2):await() })"] = 27, ["local x = client:emit(1, 2):await().id print(x)"] = 29,
  }) do
    it("tells of " .. statement, function()
      assert.are.same({ ("4:%d: warning: "):format(column) .. NIL }, found(statement))
    end)
  end

  it("tells of methods and fields a Promise has not", function()
    assert.are.same({ "4:19: warning: emit gives a Promise, which has no 'map': use send for an answer [emit-answer]" },
      found("client:emit(1, 2):map(print)"))
    assert.are.same({ "4:30: warning: emit has no answer, only a Promise: use send [emit-answer]" },
      found("print(client:emit('a', { 1 }).id)"))
  end)

  it("tells of a callback that reads the answer", function()
    assert.are.same({ "4:33: warning: emit has no answer: 'order' is always nil; use send [emit-answer]" },
      found("client:emit(1, 2):next(function(order) print(order) end)"))
  end)

  for _, statement in ipairs({
    "client:emit(1, 2)", "client:emit(1, 2):await()", "return client:emit(1, 2)", "return client:emit(1, 2):await()",
    "return app and client:emit(1, 2):await()", "client:emit(1, 2):next(function() print() end)",
    "client:emit(1, 2):next(function(_) print() end)", "client:emit(1, 2):catch(function(err) print(err) end)",
    "client:emit(1, 2):next(print)", "local sent = client:emit(1, 2) sent:cancel()", "print(client:emit(1, 2))",
    "local e = client:emit(1, 2) e:catch(print):finally(print)",
    "local ok = pcall(function() client:emit(1, 2):await() end) print(ok)",
    "print(client:emit(1, 2, { jetstream = true }):await())", "print(mail:emit(1, 2):await())",
    "print(client:send(1, 2):await())", "print(client:emit(1, 2).await)",
  }) do
    it("says nothing of " .. statement, function() assert.are.same({}, found(statement)) end)
  end

  it("knows the methods of a Promise", function()
    local Promise = getmetatable(require("perigee.promise").resolved())
    for _, name in ipairs({ "await", "next", "catch", "finally", "timeout", "cancel" }) do
      assert.are.equal("function", type(Promise[name]))
      assert.are.same({}, found(("client:emit(1, 2):%s(print)"):format(name)))
    end
    local operators = require("perigee.operators")
    for name in pairs(operators) do assert.is_true(name == "timeout" or Promise[name] == nil) end
  end)
end)
