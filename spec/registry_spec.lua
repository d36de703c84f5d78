local perigee = require("perigee")
local loop = require("spec.support.loop")

local app

before_each(function() app = perigee.app() end)

after_each(function()
  app:stop():await()
  loop.finish()
end)

local function refused(text, fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.are.equal("INVALID_OPTION", err.code)
  assert.is_truthy(err.message:find(text, 1, true), err.message)
end

describe("clients", function()
  it("MOD-01 come as a list or as { clients = list }", function()
    app:clients({ { name = "A", port = 3001 } })
    app:clients({ clients = { { name = "B", port = 3002 } }, is_global = true })
    assert.is_function(app:inject("A").send)
    assert.is_function(app:inject("B").send)
  end)

  it("can have any value as their name", function()
    local token = {}
    app:clients({ { name = token, port = 3001 } })
    assert.is_function(app:inject(token).send)
  end)

  it("are refused when the name is taken, and both places are named", function()
    app:clients({ { name = "A" } })
    refused("is already defined at spec/registry_spec.lua:", app.clients, app, { { name = "A" } })
    refused("a client needs a name", app.clients, app, { { port = 1 } })
    refused("clients takes a list of tables", app.clients, app, { name = "C" })
    refused("did you mean 'host'?", app.clients, app, { { name = "D", hots = "x" } })
  end)
end)

describe("clients_async", function()
  it("MOD-02 asks a factory, with what it injects", function()
    app:provide("config", { host = "127.0.0.1", port = "3001" })
    local asked = 0
    app:clients_async({ {
      name = "A",
      inject = { "config" },
      use_factory = function(config)
        asked = asked + 1
        return { transport = "tcp", host = config.host, port = config.port }
      end,
    } })
    assert.are.equal(0, asked)
    app:start():await()
    assert.are.equal(1, asked)
    assert.is_table(app:inject("A"):status())
  end)

  it("lets factories await, and return Promises and URLs", function()
    app:provide("slow", function()
      perigee.sleep(1):await()
      return "127.0.0.1"
    end)
    app:clients_async({ clients = { {
      name = "A",
      inject = { "slow" },
      use_factory = function(host)
        perigee.sleep(1):await()
        return perigee.async(function() return "tcp://" .. host .. ":3001" end)
      end,
    } } })
    app:start():await()
    assert.is_table(app:inject("A"):status())
  end)

  it("refuses the start when a factory fails or injects what is not there", function()
    app:clients_async({ { name = "A", use_factory = function() error({ code = "NO_CONFIG" }) end } })
    local ok, err = pcall(function() app:start():await() end)
    assert.is_false(ok)
    assert.are.equal("NO_CONFIG", err.code)
    local other = perigee.app()
    other:clients_async({ { name = "A", inject = { "x" }, use_factory = function() end } })
    refused("nothing is registered as 'x' (known: A)", function() other:start():await() end)
  end)

  it("says that a client is not made yet", function()
    app:clients_async({ { name = "A", use_factory = function() return {} end } })
    local ok, err = pcall(function() app:inject("A"):send("x", 1) end)
    assert.is_false(ok)
    assert.are.equal("UNSUPPORTED", err.code)
  end)

  it("refuses what it does not know", function()
    refused("unknown option 'use_class'", app.clients_async, app, { { name = "A", use_class = {} } })
    refused("needs the function use_factory", app.clients_async, app, { { name = "A" } })
  end)
end)

describe("provide and inject", function()
  it("give values back, and run a function once", function()
    local made = 0
    app:provide("seven", 7)
    app:provide("made", function()
      made = made + 1
      return { n = made }
    end)
    assert.are.equal(7, app:inject("seven"))
    assert.are.equal(app:inject("made"), app:inject("made"))
    assert.are.equal(1, made)
  end)

  it("refuse functions that need each other, or themselves", function()
    app:provide("one", function() return app:inject("two") end)
    app:provide("two", function()
      perigee.sleep(1):await()
      return app:inject("three")
    end)
    app:provide("three", function() return app:inject("one") end)
    app:provide("self", function() return app:inject("self") end)
    app:provide("free", function() return app:inject("seven") end)
    app:provide("seven", 7)
    refused("'three' cannot be made, it needs itself: three -> one -> two -> three", app.inject, app, "one")
    refused("'self' cannot be made, it needs itself: self -> self", app.inject, app, "self")
    assert.are.equal(7, app:inject("free"))
  end)

  it("name the known tokens when one is missing", function()
    app:provide("a", 1)
    app:clients({ { name = "B" } })
    refused("nothing is registered as 'C' (known: a, B)", app.inject, app, "C")
  end)
end)

describe("override", function()
  local charge = { cmd = "charge" }
  local billing

  before_each(function()
    app:clients({ { name = "BILLING", port = 1 } })
    billing = app:inject("BILLING")
  end)

  it("reaches handles that were taken before", function()
    app:override("BILLING", { ['{"cmd":"charge"}'] = { id = "inv_1" } })
    assert.are.same({ id = "inv_1" }, billing:send(charge, { amount = 1 }):await())
  end)

  it("finds patterns as text, as table and by route", function()
    app:override("BILLING", {
      plain = 1,
      [{ b = 2, a = 1 }] = function(data) return data.n + 1 end,
    })
    assert.are.equal(1, billing:send("plain", {}):await())
    assert.are.equal(3, billing:send({ a = 1, b = 2 }, { n = 2 }):await())
  end)

  it("runs functions as handlers: they may await, raise, and return Replies", function()
    app:override("BILLING", {
      slow = function()
        perigee.sleep(1):await()
        return "done"
      end,
      bad = function() error({ code = "REFUSED" }) end,
      many = function() return perigee.of(1, 2, 3) end,
      nothing = function() end,
    })
    assert.are.equal("done", billing:send("slow", 1):await())
    assert.are.same({ 1, 2, 3 }, billing:send("many", 1):collect():await())
    assert.are.same({}, billing:send("nothing", 1):collect():await())
    local ok, err = pcall(function() billing:send("bad", 1):await() end)
    assert.is_false(ok)
    assert.are.equal("REFUSED", err.code)
  end)

  it("is cold, and asks again each time", function()
    local asked = 0
    app:override("BILLING", { x = function()
      asked = asked + 1
      return asked
    end })
    local reply = billing:send("x", 1)
    assert.are.equal(0, asked)
    assert.are.equal(1, reply:await())
    assert.are.equal(2, reply:await())
  end)

  it("answers as a peer would: no handler, invalid message, slices decoded", function()
    app:override("BILLING", { x = function(data) return data.n end })
    for code, call in pairs({
      NO_HANDLER = function() return billing:send("y", 1) end,
      INVALID_MESSAGE = function() return billing:send("x", perigee.null) end,
    }) do
      local ok, err = pcall(function() call():await() end)
      assert.is_false(ok)
      assert.are.equal(code, err.code)
    end
    local slice = setmetatable({ '{"n":5}' }, require("perigee.core").slice_mt)
    assert.are.equal(5, billing:send("x", slice):await())
  end)

  it("hears events", function()
    local heard
    app:override("BILLING", { placed = function(data) heard = data.id end })
    billing:emit("placed", { id = 7 }):await()
    billing:emit("nobody", { id = 8 }):await()
    assert.are.equal(7, heard)
  end)

  it("takes any object with send or emit; what it lacks does nothing", function()
    app:override("BILLING", { send = function(_, _, data) return data.n * 2 end })
    assert.are.equal(4, billing:send("x", { n = 2 }):await())
    billing:connect():await()
    billing:emit("x", 1):await()
    assert.are.equal("connected", billing:status().state)
  end)

  it("keeps a factory from being asked", function()
    app:clients_async({ { name = "LATER", use_factory = function() error("asked") end } })
    app:override("LATER", { x = 1 })
    app:start():await()
    assert.are.equal(1, app:inject("LATER"):send("x", 1):await())
  end)

  it("replaces values for those who inject later", function()
    app:provide("config", { port = 1 })
    app:override("config", { port = 2 })
    assert.are.equal(2, app:inject("config").port)
  end)

  it("refuses what nobody registered, and what is no fake", function()
    refused("nothing is registered as 'X'", app.override, app, "X", {})
    refused("a fake is a table or an object", app.override, app, "BILLING", 7)
  end)
end)
