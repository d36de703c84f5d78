-- Connections to NATS servers: how they begin, break and come back, and what becomes of messages meanwhile.

local brokers = require("spec.support.broker")
local certs = require("spec.support.certs")
local log = require("perigee.log")
local loop = require("spec.support.loop")
local perigee = require("perigee")

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

    it("ends nothing for a client that resumes: old and new requests get their answers", function()
      local broker = brokers.nats()
      local release
      serve(broker.url, function(app)
        echo(app)
        app:message("slow", function() return perigee.promise(function(resolve) release = resolve end) end)
      end)
      local c = client({ transport = "nats", servers = broker.url, resume = true, timeout = 20000 })
      local old = c:send("slow", {}):first()
      eventually(function() return release end, "the request")
      broker:kill()
      eventually(function() return c:status().state == "disconnected" end, "the loss")
      local new = c:send("echo", 5):first()
      broker:start()
      assert.are.equal(5, new:await())
      release("late")
      assert.are.equal("late", old:await())
      assert.are.equal(0, c:status().pending)
    end)

    it("keeps events that are to be queued, in order, up to max_waiting", function()
      local broker, heard = brokers.nats(), {}
      serve(broker.url, function(app)
        app:event("ev", function(data) heard[#heard + 1] = data end)
      end)
      local c = client({ transport = "nats", servers = broker.url, offline = "queue", max_waiting = 3 })
      c:connect():await()
      broker:kill()
      eventually(function() return c:status().state == "disconnected" end, "the loss")
      local sent = { c:emit("ev", 1), c:emit("ev", 2), c:emit("ev", 3) }
      assert.are.same({ 3, true }, { c:status().waiting, c:status().waiting_bytes > 0 })
      assert.are.equal("OVERLOADED", failure(c:emit("ev", 4)).code)
      eventually(logged("the connection was lost"), "the listener's loss")
      -- The listener must hear them: it is there before they leave.
      broker:start()
      perigee.all(sent):await()
      c:emit("ev", 5):await()
      eventually(function() return heard[#heard] == 5 end, "the events")
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

  describe("a cluster", function()
    it("tells its other servers, which are dialled when one goes", function()
      local cluster = brokers.nats_cluster()
      local c = client(cluster.urls[1])
      c:connect():await()
      eventually(function() return #c:status().hosts >= 3 end, "the others")
      serve(cluster.urls[2], echo)
      cluster.servers[1]:kill()
      eventually(function() return c:status().reconnects == 1 end, "the reconnect")
      assert.are.equal(3, c:send("echo", 3):retry({ attempts = 20, backoff = 50, on = { "NO_HANDLER" } }):await())
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
      local tcp = require("spec.support.tcp")
      local port = tcp.listen and tcp.listen(function() end) or nil
      if not port then return end
    end)

    it("waits for an emit NAT-01", function()
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
      ["user and password NAT-17"] = { { user = "u", pass = "p w" }, { user = "u", pass = "p w" }, { user = "u", pass = "x" } },
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

    it("is told by an nkey, or by a creds file", function()
      local credentials = brokers.nats_credentials()
      local broker = brokers.nats({ nkey = credentials.nkey or credentials.public })
      assert.is_truthy(broker)
    end)

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
      local err = failure(client({ transport = "nats", servers = url, tls = { ca = files.stranger_ca } }):send("echo", 1))
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
      assert.are.equal("NO_HANDLER", failure(client({ transport = "nats", servers = url, tls = good }):send("x", 1)).code)
      local bad = client({ transport = "nats", servers = url, tls = { ca = files.ca } })
      assert.are.equal("CONNECT_FAILED", failure(bad:send("x", 1)).code)
    end)
  end)

  describe("a drain", function()
    it("NAT-13 takes no more, ends what runs, and answers it", function()
      local broker, release = brokers.nats(), nil
      local app = serve(broker.url, function(app)
        app:message("slow", function() return perigee.promise(function(resolve) release = resolve end) end)
      end)
      local c = client(broker.url)
      local running = c:send("slow", {}):first()
      eventually(function() return release end, "the request")
      local stopped = app:stop()
      local refused
      repeat
        refused = perigee.settled({ c:send("slow", {}, { timeout = 100 }) }):await()[1].reason
      until refused.code == "NO_HANDLER"
      release("done")
      assert.are.equal("done", running:await())
      stopped:await()
    end)
  end)

  describe("subscriptions", function()
    it("are replaced as a whole: what stays is not touched, the rest comes and goes", function()
      local core = require("perigee.core")
      local broker, heard, state = brokers.nats(), {}, nil
      local server = core.server({
        transport = "nats", hosts = { { host = "127.0.0.1", port = broker.port } }, max_connections = 1,
      }, {
        on_message = function(_, _, data, _, index, channel) heard[#heard + 1] = index .. ":" .. channel .. ":" .. data end,
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
