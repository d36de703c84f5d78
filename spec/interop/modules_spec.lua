--- Nest's module side: clients registered by name, made by factories, of a transport of one's own (nest-wire 1.11, 9).

local perigee = require("perigee")
local loop = require("spec.support.loop")
local nest = require("spec.support.nest")
local process = require("spec.support.process")
local tcp = require("spec.support.tcp")
local wire = require("spec.support.wire")

local function failure(awaitable)
  local ok, err = pcall(awaitable.await, awaitable)
  assert.is_false(ok, "it did not fail")
  return err
end

describe("clients of an app", function()
  local service
  local apps

  setup(function() service = nest.service() end)
  teardown(process.stop_all)
  before_each(function() apps = {} end)
  after_each(function()
    for _, app in ipairs(apps) do app:stop():await() end
    loop.finish()
  end)

  local function new_app()
    local app = perigee.app()
    apps[#apps + 1] = app
    return app
  end

  local function to(port, name)
    return { name = name, transport = "tcp", host = "127.0.0.1", port = port }
  end

  describe("registered", function()
    it("MOD-01 are made from a list or { clients = list }, under any token, and dial at their first call", function()
      local server = tcp.listen()
      local token = {} -- what a symbol is in JavaScript
      local app = new_app()
      app:clients({ to(server.port, "BILLING"), to(service.port, token) })
      app:clients({ clients = { to(service.port, "OTHER") }, is_global = true })
      app:start():await()
      loop.run_for(20)
      assert.equal(0, server.accepted)
      assert.equal(1, app:inject(token):send("echo", 1):await())
      assert.equal(2, app:inject("OTHER"):send("echo", 2):await())
      app:inject("BILLING"):emit("ev", 1)
      assert.equal('{"pattern":"ev","data":1}', (server:accept():read_frame()))
    end)

    it("MOD-01 names the token that nobody registered", function()
      local app = new_app()
      app:clients({ to(service.port, "BILLING") })
      local ok, err = pcall(app.inject, app, "BILING")
      assert.is_false(ok)
      assert.truthy(tostring(err):find("BILING", 1, true), tostring(err))
    end)

    it("MOD-02 are made by a factory that is given what it injects and may await", function()
      local app = new_app()
      app:provide("config", { port = service.port })
      app:provide("host", function()
        perigee.sleep(1):await()
        return "127.0.0.1"
      end)
      local made = 0
      app:clients_async({
        {
          name = "BILLING",
          inject = { "config", "host" },
          use_factory = function(config, host)
            perigee.sleep(1):await()
            made = made + 1
            return { transport = "tcp", host = host, port = config.port }
          end,
        },
      })
      local billing = app:inject("BILLING")
      app:start():await()
      assert.equal(1, made)
      local invoice = billing:send({ cmd = "charge" }, { amount = 1999 }):await()
      assert.same({ id = "inv_8a1", amount = 1999, status = "paid" }, invoice)
    end)

    it("MOD-02 fail the start of the app when their factory fails", function()
      local app = perigee.app()
      app:clients_async({ { name = "X", use_factory = function() error("no config") end } })
      local err = failure(app:start())
      assert.truthy(tostring(err):find("no config", 1, true), tostring(err))
    end)

    it("MOD-03 are closed when the app stops", function()
      local server = tcp.listen()
      local app = new_app()
      app:clients({ to(server.port, "BILLING") })
      app:on_start(function() app:inject("BILLING"):connect():await() end)
      app:start():await()
      local peer = server:accept()
      app:stop():await()
      apps = {}
      assert.equal("EOF", select(2, peer:read_end()))
    end)
  end)

  describe("with a transport written in Lua", function()
    --- A transport that keeps what it is given; answers are made through `calls[i].callback`.
    local function recorder()
      local made = { calls = {}, events = {}, connects = 0, closes = 0, ended = 0 }
      made.transport = {
        connect = function() made.connects = made.connects + 1 end,
        publish = function(packet, callback)
          table.insert(made.calls, { packet = packet, callback = callback })
          return function() made.ended = made.ended + 1 end
        end,
        emit = function(packet) table.insert(made.events, packet) end,
        close = function() made.closes = made.closes + 1 end,
      }
      return made, perigee.client({ transport = made.transport })
    end

    it("MOD-04 hand it { pattern, data } without an id, the pattern as it was given", function()
      local made, client = recorder()
      assert.equal(0, made.connects)
      local result = client:send({ b = 1, a = { 2 } }, { x = 1 }):first()
      loop.wait_until(function() return made.calls[1] end, nil, "publish")
      assert.equal(1, made.connects)
      local packet = made.calls[1].packet
      assert.same({ b = 1, a = { 2 } }, packet.pattern)
      assert.same({ x = 1 }, packet.data)
      assert.is_nil(packet.id)
      made.calls[1].callback({ response = "done", isDisposed = true })
      assert.equal("done", result:await())
      client:emit({ ev = 1 }, 5):await()
      assert.same({ { pattern = { ev = 1 }, data = 5 } }, made.events)
      client:close():await()
      assert.equal(1, made.closes)
    end)

    it("MOD-04 take its packets as those of the wire: values, end, error", function()
      local made, client = recorder()
      local function call(...)
        local values, failed, over = {}, nil, false
        client:send("p", 1):subscribe({
          next = function(value) table.insert(values, value) end,
          error = function(err) failed, over = err, true end,
          complete = function() over = true end,
        })
        local count = #made.calls
        loop.wait_until(function() return made.calls[count] end, nil, "publish")
        for _, packet in ipairs({ ... }) do made.calls[count].callback(packet) end
        loop.wait_until(function() return over end, nil, "the end of the call")
        return values, failed
      end
      assert.same({ 1, 2 }, (call({ response = 1 }, { response = 2, isDisposed = true }, { response = 3 })))
      assert.same({ 1 }, (call({ response = 1 }, { isDisposed = true })))
      assert.same({ perigee.null }, (call({ response = perigee.null, isDisposed = true })))
      local values, err = call({ response = 1 }, { err = { message = "m" }, response = 2 })
      assert.same({ 1 }, values)
      assert.equal("REMOTE", err.code)
      assert.same({ message = "m" }, err.err)
      client:close():await()
    end)

    it("MOD-04 call its teardown when the call is cancelled", function()
      local made, client = recorder()
      local subscription = client:send("p", 1):subscribe({})
      loop.wait_until(function() return made.calls[1] end, nil, "publish")
      subscription:unsubscribe()
      loop.wait_until(function() return made.ended == 1 end, nil, "the teardown")
      made.calls[1].callback({ response = "late", isDisposed = true }) -- nothing comes of it
      client:close():await()
    end)

    it("MOD-04 fail the call with what its connect or publish raises", function()
      local client = perigee.client({
        transport = { connect = function() error("no line") end, publish = function() end },
      })
      local err = failure(client:send("p", 1))
      assert.truthy(err.message:find("no line", 1, true), err.message)
      client = perigee.client({
        transport = { connect = function() end, publish = function() error("no paper") end },
      })
      err = failure(client:send("p", 1))
      assert.truthy(err.message:find("no paper", 1, true), err.message)
    end)

    it("MOD-04 refuse events that it has no function for", function()
      local client = perigee.client({ transport = { connect = function() end, publish = function() end } })
      local err = failure(client:emit("p", 1))
      assert.same({ "UNSUPPORTED", "the transport has no function 'emit'" }, { err.code, err.message })
    end)
  end)

  describe("with serialisers", function()
    it("put what serialize makes on the wire and read replies through deserialize", function()
      local server = tcp.listen()
      local client = perigee.client({
        transport = "tcp", host = "127.0.0.1", port = server.port,
        serialize = function(packet)
          return { pattern = packet.pattern, data = { wrapped = packet.data }, id = packet.id }
        end,
        deserialize = function(value) return { id = value.key, response = value.body, isDisposed = true } end,
      })
      local result = client:send("p", 1):first()
      local peer = server:accept()
      local text, id = wire.strip_id((peer:read_frame()))
      assert.equal('{"data":{"wrapped":1},"id":"I","pattern":"p"}', text) -- a table: its keys are sorted
      peer:write(wire.frame(('{"key":"%s","body":[1,2]}'):format(id)))
      assert.same({ 1, 2 }, result:await())
      client:close():await()
    end)

    it("fail the call whose reply deserialize cannot take, at once", function()
      local server = tcp.listen()
      local client = perigee.client({
        transport = "tcp", host = "127.0.0.1", port = server.port, timeout = false,
        deserialize = function(value)
          value.id = nil
          error("not mine")
        end,
      })
      local result = client:send("p", 1):first()
      local peer = server:accept()
      local _, id = wire.strip_id((peer:read_frame()))
      peer:write(wire.frame(('{"id":"%s","response":1,"isDisposed":true}'):format(id)))
      local err = failure(result)
      assert.equal("INVALID_MESSAGE", err.code)
      assert.truthy(err.message:find("^deserialize: spec/interop/modules_spec.lua:%d+: not mine$"), err.message)
      client:close():await()
    end)
  end)

  describe("of handlers", function()
    it("GEN-39 a handler bound to another transport is not there", function()
      local app, port = new_app(), tcp.free_port()
      app:message("both", function() return 1 end)
      app:message("bound", function() return 2 end, { transport = "local" })
      app:message("mine", function() return "tcp" end, { transport = "tcp" })
      app:message("mine", function() return "local" end, { transport = "local" })
      app:listen("tcp://127.0.0.1:" .. port)
      app:listen("local:modules-spec")
      app:start():await()
      local clients = { perigee.client("tcp://127.0.0.1:" .. port), perigee.client("local:modules-spec") }
      for i, name in ipairs({ "tcp", "local" }) do
        assert.equal(1, clients[i]:send("both", 1):await())
        assert.equal(name, clients[i]:send("mine", 1):await())
      end
      assert.equal("NO_HANDLER", failure(clients[1]:send("bound", 1)).code)
      assert.equal(2, clients[2]:send("bound", 1):await())
      for _, client in ipairs(clients) do client:close():await() end
    end)
  end)

  describe("by default", function()
    it("MOD-06 speak TCP to localhost:3000; a transport nobody knows is TCP", function()
      for _, options in ipairs({ {}, { transport = "pigeon" } }) do
        local client = perigee.client(options)
        local address = client:status().hosts[1].address
        assert.truthy(address:find(":3000$"), address)
        client:close():await()
      end
    end)

    it("MOD-06 is refused for a transport Nest has and this version has not", function()
      for _, name in ipairs({ "mqtt", "rmq", "kafka", "grpc" }) do
        local ok, err = pcall(perigee.client, { transport = name })
        assert.is_false(ok)
        assert.equal("UNSUPPORTED", err.code)
      end
    end)
  end)
end)
