--- The Redis transport, against a real server where one will do, and a played one where the bytes matter.

local perigee = require("perigee")
local log = require("perigee.log")
local options = require("perigee.options")
local broker = require("spec.support.broker")
local certs = require("spec.support.certs")
local loop = require("spec.support.loop")
local process = require("spec.support.process")
local program = require("spec.support.perigee")
local resp = require("spec.support.resp")

local function failure(awaitable)
  local ok, err = pcall(awaitable.await, awaitable)
  assert.is_false(ok, "it did not fail")
  assert.equal("table", type(err), tostring(err))
  return err
end

--- Subscribes and writes down what comes.
local function watch(reply)
  local seen = { values = {}, over = false }
  seen.subscription = reply:subscribe({
    next = function(value) seen.values[#seen.values + 1] = value end,
    error = function(err) seen.error, seen.over = err, true end,
    complete = function() seen.over = true end,
  })
  return seen
end

local function finish(seen, ms)
  loop.wait_until(function() return seen.over end, ms, "the end of a Reply")
  return seen
end

local function id_of(payload) return payload:match('"id":"(%x+)"') end

describe("a client over Redis", function()
  local closing

  before_each(function() closing = {} end)
  after_each(function()
    for _, client in ipairs(closing) do client:close():await() end
    loop.finish()
  end)
  teardown(function()
    process.stop_all()
    broker.stop_all()
    certs.clean()
  end)

  local function client_of(port, more)
    local given = { transport = "redis", host = "127.0.0.1", port = port }
    for name, value in pairs(more or {}) do given[name] = value end
    local client = perigee.client(given)
    closing[#closing + 1] = client
    return client
  end

  describe("of a server that a spec plays", function()
    local server
    before_each(function() server = resp.listen() end)

    --- A client and its logged-in connections.
    local function pair(more)
      local client = client_of(server.port, more)
      local connected = client:connect()
      local pub, sub = server:pair()
      connected:await()
      return client, pub, sub
    end

    it("RED-01 subscribes ROUTE.reply, and publishes after the acknowledgement only", function()
      local client, pub, sub = pair()
      local seen = watch(client:send({ z = 1, a = 2 }, { x = 1 }))
      local command = sub:command()
      assert.same({ "SUBSCRIBE", '{"a":2,"z":1}.reply' }, command)
      loop.run_for(30)
      assert.is_true(pub:is_quiet())
      sub:acknowledge(command)
      local publish = pub:command()
      assert.equal("PUBLISH", publish[1])
      assert.equal('{"a":2,"z":1}', publish[2])
      local id = id_of(publish[3])
      assert.equal(('{"pattern":{"a":2,"z":1},"data":{"x":1},"id":"%s"}'):format(id), publish[3])
      pub:write(":1\r\n")
      sub:message('{"a":2,"z":1}.reply', ('{"response":7,"isDisposed":true,"id":"%s"}'):format(id))
      assert.same({ 7 }, finish(seen).values)
      assert.same({ "UNSUBSCRIBE", '{"a":2,"z":1}.reply' }, sub:command())
    end)

    it("RED-02 publishes the second call of a pattern without a new subscribe", function()
      local client, pub, sub = pair()
      local first = watch(client:send("p", 1))
      sub:acknowledge(sub:command())
      local id = id_of(pub:command()[3])
      local second = watch(client:send("p", 2))
      local other = id_of(pub:command()[3])
      assert.is_true(sub:is_quiet())
      assert.are_not.equal(id, other)
      sub:message("p.reply", ('{"response":2,"isDisposed":true,"id":"%s"}'):format(other))
      assert.same({ 2 }, finish(second).values)
      assert.is_false(first.over)
      assert.is_true(sub:is_quiet())
      sub:message("p.reply", ('{"response":1,"isDisposed":true,"id":"%s"}'):format(id))
      assert.same({ 1 }, finish(first).values)
      assert.same({ "UNSUBSCRIBE", "p.reply" }, sub:command())
    end)

    it("subscribes once for calls that start together", function()
      local client, pub, sub = pair()
      local seen = { watch(client:send("p", 1)), watch(client:send("p", 2)) }
      local command = sub:command()
      loop.run_for(20)
      assert.is_true(sub:is_quiet())
      sub:acknowledge(command)
      for i = 1, 2 do
        local id = id_of(pub:command()[3])
        sub:message("p.reply", ('{"response":%d,"isDisposed":true,"id":"%s"}'):format(i, id))
        assert.same({ i }, finish(seen[i]).values)
      end
    end)

    it("goes on with the subscription when one call follows another in the same turn", function()
      local client, pub, sub = pair()
      local both = perigee.async(function()
        return client:send("p", 1):await() + client:send("p", 2):await()
      end)
      sub:acknowledge(sub:command())
      for i = 1, 2 do
        local id = id_of(pub:command()[3])
        sub:message("p.reply", ('{"response":%d,"isDisposed":true,"id":"%s"}'):format(i, id))
      end
      assert.equal(3, both:await())
      assert.same({ "UNSUBSCRIBE", "p.reply" }, sub:command())
    end)

    it("RED-03 unsubscribes when the last call is cancelled", function()
      local client, pub, sub = pair()
      local seen = watch(client:send("p", 1))
      sub:acknowledge(sub:command())
      local id = id_of(pub:command()[3])
      seen.subscription:unsubscribe()
      assert.same({ "UNSUBSCRIBE", "p.reply" }, sub:command())
      sub:message("p.reply", ('{"response":1,"isDisposed":true,"id":"%s"}'):format(id))
      loop.wait_until(function() return client:status().late_replies == 1 end)
      assert.same({}, seen.values)
    end)

    it("never publishes a call cancelled before the acknowledgement, and leaves nothing behind", function()
      local client, pub, sub = pair()
      local seen = watch(client:send("p", 1))
      local command = sub:command()
      seen.subscription:unsubscribe()
      assert.equal(0, client:status().pending)
      sub:acknowledge(command)
      assert.same({ "UNSUBSCRIBE", "p.reply" }, sub:acknowledge(sub:command()))
      assert.is_true(pub:is_quiet())
      local again = watch(client:send("p", 2))
      sub:acknowledge(sub:command())
      pub:command()
      again.subscription:unsubscribe()
    end)

    it("fails the calls of a channel that Redis refuses, and asks anew for the next", function()
      local client, pub, sub = pair()
      local seen = watch(client:send("p", 1))
      sub:command()
      sub:write("-NOPERM No permissions to access a channel\r\n")
      finish(seen)
      assert.equal("REMOTE", seen.error.code)
      assert.equal("NOPERM No permissions to access a channel", seen.error.err)
      local again = watch(client:send("p", 1))
      sub:acknowledge(sub:command())
      pub:command()
      pub:write("-NOPERM no\r\n")
      assert.equal("NOPERM no", finish(again).error.err)
    end)

    it("RED-05 has emitted when Redis has answered", function()
      local client, pub = pair()
      local emitted = client:emit({ z = 1, a = { q = "r" } }, { a = 1 })
      local over = false
      emitted:next(function() over = true end)
      assert.same({ "PUBLISH", '{"a":{"q":"r"},"z":1}', '{"pattern":{"a":{"q":"r"},"z":1},"data":{"a":1}}' },
        pub:command())
      loop.run_for(20)
      assert.is_false(over)
      pub:write(":0\r\n")
      emitted:await()
    end)

    it("fails an event that Redis refuses", function()
      local client, pub = pair()
      local emitted = client:emit("p", 1)
      pub:command()
      pub:write("-NOPERM no\r\n")
      local err = failure(emitted)
      assert.equal("REMOTE", err.code)
      assert.equal("NOPERM no", err.err)
    end)

    it("takes NO_HANDLER from a PUBLISH that nobody received, when asked to", function()
      local client, pub, sub = pair({ no_responders = true })
      local seen = watch(client:send("nosuch", 1))
      sub:acknowledge(sub:command())
      pub:command()
      pub:write(":0\r\n")
      finish(seen)
      assert.equal("NO_HANDLER", seen.error.code)
      assert.equal('Empty response. There are no subscribers listening to that message ("nosuch")', seen.error.message)
      assert.same({ "UNSUBSCRIBE", "nosuch.reply" }, sub:command())
    end)

    it("waits for the timeout when nobody receives, as Nest does", function()
      local client, pub, sub = pair()
      local seen = watch(client:send("nosuch", 1, { timeout = 400 }))
      sub:acknowledge(sub:command())
      pub:command()
      pub:write(":0\r\n")
      assert.equal("TIMEOUT", finish(seen).error.code)
      assert.same({ "UNSUBSCRIBE", "nosuch.reply" }, sub:command())
    end)

    it("RED-04 RED-19 drops replies of others and what is not JSON, and counts them", function()
      local client, pub, sub = pair()
      local seen = watch(client:send("p", 1))
      sub:acknowledge(sub:command())
      local id = id_of(pub:command()[3])
      sub:message("p.reply", '{"response":1,"isDisposed":true,"id":"00000ffffffffffffffff"}')
      sub:message("p.reply", "not JSON")
      sub:message("p.reply", '"\255"')
      sub:message("p.reply", ('{"x":1,"id":"%s"}'):format(id))
      assert.same({ { x = 1, id = id } }, finish(seen).values)
      assert.equal(3, client:status().late_replies)
    end)

    it("logs in with user, password, db and name on both connections", function()
      local client = client_of(server.port, { username = "u", password = "p w", db = 3, connection_name = "me" })
      local connected = client:connect()
      local pub, sub = server:accept(), server:accept()
      local expected = { "AUTH u p w", "SELECT 3", "CLIENT SETNAME me" }
      assert.same(expected, pub:login())
      assert.same(expected, sub:login())
      connected:await()
      assert.equal("connected", client:status().state)
    end)

    it("fails to connect with the server's words", function()
      for said, expected in pairs({
        ["-LOADING Redis is loading the dataset\r\n"] = "PING: LOADING Redis is loading the dataset",
        ["-NOAUTH Authentication required.\r\n"] = "PING: NOAUTH Authentication required.",
        ["HTTP/1.1 400 Bad Request\r\n"] = 'Protocol error, got "H" as reply type byte',
      }) do
        local fresh = resp.listen()
        local client = client_of(fresh.port)
        local connected = client:connect()
        fresh:accept():write(said)
        local err = failure(connected)
        assert.equal("CONNECT_FAILED", err.code)
        assert.equal(expected, err.message)
        client:close():await()
      end
    end)

    it("does not wait longer than the connect timeout for a silent server", function()
      local err = failure(client_of(server.port, { connect_timeout = 60 }):connect())
      assert.equal("CONNECT_FAILED", err.code)
      assert.equal("Redis did not answer the login in time", err.message)
    end)

    it("finds a dead peer by PING on either connection, and comes back", function()
      for _, silent in ipairs({ "pub", "sub" }) do
        local client = client_of(server.port, { ping_interval = 40 })
        local connected = client:connect()
        local conns = {}
        conns.pub, conns.sub = server:pair()
        connected:await()
        local lost, alive = false, true
        client:on("disconnect", function() lost = true end)
        local answering = perigee.spawn(function()
          while alive do
            perigee.sleep(5):await()
            for name, conn in pairs(conns) do
              if name ~= silent and not conn:is_quiet() then
                assert.same({ "PING" }, conn:command())
                conn:write(name == "sub" and "*2\r\n$4\r\npong\r\n$0\r\n\r\n" or "+PONG\r\n")
              end
            end
          end
        end)
        loop.wait_until(function() return lost end, 2000, "the loss")
        alive = false
        answering:await()
        server:pair()
        loop.wait_until(function() return client:status().state == "connected" end)
        client:close():await()
      end
    end)

    it("treats READONLY, LOADING, NOAUTH of a command as a lost connection", function()
      local client, pub = pair()
      local emitted = client:emit("p", 1)
      pub:command()
      pub:write("-READONLY You can't write against a read only replica.\r\n")
      local err = failure(emitted)
      assert.equal("CONNECTION_CLOSED", err.code)
      assert.equal("READONLY You can't write against a read only replica.", err.message)
      server:pair()
      loop.wait_until(function() return client:status().state == "connected" end)
    end)

    it("breaks off on a reply above the limit, at its length", function()
      local client, pub, sub = pair({ max_buffer_size = 1000 })
      local seen = watch(client:send("p", 1))
      sub:acknowledge(sub:command())
      pub:command()
      sub:write("*3\r\n$7\r\nmessage\r\n$7\r\np.reply\r\n$999999999\r\n")
      assert.equal("FRAME_TOO_LARGE", finish(seen).error.code)
    end)
  end)

  describe("of a real server", function()
    local redis
    setup(function() redis = broker.redis() end)
    teardown(function() redis:stop() end)

    --- Answers requests on a channel as a service of another make would: all it reads, in one write.
    local function answer(port, channel, of)
      local sub, pub = resp.connect(port), resp.connect(port)
      sub:call("SUBSCRIBE", channel)
      local service = { sub = sub, pub = pub, count = 0 }
      service.work = perigee.spawn(function()
        while not service.over do
          perigee.sleep(1):await()
          while not sub:is_quiet() do
            local payload = sub:read()[3]
            service.count = service.count + 1
            pub:send("PUBLISH", channel .. ".reply", of(payload))
          end
        end
      end)
      function service.stop()
        service.over = true
        service.work:await()
        sub:close()
        pub:close()
      end
      return service
    end

    local function echo(payload)
      return ('{"response":%s,"isDisposed":true,"id":"%s"}'):format(payload:match('"data":(.*),"id":'), id_of(payload))
    end

    it("asks and is answered, and leaves no subscription behind", function()
      local client = client_of(redis.port)
      local service = answer(redis.port, "echo", echo)
      assert.same({ a = { 1, 2 } }, client:send("echo", { a = { 1, 2 } }):await())
      service.stop()
      local spy = resp.connect(redis.port)
      loop.wait_until(function() return #spy:call("PUBSUB", "CHANNELS") == 0 end)
      spy:close()
    end)

    it("carries 1 MB there and back", function()
      local client = client_of(redis.port)
      local service = answer(redis.port, "echo", echo)
      local text = ("0123456789abcdef"):rep(65536)
      assert.equal(text, client:send("echo", text):await())
      service.stop()
    end)

    it("has 10,000 requests in flight at once on one link", function()
      local client = client_of(redis.port, { max_waiting = 10000 })
      local sub, pub = resp.connect(redis.port), resp.connect(redis.port)
      sub:call("SUBSCRIBE", "many")
      client:connect():await()
      local seen = {}
      for i = 1, 10000 do seen[i] = watch(client:send("many", i, { timeout = 20000 })) end
      local ids = {}
      for i = 1, 10000 do
        local payload = sub:read(20000)[3]
        ids[i] = { id_of(payload), payload:match('"data":(%d+)') }
      end
      assert.equal(10000, client:status().pending)
      assert.equal(1, client:status().hosts[1].connections)
      local parts = {}
      for i = 10000, 1, -1 do
        parts[#parts + 1] = resp.command({ "PUBLISH", "many.reply",
          ('{"response":%s,"isDisposed":true,"id":"%s"}'):format(ids[i][2], ids[i][1]) })
      end
      pub:write(table.concat(parts))
      for i = 1, 10000 do assert.same({ i }, finish(seen[i], 20000).values) end
      assert.equal(0, client:status().pending)
      sub:close()
      pub:close()
    end)

    it("fails what is pending at once when the server dies, and goes on by itself when it is back", function()
      local own = broker.redis()
      local client = client_of(own.port)
      client:connect():await()
      local seen = watch(client:send("nobody", 1, { timeout = false }))
      local statuses = {}
      client:on("status", function(status) statuses[#statuses + 1] = status end)
      own:kill()
      finish(seen, 1000)
      assert.equal("CONNECTION_CLOSED", seen.error.code)
      local err = failure(client:send("nobody", 1))
      assert.equal("CONNECT_FAILED", err.code)
      loop.wait_until(function()
        err = failure(client:emit("nobody", 1))
        return err.message:find("Connection lost. Trying to reconnect... (connect ECONNREFUSED", 1, true)
      end)
      own:start()
      loop.wait_until(function() return client:status().state == "connected" end, 2000)
      client:emit("nobody", 1):await()
      assert.same({ "connected", "disconnected", "reconnecting", "connected" }, statuses)
      assert.equal(1, client:status().reconnects)
      own:stop()
    end)

    it("RED-15 keeps what is pending over a loss when asked to, and takes its answer afterwards", function()
      local own = broker.redis()
      local client = client_of(own.port, { resume = true })
      local sub = resp.connect(own.port)
      sub:call("SUBSCRIBE", "slow")
      local seen = watch(client:send("slow", 1, { timeout = 20000 }))
      local id = id_of(sub:read()[3])
      own:restart()
      local late = watch(client:send("slow", 2, { timeout = 20000 }))
      loop.wait_until(function() return client:status().state == "connected" end, 3000)
      local pub = resp.connect(own.port)
      loop.wait_until(function() return pub:call("PUBSUB", "NUMSUB", "slow.reply")[2] == 1 end)
      pub:call("PUBLISH", "slow.reply", ('{"response":"late","isDisposed":true,"id":"%s"}'):format(id))
      assert.same({ "late" }, finish(seen).values)
      assert.is_false(late.over)
      late.subscription:unsubscribe()
      loop.wait_until(function() return pub:call("PUBSUB", "NUMSUB", "slow.reply")[2] == 0 end)
      sub:close()
      pub:close()
      own:stop()
    end)

    it("survives twenty kills under load: every call ends, traffic resumes within 2 s", function()
      local own = broker.redis()
      local client = client_of(own.port)
      local ended, good, codes, running = 0, 0, {}, true
      local workers = {}
      for w = 1, 8 do
        workers[w] = perigee.spawn(function()
          while running do
            local ok, err = pcall(function() return client:emit("load", w):await() end)
            ended = ended + 1
            if ok then
              good = good + 1
            else
              codes[err.code] = true
              perigee.sleep(5):await()
            end
          end
        end)
      end
      local asking = perigee.spawn(function()
        while running do
          local ok, err = pcall(function() return client:send("nobody", 1, { timeout = 50 }):await() end)
          assert(not ok)
          codes[err.code] = true
          ended = ended + 1
          if err.code ~= "TIMEOUT" then perigee.sleep(5):await() end
        end
      end)
      loop.wait_until(function() return good > 100 end)
      for _ = 1, 20 do
        own:restart()
        local before = good
        loop.wait_until(function() return good > before + 20 end, 2000, "traffic after a restart")
      end
      running = false
      for _, worker in ipairs(workers) do worker:await() end
      asking:await()
      for code in pairs(codes) do
        assert.truthy(code == "CONNECTION_CLOSED" or code == "CONNECT_FAILED" or code == "TIMEOUT", code)
      end
      assert.truthy(ended > good)
      assert.equal(0, client:status().pending)
      assert.equal(20, client:status().reconnects)
      local spy = resp.connect(own.port)
      loop.wait_until(function() return #spy:call("PUBSUB", "CHANNELS") == 0 end)
      spy:close()
      own:stop()
    end)

    it("dials a unix socket", function()
      local own = broker.redis({ unix = true })
      local client = perigee.client({ transport = "redis", path = own.path })
      closing[#closing + 1] = client
      client:emit("p", 1):await()
      assert.equal(own.path, client:status().hosts[1].address)
      own:stop()
    end)

    it("speaks TLS, and does not trust just anybody", function()
      local own = broker.redis({ tls = true })
      local files = certs.paths()
      client_of(own.port, { tls = { ca = files.ca } }):emit("p", 1):await()
      local err = failure(client_of(own.port, { tls = { ca = files.stranger_ca } }):connect())
      assert.equal("CONNECT_FAILED", err.code)
      assert.truthy(err.message:find("certificate", 1, true), err.message)
      own:stop()
    end)

    it("RED-18 logs in with user, password and db; a wrong password is told", function()
      local own = broker.redis({ username = "u", password = "secret" })
      client_of(own.port, { username = "u", password = "secret", db = 2, connection_name = "me" }):emit("p", 1):await()
      local err = failure(client_of(own.port, { username = "u", password = "wrong" }):connect())
      assert.equal("CONNECT_FAILED", err.code)
      assert.truthy(err.message:find("AUTH: WRONGPASS", 1, true), err.message)
      err = failure(client_of(own.port):connect())
      assert.truthy(err.message:find("NOAUTH", 1, true), err.message)
      err = failure(client_of(own.port, { username = "u", password = "secret", db = 99 }):connect())
      assert.equal("SELECT: ERR DB index is out of range", err.message)
      own:stop()
    end)

    it("gives a password that nobody asked for, as ioredis does", function()
      client_of(redis.port, { password = "unasked" }):emit("p", 1):await()
    end)
  end)

  describe("of a master that Sentinels watch", function()
    local group
    setup(function() group = broker.redis_group({ password = "secret", sentinel_password = "watch" }) end)
    teardown(function() group:stop() end)

    it("goes where the master went, under load", function()
      local client = perigee.client({
        transport = "redis", sentinels = group.addresses, name = group.name, password = "secret",
        sentinel_password = "watch",
      })
      closing[#closing + 1] = client
      local good, running, codes = 0, true, {}
      local worker = perigee.spawn(function()
        while running do
          local ok, err = pcall(function() return client:emit("load", 1):await() end)
          if ok then good = good + 1 else codes[err.code] = (codes[err.code] or 0) + 1 end
          if not ok then perigee.sleep(10):await() end
        end
      end)
      loop.wait_until(function() return good > 50 end)
      group.master:kill()
      group:await_master(group.replica)
      local before = good
      loop.wait_until(function() return good > before + 50 end, 2000, "traffic after the failover")
      running = false
      worker:await()
      for code in pairs(codes) do assert.truthy(code == "CONNECTION_CLOSED" or code == "CONNECT_FAILED", code) end
      local spy = resp.connect(group.replica.port)
      spy:call("AUTH", "secret")
      assert.equal("master", spy:call("ROLE")[1])
      spy:close()
    end)

    it("asks the next Sentinel when one is down, and says when none knows the master", function()
      local addresses = { { host = "127.0.0.1", port = require("spec.support.tcp").free_port() }, group.addresses[1] }
      local client = perigee.client({
        transport = "redis", sentinels = addresses, name = group.name, password = "secret", sentinel_password = "watch",
      })
      closing[#closing + 1] = client
      client:emit("p", 1):await()
      local lost = perigee.client({
        transport = "redis", sentinels = { group.addresses[1] }, name = "nosuch", sentinel_password = "watch",
      })
      closing[#closing + 1] = lost
      local err = failure(lost:connect())
      assert.equal("CONNECT_FAILED", err.code)
      assert.equal("Sentinel knows no master 'nosuch'", err.message)
    end)
  end)
end)

describe("a service over Redis", function()
  local apps, played_ends

  before_each(function() apps, played_ends = {}, {} end)
  after_each(function()
    log.set_sink(function() end)
    for _, ending in ipairs(played_ends) do ending:close() end -- else an app would wait for their word
    for _, app in ipairs(apps) do app:stop():await() end
    log.set_sink(nil)
    loop.finish()
  end)
  teardown(function()
    process.stop_all()
    broker.stop_all()
  end)

  local function app_of(url, define, opts)
    local app = perigee.app()
    define(app)
    app:listen(url, opts)
    apps[#apps + 1] = app
    return app
  end

  --- An app that listens to a played server: its connections, the commands they were told at the start unanswered.
  local function played(define, opts)
    local server = resp.listen()
    local app = app_of("redis://127.0.0.1:" .. server.port, define, opts)
    local started = app:start()
    local pub, sub = server:pair()
    played_ends = { server, pub, sub }
    return { server = server, app = app, started = started, pub = pub, sub = sub }
  end

  local function echo(app)
    app:message("echo", function(data) return data end)
  end

  it("has started when the last subscription is acknowledged", function()
    local p = played(function(app)
      echo(app)
      app:event({ b = 1, a = 2 }, function() end)
    end)
    local over = false
    p.started:next(function() over = true end)
    local first, second = p.sub:command(), p.sub:command()
    assert.same({ "SUBSCRIBE", "echo" }, first)
    assert.same({ "SUBSCRIBE", '{"a":2,"b":1}' }, second)
    p.sub:acknowledge(first)
    loop.run_for(20)
    assert.is_false(over)
    p.sub:acknowledge(second)
    p.started:await()
  end)

  it("does not start when Redis refuses a subscription, and says why", function()
    local p = played(echo)
    p.sub:command()
    p.sub:write("-NOPERM no permission for this channel\r\n")
    local err = failure(p.started)
    assert.equal("CONNECT_FAILED", err.code)
    assert.equal("Redis refused to subscribe: NOPERM no permission for this channel", err.message)
  end)

  it("keeps a reply made while the broker is away, and sends it when it is back", function()
    local answer
    local p = played(function(app)
      app:message("late", function()
        return perigee.promise(function(resolve) answer = resolve end)
      end)
    end)
    p.sub:acknowledge(p.sub:command())
    p.started:await()
    p.sub:message("late", '{"data":1,"id":"I"}')
    loop.wait_until(function() return answer end)
    p.pub:close()
    local said
    log.set_sink(function(line) said = line end)
    loop.wait_until(function() return said and said:find("the connection was lost", 1, true) end)
    answer("now")
    local pub, sub = p.server:pair()
    played_ends = { p.server, p.sub, pub, sub }
    sub:acknowledge(sub:command())
    assert.same({ "PUBLISH", "late.reply", '{"response":"now","isDisposed":true,"id":"I"}' }, pub:command())
  end)

  it("stops in good order: unsubscribes, finishes what runs, then leaves", function()
    local answer
    local p = played(function(app)
      app:message("late", function()
        return perigee.promise(function(resolve) answer = resolve end)
      end)
    end)
    p.sub:acknowledge(p.sub:command())
    p.started:await()
    p.sub:message("late", '{"data":1,"id":"I"}')
    loop.wait_until(function() return answer end)
    local stopped = p.app:stop()
    apps = {}
    p.sub:acknowledge(p.sub:command())
    answer(7)
    assert.same({ "PUBLISH", "late.reply", '{"response":7,"isDisposed":true,"id":"I"}' }, p.pub:command())
    stopped:await()
    assert.equal("", (p.sub.peer:read_end()))
  end)

  it("drops a message that is not UTF-8, says so, and serves on", function()
    local p = played(echo)
    p.sub:acknowledge(p.sub:command())
    p.started:await()
    local said = {}
    log.set_sink(function(line) said[#said + 1] = line end)
    p.sub:message("echo", '{"data":"\255","id":"I"}')
    p.sub:message("echo", '{"data":2,"id":"I"}')
    assert.same({ "PUBLISH", "echo.reply", '{"response":2,"isDisposed":true,"id":"I"}' }, p.pub:command())
    assert.equal(1, #said)
    assert.truthy(said[1]:find("not UTF-8", 1, true), said[1])
  end)

  it("stops reading while its replies are not read, and loses none", function()
    local handled = 0
    local p = played(function(app)
      app:message("big", function(data)
        handled = handled + 1
        return ("x"):rep(data)
      end)
    end)
    p.sub:acknowledge(p.sub:command())
    p.started:await()
    p.pub.peer:pause()
    local sent = 0
    local function push(n)
      for _ = 1, n do p.sub.peer:push(resp.command({ "message", "big", '{"data":65536,"id":"I"}' })) end
      sent = sent + n
    end
    repeat -- until the kernel's buffers are full, and what is queued is above the limit
      push(50)
      loop.run_for(20)
    until handled < sent
    push(50)
    local before = handled
    loop.run_for(50)
    assert.equal(before, handled)
    p.pub.peer:resume()
    for _ = 1, sent do assert.equal(65536 + 42, #p.pub:command(10000)[3]) end
    assert.equal(sent, handled)
  end)

  it("answers through twenty kills of the broker: every call ends, traffic resumes within 2 s", function()
    local own = broker.redis()
    log.set_sink(function() end)
    app_of(own.url, echo):start():await()
    local client = perigee.client(own.url)
    local good, running, codes, workers = 0, true, {}, {}
    for w = 1, 8 do
      workers[w] = perigee.spawn(function()
        local n = 0
        while running do
          n = n + 1
          local ok, got = pcall(function() return client:send("echo", n, { timeout = 300 }):await() end)
          if ok then
            assert.equal(n, got)
            good = good + 1
          else
            codes[got.code] = true
            perigee.sleep(5):await()
          end
        end
      end)
    end
    loop.wait_until(function() return good > 100 end)
    for _ = 1, 20 do
      own:restart()
      local before = good
      loop.wait_until(function() return good > before + 50 end, 2000, "traffic after a restart")
    end
    running = false
    for _, worker in ipairs(workers) do worker:await() end
    for code in pairs(codes) do
      assert.truthy(code == "CONNECTION_CLOSED" or code == "CONNECT_FAILED" or code == "TIMEOUT", code)
    end
    assert.equal(0, client:status().pending)
    client:close():await()
    apps[1]:stop():await()
    apps = {}
    local spy = resp.connect(own.port)
    loop.wait_until(function() return #spy:call("PUBSUB", "CHANNELS") == 0 end)
    spy:close()
    own:stop()
  end)

  it("follows the master that Sentinels name, under load", function()
    local group = broker.redis_group()
    log.set_sink(function() end)
    local watched = { sentinels = group.addresses, name = group.name }
    app_of("redis://", echo, watched):start():await()
    local client = perigee.client({ transport = "redis", sentinels = group.addresses, name = group.name })
    local good, running = 0, true
    local worker = perigee.spawn(function()
      while running do
        local ok = pcall(function() return client:send("echo", 1, { timeout = 300 }):await() end)
        if ok then good = good + 1 else perigee.sleep(10):await() end
      end
    end)
    loop.wait_until(function() return good > 50 end)
    group.master:kill()
    group:await_master(group.replica)
    local before = good
    loop.wait_until(function() return good > before + 50 end, 2000, "traffic after the failover")
    running = false
    worker:await()
    client:close():await()
    apps[1]:stop():await()
    apps = {}
    group:stop()
  end)
end)

describe("the program over Redis", function()
  local redis
  before_each(function() redis = broker.redis() end)
  after_each(function()
    program.clean()
    broker.stop_all()
    loop.finish()
  end)

  it("serves a script, and sends and emits from the shell", function()
    local script = program.script(([[
      local perigee = require("perigee")
      local app = perigee.app()
      local events = {}
      app:message("stream", function(n) return perigee.of(n, n + 1) end)
      app:event("told", function(data) events[#events + 1] = data end)
      app:message("events", function() return perigee.array(events) end)
      app:listen("redis://127.0.0.1:%d")
      return app
    ]]):format(redis.port))
    local serving = program.start({ "serve", script })
    assert.same({ redis.url }, program.urls(serving))
    local code, out, err = program.run({ "send", redis.url, "stream", "41" })
    assert.same({ 0, "41\n42\n", "" }, { code, out, err })
    code, out, err = program.run({ "emit", redis.url, "told", '{"a": 1}' })
    assert.same({ 0, "", "" }, { code, out, err })
    code, out = program.run({ "send", redis.url, "events" })
    assert.same({ 0, '[{"a":1}]\n' }, { code, out })
    code, out, err = program.run({ "send", redis.url, "nobody", "--option", "no_responders=true" })
    assert.equal(1, code)
    assert.equal("", out)
    assert.truthy(err:find("perigee: NO_HANDLER: Empty response.", 1, true), err)
    serving:kill()
    assert.equal(0, (serving:wait()))
  end)

  it("subscribes what a reload brings, leaves what it drops, and touches nothing else", function()
    local text = ([[
      local perigee = require("perigee")
      local app = perigee.app()
      app:message("kept", function() return %%d end)
      app:message(%%q, function(data) return data end)
      app:listen("redis://127.0.0.1:%d")
      return app
    ]]):format(redis.port)
    local script = program.script(text:format(1, "old"))
    local serving = program.start({ "serve", script })
    program.urls(serving)
    local client = perigee.client(redis.url)
    local monitor = resp.monitor(redis.port)
    assert.equal(1, client:send("kept", {}):await())
    local file = assert(io.open(script, "w"))
    file:write(text:format(2, "new"))
    file:close()
    serving:kill("sighup")
    monitor:take(4) -- of the call
    local said = monitor:take(2)
    table.sort(said)
    assert.same({ "SUBSCRIBE new", "UNSUBSCRIBE old" }, said)
    assert.equal(2, client:send("kept", {}):await())
    assert.equal(3, client:send("new", 3):await())
    monitor:close()
    client:close():await()
    serving:kill()
    serving:wait()
  end)
end)

describe("custom serialisers over Redis", function()
  teardown(broker.stop_all)

  it("write what is published and read what comes back", function()
    local redis = broker.redis()
    local client = perigee.client({
      transport = "redis", host = "127.0.0.1", port = redis.port,
      serialize = function(packet)
        return { pattern = packet.pattern, data = { wrapped = packet.data }, id = packet.id }
      end,
      deserialize = function(packet) return { id = packet.id, response = packet.answer, isDisposed = true } end,
    })
    local sub, pub = resp.connect(redis.port), resp.connect(redis.port)
    sub:call("SUBSCRIBE", '{"cmd":"x"}')
    local seen = watch(client:send({ cmd = "x" }, 1))
    local payload = sub:read()[3]
    assert.truthy(payload:find('"data":{"wrapped":1}', 1, true), payload)
    pub:call("PUBLISH", '{"cmd":"x"}.reply', ('{"id":"%s","answer":7}'):format(id_of(payload)))
    assert.same({ 7 }, finish(seen).values)
    loop.wait_until(function() return #pub:call("PUBSUB", "CHANNELS") == 1 end)
    client:close():await()
    sub:close()
    pub:close()
    redis:stop()
    loop.finish()
  end)
end)

describe("options of Redis", function()
  local function client(spec) return options.client(spec) end

  local function refused(expected, spec)
    local ok, err = pcall(client, spec)
    assert.is_false(ok)
    assert.equal("INVALID_OPTION", err.code)
    assert.equal(expected, err.message)
  end

  it("are Nest's, in snake_case; the host is localhost:6379", function()
    local got = client({ transport = "redis" })
    assert.same({ { host = "localhost", port = 6379 } }, got.hosts)
    assert.same({ ping_interval = 15000 }, got.settings)
    assert.equal(2000, got.connect_timeout)
    got = client({
      transport = "redis", host = "h", port = "7000", username = "u", password = "p", db = 3, connection_name = "me",
      retry_attempts = 5, retry_delay = 100, tls = { ca = "ca.pem" },
    })
    assert.same({ { host = "h", port = 7000 } }, got.hosts)
    assert.same({ username = "u", password = "p", db = 3, connection_name = "me", ping_interval = 15000 }, got.settings)
    assert.same({ ca = "ca.pem" }, got.tls)
  end)

  it("come from a URL too", function()
    local got = client("redis://u:p%40ss@h:7000/2?connection_name=me")
    assert.same({ { host = "h", port = 7000 } }, got.hosts)
    assert.same({ username = "u", password = "p@ss", db = 2, connection_name = "me", ping_interval = 15000 },
      got.settings)
    assert.is_nil(got.tls)
    got = client("rediss://:secret@h?ca=ca.pem")
    assert.same({ password = "secret", ping_interval = 15000 }, got.settings)
    assert.same({ ca = "ca.pem" }, got.tls)
    assert.same({ { host = "a", port = 1 }, { host = "b", port = 6379 } }, client("redis://a:1,b").hosts)
    assert.same({ { path = "/run/redis.sock" } }, client("redis:/run/redis.sock").hosts)
  end)

  it("turn Sentinels into what is dialled first", function()
    local got = client({
      transport = "redis", name = "m", sentinels = { { host = "a" }, "b:1" }, sentinel_password = "s",
    })
    assert.same({ { host = "a", port = 26379 }, { host = "b", port = 1 } }, got.hosts)
    assert.same({ name = "m", sentinel_password = "s", ping_interval = 15000 }, got.settings)
  end)

  it("are refused with a reason", function()
    local function redis(more)
      more.transport = "redis"
      return more
    end
    refused("option 'username' needs 'password' beside it", redis({ username = "u" }))
    refused("option 'sentinels' needs the master's 'name' beside it", redis({ sentinels = { "a" } }))
    refused("option 'name' is for 'sentinels' only", redis({ name = "m" }))
    refused("options 'host' and 'sentinels' exclude each other", redis({ sentinels = { "a" }, name = "m", host = "h" }))
    refused("option 'sentinels' must be a list of 1 to 64 hosts, not string", redis({ sentinels = "a", name = "m" }))
    refused("option 'connection_name' must be printable, without spaces", redis({ connection_name = "a b" }))
    refused("option 'db' must be a whole number from 0, not -1", redis({ db = -1 }))
    refused("option 'ping_interval' must be milliseconds above 0, not 0", redis({ ping_interval = 0 }))
    refused("unknown option 'wildcard'", redis({ wildcard = true }))
    refused("bad URL 'redis://h/x': '/x' is not the number of a database", "redis://h/x")
    refused("bad URL 'redis://***@h': a user needs a password: user:password@host", "redis://u@h")
    refused("bad URL 'redis:h': '//' is missing after the scheme", "redis:h")
  end)
end)
