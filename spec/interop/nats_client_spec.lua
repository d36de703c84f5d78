--- perigee as a NATS client: of a Nest 12 service on a real server, and of a server of the spec's own where the bytes
--- matter. What `both` runs is first shown to hold for Nest's client, then asked of perigee.

local cjson = require("cjson")
local perigee = require("perigee")
local broker = require("spec.support.broker")
local certs = require("spec.support.certs")
local loop = require("spec.support.loop")
local nats = require("spec.support.nats")
local nest = require("spec.support.nest")
local process = require("spec.support.process")
local tcp = require("spec.support.tcp")

local function empty_response(pattern)
  return ('Empty response. There are no subscribers listening to that message ("%s")'):format(pattern)
end

--- Waits for a Promise or Reply that has to fail, and returns its error.
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
    next = function(value) table.insert(seen.values, value) end,
    error = function(err) seen.error, seen.over = err, true end,
    complete = function() seen.over = true end,
  })
  return seen
end

local function finish(seen, ms)
  loop.wait_until(function() return seen.over end, ms, "the end of a Reply")
  return seen
end

describe("perigee as a NATS client", function()
  local server, nest_client -- a real server with a Nest service, and a Nest client
  local clients

  setup(function()
    server = broker.nats({ max_payload = 2 * 1024 * 1024 })
    nest.service({ transport = "nats", servers = server.url })
    nest_client = nest.client({ transport = "nats", servers = server.url })
  end)
  teardown(function()
    process.stop_all()
    broker.stop_all()
    certs.clean()
  end)
  before_each(function() clients = {} end)
  after_each(function()
    for _, client in ipairs(clients) do client:close():await() end -- ours first: Nest's may fail to
    nest_client:run("close")
    loop.finish()
  end)

  --- A client of perigee's.
  ---@param port integer
  local function connect_to(port, opts)
    local options = { transport = "nats", servers = { "127.0.0.1:" .. port } }
    for name, option in pairs(opts or {}) do options[name] = option end
    local client = perigee.client(options)
    clients[#clients + 1] = client
    return client
  end

  -- One face for both clients. headers: `{ name, value }` each.
  local function of_nest(port, opts)
    local options = {
      transport = "nats", servers = "127.0.0.1:" .. port, headers = opts.headers, inboxPrefix = opts.inbox_prefix,
      user = opts.user, pass = opts.pass, token = opts.token,
    }
    nest_client:run("options", options)
    return {
      is_nest = true,
      start = function(op, pattern, data, headers)
        return nest_client:start({ op = op, pattern = pattern, data = data, headers = headers })
      end,
      outcome = function(id) return nest_client:outcome(id) end,
      cancel = function(id) nest_client:outcome(nest_client:start({ op = "cancel", of = id })) end,
    }
  end

  local function headers_of(list)
    local headers = {}
    for _, header in ipairs(list or {}) do
      headers[header[1]] = headers[header[1]] or {}
      table.insert(headers[header[1]], header[2])
    end
    return list and headers
  end

  local function of_perigee(port, opts)
    local client = connect_to(port, opts)
    return {
      start = function(op, pattern, data, headers)
        local awaitable = client[op](client, pattern, data, { headers = headers_of(headers) })
        if op == "send" then return watch(awaitable) end
        local seen = { values = {} }
        awaitable:next(function() seen.over = true end, function(err) seen.error, seen.over = err, true end)
        return seen
      end,
      outcome = function(seen)
        finish(seen)
        return seen.values, seen.error
      end,
      cancel = function(seen) seen.subscription:unsubscribe() end,
    }
  end

  local function both(port, opts, run)
    run(of_nest(port, opts))
    nest_client:run("close")
    run(of_perigee(port, opts))
  end

  --- The same, to a server of the spec's own: run gets the client, the server's end, the first message published and
  --- what was started.
  local function both_to_server(opts, op, run)
    for _, open in ipairs({ of_nest, of_perigee }) do
      local listener = tcp.listen()
      local client = open(listener.port, opts)
      local started = client.start(op, "p", { k = 1 })
      local peer = nats.accept(listener)
      run(client, peer, peer:read_published(), started)
      if client.is_nest then nest_client:run("close") end
      peer:close()
      listener:close()
    end
  end

  describe("on the wire", function()
    it("NAT-01 says in CONNECT that it takes headers and no-responders messages", function()
      both_to_server({}, "send", function(_, peer)
        assert.is_true(peer.connect.headers)
        assert.is_true(peer.connect.no_responders)
        assert.is_false(peer.connect.verbose)
        assert.equal(1, peer.connect.protocol)
        assert.is_nil(peer.connect.user or peer.connect.auth_token)
      end)
    end)

    it("NAT-02 has a reply subject of its own for each request; nothing comes to it after the end", function()
      both_to_server({}, "send", function(client, peer, first, started)
        assert.truthy(first.reply_to:find("^_INBOX%."))
        local other = client.start("send", "q", 1)
        local second = peer:read_published()
        assert.not_equal(first.reply_to, second.reply_to)
        assert.equal(1, peer:route(second.reply_to, '{"response":2,"isDisposed":true}'))
        assert.same({ 2 }, (client.outcome(other)))
        assert.equal(1, peer:route(first.reply_to, '{"response":1,"isDisposed":true}'))
        assert.same({ 1 }, (client.outcome(started)))
        if client.is_nest then -- perigee's one subscription stays
          peer:flush()
          assert.same({}, peer.subscriptions)
        end
      end)
    end)

    it("NAT-02 forgets a cancelled request: late replies go nowhere, not to the next request either", function()
      both_to_server({}, "send", function(client, peer, first, started)
        client.cancel(started)
        if client.is_nest then
          peer:read_op("^UNSUB")
        else
          assert.equal(1, peer:route(first.reply_to, '{"response":"late","isDisposed":true}'))
        end
        local other = client.start("send", "q", 1)
        peer:route(peer:read_published().reply_to, '{"response":"mine","isDisposed":true}')
        assert.same({ "mine" }, (client.outcome(other)))
        if not client.is_nest then assert.same({}, started.values) end
      end)
    end)

    it("NAT-04 makes its inboxes under inbox_prefix", function()
      both_to_server({ inbox_prefix = "replies.spec" }, "send", function(_, _, message)
        assert.truthy(message.reply_to:find("^replies%.spec%.[^.]"), message.reply_to)
      end)
    end)

    it("NAT-05 publishes plainly when there are no headers", function()
      both_to_server({}, "send", function(_, _, message)
        assert.equal("PUB", message.op)
        local packet = cjson.decode(message.payload)
        assert.same({ "p", { k = 1 }, "string" }, { packet.pattern, packet.data, type(packet.id) })
      end)
      both_to_server({}, "emit", function(_, _, message)
        assert.equal(('PUB p %d'):format(#message.payload), message.line)
        assert.equal('{"pattern":"p","data":{"k":1}}', message.payload)
      end)
    end)

    it("NAT-05 puts the client's headers on every message; those of a message win, also repeated", function()
      local function fields(block)
        local list = {}
        for name, value in block:gmatch("\r\n([^\r\n:]+):%s*([^\r\n]*)") do list[#list + 1] = name .. "=" .. value end
        table.sort(list)
        return list
      end
      local opts = { headers = { ["x-version"] = "1", ["x-origin"] = "spec" } }
      both_to_server(opts, "emit", function(client, peer, message)
        assert.equal("HPUB", message.op)
        assert.equal("NATS/1.0\r\n", message.headers:sub(1, 10))
        assert.same({ "x-origin=spec", "x-version=1" }, fields(message.headers))
        assert.equal('{"pattern":"p","data":{"k":1}}', message.payload)
        local sent = client.start("send", "p", 1, { { "x-version", "2" }, { "x-multi", "a" }, { "x-multi", "b" } })
        message = peer:read_published()
        assert.same({ "x-multi=a", "x-multi=b", "x-origin=spec", "x-version=2" }, fields(message.headers))
        assert.equal(1, cjson.decode(message.payload).data)
        peer:route(message.reply_to, '{"isDisposed":true}')
        client.outcome(sent)
      end)
    end)

    it("NAT-06 takes a reply without id, ignores one with another's, delivers foreign JSON whole", function()
      both_to_server({}, "send", function(client, peer, message, started)
        local id = cjson.decode(message.payload).id
        peer:route(message.reply_to, '{"response":"other","isDisposed":true,"id":"other"}')
        peer:route(message.reply_to, ('{"response":1,"id":"%s"}'):format(id))
        peer:route(message.reply_to, '{"response":2}')
        peer:route(message.reply_to, '{"response":3,"isDisposed":true}')
        assert.same({ 1, 2, 3 }, (client.outcome(started)))
        for _, json in ipairs({ '{"x":1}', "5", "null", '"text"', "[1]" }) do
          local sent = client.start("send", "p", 1)
          peer:route(peer:read_published().reply_to, json)
          local values = client.outcome(sent)
          assert.equal(json, cjson.encode(values[1]), client.is_nest and "Nest" or "perigee")
        end
      end)
    end)

    it("NAT-06 fails a call whose reply is not JSON (Nest: it hangs)", function()
      local listener = tcp.listen()
      local client = connect_to(listener.port)
      local seen = watch(client:send("p", 1))
      local peer = nats.accept(listener)
      peer:route(peer:read_published().reply_to, "what")
      assert.equal("BAD_FRAME", finish(seen).error.code)
      seen = watch(client:send("p", 1))
      peer:route(peer:read_published().reply_to, '{"response":1,"isDisposed":true}')
      assert.same({ 1 }, finish(seen).values)
      peer:close()
    end)

    it("NAT-03 takes a 503, and any empty reply, for nobody listening", function()
      both_to_server({}, "send", function(client, peer, message, started)
        peer:route(message.reply_to, "", { headers = "NATS/1.0 503\r\n\r\n" })
        local values, err = client.outcome(started)
        assert.same({}, values)
        assert.equal(empty_response("p"), err.message)
        if not client.is_nest then assert.equal("NO_HANDLER", err.code) end
        local sent = client.start("send", { cmd = "x" }, 1)
        peer:route(peer:read_published().reply_to, "")
        assert.equal(empty_response('{"cmd":"x"}'), select(2, client.outcome(sent)).message)
      end)
    end)

    it("NAT-17 sends user and password, or the token", function()
      both_to_server({ user = "u", pass = 'p"w' }, "send", function(_, peer)
        assert.same({ "u", 'p"w' }, { peer.connect.user, peer.connect.pass })
      end)
      both_to_server({ token = "secret" }, "send", function(_, peer)
        assert.equal("secret", peer.connect.auth_token)
      end)
    end)
  end)

  describe("with a real server", function()
    it("NAT-03 fails at once, with the pattern, when nobody subscribes", function()
      both(server.port, { timeout = 60000 }, function(client)
        for pattern, subject in pairs({ nosuch = "nosuch", ["a.b"] = "a.b" }) do
          local values, err = client.outcome(client.start("send", pattern, 1))
          assert.same({}, values)
          assert.equal(empty_response(subject), err.message)
        end
        local _, err = client.outcome(client.start("send", { b = 1, a = { 2 } }, 1))
        assert.equal(empty_response('{"a":{"0":2},"b":1}'), err.message)
      end)
    end)

    it("NAT-05 has its headers read by Nest, those of a message before its own", function()
      local client = connect_to(server.port, { headers = { ["x-version"] = "1", ["x-origin"] = "spec" } })
      local told = client:send("context", 1, { headers = { ["x-version"] = "2", ["x-multi"] = { "a", "b" } } }):await()
      local headers = {}
      for _, header in ipairs(told.headers) do headers[header[1]] = header[2] end
      assert.same({ ["x-version"] = { "2" }, ["x-origin"] = { "spec" }, ["x-multi"] = { "a", "b" } }, headers)
      assert.is_nil(connect_to(server.port):send("context", 1):await().headers)
    end)

    it("NAT-07 fails a call whose subject has white space or is empty, and sends nothing", function()
      local raw = nats.connect(server.port)
      raw:subscribe(">")
      both(server.port, {}, function(client)
        for _, op in ipairs({ "send", "emit" }) do
          for _, pattern in ipairs({ { cmd = "get user" }, "a b", "a\tb", "line\nfeed", "" }) do
            local _, err = client.outcome(client.start(op, pattern, 1))
            assert.truthy(err, op)
            assert.truthy(err.message:find("illegal subject", 1, true), err.message)
            if not client.is_nest then assert.equal("INVALID_MESSAGE", err.code) end
          end
        end
        assert.same({ "fine" }, (client.outcome(client.start("send", "echo", "fine"))))
      end)
      assert.equal("echo", raw:read_op("MSG$").subject)
      raw:close()
    end)

    it("NAT-07 fails a call whose payload is above the server's max_payload; a smaller one passes", function()
      both(server.port, {}, function(client)
        for _, op in ipairs({ "send", "emit" }) do
          local _, err = client.outcome(client.start(op, "echo", ("x"):rep(2 * 1024 * 1024)))
          assert.truthy(err.message:find("max_payload size exceeded", 1, true), err.message)
          if not client.is_nest then assert.equal("FRAME_TOO_LARGE", err.code) end
        end
        local text = ("x"):rep(1024 * 1024)
        assert.equal(text, client.outcome(client.start("send", "echo", text))[1])
      end)
    end)

    it("reaches Nest's handlers: values, streams, errors, object patterns, wildcards", function()
      local client = connect_to(server.port)
      assert.same({ id = "inv_8a1", amount = 1999, status = "paid" },
        client:send({ cmd = "charge" }, { amount = 1999 }):await())
      assert.equal(perigee.null, client:send("value.null", 1):await())
      assert.is_nil(client:send("value.undefined", 1):await())
      assert.same({ 1, 2, 3 }, client:send("stream", 1):collect():await())
      assert.same({ 1, 2, 3 }, client:send("stream.timed", { ms = 5 }):collect():await())
      assert.same({ 1 }, client:send("stream.late.end", { ms = 10 }):collect():await())
      assert.same({}, client:send("stream.empty", 1):collect():await())
      assert.equal("nested", client:send({ a = { 1, 2 }, b = { a = 'x"y\\z', z = 1 } }, 1):await())
      assert.equal("collated",
        client:send({ ["9"] = 7, ["10"] = 6, _c = 5, b = 4, A = 3, a = 2, B = 1 }, 1):await())
      assert.equal("letters", client:send({ text = "ä日😀" }, 1):await())
      assert.equal("number", client:send(42, 1):await())
      assert.same({ data = 1, channel = "wild.x" }, client:send("wild.x", 1):await())
      assert.same({ data = 1, channel = "rest.x.y" }, client:send("rest.x.y", 1):await())
      local err = failure(client:send("error.object", 1))
      assert.equal("REMOTE", err.code)
      assert.same({ code = 402, message = "no funds" }, err.err)
      assert.equal("NO_HANDLER", failure(client:send("1.0", 1)).code)
      local seen = finish(watch(client:send("stream.error", 1)))
      assert.same({ 1, 2 }, seen.values)
      assert.same({ status = "error", message = "mid" }, seen.error.err)
    end)

    it("has its events recorded by Nest, in order", function()
      local client = connect_to(server.port)
      client:emit("event", "é😀")
      client:emit({ ev = "nested", z = { q = "r" } }, perigee.array({}))
      client:emit("event.two", 1)
      client:emit("wild.events.x", 2)
      local names = {}
      for i, event in ipairs(client:send("received", 1):await()) do names[i] = event.name .. " " .. event.pattern end
      assert.same({
        "event event", 'nested {"ev":"nested","z":{"q":"r"}}', "first event.two", "second event.two",
        "wild wild.events.x",
      }, names)
    end)

    it("keeps each of many calls at once with its own answer", function()
      local client = connect_to(server.port)
      local replies = {}
      for i = 1, 300 do replies[i] = client:send("slow", { ms = i % 7, value = { token = i } }) end
      for i, got in ipairs(perigee.all(replies):await()) do assert.equal(i, got.token) end
    end)

    it("fails a call whose reply is above max_payload by its timeout at the latest", function()
      local client = connect_to(server.port)
      assert.equal("TIMEOUT", failure(client:send("big", { units = 3e6 }, { timeout = 200 })).code)
      assert.equal(1, client:send("echo", 1):await())
    end)
  end)

  describe("logging in", function()
    local function calls(client)
      assert.equal("é😀", client:send("echo", "é😀"):await())
    end
    local function is_refused(client)
      local err = failure(client:send("echo", 1))
      assert.equal("CONNECT_FAILED", err.code)
      return err
    end

    it("NAT-17 is let in with user and password, and not without", function()
      local own = broker.nats({ user = "u", pass = "p w" })
      local peer = nest.service({ transport = "nats", servers = "127.0.0.1:" .. own.port, user = "u", pass = "p w" })
      calls(connect_to(own.port, { user = "u", pass = "p w" }))
      local err = is_refused(connect_to(own.port, { user = "u", pass = "wrong" }))
      assert.truthy(tostring(err):find("Authorization Violation", 1, true), tostring(err))
      is_refused(connect_to(own.port))
      peer.stop()
      own:stop()
    end)

    it("NAT-17 is let in with a token", function()
      local own = broker.nats({ token = "secret" })
      local peer = nest.service({ transport = "nats", servers = "127.0.0.1:" .. own.port, token = "secret" })
      calls(connect_to(own.port, { token = "secret" }))
      local by_url = perigee.client(own.url)
      clients[#clients + 1] = by_url
      calls(by_url)
      is_refused(connect_to(own.port, { token = "wrong" }))
      peer.stop()
      own:stop()
    end)

    it("NAT-17 is let in with an nkey, and with a creds file", function()
      for login, option in pairs({ nkey = "seed", creds = "creds" }) do
        local own = broker.nats({ login = login })
        local peer = nest.service({ transport = "nats", servers = own.url, [login] = own[option] })
        calls(connect_to(own.port, { [login] = own[option] }))
        is_refused(connect_to(own.port))
        peer.stop()
        own:stop()
      end
    end)

    it("speaks TLS to a server whose CA it was given, with a certificate where one is asked for", function()
      local files = certs.paths()
      local client_files = { ca = files.ca, cert = files.client_cert, key = files.client_key }
      for _, mode in ipairs({ true, "mutual" }) do
        local own = broker.nats({ tls = mode })
        local peer = nest.service({ transport = "nats", servers = "127.0.0.1:" .. own.port, tls = client_files })
        calls(connect_to(own.port, { tls = mode == "mutual" and client_files or { ca = files.ca } }))
        is_refused(connect_to(own.port, { tls = { ca = files.stranger_ca } }))
        peer.stop()
        own:stop()
      end
    end)
  end)

  it("speaks TLS before INFO with tls_first, and is not heard without it", function()
    local files = certs.paths()
    local relay = nest.tls_relay({ to = server.port, tls = { cert = files.server_cert, key = files.server_key } })
    local client = connect_to(relay.port, { tls = { ca = files.ca }, tls_first = true })
    assert.equal("é😀", client:send("echo", "é😀"):await())
    local late = connect_to(relay.port, { tls = { ca = files.ca }, connect_timeout = 200 })
    assert.equal("CONNECT_FAILED", failure(late:send("echo", 1)).code)
    local stranger = connect_to(relay.port, { tls = { ca = files.stranger_ca }, tls_first = true })
    assert.equal("CONNECT_FAILED", failure(stranger:send("echo", 1)).code)
    relay.stop()
  end)

  describe("losing the server", function()
    local own, peer

    before_each(function()
      own = broker.nats()
      peer = nest.service({ transport = "nats", servers = own.url, reconnectTimeWait = 50, reconnectJitter = 0 })
    end)
    after_each(function()
      peer.stop()
      own:stop()
    end)

    local function states_of(client)
      local told = {}
      client:on("status", function(state) told[#told + 1] = state end)
      return told
    end

    local function await_state(client, state)
      loop.wait_until(function() return client:status().state == state end, 10000, function()
        return state .. ", not " .. client:status().state
      end)
    end

    it("NAT-14 tells disconnected, reconnecting, connected; pending calls fail at once (Nest: survive)", function()
      local told = { "connected", "disconnected", "reconnecting", "connected" }
      nest_client:run("options", {
        transport = "nats", servers = own.url, reconnectTimeWait = 50, reconnectJitter = 0,
      })
      nest_client:run("connect")
      own:restart()
      assert.same(told, (nest_client:run("status", #told)))

      local client = connect_to(own.port)
      local states = states_of(client)
      client:connect():await()
      local seen = watch(client:send("never", 1, { timeout = 60000 }))
      client:emit("event", 1):await() -- behind the request on the wire
      own:kill()
      finish(seen)
      assert.equal("CONNECTION_CLOSED", seen.error.code)
      own:start()
      await_state(client, "connected")
      assert.same(told, states)
    end)

    it("NAT-15 fails a call while the server is down", function()
      nest_client:run("options", { transport = "nats", servers = own.url, reconnectTimeWait = 50, reconnectJitter = 0 })
      nest_client:run("connect")
      local client = connect_to(own.port)
      client:connect():await()
      own:kill()
      nest_client:run("status", 3) -- disconnected, and reconnecting
      assert.equal("Error: Connection lost. Trying to reconnect...", select(2, nest_client:send("echo", 1)))
      loop.wait_until(function() return client:status().state ~= "connected" end, nil, "a change of status")
      local err = failure(client:send("echo", 1))
      assert.truthy(err.code == "CONNECT_FAILED" or err.code == "CONNECTION_CLOSED", err.code)
      own:start()
      await_state(client, "connected")
    end)

    it("NAT-16 dials anew for the next call, however long the server was gone", function()
      local client = connect_to(own.port)
      client:connect():await()
      own:kill()
      loop.wait_until(function() return client:status().state ~= "connected" end, nil, "a change of status")
      own:start()
      client:connect():await()
      assert.equal("connected", client:status().state)
    end)
  end)
end)
