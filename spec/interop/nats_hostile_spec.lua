--- A NATS server that is broken, hostile or mute: calls end with a code, the client dials again, nothing grows.

local cjson = require("cjson")
local core = require("perigee.core")
local log = require("perigee.log")
local perigee = require("perigee")
local certs = require("spec.support.certs")
local loop = require("spec.support.loop")
local nats = require("spec.support.nats")
local tcp = require("spec.support.tcp")

local ANSWER = '{"response":1,"isDisposed":true}'

describe("a NATS server of ill will", function()
  local listener, clients, apps, logged

  before_each(function()
    listener, clients, apps, logged = tcp.listen(), {}, {}, ""
    log.set_sink(function(line) logged = logged .. line .. "\n" end)
  end)
  after_each(function()
    for _, client in ipairs(clients) do client:close():await() end
    for _, app in ipairs(apps) do app:stop({ drain_timeout = 100 }):await() end
    loop.finish()
    log.set_sink(nil)
  end)
  teardown(function() certs.clean() end)

  local function connect(opts)
    local options = { transport = "nats", servers = "127.0.0.1:" .. listener.port, connect_timeout = 2000 }
    for name, option in pairs(opts or {}) do options[name] = option end
    local client = perigee.client(options)
    clients[#clients + 1] = client
    return client
  end

  --- Subscribes and writes down what comes.
  local function watch(reply)
    local seen = { values = {}, over = false }
    reply:subscribe({
      next = function(value) table.insert(seen.values, value) end,
      error = function(err) seen.error, seen.over = err, true end,
      complete = function() seen.over = true end,
    })
    return seen
  end

  local function finish(seen, ms)
    loop.wait_until(function() return seen.over end, ms, "the end of a call")
    return seen
  end

  local function works(client, peer)
    local seen = watch(client:send("next", 1))
    peer = peer or nats.accept(listener)
    assert.equal(1, peer:route(peer:read_published().reply_to, ANSWER))
    assert.same({ 1 }, finish(seen).values)
    return peer
  end

  --- A client with a call that was published, and the server's end.
  local function in_call(opts)
    local client = connect(opts)
    local seen = watch(client:send("p", 1))
    local peer = nats.accept(listener)
    return client, peer, seen, peer:read_published()
  end

  --- These bytes end the connection and its call; the next one works.
  local function breaks(bytes, code, opts)
    local client, peer, seen = in_call(opts)
    peer.peer:push(bytes)
    finish(seen)
    assert.equal(code, seen.error.code, seen.error.message)
    peer.peer:read_end()
    peer = works(client)
    client:close():await() -- or it would dial for the next one
    peer:close()
  end

  describe("that sends what is no NATS", function()
    it("fails the calls with BAD_FRAME", function()
      breaks("HTTP/1.1 400 Bad Request\r\n\r\n", "BAD_FRAME")
      breaks("MSG a\r\n", "BAD_FRAME")
      breaks("MSG a 1 2\r\nabc\r\n", "BAD_FRAME")
      breaks("HMSG a 1 9 3\r\nabc\r\n", "BAD_FRAME")
      breaks("INFO {\r\n", "BAD_FRAME")
      breaks(("\0"):rep(100) .. "\r\n", "BAD_FRAME")
    end)

    it("fails the calls with FRAME_TOO_LARGE where a size or a line has no end, before it is kept", function()
      breaks("MSG a 1 2000\r\n", "FRAME_TOO_LARGE", { max_buffer_size = 1000 })
      breaks("MSG a 1 99999999999999999999\r\n", "BAD_FRAME")
      breaks("MSG " .. ("a"):rep(5000), "FRAME_TOO_LARGE")
      breaks("INFO " .. ("a"):rep(70000), "FRAME_TOO_LARGE")
    end)
  end)

  it("is heard one byte at a time", function()
    local client, peer, seen, message = in_call()
    local headers = "NATS/1.0\r\na: 1\r\n\r\n"
    peer.peer:drip(("PING\r\nHMSG %s 1 %d %d\r\n%s%s\r\n"):format(message.reply_to, #headers, #headers + #ANSWER,
      headers, ANSWER))
    assert.same({ 1 }, finish(seen).values)
    assert.equal("PONG", peer:read_op("PONG").op)
    works(client, peer):close()
  end)

  it("is not believed about messages for nobody", function()
    local client, peer, seen, message = in_call()
    peer:deliver("0", "x", "{}")
    for _, subject in ipairs({ "_INBOX", message.reply_to:sub(1, -2), message.reply_to .. "x", "elsewhere" }) do
      peer:deliver("1", subject, '{"response":"other","isDisposed":true}')
    end
    peer:deliver("1", message.reply_to, '{"response":"mine","isDisposed":true}')
    finish(seen)
    assert.equal("mine", seen.values[#seen.values])
    assert.is_nil(seen.error)
    works(client, peer):close()
  end)

  describe("that does not let in", function()
    local function refused(part, opts)
      local client = connect(opts)
      local seen = watch(client:send("p", 1))
      return client, seen, function()
        finish(seen, 10000)
        assert.equal("CONNECT_FAILED", seen.error.code)
        assert.truthy(tostring(seen.error):find(part, 1, true), tostring(seen.error))
      end
    end

    it("fails the call with what it said", function()
      local _, _, check = refused("Authorization Violation")
      local peer = nats.accept(listener)
      peer.peer:push("-ERR 'Authorization Violation'\r\n")
      peer:close()
      check()
    end)

    it("fails the call when it says nothing at all, within its connect_timeout", function()
      local _, _, check = refused("does not answer", { connect_timeout = 100 })
      local peer = listener:accept()
      check()
      peer:close()
    end)

    it("fails the call when it takes CONNECT and then says nothing", function()
      local _, _, check = refused("does not answer", { connect_timeout = 100 })
      local peer = nats.accept(listener)
      check()
      peer:close()
    end)

    it("fails the call when it wants TLS and there is no option for it, and when it has none and there is", function()
      local _, _, check = refused("TLS")
      local peer = listener:accept()
      peer:write('INFO {"tls_required":true,"max_payload":1000}\r\n')
      check()
      peer:close()
      _, _, check = refused("TLS", { tls = { ca = certs.paths().ca } })
      peer = listener:accept()
      peer:write('INFO {"max_payload":1000}\r\n')
      check()
      peer:close()
    end)

    it("fails the call when bytes come before the TLS handshake: they may be anybody's", function()
      local _, _, check = refused("before the TLS handshake", { tls = { ca = certs.paths().ca } })
      local peer = listener:accept()
      peer:write('INFO {"tls_required":true}\r\nINFO {"max_payload":9}\r\n')
      check()
      peer:close()
    end)

    it("fails the call on an INFO that tells nothing", function()
      for _, info in ipairs({ "5", "null", "[]", '"x"' }) do
        local client = connect()
        local seen = watch(client:send("p", 1))
        local peer = listener:accept()
        peer:push("INFO " .. info .. "\r\n")
        peer:push("-ERR 'Unknown'\r\n")
        peer:close()
        finish(seen)
        assert.equal("CONNECT_FAILED", seen.error.code)
        client:close():await()
      end
    end)
  end)

  it("is given up when it answers no pings, and its calls fail", function()
    local client, peer, seen = in_call({ ping_interval = 50, max_ping_out = 2 })
    finish(seen, 2000)
    assert.equal("CONNECTION_CLOSED", seen.error.code)
    peer.peer:read_end()
    works(client):close()
  end)

  it("may refuse one subject: the calls to it fail, the others do not", function()
    local client, peer, seen = in_call({ timeout = 60000 })
    local other = watch(client:send("other", 1))
    local second = peer:read_published()
    peer.peer:write("-ERR 'Permissions Violation for Publish to \"p\"'\r\n")
    finish(seen)
    assert.truthy(seen.error.message:find("Permissions Violation", 1, true))
    peer:route(second.reply_to, ANSWER)
    assert.same({ 1 }, finish(other).values)
    works(client, peer):close()
  end)

  it("may close with a reason, which the calls tell", function()
    local client, peer, seen = in_call()
    peer.peer:push("-ERR 'Stale Connection'\r\n")
    peer:close()
    finish(seen)
    assert.equal("CONNECTION_CLOSED", seen.error.code)
    assert.truthy(seen.error.message:find("Stale Connection", 1, true), seen.error.message)
    works(client):close()
  end)

  it("may name ten thousand servers: those dialled are few", function()
    local urls = {}
    for i = 1, 2500 do urls[i] = ("127.0.%d.%d:%d"):format(i / 250, i % 250, 4000 + i) end
    local client = connect()
    local seen = watch(client:send("p", 1))
    local peer = nats.accept(listener, { connect_urls = urls })
    peer:route(peer:read_published().reply_to, ANSWER)
    finish(seen)
    for _ = 1, 4 do peer.peer:write("INFO " .. cjson.encode({ max_payload = 1000, connect_urls = urls }) .. "\r\n") end
    works(client, peer)
    assert.truthy(#client:status().hosts <= 64, #client:status().hosts)
    peer:close()
  end)

  it("may lower max_payload: what was fine is refused from then on", function()
    local client, peer, seen, message = in_call()
    peer:route(message.reply_to, ANSWER)
    finish(seen)
    peer.peer:write('INFO {"max_payload":100}\r\n')
    works(client, peer)
    seen = finish(watch(client:send("p", ("x"):rep(200))))
    assert.equal("FRAME_TOO_LARGE", seen.error.code)
    works(client, peer):close()
  end)

  it("stops reading: calls are refused with OVERLOADED, not piled up", function()
    local client, peer, seen, message = in_call({ max_send_buffer_size = 1024 * 1024 })
    peer:route(message.reply_to, ANSWER)
    finish(seen)
    peer.peer:pause()
    local refused
    for _ = 1, 256 do
      client:emit("ev", ("x"):rep(128 * 1024)):catch(function(err) refused = refused or err end)
      loop.turn()
      if refused then break end
    end
    assert.equal("OVERLOADED", refused and refused.code)
    peer:close()
  end)

  describe("towards a service", function()
    local function serve(define, opts)
      local app = perigee.app()
      define(app)
      app:listen("nats://127.0.0.1:" .. listener.port, opts)
      apps[#apps + 1] = app
      return app:start(), app
    end
    local function echo(app) app:message("echo", function(data) return data end) end

    it("fails its start when a subscription is refused", function()
      local started = serve(echo)
      local peer = nats.accept(listener)
      peer:read_op("^SUB")
      peer.peer:push("-ERR 'Permissions Violation for Subscription to \"echo\"'\r\n")
      local ok, err = pcall(started.await, started)
      assert.is_false(ok)
      assert.truthy(tostring(err):find("Permissions Violation", 1, true), tostring(err))
      peer:close()
      apps = {}
    end)

    it("is dialled again after garbage, and told of all subscriptions anew", function()
      local started = serve(function(app)
        echo(app)
        app:event("ev.*", function() end)
      end)
      local peer = nats.accept(listener)
      peer:flush()
      started:await()
      for _ = 1, 3 do
        peer.peer:push("what\r\n")
        peer = nats.accept(listener, nil, 10000)
        local subjects = { peer:read_op("^SUB").subject, peer:read_op("^SUB").subject }
        table.sort(subjects)
        assert.same({ "echo", "ev.*" }, subjects)
        peer:flush()
      end
      assert.equal(1, peer:route("echo", '{"pattern":"echo","data":5,"id":"I"}', { reply_to = "r" }))
      assert.equal('{"response":5,"isDisposed":true,"id":"I"}', peer:read_published().payload)
      apps[1]:stop({ drain_timeout = 100 }):await()
      apps = {}
      peer:close()
    end)

    it("is slow to begin: what is heard by then is asked for, whatever the list was when it was dialled", function()
      local heard, status = {}, nil
      local at = { host = "127.0.0.1", port = listener.port }
      local service
      service = assert(core.server({ transport = "nats", hosts = { at } }, {
        on_message = function(_, _, _, _, index, channel) heard[#heard + 1] = { service:data(), index, channel } end,
        on_gone = function() end,
        on_close = function() status = "closed" end,
        on_fault = function() end,
        on_status = function(now) status = now end,
      }))
      assert(service:subscribe({ { route = "a" }, { route = "b" } }))
      local peer = listener:accept()
      peer:write('INFO {"server_id":"x","headers":true,"max_payload":1048576}\r\n')
      assert.is_truthy(peer:read_line():find("^CONNECT "))
      local a, b = peer:read_line():match("^SUB a (%S+)"), peer:read_line():match("^SUB b (%S+)")
      assert.equal("PING", peer:read_line():match("%S+"))
      assert(service:subscribe({ { route = "c" }, { route = "b" } })) -- a reload in the middle of it
      local c = peer:read_line():match("^SUB c (%S+)")
      assert.equal(a, peer:read_line():match("^UNSUB (%S+)"))
      peer:write(("MSG a %s 1\r\n1\r\nMSG b %s 1\r\n2\r\nPONG\r\n"):format(a, b))
      loop.wait_until(function() return status == "ready" end)
      peer:write(("MSG c %s 1\r\n3\r\n"):format(c))
      loop.wait_until(function() return #heard == 2 end)
      assert.same({ { "2", 2, "b" }, { "3", 1, "c" } }, heard)
      service:close()
      loop.wait_until(function() return status == "closed" end)
      peer:close()
    end)

    it("sends messages of no subscription, and a flood: the first are dropped, the flood is answered", function()
      local started = serve(echo)
      local peer = nats.accept(listener)
      peer:flush()
      started:await()
      local sid = next(peer.subscriptions)
      peer:deliver("999999999999", "echo", '{"data":1,"id":"I"}', { reply_to = "r" })
      peer:deliver("18446744073709551615", "echo", '{"data":1,"id":"I"}', { reply_to = "r" })
      local parts = {}
      for i = 1, 2000 do
        local body = ('{"data":%d,"id":%d}'):format(i, i)
        parts[i] = ("MSG echo %s r.%d %d\r\n%s\r\n"):format(sid, i, #body, body)
      end
      peer.peer:write(table.concat(parts))
      for i = 1, 2000 do
        local message = peer:read_published()
        assert.equal("r." .. i, message.reply_to or message.subject)
        assert.equal(('{"response":%d,"isDisposed":true,"id":%d}'):format(i, i), message.payload)
      end
      assert.is_true(peer:is_silent())
      apps[1]:stop({ drain_timeout = 100 }):await()
      apps = {}
      peer:close()
    end)
  end)
end)
