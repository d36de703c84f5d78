--- A client over Redis, of a server that the spec plays: where the bytes and their order matter.

local perigee = require("perigee")
local loop = require("spec.support.loop")
local outcome = require("spec.support.outcome")
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
end)
