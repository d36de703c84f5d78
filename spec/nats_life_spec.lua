-- Connections to NATS servers: how they begin, break and come back, and what becomes of messages meanwhile.

local brokers = require("spec.support.broker")
local certs = require("spec.support.certs")
local log = require("perigee.log")
local loop = require("spec.support.loop")
local nats = require("spec.support.nats")
local perigee = require("perigee")
local tcp = require("spec.support.tcp")

local opened, lines = {}, {}

local function keep(object)
  opened[#opened + 1] = object
  return object
end

local function client(options) return keep(perigee.client(options)) end

local function serve(url, declare, opts)
  local app = perigee.app()
  declare(app)
  app:listen(url, opts)
  app:start():await()
  return keep(app)
end

local function failure(promise)
  local ok, err = pcall(function() return promise:await() end)
  assert.is_false(ok)
  return err
end

local function eventually(pred, what) return loop.wait_until(pred, 10000, what) end

local function logged(text)
  return function()
    for _, line in ipairs(lines) do
      if line:find(text, 1, true) then return line end
    end
  end
end

local function echo(app)
  app:message("echo", function(data) return data end)
end

describe("nats", function()
  before_each(function()
    lines = {}
    log.set_sink(function(line) lines[#lines + 1] = line end)
  end)

  after_each(function()
    for i = #opened, 1, -1 do
      local object = opened[i]
      ;(object.stop and object:stop({ drain_timeout = 100 }) or object:close()):await()
      opened[i] = nil
    end
    brokers.stop_all()
    loop.finish()
    log.set_sink()
  end)

  teardown(certs.clean)

  describe("a lost server", function()
    it("fails what is in flight at once; client and listener come back by themselves NAT-14", function()
      local broker = brokers.nats()
      serve(broker.url, function(app)
        echo(app)
        app:message("never", function() return perigee.promise(function() end) end)
      end)
      local c, statuses = client(broker.url), {}
      c:on("status", function(status) statuses[#statuses + 1] = status end)
      c:send("echo", 1):await()
      local pending = perigee.settled({ c:send("never", {}) })
      broker:kill()
      assert.are.equal("CONNECTION_CLOSED", pending:await()[1].reason.code)
      broker:start()
      eventually(function() return statuses[#statuses] == "connected" end, "the client")
      eventually(logged("connected again"), "the listener")
      assert.are.same({ "connected", "disconnected", "reconnecting", "connected" }, statuses)
      assert.are.equal(2, c:send("echo", 2):await())
      assert.are.equal(1, c:status().reconnects)
    end)

    it("refuses calls meanwhile, in Nest's words NAT-15", function()
      local broker = brokers.nats()
      local c, errors = client(broker.url), 0
      c:connect():await()
      c:on("error", function() errors = errors + 1 end)
      broker:kill()
      eventually(function() return errors > 0 end, "a failed dial")
      local err = failure(c:send("echo", 1))
      assert.are.equal("CONNECT_FAILED", err.code)
      assert.is_truthy(err.message:find("Connection lost. Trying to reconnect... (connect ECONNREFUSED", 1, true),
        err.message)
      assert.are.equal("CONNECT_FAILED", failure(c:emit("ev", 1)).code)
    end)

    it("ends nothing for a client that resumes: old and new requests get their answers RED-15", function()
      local server = tcp.listen()
      local c = client({ transport = "nats", servers = "127.0.0.1:" .. server.port, resume = true })
      local old = c:send("old", {}):first()
      local peer = nats.accept(server)
      local asked = peer:read_published()
      server:close()
      peer:close()
      eventually(function() return c:status().state == "disconnected" end, "the loss")
      local new = c:send("new", {}):first()
      assert.are.same({ 2, 1 }, { c:status().pending, c:status().waiting })
      peer = nats.accept(tcp.listen(server.port))
      local also = peer:read_published()
      assert.are.equal(1, peer:route(asked.reply_to, '{"response":"old","isDisposed":true}'))
      peer:route(also.reply_to, '{"response":"new","isDisposed":true}')
      assert.are.same({ "old", "new" }, { old:await(), new:await() })
      assert.are.same({ 0, 1 }, { c:status().pending, c:status().reconnects })
    end)

    it("times out what resumes in vain", function()
      local server = tcp.listen()
      local c = client({ transport = "nats", servers = "127.0.0.1:" .. server.port, resume = true })
      local old = perigee.settled({ c:send("old", {}, { timeout = 200 }) })
      local peer = nats.accept(server)
      peer:read_published()
      server:close()
      peer:close()
      local new = perigee.settled({ c:send("new", {}, { timeout = 200 }) })
      assert.are.same({ "TIMEOUT", "TIMEOUT" }, { old:await()[1].reason.code, new:await()[1].reason.code })
      assert.are.same({ 0, 0 }, { c:status().pending, c:status().waiting })
    end)

    it("keeps events that are to be queued, in order, with their headers, up to max_waiting", function()
      local port = tcp.free_port()
      local c = client({ transport = "nats", servers = "127.0.0.1:" .. port, offline = "queue", max_waiting = 3 })
      local sent = { c:emit("ev", 1), c:emit("ev", 2, { headers = { a = "x", b = { "y", "z" } } }), c:emit("ev", 3) }
      assert.are.same({ 3, true }, { c:status().waiting, c:status().waiting_bytes > 0 })
      assert.are.equal("OVERLOADED", failure(c:emit("ev", 4)).code)
      local failed = false
      c:on("error", function() failed = true end)
      eventually(function() return failed end, "a dial in vain")
      local peer, heard = nats.accept(tcp.listen(port)), {}
      for i = 1, 3 do heard[i] = peer:read_published() end
      perigee.all(sent):await()
      for i = 1, 3 do assert.are.equal(('{"pattern":"ev","data":%d}'):format(i), heard[i].payload) end
      assert.are.equal("NATS/1.0\r\na: x\r\nb: y\r\nb: z\r\n\r\n", heard[2].headers)
      assert.are.same({ 0, 0 }, { c:status().waiting, c:status().waiting_bytes })
    end)

    it("ends what is queued when the client closes", function()
      local c = client({ transport = "nats", servers = "127.0.0.1:" .. tcp.free_port(), offline = "queue" })
      local sent = perigee.settled({ c:emit("ev", 1) })
      c:close():await()
      assert.are.equal("CONNECTION_CLOSED", sent:await()[1].reason.code)
      assert.are.equal(0, c:status().waiting)
    end)

    it("drops events that are to be dropped, and counts them", function()
      local broker = brokers.nats()
      local c = client({ transport = "nats", servers = broker.url, offline = "drop" })
      c:emit("ev", 0):await()
      broker:kill()
      eventually(function() return c:status().state == "disconnected" end, "the loss")
      c:emit("ev", 1):await()
      c:emit("ev", 2):await()
      assert.are.equal(2, c:status().dropped_events)
    end)

    it("makes way for the next address", function()
      local first, second = brokers.nats(), brokers.nats()
      local both = ("nats://127.0.0.1:%d,127.0.0.1:%d"):format(first.port, second.port)
      serve(both, echo)
      local c = client(both)
      assert.are.equal(1, c:send("echo", 1):await())
      first:kill()
      eventually(logged("connected again"), "the listener")
      eventually(function() return c:status().state == "connected" end, "the client")
      assert.are.equal(2, c:send("echo", 2):await())
      assert.are.equal("connected", c:status().hosts[2].state)
    end)

    it("that says it will go is left before: what is new goes elsewhere, what is asked is answered", function()
      local first, second = tcp.listen(), tcp.listen()
      local c = client(("nats://127.0.0.1:%d"):format(first.port))
      local old = c:send("old", {}):first()
      local peer = nats.accept(first)
      local asked = peer:read_published()
      peer.peer:write(('INFO {"ldm":true,"connect_urls":["127.0.0.1:%d"]}\r\n'):format(second.port))
      local other = nats.accept(second)
      other:flush() -- answers the client's PING
      eventually(function() return c:status().hosts[2].state == "connected" end, "the other")
      local new = c:send("new", {}):first()
      other:route(other:read_published().reply_to, '{"response":"new","isDisposed":true}')
      assert.are.equal("new", new:await())
      peer:route(asked.reply_to, '{"response":"old","isDisposed":true}')
      assert.are.equal("old", old:await())
      peer:close()
      eventually(function() return c:status().hosts[1].state ~= "connected" end, "the end of the first")
      assert.are.equal("connected", c:status().state)
    end)

    it("that has stopped in its tracks is found by pings", function()
      local broker = brokers.nats()
      local c = client({ transport = "nats", servers = broker.url, ping_interval = 50, max_ping_out = 2 })
      c:connect():await()
      local pending = perigee.settled({ c:send("$SYS.nobody", {}):catch(function() end), c:connect() })
      pending:await()
      broker:pause()
      eventually(function() return c:status().state == "disconnected" end, "the loss")
      broker:resume()
      eventually(function() return c:status().state == "connected" end, "the return")
    end)
  end)

  describe("a first connection", function()
    it("that fails ends the call, and the next call dials anew NAT-16", function()
      local broker = brokers.nats()
      broker:kill()
      local c = client(broker.url)
      assert.are.equal("CONNECT_FAILED", failure(c:send("echo", 1)).code)
      broker:start()
      assert.are.equal("NO_HANDLER", failure(c:send("echo", 1)).code)
    end)

    it("that fails refuses the start of a listener", function()
      local broker = brokers.nats()
      broker:kill()
      local app = perigee.app()
      echo(app)
      app:listen(broker.url)
      local err = failure(app:start())
      assert.are.equal("CONNECT_FAILED", err.code)
      assert.is_truthy(err.message:find("ECONNREFUSED", 1, true), err.message)
    end)

    it("to something that says nothing ends in time", function()
      local server = tcp.listen()
      local c = client({ transport = "nats", servers = "127.0.0.1:" .. server.port, connect_timeout = 100 })
      local err = failure(c:send("x", 1))
      assert.are.same({ "CONNECT_FAILED", "the NATS server does not answer" }, { err.code, err.message })
    end)

    it("to something else than NATS fails", function()
      local server = tcp.listen()
      local c = client("nats://127.0.0.1:" .. server.port)
      local pending = perigee.settled({ c:send("x", 1) })
      server:accept():write("HTTP/1.1 400 Bad Request\r\n\r\n")
      local reason = pending:await()[1].reason
      assert.are.equal("CONNECT_FAILED", reason.code)
    end)

    it("waits for an emit, also of a client that drops", function()
      local broker, heard = brokers.nats(), {}
      serve(broker.url, function(app)
        app:event("ev", function(data) heard[#heard + 1] = data end)
      end)
      client({ transport = "nats", servers = broker.url, offline = "drop" }):emit("ev", 1):await()
      eventually(function() return #heard == 1 end, "the event")
    end)
  end)

  describe("who may", function()
    for name, case in pairs({
      ["user and password NAT-17"] = {
        { user = "u", pass = "p w" }, { user = "u", pass = "p w" }, { user = "u", pass = "x" },
      },
      ["token NAT-17"] = { { token = "t0ken" }, { token = "t0ken" }, { token = "other" } },
    }) do
      it("is told by " .. name, function()
        local broker = brokers.nats(case[1])
        local address = { transport = "nats", servers = "127.0.0.1:" .. broker.port }
        for option, value in pairs(case[2]) do address[option] = value end
        assert.are.equal("NO_HANDLER", failure(client(address):send("x", 1)).code)
        for option, value in pairs(case[3]) do address[option] = value end
        local err = failure(client(address):send("x", 1))
        assert.are.same({ "CONNECT_FAILED", "Authorization Violation" }, { err.code, err.message })
        local app = perigee.app()
        echo(app)
        app:listen("nats://127.0.0.1:" .. broker.port, case[3])
        assert.are.equal("Authorization Violation", failure(app:start()).message)
      end)
    end

    it("may not publish: only that call fails", function()
      local broker = brokers.nats({ config = {
        'authorization { users: [ { user: u, password: p, permissions: { publish: { deny: ["secret"] } } } ] }',
      } })
      serve(("nats://u:p@127.0.0.1:%d"):format(broker.port), echo)
      local c = client(("nats://u:p@127.0.0.1:%d"):format(broker.port))
      local err = failure(c:send("secret", {}))
      assert.are.equal("REMOTE", err.code)
      assert.is_truthy(err.message:find('Permissions Violation for Publish to "secret"', 1, true), err.message)
      assert.are.equal(1, c:send("echo", 1):await())
    end)

    it("may not subscribe: the listener does not start", function()
      local broker = brokers.nats({ config = {
        'authorization { users: [ { user: u, password: p, permissions: { subscribe: { deny: ["echo"] } } } ] }',
      } })
      local app = perigee.app()
      echo(app)
      app:listen(("nats://u:p@127.0.0.1:%d"):format(broker.port))
      assert.is_truthy(failure(app:start()).message:find('Permissions Violation for Subscription to "echo"', 1, true))
    end)
  end)

  describe("TLS", function()
    it("starts after INFO, with the name checked", function()
      local broker = brokers.nats({ tls = true })
      local url, files = "nats://127.0.0.1:" .. broker.port, certs.paths()
      serve(url, echo, { tls = { ca = files.ca } })
      local c = client({ transport = "nats", servers = url, tls = { ca = files.ca } })
      assert.are.equal(("x"):rep(300000), c:send("echo", ("x"):rep(300000)):await())
      local other = client({ transport = "nats", servers = url, tls = { ca = files.stranger_ca } })
      local err = failure(other:send("echo", 1))
      assert.are.equal("CONNECT_FAILED", err.code)
      assert.is_truthy(failure(client(url):send("echo", 1)).message:find("requires TLS", 1, true))
    end)

    it("is never done without where it was asked for", function()
      local broker = brokers.nats()
      local c = client({ transport = "nats", servers = "127.0.0.1:" .. broker.port, tls = true })
      assert.is_truthy(failure(c:send("echo", 1)).message:find("offers no TLS", 1, true))
    end)

    it("shows a certificate where the server wants one", function()
      local broker, files = brokers.nats({ tls = "mutual" }), certs.paths()
      local url = "nats://127.0.0.1:" .. broker.port
      local good = { ca = files.ca, cert = files.client_cert, key = files.client_key }
      local let_in = client({ transport = "nats", servers = url, tls = good })
      assert.are.equal("NO_HANDLER", failure(let_in:send("x", 1)).code)
      local bad = client({ transport = "nats", servers = url, tls = { ca = files.ca } })
      assert.are.equal("CONNECT_FAILED", failure(bad:send("x", 1)).code)
    end)
  end)

  describe("subscriptions", function()
    it("are replaced as a whole: what stays is not touched, the rest comes and goes", function()
      local core = require("perigee.core")
      local broker, heard, state = brokers.nats(), {}, nil
      local server
      server = core.server({
        transport = "nats", hosts = { { host = "127.0.0.1", port = broker.port } }, max_connections = 1,
      }, {
        on_message = function(_, _, _, _, index, channel)
          heard[#heard + 1] = index .. ":" .. channel .. ":" .. server:data()
        end,
        on_gone = print, on_fault = print, on_close = function() state = "closed" end,
        on_status = function(status) state = status end,
      })
      assert.is_true(server:subscribe({ { route = "a" }, { route = "b" } }))
      eventually(function() return state == "ready" end, "the server")
      local ok, code, message = server:subscribe({ { route = "b" }, { route = "c d" } })
      assert.are.same({ "INVALID_OPTION", "illegal subject: 'c d'" }, { not ok and code, message })
      assert.is_true(server:subscribe({ { route = "b" }, { route = "c" } }))
      local c = client(broker.url)
      for _, pattern in ipairs({ "a", "b", "c" }) do c:emit(pattern, 1):await() end
      eventually(function() return #heard == 2 end, "two events")
      assert.are.same({ "1:b:1", "2:c:1" }, heard)
      broker:restart()
      eventually(function() return state == "reconnected" end, "the server")
      eventually(function() return c:status().state == "connected" end, "the client")
      for _, pattern in ipairs({ "a", "b", "c" }) do c:emit(pattern, 2):await() end
      eventually(function() return #heard == 4 end, "two more")
      assert.are.same({ "1:b:2", "2:c:2" }, { heard[3], heard[4] })
      server:close()
      eventually(function() return state == "closed" end, "the end")
    end)
  end)
end)
