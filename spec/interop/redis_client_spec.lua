--- perigee as a client over Redis: of a Nest 12 service. What both clients tell the broker is compared by MONITOR.

local perigee = require("perigee")
local broker = require("spec.support.broker")
local loop = require("spec.support.loop")
local nest = require("spec.support.nest")
local outcome = require("spec.support.outcome")
local process = require("spec.support.process")
local resp = require("spec.support.resp")

local failure, watch, finish = outcome.failure, outcome.watch, outcome.finish

describe("perigee as a client of Nest over Redis", function()
  local redis, service, nest_client
  local closing, monitor

  setup(function()
    redis = broker.redis()
    service = nest.service({ transport = "redis", port = redis.port })
    nest_client = nest.client({ transport = "redis", port = redis.port })
    nest_client:send("echo", 1)
  end)
  teardown(function()
    process.stop_all()
    broker.stop_all()
  end)
  before_each(function() closing = {} end)
  after_each(function()
    if monitor then monitor:close() end
    monitor = nil
    for _, client in ipairs(closing) do client:close():await() end
    loop.finish()
  end)

  local function connect(more)
    local options = { transport = "redis", host = "127.0.0.1", port = redis.port }
    for name, value in pairs(more or {}) do options[name] = value end
    local client = perigee.client(options)
    closing[#closing + 1] = client
    return client
  end

  -- Keys of a raw pattern come in the order of their table, which is each language's own.
  local function without_pattern(lines)
    for i, line in ipairs(lines) do lines[i] = line:gsub('"pattern":{.-}+,"data"', '"pattern":{},"data"') end
    return lines
  end

  --- Both clients do the same, and the broker hears the same n commands. What they do is given a function that waits
  --- until so many more were heard.
  local function both_say(n, ours, theirs)
    local client = connect()
    client:connect():await()
    monitor = resp.monitor(redis.port)
    local function record(act, who)
      local lines = {}
      local function heard(more)
        for _, line in ipairs(monitor:take(more)) do lines[#lines + 1] = line end
      end
      act(who, heard)
      heard(n - #lines)
      return without_pattern(lines)
    end
    local expected = record(theirs, nest_client)
    assert.same(expected, record(ours, client))
    return expected
  end

  it("RED-01 RED-03 subscribes, publishes, unsubscribes as Nest does, for every kind of pattern", function()
    for pattern, route in pairs({
      echo = "echo",
      [{ cmd = "charge" }] = '{"cmd":"charge"}',
      [{ B = 1, a = 2, A = 3, b = 4, _c = 5, ["10"] = 6, ["9"] = 7 }] = '{"_c":5,"10":6,"9":7,"a":2,"A":3,"b":4,"B":1}',
      [42] = "42",
      [{ text = "ä\tö 日 😀" }] = '{"text":"ä\tö 日 😀"}', -- white space in a channel's name is just that
    }) do
      local said = both_say(4, function(client) client:send(pattern, { amount = 1 }):await() end,
        function(client) assert.is_nil(select(2, client:send(pattern, { amount = 1 }))) end)
      assert.equal("SUBSCRIBE " .. route .. ".reply", said[1])
      assert.equal("PUBLISH " .. route .. " ", said[2]:sub(1, #route + 9))
      assert.equal("PUBLISH " .. route .. ".reply ", said[3]:sub(1, #route + 15))
      assert.equal("UNSUBSCRIBE " .. route .. ".reply", said[4])
      monitor:close()
    end
  end)

  it("RED-02 publishes a second call at once while the first is pending", function()
    local said = both_say(4, function(client, heard)
      local one = watch(client:send("never", 1))
      heard(2)
      local two = watch(client:send("never", 2))
      heard(1)
      one.subscription:unsubscribe()
      two.subscription:unsubscribe()
    end, function(client, heard)
      local one = client:start({ op = "send", pattern = "never", data = 1 })
      heard(2)
      local two = client:start({ op = "send", pattern = "never", data = 2 })
      heard(1)
      client:outcome(client:start({ op = "cancel", of = one }))
      client:outcome(client:start({ op = "cancel", of = two }))
    end)
    assert.same({ "SUBSCRIBE never.reply", 'PUBLISH never {"pattern":"never","data":1,"id":"I"}',
      'PUBLISH never {"pattern":"never","data":2,"id":"I"}', "UNSUBSCRIBE never.reply" }, said)
  end)

  it("RED-03 unsubscribes when the last call is cancelled", function()
    local said = both_say(3, function(client, heard)
      local seen = watch(client:send("never", 1))
      heard(2)
      seen.subscription:unsubscribe()
    end, function(client, heard)
      local id = client:start({ op = "send", pattern = "never", data = 1 })
      heard(2)
      client:outcome(client:start({ op = "cancel", of = id }))
    end)
    assert.equal("UNSUBSCRIBE never.reply", said[3])
  end)

  it("RED-04 ignores the replies to other clients on the same pattern", function()
    local client = connect()
    local ours, theirs = {}, {}
    for i = 1, 20 do
      ours[i] = watch(client:send("slow", { ms = 20 + i }))
      theirs[i] = nest_client:start({ op = "send", pattern = "slow", data = { ms = 120 + i } })
    end
    for i = 1, 20 do
      assert.same({ 20 + i }, finish(ours[i]).values)
      assert.same({ 120 + i }, (nest_client:outcome(theirs[i])))
    end
  end)

  it("RED-05 GEN-12 publishes an event with its raw pattern on its route", function()
    local pattern = { ev = "nested", z = { q = "r" } }
    local said = both_say(1, function(client) client:emit(pattern, { a = 1 }):await() end,
      function(client) client:emit(pattern, { a = 1 }) end)
    assert.truthy(said[1]:find('PUBLISH {"ev":"nested","z":{"q":"r"}} {"pattern":{', 1, true), said[1])
    local client = connect()
    client:emit("event", { n = 7 }):await()
    local received = client:send("received", {}):await()
    local last = received[#received]
    assert.same({ "event", { n = 7 }, "event" }, { last.name, last.data, last.pattern })
  end)

  it("GEN-18 GEN-20 GEN-22 GEN-23 GEN-24 reads every kind of answer as over TCP", function()
    local client = connect()
    local function values(pattern, data)
      local seen = finish(watch(client:send(pattern, data or {})))
      return seen.values, seen.error
    end
    assert.same({ { k = "é😀" } }, (values("echo", { k = "é😀" })))
    assert.same({ perigee.null }, (values("value.null")))
    assert.same({}, (values("value.undefined")))
    assert.same({ 1, 2, 3 }, (values("stream")))
    assert.same({}, (values("stream.empty")))
    local got, err = values("stream.error")
    assert.same({ 1, 2 }, got)
    assert.equal("REMOTE", err.code)
    assert.same({ status = "error", message = "mid" }, err.err)
    assert.same({ code = 402, message = "no funds" }, select(2, values("error.object")).err)
  end)

  it("GEN-10 GEN-28 takes NO_HANDLER from a channel whose name resolves to no handler", function()
    local err = failure(connect():send("1.0", 1))
    assert.equal("NO_HANDLER", err.code)
    assert.equal("There is no matching message handler defined in the remote service.", err.message)
  end)

  it("GEN-34 sends metadata, and the service sees it", function()
    local seen = connect():send("context", 1, { metadata = { trace = "t1" } }):await()
    assert.same({ pattern = "context", metadata = { trace = "t1" } }, seen)
  end)

  it("carries 1 MB to Nest and back", function()
    local text = ("0123456789abcdef"):rep(65536)
    assert.equal(text, connect():send("echo", text):await())
  end)

  it("RED-13 RED-14 RED-15 fails what is pending at once, says that it reconnects, and calls again", function()
    local own = broker.redis()
    local other = nest.service({ transport = "redis", port = own.port, retryAttempts = 100, retryDelay = 50 })
    local client = connect({ port = own.port })
    local patient = connect({ port = own.port, resume = true })
    assert.equal(1, client:send("echo", 1):await())
    local lost = watch(client:send("never", 1, { timeout = false }))
    local kept = watch(patient:send("slow", { ms = 1500 }, { timeout = 10000 }))
    patient:send("echo", 1):await()
    client:send("echo", 1):await()
    own:kill()
    assert.equal("CONNECTION_CLOSED", finish(lost, 1000).error.code)
    local err
    loop.wait_until(function()
      err = failure(client:send("echo", 1))
      return err.message:find("Connection lost. Trying to reconnect...", 1, true)
    end)
    assert.equal("CONNECT_FAILED", err.code)
    own:start()
    local spy = resp.connect(own.port)
    loop.wait_until(function() return spy:call("PUBSUB", "NUMSUB", "echo")[2] == 1 end, 5000, "Nest's subscriptions")
    loop.wait_until(function() return client:status().state == "connected" end, 2000)
    assert.equal(2, client:send("echo", 2):await())
    assert.same({ 1500 }, finish(kept).values)
    spy:close()
    other.stop()
    own:stop()
  end)

  it("RED-18 meets a service on a broker with a user and a password", function()
    local own = broker.redis({ username = "u", password = "secret" })
    local other = nest.service({ transport = "redis", port = own.port, username = "u", password = "secret", db = 1 })
    assert.equal(1, connect({ port = own.port, username = "u", password = "secret", db = 3 }):send("echo", 1):await())
    other.stop()
    own:stop()
  end)

  it("RED-19 takes a reply that is no packet whole, and drops what is not JSON", function()
    local client = connect()
    local sub = resp.connect(redis.port)
    sub:call("SUBSCRIBE", "foreign")
    local seen = watch(client:send("foreign", 1))
    local id = sub:read()[3]:match('"id":"(%x+)"')
    local pub = resp.connect(redis.port)
    pub:call("PUBLISH", "foreign.reply", "plain text")
    pub:call("PUBLISH", "foreign.reply", ('{"x":1,"id":"%s"}'):format(id))
    assert.same({ { x = 1, id = id } }, finish(seen).values)
    assert.equal(1, client:status().late_replies)
    sub:close()
    pub:close()
  end)

  it("is told that the service has gone by its timeout, as with Nest's own silence", function()
    local err = failure(connect():send("nobody.listens", 1, { timeout = 100 }))
    assert.equal("TIMEOUT", err.code)
  end)

  it("works while the service is still there", function() assert.is_nil(service.process.exit_code) end)
end)
