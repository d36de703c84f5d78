--- NATS servers that are killed under load: every call ends, traffic comes back by itself, no subscription is lost.

local cjson = require("cjson")
local perigee = require("perigee")
local log = require("perigee.log")
local broker = require("spec.support.broker")
local load = require("spec.support.load")
local loop = require("spec.support.loop")
local nats = require("spec.support.nats")
local process = require("spec.support.process")
local uv = require("luv")

local RESUME_MS = 2000

describe("perigee on NATS servers that die", function()
  local app, client

  setup(function() log.set_sink(function() end) end) -- a line for each loss
  teardown(function()
    log.set_sink(nil)
    process.stop_all()
    broker.stop_all()
  end)
  after_each(function()
    client:close():await()
    app:stop():await()
    loop.finish()
  end)

  -- Twenty names, an object pattern and a wildcard: each has a subscription to lose.
  local function patterns()
    local list = { { cmd = "echo" }, "wild.card" }
    for i = 1, 20 do list[#list + 1] = "echo." .. i end
    return list
  end

  local function serve(servers)
    app = perigee.app()
    local function echo(data) return data end
    for _, pattern in ipairs(patterns()) do
      app:message(pattern == "wild.card" and "wild.*" or pattern, echo)
    end
    app:listen("nats://" .. table.concat(servers, ","))
    app:start():await()
  end

  local function connect(servers)
    client = perigee.client({ transport = "nats", servers = servers })
    client:connect():await()
  end

  local function each_pattern_answers()
    for i, pattern in ipairs(patterns()) do
      assert.same({ n = i }, client:send(pattern, { n = i }):await())
    end
  end

  local function open_files()
    local n = 0
    local dir = assert(uv.fs_scandir("/proc/self/fd"))
    while uv.fs_scandir_next(dir) do n = n + 1 end
    return n
  end

  local function memory()
    collectgarbage()
    collectgarbage()
    return collectgarbage("count")
  end

  it("resumes within 2 s after each of twenty kills of the one server, and leaks nothing", function()
    local server = broker.nats()
    local address = { "127.0.0.1:" .. server.port }
    serve(address)
    connect(address)
    local calls = load.start(client, patterns(), { width = 64 })
    calls:await_answers(500)
    local files, kilobytes
    for round = 1, 20 do
      server:restart()
      local ms = calls:await_answers(200)
      assert.truthy(ms <= RESUME_MS, ("round %d: %d ms"):format(round, ms))
      if round == 2 then files, kilobytes = open_files(), memory() end
    end
    calls:stop()
    assert.same({}, calls.wrong)
    each_pattern_answers()
    assert.equal(0, client:status().hosts[1].pending)
    assert.equal(files, open_files())
    assert.truthy(memory() < kilobytes * 1.5 + 1024, ("%d kB, before %d kB"):format(memory(), kilobytes))
    server:stop()
  end)

  it("moves to another server of a cluster of three when its own dies, and back", function()
    local cluster = broker.nats_cluster()
    local addresses = {}
    for i, server in ipairs(cluster.servers) do addresses[i] = "127.0.0.1:" .. server.port end
    serve(addresses)
    connect(addresses)
    local calls = load.start(client, patterns(), { width = 64 })
    calls:await_answers(500)
    for _, server in ipairs(cluster.servers) do
      server:kill()
      local ms = calls:await_answers(200)
      assert.truthy(ms <= RESUME_MS, ms .. " ms")
      server:start()
      for _, other in ipairs(cluster.servers) do cluster:await_members(other, 3) end
    end
    calls:stop()
    assert.same({}, calls.wrong)
    each_pattern_answers()
    cluster:stop()
  end)

  it("moves to a server it was only told of", function()
    local cluster = broker.nats_cluster()
    serve({ "127.0.0.1:" .. cluster.servers[1].port })
    connect({ "127.0.0.1:" .. cluster.servers[1].port })
    local calls = load.start(client, patterns())
    calls:await_answers(100)
    cluster.servers[1]:kill()
    local ms = calls:await_answers(100)
    assert.truthy(ms <= RESUME_MS, ms .. " ms")
    calls:stop()
    assert.same({}, calls.wrong)
    each_pattern_answers()
    cluster:stop()
  end)

  describe("with a stream on each of three", function()
    local cluster, raw

    before_each(function()
      cluster = broker.nats_cluster({ jetstream = true })
      loop.wait_until(function()
        for _, server in ipairs(cluster.servers) do
          if server:log():find("cluster metadata leader", 1, true) then return true end
        end
      end, 20000, "a leader of JetStream")
    end)
    after_each(function()
      if raw then raw:close() end
      cluster:stop()
    end)

    local function ask_jetstream(server, subject, body)
      local peer = nats.connect(server.port)
      peer:subscribe("answer")
      peer:publish("$JS.API." .. subject, body and cjson.encode(body) or "", { reply_to = "answer" })
      local answer = cjson.decode(peer:read_op("MSG$", 20000).payload)
      peer:close()
      return answer
    end

    -- A new leader knows the others only after a while, and says nothing about it.
    local function make_stream(server)
      local answer
      for _ = 1, 100 do
        answer = ask_jetstream(server, "STREAM.CREATE.ORDERS", { name = "ORDERS", subjects = { "orders" },
          storage = "file", num_replicas = 3 })
        if not answer.error then return answer.cluster.leader end
        perigee.sleep(100):await()
      end
      error(answer.error.description)
    end

    --- The server of a name, and another one.
    local function pick(name)
      local number = tonumber(name:match("%d"))
      return cluster.servers[number], cluster.servers[number % 3 + 1]
    end

    it("loses no event when the leader dies, and acknowledges each delivery once", function()
      local leader, other = pick(make_stream(cluster.servers[1]))
      local seen, count = {}, 0
      app = perigee.app()
      app:event("orders", function(number)
        if not seen[number] then count = count + 1 end
        seen[number] = true
      end)
      app:listen(leader.url, { jetstream = { stream = "ORDERS", durable = "billing", ack_wait = 1000 } })
      app:start():await()
      raw = nats.connect(other.port)
      raw:subscribe("$JS.ACK.>")
      client = perigee.client({ transport = "nats", servers = leader.url, jetstream = true, timeout = 1000 })
      -- Sent again until the stream has it, which knows it again by the id.
      local function store(number)
        local opts = { headers = { ["Nats-Msg-Id"] = tostring(number) } }
        while not pcall(function() client:emit("orders", number, opts):await() end) do perigee.sleep(20):await() end
      end
      local stored = {}
      for number = 1, 200 do
        stored[number] = perigee.async(store, number)
        if number == 100 then
          loop.wait_until(function() return count >= 20 end, 10000, "the first events")
          leader:kill()
        end
      end
      perigee.all(stored):await()
      loop.wait_until(function() return count == 200 end, 30000, function() return "200 events, not " .. count end)
      leader:start()
      raw:flush()
      local acknowledged = {}
      for _, message in ipairs(raw.kept) do
        if message.payload == "+ACK" then
          assert.is_nil(acknowledged[message.subject])
          acknowledged[message.subject] = true
        end
      end
      assert.truthy(next(acknowledged))
      assert.equal(200, ask_jetstream(other, "STREAM.INFO.ORDERS").state.messages)
    end)
  end)
end)
