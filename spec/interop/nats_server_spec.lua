--- perigee as a NATS service: Nest 12's client, and a raw one where the bytes matter. What `both` expects is first
--- shown to hold for a Nest 12 service, then asked of perigee, each on a server of its own.

local cjson = require("cjson")
local perigee = require("perigee")
local log = require("perigee.log")
local broker = require("spec.support.broker")
local certs = require("spec.support.certs")
local loop = require("spec.support.loop")
local nats = require("spec.support.nats")
local nest = require("spec.support.nest")
local process = require("spec.support.process")
local tcp = require("spec.support.tcp")

local INTERNAL = '{"err":{"status":"error","message":"Internal server error"},"isDisposed":true,"id":"I"}'

local function value(json) return '{"response":' .. json .. ',"isDisposed":true,"id":"I"}' end

--- A request whose id is "I".
local function request(pattern, data)
  return ('{"pattern":%s,"data":%s,"id":"I"}'):format(pattern, data or "1")
end

--- Handlers with the names and answers of spec/peers/service.js.
local function like_service_js(app, seen)
  app:message("echo", function(data) return data end)
  app:message("value.null", function() return perigee.null end)
  app:message("value.undefined", function() end)
  app:message("slow", function(data)
    return perigee.sleep(data.ms):next(function() return data.value or data.ms end)
  end)
  app:message("never", function() return perigee.reply(function() end) end)
  app:message("big", function(data) return ("x"):rep(data.units) end)
  app:message("stream", function() return perigee.of(1, 2, 3) end)
  app:message("stream.empty", function() return perigee.of() end)
  app:message("stream.error", function()
    return perigee.reply(function(sink)
      sink:next(1) sink:next(2)
      sink:error(perigee.error({ message = "mid" }))
    end)
  end)
  app:message("error.text", function() error(perigee.error({ message = "bad" })) end)
  app:message("error.object", function() error({ code = 402, message = "no funds" }) end)
  app:message("error.unknown", function() error("secret") end)
  app:message("context", function(_, ctx) return { pattern = ctx.pattern, headers = ctx.headers } end)
  app:message({ ctx = 1, a = 2 }, function(_, ctx) return ctx.pattern end)
  app:message({ b = { z = 1, a = 'x"y\\z' }, a = { 1, 2 } }, function() return "nested" end)
  app:message(42, function() return "number" end)
  app:message("1.0", function() return "reached" end)
  app:message("1e+21", function() return "large" end)
  app:message("wild.*", function(data, ctx) return { data = data, channel = ctx.pattern } end)
  app:message("rest.>", function(data, ctx) return { data = data, channel = ctx.pattern } end)
  local function record(name)
    return function(data, ctx) seen[#seen + 1] = { name = name, data = data, pattern = ctx.pattern } end
  end
  app:event("event", record("event"))
  app:event({ ev = "nested", z = { q = "r" } }, record("nested"))
  app:event("event.two", record("first"))
  app:event("event.two", record("second"))
  app:event("event.value", function() return "value" end)
  app:event("wild.events.*", record("wild"))
  app:message("event.message", record("message"))
  app:message("received", function()
    local told = perigee.array(seen)
    seen = {}
    return told
  end)
end

describe("perigee as a NATS service", function()
  local nest_server, own_server -- each with its service; the second is perigee's
  local client -- Nest's
  local apps, raws, logged

  setup(function()
    nest_server, own_server = broker.nats(), broker.nats()
    nest.service({ transport = "nats", servers = nest_server.url })
    client = nest.client({ transport = "nats", servers = own_server.url })
  end)
  teardown(function()
    process.stop_all()
    broker.stop_all()
    certs.clean()
  end)

  before_each(function()
    apps, raws, logged = {}, {}, {}
    log.set_sink(function(...)
      local texts = {}
      for i = 1, select("#", ...) do texts[i] = tostring((select(i, ...))) end
      logged[#logged + 1] = table.concat(texts, " ")
    end)
  end)
  after_each(function()
    for _, app in ipairs(apps) do app:stop():await() end -- ours first: Nest's may fail to
    for _, raw in ipairs(raws) do raw:close() end
    log.set_sink(nil)
    client:run("close")
    loop.finish()
  end)

  local function await_log(text)
    loop.wait_until(function() return table.concat(logged, "\n"):find(text, 1, true) end, nil, function()
      return ("%q in the log: %s"):format(text, table.concat(logged, "\n"))
    end)
  end

  --- Starts an app on a server.
  local function serve(define, opts, port)
    local app = perigee.app()
    define(app)
    app:listen(("nats://127.0.0.1:%d"):format(port or own_server.port), opts)
    app:start():await()
    apps[#apps + 1] = app
    return app
  end

  local function serve_like_nest(opts)
    return serve(function(app) like_service_js(app, {}) end, opts)
  end

  local function raw_client(port)
    local raw = nats.connect(port or own_server.port)
    raws[#raws + 1] = raw
    return raw
  end

  local function at(port, servers)
    client:run("options", { transport = "nats", servers = servers or "127.0.0.1:" .. (port or own_server.port) })
  end

  --- The replies to a request: until there are n.
  local function ask(raw, subject, payload, n, options)
    raw.inboxes = (raw.inboxes or 0) + 1
    local inbox = ("spec.%d"):format(raw.inboxes)
    raw:subscribe(inbox)
    raw:publish(subject, payload, { reply_to = inbox, headers = options and options.headers })
    local replies = {}
    for i = 1, n do
      local message = raw:read_op("MSG$")
      assert.is_nil(message.headers)
      assert.equal(inbox, message.subject)
      replies[i] = message.payload
    end
    return replies
  end

  --- Nest's service and perigee's answer a request with these packets, whose id is "I".
  local function both(subject, payload, packets, options)
    for _, port in ipairs({ nest_server.port, own_server.port }) do
      local raw = raw_client(port)
      local replies = ask(raw, subject, payload, #packets, options)
      for i, packet in ipairs(packets) do
        assert.same(cjson.decode(packet), cjson.decode(replies[i]), port == nest_server.port and "Nest" or "perigee")
      end
      assert.equal("echo", cjson.decode(ask(raw, "echo", request('"echo"', '"echo"'), 1)[1]).response) -- and no more
      raw:close()
    end
  end

  it("answers values, streams, errors as a Nest service does", function()
    serve_like_nest()
    both("echo", request('"echo"', '{"k":"é😀"}'), { value('{"k":"é😀"}') })
    both("value.null", request('"value.null"'), { value("null") })
    both("value.undefined", request('"value.undefined"'), { '{"isDisposed":true,"id":"I"}' })
    both("stream", request('"stream"'), { '{"response":1,"id":"I"}', '{"response":2,"id":"I"}', value("3") })
    both("stream.empty", request('"stream.empty"'), { '{"isDisposed":true,"id":"I"}' })
    both("stream.error", request('"stream.error"'), {
      '{"response":1,"id":"I"}', '{"response":2,"id":"I"}',
      '{"err":{"status":"error","message":"mid"},"isDisposed":true,"id":"I"}',
    })
    both("error.text", request('"error.text"'),
      { '{"err":{"status":"error","message":"bad"},"isDisposed":true,"id":"I"}' })
    both("error.object", request('"error.object"'),
      { '{"err":{"code":402,"message":"no funds"},"isDisposed":true,"id":"I"}' })
    both("error.unknown", request('"error.unknown"'), { INTERNAL })
    both("event.value", request('"event.value"'), { value('"value"') })
  end)

  it("echoes an id with its type; the pattern in the body plays no part", function()
    serve_like_nest()
    both("echo", '{"pattern":"nosuch","data":1,"id":7}', { '{"response":1,"isDisposed":true,"id":7}' })
    both("echo", '{"data":1,"id":null}', { '{"response":1,"isDisposed":true,"id":null}' })
    both("echo", '{"pattern":"echo","data":1,"id":{"a":1}}', { '{"response":1,"isDisposed":true,"id":{"a":1}}' })
  end)

  it("routes numbers by their text; a handler named \"1.0\" is reached (Nest: parses the name to 1)", function()
    serve_like_nest()
    both("42", request("42"), { value('"number"') })
    both("1e+21", request("1e21"), { value('"large"') })
    assert.equal(value('"reached"'), ask(raw_client(), "1.0", request('"1.0"'), 1)[1])
    assert.same({
      id = "I", status = "error", err = "There is no matching message handler defined in the remote service.",
    }, cjson.decode(ask(raw_client(nest_server.port), "1.0", request('"1.0"'), 1)[1]))
  end)

  it("answers a Nest client: values, streams, errors, events", function()
    serve_like_nest()
    at()
    assert.same({ "é😀" }, (client:send("echo", "é😀")))
    assert.same({ "nested" }, (client:send({ a = { 1, 2 }, b = { a = 'x"y\\z', z = 1 } }, 1)))
    assert.same({ '{"a":2,"ctx":1}' }, (client:send({ ctx = 1, a = 2 }, 1)))
    assert.same({ "number" }, (client:send(42, 1)))
    assert.same({ 1, 2, 3 }, (client:send("stream", 1)))
    assert.same({}, (client:send("stream.empty", 1)))
    local values, err = client:send("stream.error", 1)
    assert.same({ 1, 2 }, values)
    assert.same({ status = "error", message = "mid" }, err)
    assert.same({ code = 402, message = "no funds" }, select(2, client:send("error.object", 1)))
    client:emit("event", "é")
    client:emit({ z = { q = "r" }, ev = "nested" }, 1)
    client:emit("event.two", 2)
    client:emit("wild.events.x", 3)
    assert.same({
      { name = "event", data = "é", pattern = "event" },
      { name = "nested", data = 1, pattern = '{"ev":"nested","z":{"q":"r"}}' },
      { name = "first", data = 2, pattern = "event.two" },
      { name = "second", data = 2, pattern = "event.two" },
      { name = "wild", data = 3, pattern = "wild.events.x" },
    }, client:send("received", 1)[1])
  end)

  it("answers many requests of a Nest client at once, each with its own value", function()
    serve_like_nest()
    at()
    local ids = {}
    for i = 1, 300 do
      ids[i] = client:start({ op = "send", pattern = "slow", data = { ms = i % 7, value = { token = i } } })
    end
    for i = 1, 300 do assert.equal(i, client:outcome(ids[i])[1].token) end
  end)

  it("NAT-08 subscribes each handler, in its own queue or the listener's", function()
    local function subscriptions(opts, define)
      local listener, app = tcp.listen(), perigee.app()
      define(app)
      app:listen("nats://127.0.0.1:" .. listener.port, opts)
      apps[#apps + 1] = app
      local started = app:start()
      local peer = nats.accept(listener)
      local queues = {}
      for _ = 1, 3 do
        local sub = peer:read_op("^SUB")
        queues[sub.subject] = sub.queue or false
      end
      peer:flush()
      started:await()
      local stopped = app:stop()
      for _ = 1, 3 do peer:read_op("^UNSUB") end
      peer:flush()
      stopped:await()
      apps = {}
      peer:close()
      listener:close()
      return queues
    end
    local function define(app)
      app:message("a", function() end)
      app:message({ z = 1, cmd = "b" }, function() end, { queue = "own" })
      app:event("c.*", function() end)
    end
    assert.same({ a = "all", ['{"cmd":"b","z":1}'] = "own", ["c.*"] = "all" }, subscriptions({ queue = "all" }, define))
    assert.same({ a = false, ['{"cmd":"b","z":1}'] = "own", ["c.*"] = false }, subscriptions({}, define))
  end)

  it("NAT-18 answers with one of the instances that share a queue, with each of those that do not", function()
    local function instance(name, opts)
      serve(function(app)
        app:message("who", function() return name end)
        app:message("done", function() return name end)
      end, opts)
    end
    local raw = raw_client()
    instance("1", { queue = "workers" })
    instance("2", { queue = "workers" })
    local counts = { ["1"] = 0, ["2"] = 0 }
    for _ = 1, 40 do
      local name = cjson.decode(ask(raw, "who", request('"who"'), 1)[1]).response
      counts[name] = counts[name] + 1
    end
    assert.equal(40, counts["1"] + counts["2"])
    assert.truthy(counts["1"] > 0 and counts["2"] > 0)
    instance("3") -- on its own: answers as well
    local replies = ask(raw, "who", request('"who"'), 2)
    local names = { cjson.decode(replies[1]).response, cjson.decode(replies[2]).response }
    table.sort(names)
    assert.equal("3", names[2])
    assert.not_equal("3", names[1])
  end)

  it("NAT-09 gives wildcard handlers the concrete subject; two that match both answer", function()
    serve_like_nest()
    both("wild.one", request('"wild.one"', "7"), { value('{"data":7,"channel":"wild.one"}') })
    both("rest.a.b.c", request('"x"', "7"), { value('{"data":7,"channel":"rest.a.b.c"}') })
    serve(function(app)
      app:message("two.*", function() return "star" end)
      app:message("two.>", function() return "rest" end)
    end)
    local replies = ask(raw_client(), "two.x", request('"two.x"'), 2)
    table.sort(replies)
    assert.same({ value('"rest"'), value('"star"') }, replies)
  end)

  it("NAT-10 reads headers, repeated ones as lists; {} when there are none", function()
    serve_like_nest()
    local raw = raw_client()
    local headers = { { "x-version", "1" }, { "X-Multi", "a" }, { "X-Multi", "b" } }
    local told = cjson.decode(ask(raw, "context", request('"context"'), 1, { headers = headers })[1]).response
    assert.same({ ["x-version"] = "1", ["X-Multi"] = { "a", "b" } }, told.headers)
    told = cjson.decode(ask(raw, "context", request('"context"'), 1)[1]).response
    assert.same({}, told.headers)
    at()
    local ids = client:start({ op = "send", pattern = "context", data = 1, headers = { { "m", "a" }, { "m", "b" } } })
    assert.same({ m = { "a", "b" } }, client:outcome(ids)[1].headers)
  end)

  it("NAT-11 logs a body that is not JSON, drops it, and serves on", function()
    serve_like_nest()
    local raw = raw_client()
    raw:subscribe("replies")
    for _, body in ipairs({ "what", "", '{"data":', "\255\254" }) do
      raw:publish("echo", body, { reply_to = "replies" })
    end
    assert.equal(value("1"), ask(raw, "echo", request('"echo"', "1"), 1)[1])
    await_log("echo")
    assert.is_true(raw:is_silent())
  end)

  it("NAT-12 takes JSON without id for an event, whatever its reply subject, and answers nothing", function()
    serve_like_nest()
    for _, port in ipairs({ nest_server.port, own_server.port }) do
      local raw = raw_client(port)
      raw:subscribe("replies")
      raw:publish("event", '{"data":5}', { reply_to = "replies" })
      raw:publish("event", '{"foreign":true}', { reply_to = "replies" })
      raw:publish("event", '"text"')
      raw:publish("event", '{"id":"x"}')
      local told = cjson.decode(ask(raw, "received", request('"received"'), 1)[1]).response
      assert.is_true(raw:is_silent())
      local data = {}
      for i, event in ipairs(told) do data[i] = event.data end
      assert.same({ 5, { foreign = true }, "text", { id = "x" } }, data)
    end
  end)

  it("runs a request without a reply subject, and sends nothing", function()
    serve_like_nest()
    local raw, observer = raw_client(), raw_client()
    observer:subscribe(">")
    raw:publish("event.message", request('"event.message"', "5"))
    local told = cjson.decode(ask(raw, "received", request('"received"'), 1)[1]).response
    assert.same({ { name = "message", data = 5, pattern = "event.message" } }, told)
    for _, subject in ipairs({ "event.message", "received", "spec.1" }) do
      assert.equal(subject, observer:read_op("MSG$").subject)
    end
    assert.is_true(observer:is_silent())
  end)

  it("refuses to start with a handler whose pattern has white space or is empty", function()
    for _, pattern in ipairs({ { cmd = "get user" }, "a b", "", "a..b" }) do
      local app = perigee.app()
      app:message(pattern, function() end)
      local ok, err = pcall(function()
        app:listen(own_server.url)
        app:start():await()
      end)
      assert.is_false(ok, tostring(pattern))
      assert.truthy(err.code == "LISTEN_FAILED" or err.code == "INVALID_OPTION", tostring(err))
    end
  end)

  it("answers a reply above max_payload with an error (Nest: with nothing)", function()
    serve_like_nest()
    at()
    local _, err = client:send("big", { units = 2e6 })
    assert.equal("error", err.status)
    assert.same({ "fine" }, (client:send("echo", "fine")))
  end)

  it("NAT-13 stop unsubscribes, lets running requests answer, then closes (Nest: waits gracePeriod)", function()
    local app = serve_like_nest()
    local raw = raw_client()
    raw:subscribe("replies")
    raw:publish("slow", request('"slow"', '{"ms":100}'), { reply_to = "replies" })
    ask(raw, "echo", request('"echo"'), 1) -- the slow one runs
    apps = {}
    local stopped = app:stop()
    loop.wait_until(function() -- nobody subscribes any more, while the slow one still runs
      raw:publish("echo", request('"echo"'), { reply_to = "replies" })
      local message = raw:read_op("MSG$")
      return message.headers and message.headers:find("^NATS/1.0 503")
    end, nil, "the end of the subscriptions")
    local last
    repeat last = raw:read_op("MSG$") until last.payload ~= ""
    assert.equal(value("100"), last.payload)
    stopped:await()
  end)

  it("NAT-17 logs in: user and password, token, nkey, creds, a TLS certificate", function()
    local files = certs.paths()
    local tls = { ca = files.ca, cert = files.client_cert, key = files.client_key }
    local kinds = {
      { { user = "u", pass = "p" }, { user = "u", pass = "p" } },
      { { token = "t" }, { token = "t" } },
      { { login = "nkey" }, { nkey = "seed" } },
      { { login = "creds" }, { creds = "creds" } },
      { { tls = "mutual" }, { tls = tls } },
    }
    for _, kind in ipairs(kinds) do
      local own = broker.nats(kind[1])
      local login = {}
      for name, option in pairs(kind[2]) do login[name] = kind[1].login and own[option] or option end
      local app = serve(function(a) a:message("echo", function(data) return data end) end, login, own.port)
      local options = { transport = "nats", servers = "127.0.0.1:" .. own.port }
      for name, option in pairs(login) do options[name] = option end
      client:run("options", options)
      assert.same({ "in" }, (client:send("echo", "in")))
      client:run("close")
      app:stop():await()
      apps = {}
      local stranger = perigee.app()
      stranger:message("echo", function() end)
      stranger:listen("nats://127.0.0.1:" .. own.port)
      local ok, err = pcall(function() stranger:start():await() end)
      assert.is_false(ok)
      assert.truthy(err.code == "CONNECT_FAILED" or err.code == "LISTEN_FAILED", tostring(err))
      own:stop()
    end
  end)

  it("is there again after the server was killed and started (Nest: gives up after ten tries)", function()
    local own = broker.nats()
    serve(function(app) app:message("echo", function(data) return data end) end, nil, own.port)
    for round = 1, 3 do
      logged = {}
      own:kill()
      await_log("the connection was lost")
      own:start()
      await_log("connected again")
      assert.equal(value(tostring(round)), ask(raw_client(own.port), "echo", request('"echo"', tostring(round)), 1)[1])
    end
    own:stop()
  end)
end)
