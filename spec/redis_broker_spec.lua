--- A client over Redis, of real servers: that die, that Sentinels watch; and the program beside them.

local perigee = require("perigee")
local broker = require("spec.support.broker")
local certs = require("spec.support.certs")
local loop = require("spec.support.loop")
local outcome = require("spec.support.outcome")
local process = require("spec.support.process")
local program = require("spec.support.perigee")
local resp = require("spec.support.resp")

local failure, watch, finish = outcome.failure, outcome.watch, outcome.finish

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
