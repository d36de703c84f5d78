-- The in-process transport: what holds on TCP holds here, without a socket.

local log = require("perigee.log")
local perigee = require("perigee")
local loop = require("spec.support.loop")

local apps, clients

before_each(function()
  apps, clients = {}, {}
  log.set_sink(function() end)
end)

after_each(function()
  for _, client in ipairs(clients) do client:close():await() end
  for _, app in ipairs(apps) do app:stop({ drain_timeout = 50 }):await() end
  loop.finish()
  log.set_sink()
end)

local function serve(name, setup)
  local app = perigee.app()
  apps[#apps + 1] = app
  setup(app)
  app:listen("local:" .. name)
  app:start():await()
  return app
end

local function connect(name)
  local client = perigee.client("local:" .. name)
  clients[#clients + 1] = client
  return client
end

local function failure(waited)
  local ok, err = pcall(waited.await, waited)
  assert.is_false(ok)
  return err
end

describe("the local transport", function()
  it("answers with one value, many, none, and errors, as TCP does", function()
    serve("orders", function(app)
      app:message("echo", function(data) return data end)
      app:message("many", function() return perigee.of(1, 2, 3) end)
      app:message("none", function() end)
      app:message("fails", function() error({ code = 402 }) end)
      app:message("faulty", function() error("secret") end)
    end)
    local client = connect("orders")
    assert.same({ a = { 1, perigee.null } }, client:send("echo", { a = { 1, perigee.null } }):await())
    assert.same({ 1, 2, 3 }, client:send("many", 1):collect():await())
    assert.same({}, client:send("none", 1):collect():await())
    assert.same({ code = 402 }, failure(client:send("fails", 1)).err)
    assert.equal("Internal server error", failure(client:send("faulty", 1)).message)
    assert.equal("NO_HANDLER", failure(client:send("nobody", 1)).code)
  end)

  it("delivers copies, not the sender's tables", function()
    local got
    serve("copies", function(app) app:event("note", function(data) got = data end) end)
    local note = { text = "a" }
    connect("copies"):emit("note", note):await()
    note.text = "b"
    loop.wait_until(function() return got end)
    assert.equal("a", got.text)
  end)

  it("gives the context of a message: pattern, transport, metadata, peer", function()
    local ctx
    serve("ctx", function(app) app:message({ cmd = "x" }, function(_, given) ctx = given return 1 end) end)
    connect("ctx"):send({ cmd = "x" }, 1, { metadata = { trace = "t" } }):await()
    assert.equal("local", ctx.transport)
    assert.same({ trace = "t" }, ctx.metadata)
    assert.equal('{"cmd":"x"}', ctx.pattern) -- as Nest's getPattern
    assert.equal("1", tostring(ctx.raw))
  end)

  it("fails with CONNECT_FAILED where nobody serves, and works once somebody does", function()
    local client = connect("late")
    local err = failure(client:send("x", 1))
    assert.equal("CONNECT_FAILED: connect ENOENT local:late", tostring(err))
    serve("late", function(app) app:message("x", function() return "here" end) end)
    assert.equal("here", client:send("x", 1):await())
  end)

  it("refuses a second server of one name with EADDRINUSE", function()
    serve("one", function(app) app:message("x", function() end) end)
    local app = perigee.app()
    app:listen("local:one")
    local err = failure(app:start())
    assert.equal("LISTEN_FAILED: listen EADDRINUSE local:one", tostring(err))
  end)

  it("fails pending calls with CONNECTION_CLOSED when the server goes", function()
    local app = serve("goes", function(it)
      it:message("never", function() return perigee.promise(function() end) end)
    end)
    local client = connect("goes")
    local pending = client:send("never", 1):last()
    loop.turn()
    loop.turn()
    app:stop({ drain_timeout = 10 }):await()
    assert.equal("CONNECTION_CLOSED", failure(pending).code)
  end)

  it("cancels the handlers of a client that goes", function()
    local cancelled, started
    serve("watch", function(app)
      app:message("endless", function()
        return perigee.reply(function(sink)
          started = true
          sink:next(1)
          return function() cancelled = true end
        end)
      end)
    end)
    local client = connect("watch")
    client:send("endless", 1):subscribe({ error = function() end })
    loop.wait_until(function() return started end)
    client:close():await()
    loop.wait_until(function() return cancelled end)
  end)

  it("lets a script talk to itself, thousands of times at once", function()
    serve("self", function(app) app:message("inc", function(n) return n + 1 end) end)
    local client, calls = connect("self"), {}
    for i = 1, 1000 do calls[i] = client:send("inc", i) end
    local values = perigee.all(calls):await()
    for i = 1, 1000 do assert(values[i] == i + 1) end
  end)
end)
