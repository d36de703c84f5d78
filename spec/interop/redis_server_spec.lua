--- perigee as a service over Redis: Nest 12's client, and raw connections where the bytes matter. What `both` expects
--- is first shown to hold for a Nest 12 service, then asked of perigee.

local perigee = require("perigee")
local log = require("perigee.log")
local broker = require("spec.support.broker")
local loop = require("spec.support.loop")
local nest = require("spec.support.nest")
local process = require("spec.support.process")
local resp = require("spec.support.resp")
local uv = require("luv")

local function value(json) return '{"response":' .. json .. ',"isDisposed":true,"id":"I"}' end

--- Handlers with the names and answers of spec/peers/service.js.
local function like_service_js(app, seen)
  local function record(name)
    return function(data, ctx)
      seen[#seen + 1] = { name = name, data = data, pattern = ctx.pattern }
    end
  end
  app:message("echo", function(data) return data end)
  app:message({ b = { z = 1, a = 'x"y\\z' }, a = { 1, 2 } }, function() return "nested" end)
  app:message("value.undefined", function() end)
  app:message("value.null", function() return perigee.null end)
  app:message("stream", function() return perigee.of(1, 2, 3) end)
  app:message("stream.empty", function() return perigee.of() end)
  app:message("stream.error", function()
    return perigee.reply(function(sink)
      sink:next(1) sink:next(2)
      sink:error(perigee.error({ message = "mid" }))
    end)
  end)
  app:message("error.object", function() error({ code = 402, message = "no funds" }) end)
  app:message("context", function(_, ctx)
    return { pattern = ctx.pattern, metadata = next(ctx.metadata) and ctx.metadata or perigee.null }
  end)
  app:message("wild.*", function(data, ctx) return { data = data, channel = ctx.pattern } end)
  app:message("slow", function(data) return perigee.sleep(data.ms):next(function() return data.ms end) end)
  app:event("event", record("event"))
  app:event("wild.events.*", record("wild"))
  app:message("received", function() return perigee.array(seen) end)
end

describe("perigee as a service of Nest over Redis", function()
  local theirs, ours -- a broker each, so that nobody answers for the other
  local service, nest_client
  local apps, raw, seen

  setup(function()
    log.set_sink(function() end)
    theirs, ours = broker.redis(), broker.redis()
    service = nest.service({ transport = "redis", port = theirs.port })
    nest_client = nest.client({ transport = "redis", port = ours.port })
  end)
  teardown(function()
    log.set_sink(nil)
    process.stop_all()
    broker.stop_all()
  end)
  before_each(function() apps, raw, seen = {}, {}, {} end)
  after_each(function()
    for _, peer in ipairs(raw) do peer:close() end
    for _, app in ipairs(apps) do app:stop():await() end
    loop.finish()
  end)

  local function serve(port, opts, define)
    local app = perigee.app()
    define = define or like_service_js
    define(app, seen)
    app:listen("redis://127.0.0.1:" .. port, opts)
    apps[#apps + 1] = app
    app:start():await()
    return app
  end

  local function connect(port)
    local peer = resp.connect(port)
    raw[#raw + 1] = peer
    return peer
  end

  --- Publishes a body on a channel and reads n replies, ids as they come.
  local function ask(port, channel, body, n)
    local sub, pub = connect(port), connect(port)
    sub:call("SUBSCRIBE", channel .. ".reply")
    assert.equal(1, pub:call("PUBLISH", channel, body))
    local replies = {}
    for i = 1, n or 1 do
      local push = sub:read()
      assert.same({ "message", channel .. ".reply" }, { push[1], push[2] })
      replies[i] = push[3]
    end
    return replies
  end

  --- The same question to both.
  local function both(expected, channel, body)
    if not apps[1] then serve(ours.port) end
    for name, port in pairs({ nest = theirs.port, perigee = ours.port }) do
      assert.same(expected, ask(port, channel, body, #expected), name)
    end
  end

  it("RED-06 subscribes every handler's route, objects as their route text", function()
    serve(ours.port)
    local nests = connect(theirs.port):call("PUBSUB", "CHANNELS")
    local has = {}
    for _, channel in ipairs(nests) do has[channel] = true end
    local channels = connect(ours.port):call("PUBSUB", "CHANNELS")
    assert.equal(14, #channels)
    for _, channel in ipairs(channels) do assert.is_true(has[channel], channel) end
    assert.is_true(has['{"a":{"0":1,"1":2},"b":{"a":"x\\"y\\\\z","z":1}}'])
  end)

  it("RED-07 finds the handler by the channel, whatever the body says, and replies on CHANNEL.reply", function()
    both({ value("1") }, "echo", '{"pattern":"nosuch","data":1,"id":"I"}')
    both({ value('"nested"') }, '{"a":{"0":1,"1":2},"b":{"a":"x\\"y\\\\z","z":1}}', '{"pattern":1,"data":1,"id":"I"}')
  end)

  it("RED-08 takes bodies that are no packets as an event's data", function()
    serve(ours.port)
    for name, port in pairs({ nest = theirs.port, perigee = ours.port }) do
      local pub = connect(port)
      for _, body in ipairs({ "plain é text", '{"x":1}', "[1,2]", "7", "" }) do pub:call("PUBLISH", "event", body) end
      local data = {}
      local reply = ask(port, "received", '{"data":1,"id":"I"}')[1]
      for _, entry in ipairs(perigee.json.decode(reply).response) do data[#data + 1] = entry.data end
      assert.same({ "plain é text", { x = 1 }, { 1, 2 }, 7, "" }, data, name)
    end
  end)

  it("RED-09 answers a body of data and id", function()
    both({ value("7") }, "echo", '{"data":7,"id":"I"}')
  end)

  it("GEN-20 GEN-21 GEN-22 GEN-23 GEN-24 GEN-25 GEN-33 answers every kind of result as Nest does", function()
    both({ '{"isDisposed":true,"id":"I"}' }, "value.undefined", '{"data":1,"id":"I"}')
    both({ value("null") }, "value.null", '{"data":1,"id":"I"}')
    both({ '{"response":1,"id":7}', '{"response":2,"id":7}', '{"response":3,"isDisposed":true,"id":7}' }, "stream",
      '{"data":1,"id":7}')
    both({ '{"isDisposed":true,"id":null}' }, "stream.empty", '{"data":1,"id":null}')
    both({ '{"response":1,"id":"I"}', '{"response":2,"id":"I"}',
      '{"err":{"status":"error","message":"mid"},"isDisposed":true,"id":"I"}' }, "stream.error", '{"data":1,"id":"I"}')
    both({ '{"err":{"code":402,"message":"no funds"},"isDisposed":true,"id":"I"}' }, "error.object",
      '{"data":1,"id":"I"}')
  end)

  it("GEN-34 reads metadata; the context has the channel", function()
    serve(ours.port)
    for name, port in pairs({ nest = theirs.port, perigee = ours.port }) do
      local reply = ask(port, "context", '{"pattern":"x","data":1,"metadata":{"a":"b"},"id":"I"}')[1]
      assert.same({ pattern = "context", metadata = { a = "b" } }, perigee.json.decode(reply).response, name)
    end
  end)

  it("answers Nest's client, and hears its events", function()
    serve(ours.port)
    assert.same({ { k = "é😀" } }, (nest_client:send("echo", { k = "é😀" })))
    assert.same({ 1, 2, 3 }, (nest_client:send("stream", 1)))
    local values, err = nest_client:send("stream.error", 1)
    assert.same({ 1, 2 }, values)
    assert.same({ status = "error", message = "mid" }, err)
    assert.same({ "nested" }, (nest_client:send({ a = { 1, 2 }, b = { a = 'x"y\\z', z = 1 } }, 1)))
    nest_client:emit("event", { n = 1 })
    assert.same({ { { name = "event", data = { n = 1 }, pattern = "event" } } }, (nest_client:send("received", 1)))
    local big = ("0123456789abcdef"):rep(65536)
    assert.same({ big }, (nest_client:send("echo", big)))
  end)

  it("RED-10 subscribes globs with `wildcards`, and replies on the concrete channel", function()
    local own = broker.redis()
    local globs = nest.service({ transport = "redis", port = own.port, wildcards = true })
    serve(ours.port, { wildcards = true })
    for name, port in pairs({ nest = own.port, perigee = ours.port }) do
      local replies = ask(port, "wild.card", '{"data":1,"id":"I"}')
      assert.same({ data = 1, channel = "wild.card" }, perigee.json.decode(replies[1]).response, name)
    end
    globs.stop()
    own:stop()
  end)

  it("RED-11 lets two globs that match both answer", function()
    serve(ours.port, { wildcards = true }, function(app)
      app:message("users.*", function() return "star" end)
      app:message("users.l?st", function() return "mark" end)
    end)
    local sub, pub = connect(ours.port), connect(ours.port)
    sub:call("SUBSCRIBE", "users.list.reply")
    assert.equal(2, pub:call("PUBLISH", "users.list", '{"data":1,"id":"I"}'))
    local replies = { sub:read()[3], sub:read()[3] }
    table.sort(replies)
    assert.same({ value('"mark"'), value('"star"') }, replies)
    assert.equal("string", type(nest_client:send("users.list", 1)[1]))
  end)

  it("RED-12 takes no reply for an event, its own or anybody's, though a glob hears it", function()
    local heard = {}
    serve(ours.port, { wildcards = true }, function(app)
      app:message("users.*", function(data, ctx)
        heard[#heard + 1] = { ctx.pattern, data }
        return 1
      end)
    end)
    assert.same({ 1 }, (nest_client:send("users.list", 1)))
    local pub = connect(ours.port)
    pub:call("PUBLISH", "users.x.reply", '{"err":"no","isDisposed":true,"id":"I"}')
    pub:call("PUBLISH", "users.x.reply", '{"response":1,"id":"I"}')
    pub:call("PUBLISH", "users.reply", '{"pattern":"users.reply","data":"an event of that name"}')
    loop.wait_until(function() return #heard >= 2 end)
    assert.same({ { "users.list", 1 }, { "users.reply", "an event of that name" } }, heard)
  end)

  it("RED-16 subscribes again after a loss, without being told to, and misses no handler", function()
    local own = broker.redis()
    serve(own.port)
    local client = nest.client({ transport = "redis", port = own.port, retryAttempts = 100, retryDelay = 50 })
    assert.same({ 1 }, (client:send("echo", 1)))
    for _ = 1, 20 do
      own:restart()
      local spy, count, since = connect(own.port), 0, uv.now()
      perigee.async(function()
        while count < 14 and uv.now() - since < 2000 do
          perigee.sleep(5):await()
          count = #spy:call("PUBSUB", "CHANNELS")
        end
      end):await()
      assert.equal(14, count)
    end
    assert.same({ value("2") }, ask(own.port, "echo", '{"data":2,"id":"I"}'))
    client:stop()
    own:stop()
  end)

  it("RED-17 does not start without a broker", function()
    local app = perigee.app()
    app:message("echo", function(data) return data end)
    app:listen("redis://127.0.0.1:" .. require("spec.support.tcp").free_port())
    local ok, err = pcall(function() app:start():await() end)
    assert.is_false(ok)
    assert.equal("CONNECT_FAILED", err.code)
    assert.truthy(err.message:find("ECONNREFUSED", 1, true), err.message)
    app:stop():await()
  end)

  it("RED-18 logs in with user, password and db, and says why it cannot", function()
    local own = broker.redis({ username = "u", password = "secret" })
    local app = perigee.app()
    app:message("echo", function(data) return data end)
    app:listen(("redis://u:secret@127.0.0.1:%d/2"):format(own.port))
    apps[#apps + 1] = app
    app:start():await()
    local client = nest.client({ transport = "redis", port = own.port, username = "u", password = "secret" })
    assert.same({ 1 }, (client:send("echo", 1)))
    client:stop()
    local other = perigee.app()
    other:message("echo", function(data) return data end)
    other:listen(("redis://u:wrong@127.0.0.1:%d"):format(own.port))
    local ok, err = pcall(function() other:start():await() end)
    assert.is_false(ok)
    assert.truthy(err.message:find("WRONGPASS", 1, true), err.message)
    other:stop():await()
    own:stop()
  end)

  it("passes a request on to a service of another wire, the answer comes back on its channel", function()
    local tcp_service = nest.service()
    local client = perigee.client({ transport = "tcp", host = "127.0.0.1", port = tcp_service.port })
    serve(ours.port, nil, function(app) app:forward("echo", client) end)
    assert.same({ { a = { 1 } } }, (nest_client:send("echo", { a = { 1 } })))
    client:close():await()
    tcp_service.stop()
  end)

  it("is a bridge from Redis to NATS in one route line, Nest at both ends", function()
    local nats = broker.nats()
    local nats_service = nest.service({ transport = "nats", servers = nats.url })
    local client = perigee.client(nats.url)
    serve(ours.port, nil, function(app)
      for _, pattern in ipairs({ "echo", "stream", "error.object", "event", "received" }) do
        app:forward(pattern, client)
      end
    end)
    assert.same({ { a = { 1, "é😀" } } }, (nest_client:send("echo", { a = { 1, "é😀" } })))
    assert.same({ 1, 2, 3 }, (nest_client:send("stream", 1)))
    assert.same({ code = 402, message = "no funds" }, select(2, nest_client:send("error.object", 1)))
    nest_client:emit("event", { n = 1 })
    local received
    loop.wait_until(function()
      received = nest_client:send("received", 1)[1]
      return received[1]
    end)
    assert.same({ n = 1 }, received[1].data)
    client:close():await()
    nats_service.stop()
    nats:stop()
  end)

  it("has another service beside it as a witness", function() assert.is_nil(service.process.exit_code) end)
end)
