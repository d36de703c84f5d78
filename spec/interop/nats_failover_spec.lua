--- NATS servers that are killed under load: every call ends, traffic comes back by itself, no subscription is lost.

local perigee = require("perigee")
local log = require("perigee.log")
local broker = require("spec.support.broker")
local load = require("spec.support.load")
local loop = require("spec.support.loop")
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
end)
