-- What peers that are slow, silent, many or hostile can do to us, and what a host may leave open at its end.

local core = require("perigee.core")
local log = require("perigee.log")
local perigee = require("perigee")
local loop = require("spec.support.loop")
local http = require("spec.support.http")
local process = require("spec.support.process")
local program = require("spec.support.perigee")
local tcp = require("spec.support.tcp")
local uv = require("luv")
local wire = require("spec.support.wire")

local PRELOAD = os.getenv("PERIGEE_PRELOAD")

local apps, clients

before_each(function()
  apps, clients = {}, {}
  log.set_sink(function() end)
end)

after_each(function()
  for _, client in ipairs(clients) do client:close():await() end
  for _, app in ipairs(apps) do app:stop({ drain_timeout = 50 }):await() end
  program.clean()
  loop.finish()
  log.set_sink()
end)

local function serve(setup, options)
  local app = perigee.app()
  apps[#apps + 1] = app
  setup(app)
  app:listen("tcp://127.0.0.1:0", options)
  app:start():await()
  return tonumber(app:addresses()[1]:match("(%d+)$"))
end

local function connect(options)
  options.host = options.host or "127.0.0.1"
  local client = perigee.client(options)
  clients[#clients + 1] = client
  return client
end

describe("a peer that reads slowly", function()
  local LARGE = ("x"):rep(12 * 1024 * 1024)

  it("gets all of a large response as long as it gets on", function()
    local port = serve(function(app) app:message("large", function() return LARGE end) end, { write_timeout = 500 })
    local peer = tcp.connect(port)
    peer:pause()
    peer:write(wire.frame('{"pattern":"large","data":1,"id":"a"}'))
    local got, ended = 0, nil
    local function step() -- half a megabyte, then a rest: in all three times the write timeout
      local before = got
      peer.handle:read_start(function(err, data)
        if not data then
          ended = err or "EOF"
          return
        end
        got = got + #data
        if got - before > 512 * 1024 then peer.handle:read_stop() end
      end)
      loop.run_for(60)
      peer.handle:read_stop()
    end
    while got < #LARGE and not ended do step() end
    assert.is_nil(ended)
  end)

  it("is cut when it stops reading", function()
    local faults = {}
    log.set_sink(function(line) faults[#faults + 1] = line end)
    local port = serve(function(app) app:message("large", function() return LARGE end) end, { write_timeout = 200 })
    local peer = tcp.connect(port)
    peer:pause()
    peer:write(wire.frame('{"pattern":"large","data":1,"id":"a"}'))
    loop.wait_until(function() return faults[1] end)
    assert.matches("TIMEOUT: The remote peer is not reading its responses", faults[1])
  end)
end)

describe("a client nobody holds any more", function()
  it("still gets its answer while requests are relayed through it", function()
    local service = perigee.app()
    apps[1] = service
    service:message("slow", function() perigee.sleep(30):await() return "late" end)
    service:message("never", function() return perigee.promise(function() end) end)
    service:listen("local:service")
    service:start():await()
    local back = assert(core.client({ transport = "local", name = "service", key = "relay" }, function() end))
    local front, relayed, closed, got
    front = assert(core.server({ transport = "local", name = "front" }, {
      on_message = function(req, pattern) relayed = front:forward(req, back, pattern, front:data(), 0) end,
      on_gone = function() end, on_fault = function() end, on_close = function() closed = true end,
    }))
    local caller = perigee.client("local:front")
    clients[1] = caller
    local never = caller:send("never", 1):last()
    loop.wait_until(function() return relayed end)
    back:send('"slow"', 1, {}, function(_, _, value) got = got or value end)
    back = nil
    for _ = 1, 3 do collectgarbage() end
    loop.wait_until(function() return got end)
    assert.equal("late", got)
    caller:close():await()
    assert.equal("CONNECTION_CLOSED", perigee.settled({ never }):await()[1].reason.code)
    for _ = 1, 3 do collectgarbage() end -- back goes now, and with it its connection
    front:close()
    loop.wait_until(function() return closed end)
  end)
end)

describe("an HTTP request that was cut", function()
  it("is gone for who still holds its number", function()
    local number, closed
    local server = assert(core.http({ host = "127.0.0.1", port = 0, max_queued_bytes = 1000 }, {
      on_request = function(n) number = n end,
      on_abort = function() end,
      on_close = function() closed = true end,
    }))
    local peer = tcp.connect(tonumber(server:address():match("(%d+)$")))
    peer:pause()
    peer:write(http.bytes("GET", "/"))
    loop.wait_until(function() return number end)
    assert.is_true(server:begin(number, 200))
    local outcome, reason
    for _ = 1, 100 do -- more than all buffers on the way can take
      outcome, reason = server:chunk(number, ("x"):rep(1024 * 1024))
      loop.turn()
      if not outcome then break end
    end
    assert.same({ nil, "CLOSED" }, { outcome, reason })
    assert.same({ nil, "CLOSED" }, { server:headers(number) })
    assert.equal(0, server:stats().active)
    server:close()
    loop.wait_until(function() return closed end)
  end)
end)

describe("a hostile service", function()
  local function answer_with(make)
    local server = tcp.listen()
    local client = connect({ port = server.port, timeout = 2000 })
    local call = client:send("x", 1):collect()
    local peer = server:accept()
    local id = peer:read_frame():match('"id":"([^"]+)"')
    peer:push(make(id))
    local outcome = perigee.settled({ call }):await()[1]
    peer:close()
    server:close()
    return outcome, client
  end

  it("fails the calls of its connection by bytes that are no frame", function()
    for _, bytes in ipairs({ "garbage", "99999999999#", "3#{}}x", "-#", "\255\254#", "2#{]" }) do
      local outcome = answer_with(function() return bytes .. ("#"):rep(300) end)
      local code = outcome.reason and outcome.reason.code
      assert.is_true(code == "BAD_FRAME" or code == "FRAME_TOO_LARGE", bytes .. " -> " .. tostring(code))
    end
  end)

  it("is not heard for ids nobody asked for, nor twice", function()
    local outcome, client = answer_with(function(id)
      local other = (id:sub(1, 20)) .. (id:sub(21) == "0" and "1" or "0")
      local last = wire.frame(('{"response":1,"isDisposed":true,"id":"%s"}'):format(id))
      return wire.frame('{"response":7,"isDisposed":true,"id":"fffff0000000000000000"}')
        .. wire.frame(('{"response":7,"isDisposed":true,"id":"%s"}'):format(other))
        .. wire.frame('{"response":7,"isDisposed":true,"id":12}')
        .. wire.frame('{"response":7,"isDisposed":true}') .. last .. last .. last
    end)
    assert.same({ 1 }, outcome.value)
    assert.equal(0, client:status().pending)
    assert.is_true(client:status().late_replies >= 6)
  end)

  it("cannot answer for another host of the pool", function()
    local one, two = tcp.listen(), tcp.listen()
    local client = connect({ hosts = { "127.0.0.1:" .. one.port, "127.0.0.1:" .. two.port }, timeout = 3000 })
    local first = client:send("x", 1):last()
    local a = one:accept()
    local id = a:read_frame():match('"id":"([^"]+)"')
    local second = client:send("x", 2):last()
    local b = two:accept()
    local reply = '{"response":"%s","isDisposed":true,"id":"' .. id .. '"}'
    b:write(wire.frame(reply:format("forged")))
    loop.wait_until(function() return client:status().late_replies == 1 end)
    a:write(wire.frame(reply:format("true")))
    assert.equal("true", first:await())
    client:close():await()
    assert.is_false((pcall(second.await, second)))
    for _, peer in ipairs({ a, b, one, two }) do peer:close() end
  end)
end)

describe("the program", function()
  local SCRIPT = [[
    local app = perigee.app()
    app:message("x", function(n) return n end)
    app:listen("tcp://127.0.0.1:0")
    return app
  ]]

  local function start(limit)
    local path = program.script("local perigee = require('perigee')\n" .. SCRIPT)
    if not limit then
      local child = program.start({ "serve", path })
      return child, tonumber(program.urls(child)[1]:match("(%d+)$"))
    end
    local env = {}
    for name, value in pairs(uv.os_environ()) do
      if name ~= "LD_PRELOAD" then env[#env + 1] = name .. "=" .. value end
    end
    local child = process.start("sh", { "-c", ("ulimit -n %d; exec %s serve %s"):format(limit,
      os.getenv("PERIGEE") or "build/bin/perigee", path) }, { env = env })
    return child, tonumber(program.urls(child)[1]:match("(%d+)$"))
  end

  local function count_of(pid, what)
    local file = assert(io.open(("/proc/%d/status"):format(pid)))
    local text = file:read("*a")
    file:close()
    return tonumber(text:match("\n" .. what .. ":%s*(%d+)"))
  end

  local function descriptors(pid)
    local n = 0
    for _ in uv.fs_scandir_next, uv.fs_scandir(("/proc/%d/fd"):format(pid)) do n = n + 1 end
    return n
  end

  local function ask(peer)
    peer:write(wire.frame('{"pattern":"x","data":1,"id":"a"}'))
    return peer:read_frame()
  end

  it("sleeps while nothing happens, and gives back what a thousand connections took", function()
    local child, port = start()
    ask(tcp.connect(port))
    local pid = program.workers(child)[1]
    local before = descriptors(pid)
    for _ = 1, 10 do
      local peers = {}
      for i = 1, 100 do peers[i] = tcp.connect(port) end
      for i = 1, 100 do ask(peers[i]) end
      for i = 1, 100 do peers[i]:close() end
    end
    program.poll(function() return descriptors(pid) <= before end, "the descriptors to be closed")
    local function switches()
      return count_of(pid, "voluntary_ctxt_switches") + count_of(child.pid, "voluntary_ctxt_switches")
    end
    local switched = switches()
    loop.run_for(1000)
    assert.is_true(switches() - switched <= 20)
    child:stop()
    assert.equal(0, child.exit_code)
  end)

  it("out of descriptors, serves whom it has, does not spin, and takes newcomers again later", function()
    local child, port = start(64)
    local peers = {}
    for i = 1, 100 do peers[i] = tcp.connect(port) end
    ask(peers[1])
    local pid = program.workers(child)[1]
    local switches = count_of(pid, "voluntary_ctxt_switches")
    loop.run_for(1000)
    assert.is_true(count_of(pid, "voluntary_ctxt_switches") - switches <= 60) -- it tries ten times a second
    for i = 1, 80 do peers[i]:close() end
    ask(peers[100])
    child:stop()
    assert.equal(0, child.exit_code)
  end)
end)

describe("a host that ends", function()
  local HEAD = [[
    io.stdout:setvbuf("no")
    local perigee, uv = require("perigee"), require("luv")
    local port = tonumber(os.getenv("SPEC_PORT"))
  ]]

  -- Runs the text in plain luajit, whose lua_close finds what the text left open.
  local function ends(text, port)
    local env = { "SPEC_PORT=" .. (port or 0) }
    for name, value in pairs(uv.os_environ()) do
      if name ~= "LD_PRELOAD" then env[#env + 1] = name .. "=" .. value end
    end
    if PRELOAD then env[#env + 1] = "LD_PRELOAD=" .. PRELOAD end
    local path = program.script(HEAD .. text)
    local child = process.start("luajit", { path }, { env = env })
    local code, signal = child:wait(20000)
    assert.same({ "end\n", "", 0, 0 }, { child.stdout, child.stderr, code, signal })
  end

  it("may leave a message half sent, and handshakes undone", function()
    local silent = loop.own(uv.new_tcp())
    assert(silent:bind("127.0.0.1", 0))
    assert(silent:listen(16, function() end)) -- never accepted, never read
    ends([[
      local client = perigee.client({ host = "127.0.0.1", port = port })
      client:connect():await()
      client:send("x", ("y"):rep(12e6)):next(print, function() end)
      local tls = perigee.client({ host = "127.0.0.1", port = port, tls = { verify = false } })
      tls:send("x", 1):next(print, function() end)
      perigee.sleep(20):await()
      print("end")
    ]], silent:getsockname().port)
  end)

  it("may leave names looked up", function()
    ends([[
      for i = 1, 8 do
        local client = perigee.client({ host = "no-such-host-" .. i .. ".invalid", port = 1 })
        client:send("x", 1):next(print, function() end)
      end
      perigee.sleep(1):await()
      print("end")
    ]])
  end)

  it("may leave relayed requests unanswered", function()
    ends([[
      local service = perigee.app()
      service:message("never", function() return perigee.promise(function() end) end)
      service:listen("local:service")
      service:start():await()
      local back = perigee.client("local:service")
      local gateway = perigee.app()
      gateway:forward("never", back)
      gateway:listen("local:gateway")
      gateway:start():await()
      perigee.client("local:gateway"):send("never", 1):next(print, function() end)
      perigee.sleep(20):await()
      print("end")
    ]])
  end)

  it("may end inside a handler", function()
    ends([[
      local app = perigee.app()
      app:message("die", function()
        print("end")
        os.exit(0, true)
      end)
      app:listen("tcp://127.0.0.1:0")
      app:start():await()
      perigee.client(app:addresses()[1]):send("die", 1):await()
    ]])
  end)
end)
