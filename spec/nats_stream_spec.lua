-- JetStream: events that a stream acknowledges, and a durable consumer as a source of events.

local brokers = require("spec.support.broker")
local cjson = require("cjson")
local log = require("perigee.log")
local loop = require("spec.support.loop")
local nats = require("spec.support.nats")
local perigee = require("perigee")

local opened, lines = {}, {}

local function keep(object)
  opened[#opened + 1] = object
  return object
end

local function client(options) return keep(perigee.client(options)) end

local function failure(promise)
  local ok, err = pcall(function() return promise:await() end)
  assert.is_false(ok)
  return err
end

local function mime_decode(text)
  local letters, bits, count, out = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 0, 0, {}
  for letter in text:gmatch("[%w+/]") do
    bits, count = bits * 64 + letters:find(letter, 1, true) - 1, count + 6
    if count >= 8 then
      count = count - 8
      out[#out + 1] = string.char(math.floor(bits / 2 ^ count))
      bits = bits % 2 ^ count
    end
  end
  return table.concat(out)
end

local function eventually(pred, what) return loop.wait_until(pred, 10000, what) end

local function logged(text)
  return function()
    for _, line in ipairs(lines) do
      if line:find(text, 1, true) then return line end
    end
  end
end

describe("jetstream", function()
  local broker, peer

  --- A request of JetStream's own API, by hand.
  local function api(subject, body)
    peer:publish("$JS.API." .. subject, body and cjson.encode(body) or "", { reply_to = "api.answer" })
    local answer = cjson.decode(peer:read_op("MSG").payload)
    assert(not answer.error, answer.error and answer.error.description)
    return answer
  end

  local function stream(name, subjects)
    api("STREAM.CREATE." .. name, { name = name, subjects = subjects, storage = "file" })
  end

  local function consumer(name, durable) return api(("CONSUMER.INFO.%s.%s"):format(name, durable)) end

  local function listen(options, declare)
    local app = perigee.app()
    declare(app)
    app:listen(broker.url, { jetstream = options })
    app:start():await()
    return keep(app)
  end

  before_each(function()
    lines = {}
    log.set_sink(function(line) lines[#lines + 1] = line end)
    broker = brokers.nats({ jetstream = true })
    peer = nats.connect(broker.port)
    peer:subscribe("api.answer")
  end)

  after_each(function()
    for i = #opened, 1, -1 do
      local object = opened[i]
      ;(object.stop and object:stop({ drain_timeout = 100 }) or object:close()):await()
      opened[i] = nil
    end
    peer:close()
    brokers.stop_all()
    loop.finish()
    log.set_sink()
  end)

  describe("emit", function()
    it("settles when the stream has the event; by the message's option or the client's", function()
      stream("ORDERS", { "orders.>" })
      local c = client(broker.url)
      c:emit("orders.a", { n = 1 }, { jetstream = true }):await()
      client({ transport = "nats", servers = broker.url, jetstream = true }):emit("orders.b", { n = 2 }):await()
      assert.are.equal(2, api("STREAM.INFO.ORDERS").state.messages)
      assert.are.equal(0, c:status().pending)
    end)

    it("fails where no stream takes the subject, or where a service answers instead", function()
      local c = client(broker.url)
      local err = failure(c:emit("nobody", 1, { jetstream = true }))
      assert.are.same({ "NO_HANDLER", 'no stream takes the subject "nobody"' }, { err.code, err.message })
      peer:subscribe("service")
      local sent = perigee.settled({ c:emit("service", 1, { jetstream = true }) })
      peer:publish(peer:read_op("MSG").reply_to, "{}")
      assert.are.equal("REMOTE", sent:await()[1].reason.code)
    end)

    it("fails with the stream's own words", function()
      api("STREAM.CREATE.SMALL", { name = "SMALL", subjects = { "small" }, max_msg_size = 10 })
      local err = failure(client(broker.url):emit("small", ("x"):rep(100), { jetstream = true }))
      assert.are.equal("REMOTE", err.code)
      assert.is_truthy(err.message:find("exceeds maximum", 1, true), err.message)
    end)

    it("times out when nobody acknowledges", function()
      peer:subscribe("silent")
      local err = failure(client(broker.url):emit("silent", 1, { jetstream = true, timeout = 50 }))
      assert.are.equal("TIMEOUT", err.code)
    end)
  end)

  describe("a consumer", function()
    it("brings what the stream has and will have, once, to the handlers that hear it", function()
      stream("ORDERS", { "orders.>" })
      local c, heard = client({ transport = "nats", servers = broker.url, jetstream = true }), {}
      for i = 1, 5 do c:emit("orders.new", i, { headers = { n = tostring(i) } }):await() end
      listen({ stream = "ORDERS", durable = "billing", batch = 4 }, function(app)
        app:event("orders.*", function(data, ctx) heard[#heard + 1] = { data, ctx.pattern, ctx.headers.n } end)
      end)
      for i = 6, 200 do c:emit("orders.late", i):await() end
      eventually(function() return #heard >= 200 end, "the events")
      assert.are.same({ 1, "orders.new", "1" }, heard[1])
      for i = 1, 200 do assert.are.equal(i, heard[i][1]) end
      eventually(function() return consumer("ORDERS", "billing").num_ack_pending == 0 end, "the acknowledgements")
      assert.are.equal(200, #heard)
    end)

    it("goes on where it was after a restart of the listener", function()
      stream("ORDERS", { "orders" })
      local c, heard = client({ transport = "nats", servers = broker.url, jetstream = true }), {}
      local function declare(app)
        app:event("orders", function(data) heard[#heard + 1] = data end)
      end
      local app = listen({ stream = "ORDERS", durable = "billing" }, declare)
      c:emit("orders", 1):await()
      eventually(function() return #heard == 1 end, "the first")
      app:stop():await()
      c:emit("orders", 2):await()
      listen({ stream = "ORDERS", durable = "billing" }, declare)
      eventually(function() return #heard == 2 end, "the second")
      assert.are.same({ 1, 2 }, heard)
    end)

    it("brings again what failed, then gives it up as a dead letter", function()
      stream("ORDERS", { "orders" })
      stream("DEAD", { "dead.orders" })
      local tries = 0
      listen({ stream = "ORDERS", durable = "billing", max_deliver = 3, retry_delay = 10, dead_letter = "dead.orders" },
        function(app)
          app:event("orders", function(data)
            tries = tries + 1
            if data == "bad" then error("no") end
          end)
        end)
      local c = client({ transport = "nats", servers = broker.url, jetstream = true })
      c:emit("orders", "bad", { headers = { trace = "t1" } }):await()
      eventually(function() return tries == 3 end, "three tries")
      eventually(function() return api("STREAM.INFO.DEAD").state.messages == 1 end, "the dead letter")
      assert.is_truthy(logged("a message of stream ORDERS is given up after 3 tries")())
      c:emit("orders", "good"):await()
      eventually(function() return tries == 4 end, "the next one")
      eventually(function() return consumer("ORDERS", "billing").num_ack_pending == 0 end, "an end")
      local letter = api("STREAM.MSG.GET.DEAD", { seq = 1 }).message
      assert.are.equal("dead.orders", letter.subject)
      assert.are.equal('{"pattern":"orders","data":"bad"}', mime_decode(letter.data))
      assert.are.equal("NATS/1.0\r\ntrace: t1\r\n\r\n", mime_decode(letter.hdrs))
      assert.are.equal(4, tries)
    end)

    it("is told by ctx:ack and ctx:nack before the handler ends", function()
      stream("ORDERS", { "orders" })
      local tries, release = 0, nil
      listen({ stream = "ORDERS", durable = "billing", retry_delay = 10 }, function(app)
        app:event("orders", function(_, ctx)
          tries = tries + 1
          if tries == 1 then return ctx:nack() end
          ctx:ack()
          perigee.promise(function(resolve) release = resolve end):await()
          error("too late to matter")
        end)
      end)
      client({ transport = "nats", servers = broker.url, jetstream = true }):emit("orders", 1):await()
      eventually(function() return tries == 2 end, "the second try")
      eventually(function() return consumer("ORDERS", "billing").num_ack_pending == 0 end, "the acknowledgement")
      release()
      eventually(logged("too late to matter"), "the end")
      assert.are.equal(2, tries)
    end)

    it("gives up what nobody hears and what is not JSON, with a word in the log", function()
      stream("ORDERS", { "orders.>" })
      local heard = {}
      listen({ stream = "ORDERS", durable = "billing" }, function(app)
        app:event("orders.known", function(data) heard[#heard + 1] = data end)
      end)
      peer:publish("orders.other", "1")
      peer:publish("orders.known", "hello")
      peer:publish("orders.known", "7")
      eventually(function() return #heard == 1 end, "the good one")
      assert.are.same({ 7 }, heard)
      assert.is_truthy(logged("on 'orders.other' is given up: no handler hears it")())
      assert.is_truthy(logged("on 'orders.known' is given up")())
      eventually(function() return consumer("ORDERS", "billing").num_ack_pending == 0 end, "an end")
    end)

    it("is not hurried by ack_wait while a handler works", function()
      stream("ORDERS", { "orders" })
      local runs, finish = 0, nil
      listen({ stream = "ORDERS", durable = "billing", ack_wait = 300 }, function(app)
        app:event("orders", function()
          runs = runs + 1
          perigee.promise(function(resolve) finish = resolve end):await()
        end)
      end)
      client({ transport = "nats", servers = broker.url, jetstream = true }):emit("orders", 1):await()
      eventually(function() return finish end, "the event")
      loop.run_for(1000)
      finish()
      eventually(function() return consumer("ORDERS", "billing").num_ack_pending == 0 end, "the acknowledgement")
      assert.are.equal(1, runs)
    end)

    it("loses nothing when the server is killed again and again", function()
      stream("ORDERS", { "orders" })
      local seen, count = {}, 0
      listen({ stream = "ORDERS", durable = "billing", ack_wait = 1000 }, function(app)
        app:event("orders", function(data)
          if not seen[data] then count = count + 1 end
          seen[data] = true
        end)
      end)
      local c = client({ transport = "nats", servers = broker.url, jetstream = true, timeout = 1000 })
      -- Sent again until the stream has it; by the id it knows what it has.
      local function store(i)
        local opts = { headers = { ["Nats-Msg-Id"] = tostring(i) } }
        return perigee.async(function()
          while not pcall(function() c:emit("orders", i, opts):await() end) do perigee.sleep(20):await() end
        end)
      end
      local stored = {}
      for round = 1, 3 do
        local goal = count + 50
        for i = 1, 100 do stored[#stored + 1] = store(round * 1000 + i) end
        eventually(function() return count >= goal end, "half of the events")
        broker:restart()
      end
      perigee.all(stored):await()
      eventually(function() return count == 300 end, function() return ("300 events, not %d"):format(count) end)
      peer = nats.connect(broker.port)
      peer:subscribe("api.answer")
      eventually(function() return consumer("ORDERS", "billing").num_ack_pending == 0 end, "the acknowledgements")
      assert.are.equal(300, api("STREAM.INFO.ORDERS").state.messages)
    end)

    it("of a stream that is not there, or of a server without JetStream, refuses the start", function()
      local app = perigee.app()
      app:event("x", print)
      app:listen(broker.url, { jetstream = { stream = "NONE", durable = "d" } })
      assert.are.same({ "CONNECT_FAILED", "JetStream: stream not found" },
        (function(err) return { err.code, err.message } end)(failure(app:start())))
      local plain = brokers.nats()
      app = perigee.app()
      app:event("x", print)
      app:listen(plain.url, { jetstream = { stream = "NONE", durable = "d" } })
      assert.is_truthy(failure(app:start()).message:find("JetStream does not answer", 1, true))
    end)

    it("has options that are checked", function()
      for text, options in pairs({
        ["option 'jetstream.durable' is missing"] = { stream = "S" },
        ["unknown option 'jetstream.durabl' (did you mean 'jetstream.durable'?)"] = { stream = "S", durabl = "d" },
        ["option 'jetstream.stream' must be"] = { stream = "S.x", durable = "d" },
        ["option 'jetstream.batch' must be"] = { stream = "S", durable = "d", batch = 0 },
        ["without white space and quotes"] = { stream = "S", durable = "d", filter = 'a"' },
      }) do
        local ok, err = pcall(function() perigee.app():listen(broker.url, { jetstream = options }) end)
        assert.is_false(ok)
        assert.is_truthy(tostring(err):find(text, 1, true), tostring(err))
      end
    end)
  end)
end)
