-- The NATS transport against a real server. Nest's own client and service are spec/interop's.

local brokers = require("spec.support.broker")
local log = require("perigee.log")
local loop = require("spec.support.loop")
local perigee = require("perigee")
local tcp = require("spec.support.tcp")

local opened = {}

local function keep(object)
  opened[#opened + 1] = object
  return object
end

local function client(options) return keep(perigee.client(options)) end

--- An app with these declarations on the broker, started.
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

-- Whatever says so: an event of the loop, not time, moves it on.
local function eventually(pred, what) return loop.wait_until(pred, 5000, what) end

--- One that publishes, or hears, by hand: what no peer of Nest would say.
local function stranger(broker)
  local peer = tcp.connect(broker.port)
  peer:read_line(5000)
  peer:write('CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nPING\r\n')
  repeat until peer:read_line(5000) == "PONG"
  return peer
end

describe("nats", function()
  local broker

  setup(function() broker = brokers.nats({ max_payload = 2000000 }) end)
  teardown(function() brokers.stop_all() end)

  after_each(function()
    for i = #opened, 1, -1 do
      local object = opened[i]
      ;(object.stop and object:stop({ drain_timeout = 100 }) or object:close()):await()
      opened[i] = nil
    end
    loop.finish()
    log.set_sink()
  end)

  before_each(function() log.set_sink(function() end) end)

  describe("requests", function()
    it("are answered: a value, an object pattern, a stream, nothing", function()
      serve(broker.url, function(app)
        app:message("sum", function(data) return data[1] + data[2] end)
        app:message({ b = 1, a = { "x" } }, function(_, ctx) return ctx.pattern end)
        app:message("count", function() return perigee.of(1, 2, 3) end)
        app:message("nothing", function() end)
      end)
      local c = client(broker.url)
      assert.are.equal(3, c:send("sum", { 1, 2 }):await())
      assert.are.equal('{"a":{"0":"x"},"b":1}', c:send({ a = { "x" }, b = 1 }, {}):await())
      assert.are.same({ 1, 2, 3 }, c:send("count", {}):collect():await())
      assert.is_nil(c:send("nothing", {}):await())
    end)

    it("that fail bring the handler's error", function()
      serve(broker.url, function(app)
        app:message("fail", function() error({ code = 7 }) end)
      end)
      local err = failure(client(broker.url):send("fail", {}))
      assert.are.same({ "REMOTE", { code = 7 } }, { err.code, err.err })
    end)

    it("NAT-03 fail at once where nobody listens, with the subject in Nest's words", function()
      local err = failure(client(broker.url):send({ cmd = "nosuch" }, {}))
      assert.are.equal("NO_HANDLER", err.code)
      assert.are.equal(
        'Empty response. There are no subscribers listening to that message ("{"cmd":"nosuch"}")', err.message)
    end)

    it("NAT-07 are refused for a subject with white space, or an empty one", function()
      local c = client(broker.url)
      for pattern, text in pairs({ ["a b"] = "illegal subject: 'a b'", [""] = "illegal subject: ''" }) do
        local err = failure(c:send(pattern, {}))
        assert.are.same({ "INVALID_MESSAGE", text }, { err.code, err.message })
        assert.are.equal(text, failure(c:emit(pattern, {})).message)
      end
    end)

    it("NAT-07 above max_payload are refused here, and the connection lives", function()
      serve(broker.url, function(app)
        app:message("size", function(data) return #data end)
      end)
      local c = client(broker.url)
      local err = failure(c:send("size", ("x"):rep(2000000)))
      assert.are.same({ "FRAME_TOO_LARGE", "'payload' max_payload size exceeded" }, { err.code, err.message })
      assert.are.equal("FRAME_TOO_LARGE", failure(c:emit("size", ("x"):rep(2000000))).code)
      assert.are.equal(1048576, c:send("size", ("x"):rep(1048576)):await())
    end)

    it("G6 whose reply is above max_payload get an error instead of nothing", function()
      serve(broker.url, function(app)
        app:message("big", function() return ("x"):rep(2000001) end)
      end)
      local err = failure(client(broker.url):send("big", {}))
      assert.are.equal("REMOTE", err.code)
      assert.is_truthy(err.message:find("too large", 1, true), err.message)
    end)

    it("10,000 at once travel over one connection", function()
      serve(broker.url, function(app)
        app:message("double", function(n) return n * 2 end)
      end)
      local c, list = client({ transport = "nats", servers = broker.url, max_waiting = 20000 }), {}
      c:connect():await()
      for i = 1, 10000 do list[i] = c:send("double", i) end
      local got = perigee.all(list):await()
      for i = 1, 10000 do assert(got[i] == i * 2) end
      assert.are.same({ 0, 1 }, { c:status().pending, c:status().hosts[1].connections })
    end)

    it("that are cancelled are forgotten: a late answer is counted", function()
      local release
      serve(broker.url, function(app)
        app:message("slow", function()
          return perigee.promise(function(resolve) release = resolve end)
        end)
      end)
      local c = client(broker.url)
      local running = c:send("slow", {}):first()
      eventually(function() return release end, "the request")
      running:cancel()
      release(1)
      eventually(function() return c:status().late_replies == 1 end, "the late reply")
      assert.are.equal(0, c:status().pending)
    end)

    it("are bounded by their timeout", function()
      serve(broker.url, function(app)
        app:message("never", function() return perigee.promise(function() end) end)
      end)
      assert.are.equal("TIMEOUT", failure(client(broker.url):send("never", {}, { timeout = 50 })).code)
    end)
  end)

  describe("replies by hand", function()
    local function answering(payload, timeout)
      local peer = stranger(broker)
      peer:write("SUB by.hand 1\r\nPING\r\n")
      repeat until peer:read_line(5000) == "PONG"
      local c = client(broker.url)
      local result = perigee.settled({ c:send("by.hand", { a = 1 }, { timeout = timeout or 5000 }) })
      local inbox
      repeat inbox = peer:read_line(5000):match("^MSG by%.hand 1 (%S+) %d+$") until inbox
      local body = peer:read_line(5000)
      payload = payload:gsub("ID", body:match('"id":"(%x+)"'))
      peer:write(("PUB %s %d\r\n%s\r\n"):format(inbox, #payload, payload))
      return result:await()[1], inbox
    end

    it("NAT-06 without an id are the call's", function()
      assert.are.equal(5, answering('{"response":5,"isDisposed":true}').value)
    end)

    it("NAT-06 with another id are ignored", function()
      assert.are.equal("TIMEOUT", answering('{"response":5,"isDisposed":true,"id":"other"}', 300).reason.code)
    end)

    it("NAT-06 in a foreign shape are the value", function()
      assert.are.same({ x = 1 }, answering('{"x":1}').value)
      assert.are.equal(5, answering("5").value)
    end)

    it("that are not JSON fail the call", function()
      local reason = answering("hello").reason
      assert.are.equal("BAD_FRAME", reason.code)
      assert.is_truthy(reason.message:find("not JSON", 1, true))
    end)

    it("go to an inbox under the given prefix NAT-04", function()
      local _, inbox = answering("1")
      assert.is_truthy(inbox:find("^_INBOX%.%w+%.%x+$"))
    end)
  end)

  describe("handlers", function()
    it("NAT-09 hear wildcards, and get the concrete subject; two that match both run", function()
      local heard = {}
      serve(broker.url, function(app)
        app:event("logs.*", function(data, ctx) heard[#heard + 1] = ctx.pattern .. ":" .. data end)
        app:event("logs.>", function(data, ctx) heard[#heard + 1] = ctx.pattern .. "::" .. data end)
        app:message("ask.*.now", function(_, ctx) return ctx.pattern end)
      end)
      local c = client(broker.url)
      c:emit("logs.a", "1"):await()
      c:emit("logs.a.b", "2"):await()
      assert.are.equal("ask.me.now", c:send("ask.me.now", {}):await())
      eventually(function() return #heard == 3 end, "three events")
      table.sort(heard)
      assert.are.same({ "logs.a.b::2", "logs.a:1", "logs.a::1" }, heard)
    end)

    it("NAT-10 NAT-05 see headers: one value, a list, the client's own, the message's first", function()
      serve(broker.url, function(app)
        app:message("headers", function(_, ctx) return perigee.json.encode(ctx.headers) end)
      end)
      local c = client({ transport = "nats", servers = broker.url, headers = { ["x-version"] = "1", ["x-all"] = "y" } })
      assert.are.equal('{"x-all":"y","x-version":"1"}', c:send("headers", {}):await())
      assert.are.equal('{"x-all":"y","x-multi":["a","b"],"x-version":"2"}',
        c:send("headers", {}, { headers = { ["x-version"] = "2", ["x-multi"] = { "a", "b" } } }):await())
      assert.are.equal("{}", client(broker.url):send("headers", {}):await())
    end)

    it("NAT-12 take JSON without an id for an event, also with an address for a reply", function()
      local heard = {}
      serve(broker.url, function(app)
        app:event("foreign", function(data, ctx) heard[#heard + 1] = { data, ctx.pattern, ctx.is_event } end)
      end)
      local peer = stranger(broker)
      peer:write('PUB foreign _INBOX.x 10\r\n{"data":5}\r\nPUB foreign 10\r\n{"name":1}\r\nPUB foreign 2\r\n42\r\n')
      eventually(function() return #heard == 3 end, "the events")
      assert.are.same({ { 5, "foreign", true }, { { name = 1 }, "foreign", true }, { 42, "foreign", true } }, heard)
    end)

    it("NAT-11 never see a body that is not JSON, and go on", function()
      local heard = {}
      serve(broker.url, function(app)
        app:event("text", function(data) heard[#heard + 1] = data end)
      end)
      local peer = stranger(broker)
      peer:write("PUB text 5\r\nhello\r\nPUB text 0\r\n\r\nPUB text 3\r\n\"\xff\"\r\nPUB text 1\r\n7\r\n")
      eventually(function() return #heard == 1 end, "the event")
      assert.are.same({ 7 }, heard)
    end)

    it("run a request without an address for the reply, and answer nobody", function()
      local heard = {}
      serve(broker.url, function(app)
        app:message("no.reply", function(data) heard[#heard + 1] = data end)
      end)
      stranger(broker):write('PUB no.reply 19\r\n{"data":5,"id":"i"}\r\n')
      eventually(function() return #heard == 1 end, "the request")
    end)

    it("are found by the subject, whatever the body says", function()
      local heard = {}
      serve(broker.url, function(app)
        app:event("open", function(_, ctx) heard[#heard + 1] = ctx.pattern end)
        app:event("secret", function() heard[#heard + 1] = "secret" end)
      end)
      stranger(broker):write('PUB open 29\r\n{"pattern":"secret","data":1}\r\n')
      eventually(function() return #heard == 1 end, "the event")
      assert.are.same({ "open" }, heard)
    end)

    it("NAT-18 NAT-08 in one queue group share the messages: the handler's own, or the listener's", function()
      local seen = { a = 0, b = 0 }
      for name in pairs(seen) do
        serve(broker.url, function(app)
          app:event("shared", function() seen[name] = seen[name] + 1 end)
          app:event("shared.too", function() seen[name] = seen[name] + 1 end, { queue = "other" })
        end, { queue = "workers" })
      end
      local c = client(broker.url)
      for _ = 1, 50 do
        c:emit("shared", {}):await()
        c:emit("shared.too", {}):await()
      end
      eventually(function() return seen.a + seen.b == 100 end, "all events")
      c:send("flush", {}):catch(function() end):await() -- what was twice would be here by now
      assert.are.equal(100, seen.a + seen.b)
    end)

    it("cannot be anything: any_pattern is refused with its place", function()
      local app = perigee.app()
      app:forward(perigee.any_pattern, client(broker.url))
      app:listen(broker.url)
      local err = failure(app:start())
      assert.are.equal("INVALID_OPTION", err.code)
      assert.is_truthy(err.message:find("nats_spec.lua:", 1, true), err.message)
    end)

    it("G15 with white space in the pattern refuse the start", function()
      local app = perigee.app()
      app:message({ cmd = "get user" }, print)
      app:listen(broker.url)
      local err = failure(app:start())
      assert.are.same({ "INVALID_OPTION", [[illegal subject: '{"cmd":"get user"}']] }, { err.code, err.message })
    end)

    it("refuse options they do not know", function()
      local ok, err = pcall(perigee.app().event, perigee.app(), "x", print, { queu = "q" })
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find("did you mean 'queue'", 1, true), tostring(err))
    end)
  end)

  describe("headers", function()
    for what, headers in pairs({
      ["a line feed"] = { a = "x\ny" }, ["a colon in the name"] = { ["a:b"] = "x" }, ["a number"] = { a = 1 },
      ["an empty list"] = { a = {} }, ["a space in the name"] = { ["a b"] = "x" },
      ["too much"] = { a = ("x"):rep(16385) },
    }) do
      it("with " .. what .. " are refused", function()
        assert.are.equal("INVALID_MESSAGE", failure(client(broker.url):send("h", {}, { headers = headers })).code)
        assert.is_false((pcall(perigee.client, { transport = "nats", servers = broker.url, headers = headers })))
      end)
    end

    it("are a table", function()
      local err = failure(client(broker.url):send("h", {}, { headers = "x: 1" }))
      assert.are.equal("INVALID_OPTION: option 'headers' must be a table, not string", tostring(err))
    end)

    it("are unknown to transports that carry none", function()
      local err = failure(client("tcp://127.0.0.1:1"):send("h", {}, { headers = { a = "1" } }))
      assert.are.equal("INVALID_OPTION", err.code)
      assert.is_truthy(err.message:find("unknown option 'headers'", 1, true))
    end)
  end)

  describe("a bridge", function()
    it("passes messages, events, errors and headers on; nobody behind it is no handler", function()
      local heard = {}
      serve(broker.url, function(app)
        app:message("back.sum", function(data, ctx) return { data[1] + data[2], ctx.headers.x } end)
        app:event("back.ev", function(data, ctx) heard[#heard + 1] = { data, ctx.pattern } end)
        app:message("back.fail", function() error({ bad = true }) end)
      end)
      local behind = client(broker.url)
      serve("local:bridge", function(app)
        app:forward("back.sum", behind)
        app:forward("back.none", behind)
        app:forward("back.fail", behind)
        app:forward("ev", behind, { to = "back.ev" })
      end)
      serve(broker.url, function(app)
        app:forward("front.sum", behind, { to = "back.sum" })
      end)
      local front = client("local:bridge")
      assert.are.same({ 3 }, front:send("back.sum", { 1, 2 }):await())
      assert.are.same({ 3, "y" }, behind:send("front.sum", { 1, 2 }, { headers = { x = "y" } }):await())
      assert.are.equal("NO_HANDLER", failure(front:send("back.none", {})).code)
      assert.are.same({ bad = true }, failure(front:send("back.fail", {})).err)
      front:emit("ev", 5):await()
      eventually(function() return #heard == 1 end, "the event")
      assert.are.same({ 5, "back.ev" }, heard[1])
    end)
  end)
end)
