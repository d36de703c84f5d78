-- The types for editors, lua/perigee/types, say what is there: no more, no less.

local client = require("perigee.client")
local entry_types = require("spec.support.types")
local perigee = require("perigee")
local program = require("spec.support.perigee")
local testing = require("perigee.testing")

local classes, aliases = {}, {}
for _, name in ipairs({ "perigee", "client", "app", "options", "testing" }) do
  entry_types.read(entry_types.FOLDER .. name .. ".lua", classes, aliases)
end

after_each(program.clean)

-- "self, a, b, ..."
local function parameters_of(fn)
  local info, names = debug.getinfo(fn, "u"), {}
  for i = 1, info.nparams do names[i] = debug.getlocal(fn, i) end
  if info.isvararg then names[#names + 1] = "..." end
  return table.concat(names, ", ")
end

-- Functions of a table; those with an underscore in front are perigee's own.
local function functions_of(object)
  local found = {}
  for name, value in pairs(object) do
    if type(value) == "function" and not name:find("^_") then found[name] = parameters_of(value) end
  end
  return found
end

local function names_of(set)
  local names = {}
  for name in pairs(set) do names[name] = true end
  return names
end

local function upvalue(fn, wanted)
  for i = 1, 60 do
    local name, value = debug.getupvalue(fn, i)
    if name == wanted then return value end
    if name == nil then error("there is no upvalue " .. wanted) end
  end
end

local function methods_of(object) return functions_of(getmetatable(object).__index) end

-- An app of a script, and what its handlers are given.
local function in_use()
  local t = testing.load(program.script([[
    local app = require("perigee").app()
    app:clients({ { name = "X", host = "x" } })
    local function keep(ctx) -- the peer is known until the answer
      return ctx.peer and ctx
    end
    app:post("/", function(req, ctx) app.state.req, app.state.ctx = req, keep(ctx) return req:json() end)
    app:message("m", function(_, ctx) app.state.message = keep(ctx) end)
    return app]]))
  return t
end

describe("the types of", function()
  it("the module have its functions and values, with their parameters", function()
    assert.same(functions_of(perigee), classes["perigee"].methods)
    local values = {}
    for name, value in pairs(perigee) do
      if type(value) ~= "function" then values[name] = true end
    end
    assert.same(values, names_of(classes["perigee"].fields))
    assert.same(functions_of(perigee.json), classes["perigee.json"].methods)
  end)

  for name, make in pairs({
    ["perigee.Client"] = function() return client.new("tcp://a:1") end,
    ["perigee.Reply"] = function() return perigee.of(1) end,
    ["perigee.Promise"] = function() return perigee.promise(function(resolve) resolve(1) end) end,
    ["perigee.App"] = perigee.app,
    ["perigee.Saga"] = function()
      local given
      perigee.saga(function(saga) given = saga end):await()
      return given
    end,
    ["perigee.testing.Subject"] = in_use,
    ["perigee.testing.Response"] = function() return in_use():request({ path = "/", body = "1" }) end,
  }) do
    it(name .. " have its methods, with their parameters", function()
      local object = make()
      if object.close then object:close():await() end
      assert.same(methods_of(object), classes[name].methods)
    end)
  end

  it("apps and the states of clients have their fields", function()
    for field in pairs(classes["perigee.App"].fields) do assert.is_not_nil(perigee.app()[field], field) end
    local one = client.new("local:nobody")
    for field in pairs(classes["perigee.Status"].fields) do assert.is_not_nil(one:status()[field], field) end
    one:close():await()
  end)

  it("handles are those of clients", function()
    local app = perigee.app()
    app:clients({ { name = "X", host = "x" } })
    assert.equal("perigee.Client", classes["perigee.Handle"].parent)
    assert.same(names_of(methods_of(app:inject("X"))), names_of(classes["perigee.Client"].methods))
    app:stop():await()
  end)

  it("subscriptions, iterators and sinks have what is for users", function()
    local sink
    local reply = perigee.reply(function(given)
      sink = given
      return function() end
    end)
    local subscription = reply:subscribe({})
    local iterator = perigee.of(1):values()
    for name, object in pairs({ Subscription = subscription, Iterator = iterator, Sink = sink }) do
      local class = classes["perigee." .. name]
      assert.is_truthy(next(class.methods))
      for method, parameters in pairs(class.methods) do
        assert.equal(parameters, parameters_of(object[method]), name .. ":" .. method)
      end
      for field in pairs(class.fields) do assert.is_not_nil(object[field], field) end
    end
    subscription:unsubscribe()
  end)

  it("requests and contexts have what can be read of them", function()
    local t = in_use()
    t:request({ path = "/", body = "1" })
    t:message("m", 1)
    local req, ctx, message = t.app.state.req, t.app.state.ctx, t.app.state.message
    local index = getmetatable(req).__index
    assert.same(functions_of(upvalue(index, "methods")), classes["perigee.Request"].methods)
    local fields = names_of(upvalue(index, "make"))
    fields.method, fields.path = true, true
    assert.same(fields, names_of(classes["perigee.Request"].fields))

    index = getmetatable(message).__index
    assert.same(functions_of(upvalue(index, "methods")), classes["perigee.Context"].methods)
    fields = names_of(upvalue(index, "make"))
    fields.transport, fields.cancelled, fields.deadline = true, true, true
    assert.same(fields, names_of(classes["perigee.Context"].fields))
    for name, field in pairs(classes["perigee.Context"].fields) do
      if not field.optional and name ~= "deadline" then
        assert.is_not_nil(ctx[name], name)
        assert.is_not_nil(message[name], name)
      end
    end
  end)

  it("testing have its functions, clock, calls and answers", function()
    assert.same(functions_of(testing), classes["perigee.testing"].methods)
    assert.same(functions_of(testing.clock), classes["perigee.testing.Clock"].methods)
    local t = in_use()
    t:fake("X", { x = 1 })
    t:start()
    t.app:inject("X"):send("x", 1, { metadata = { a = 1 } }):await()
    assert.same(names_of(t:calls("X")[1]), names_of(classes["perigee.testing.Call"].fields))
    for name, object in pairs({ Answer = t:message("m", 1), Response = t:request({ path = "/", body = "1" }),
      Subject = t }) do
      for field, how in pairs(classes["perigee.testing." .. name].fields) do
        assert.is_true(object[field] ~= nil or how.type:find("^any") ~= nil, name .. "." .. field)
      end
    end
  end)
end)

-- "… (known: a, b)" as messages list them.
local function known(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  local names = {}
  for name in tostring(err):match("%(known: (.-)%)"):gmatch("[%w_]+") do names[name] = true end
  return names
end

describe("the options of", function()
  it("clients and listeners are those of the transports' tables", function()
    local file = assert(io.open(entry_types.OPTIONS))
    local text = file:read("*a")
    file:close()
    assert.equal(entry_types.options(), text, "run: luajit spec/support/types.lua")
  end)

  it("calls, retries, responses and injected requests are those that are taken", function()
    local one = perigee.client("local:nobody")
    local taken = known(function() one:send("x", 1, { unknown = 1 }):await() end)
    for _, transport in pairs(require("perigee.transports").by_name) do
      for name in pairs(transport.message or {}) do taken[name] = true end
    end
    assert.same(taken, names_of(classes["perigee.CallOptions"].fields))
    assert.same(known(perigee.of(1).retry, perigee.of(1), { unknown = 1 }),
      names_of(classes["perigee.RetryOptions"].fields))
    assert.same(known(perigee.response, { unknown = 1 }), names_of(classes["perigee.Response"].fields))
    local t = in_use()
    assert.same(known(t.request, t, { unknown = 1 }), names_of(classes["perigee.testing.Request"].fields))
    one:close():await()
  end)

  it("clients made by factories are those that are taken", function()
    local app = perigee.app()
    assert.same(known(app.clients_async, app, { { unknown = 1 } }), names_of(classes["perigee.AsyncEntry"].fields))
  end)

  it("transports and listeners in Lua are required where they must be there", function()
    local function refused(fn, name, field)
      local given = {}
      for other, how in pairs(classes[name].fields) do
        if other ~= field and how.type:find("^fun") then given[other] = function() end end
      end
      return not pcall(fn, given)
    end
    for name, make in pairs({
      ["perigee.LuaTransport"] = function(given) perigee.client({ transport = given }) end,
      ["perigee.Strategy"] = function(given) perigee.app():listen(given) end,
    }) do
      assert.is_false(refused(make, name, nil), name)
      for field, how in pairs(classes[name].fields) do
        local is_refused = how.type:find("^fun") and refused(make, name, field) or false
        assert.equal(how.type:find("^fun") ~= nil and not how.optional, is_refused, name .. "." .. field)
      end
    end
  end)

  it("TLS and hosts are those that are taken", function()
    local option_types = require("perigee.option_types")
    assert.same(names_of(option_types.TLS), names_of(classes["perigee.TlsOptions"].fields))
    assert.same({ host = true, port = true, path = true }, names_of(classes["perigee.HostOption"].fields))
  end)
end)

describe("the codes of errors", function()
  -- Wherever one is made: in Lua by name, in C by the table of its names.
  local function made()
    local codes = {}
    local files = io.popen("find lua/perigee -name '*.lua' -not -path '*/types/*'; echo core/base/fault.c")
    for path in files:lines() do
      local file = assert(io.open(path))
      local text = file:read("*a")
      file:close()
      for code in text:gmatch('m[ai][ks][eu]s?e?%("([A-Z_]+)"') do codes[code] = true end
      for code in text:gmatch('code = "([A-Z_]+)"') do codes[code] = true end
      for code in text:gmatch('%] = "([A-Z_]+)",') do codes[code] = true end
    end
    files:close()
    codes.OK = nil
    return codes
  end

  it("are all that are made", function()
    local written = {}
    for _, code in ipairs(aliases["perigee.ErrorCode"]) do written[code] = true end
    assert.same(made(), written)
  end)
end)

describe("the definitions", function()
  it("are Lua, and named as what they stand for", function()
    for _, name in ipairs({ "perigee", "client", "app", "options", "testing" }) do
      local chunk, message = loadfile(entry_types.FOLDER .. name .. ".lua")
      assert.is_function(chunk, message)
      local file = io.open(entry_types.FOLDER .. name .. ".lua")
      local first = file:read("*l")
      file:close()
      assert.matches("^%-%-%-@meta", first)
    end
  end)
end)
