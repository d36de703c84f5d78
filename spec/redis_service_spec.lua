--- A service over Redis: its subscriptions, its replies, what becomes of both when the broker goes.

local perigee = require("perigee")
local core = require("perigee.core")
local log = require("perigee.log")
local broker = require("spec.support.broker")
local loop = require("spec.support.loop")
local outcome = require("spec.support.outcome")
local process = require("spec.support.process")
local resp = require("spec.support.resp")

local failure = outcome.failure

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

  it("has what its handlers hear by then when it is back, whatever the list was when it dialled", function()
    local server = resp.listen()
    local heard, status = {}, nil
    local hosts = { { host = "127.0.0.1", port = server.port } }
    local service
    service = assert(core.server({ transport = "redis", hosts = hosts }, {
      on_message = function(_, _, _, _, index, channel) heard[#heard + 1] = { service:data(), index, channel } end,
      on_gone = function() end,
      on_close = function() status = "closed" end,
      on_fault = function() end,
      on_status = function(now) status = now end,
    }))
    assert(service:subscribe({ { route = "a" }, { route = "b" } }))
    local pub, sub = server:pair()
    local first, second = sub:command(), sub:command()
    assert.same({ "a", "b" }, { first[2], second[2] })
    assert(service:subscribe({ { route = "c" }, { route = "b" } })) -- a reload in the middle of it
    sub:acknowledge(first)
    sub:message("a", "1")
    sub:acknowledge(second)
    sub:message("b", "2")
    assert.same({ "SUBSCRIBE", "c" }, sub:acknowledge(sub:command()))
    assert.same({ "UNSUBSCRIBE", "a" }, sub:acknowledge(sub:command()))
    loop.wait_until(function() return status == "ready" end)
    sub:message("c", "3")
    loop.wait_until(function() return #heard == 2 end)
    assert.same({ { "2", 2, "b" }, { "3", 1, "c" } }, heard)
    service:close()
    loop.wait_until(function() return status == "closed" end)
    for _, ending in ipairs({ server, pub, sub }) do ending:close() end
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

  it("says when Redis refuses a reply, and serves on", function()
    local p = played(echo)
    p.sub:acknowledge(p.sub:command())
    p.started:await()
    local said
    log.set_sink(function(line) said = line end)
    p.sub:message("echo", '{"data":1,"id":"I"}')
    p.pub:command()
    p.pub:write("-NOPERM no\r\n")
    loop.wait_until(function() return said end)
    assert.truthy(said:find("Redis refused a reply: NOPERM no", 1, true), said)
    p.sub:message("echo", '{"data":2,"id":"I"}')
    assert.same({ "PUBLISH", "echo.reply", '{"response":2,"isDisposed":true,"id":"I"}' }, p.pub:command())
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
