local core = require("perigee.core")
local log = require("perigee.log")
local perigee = require("perigee")
local loop = require("spec.support.loop")
local tcp = require("spec.support.tcp")
local wire = require("spec.support.wire")

local closing, lines

before_each(function()
  closing, lines = {}, {}
  log.set_sink(function(line) lines[#lines + 1] = line end)
end)

after_each(function()
  for i = #closing, 1, -1 do closing[i]() end
  loop.finish()
  log.set_sink()
end)

local function later(fn) closing[#closing + 1] = fn end

local function serve(setup, options)
  local app = perigee.app()
  setup(app)
  app:listen("tcp://127.0.0.1:0", options)
  app:start():await()
  later(function() app:stop({ drain_timeout = 100 }):await() end)
  return tonumber(app:addresses()[1]:match(":(%d+)$")), app
end

local function echo(app)
  app:message("echo", function(data) return data end)
  app:message("never", function() return perigee.promise(function() end) end)
  app:message("count", function(ms)
    return perigee.reply(function(sink)
      local task = perigee.async(function()
        for i = 1, 3 do
          sink:next(i)
          perigee.sleep(ms):await()
        end
        sink:complete()
      end)
      return function() task:cancel() end
    end)
  end)
end

local function connect(options)
  if type(options) == "number" then options = { host = "127.0.0.1", port = options } end
  local client = perigee.client(options)
  later(function() client:close():await() end)
  return client
end

local function failure(waited)
  local ok, err = pcall(waited.await, waited)
  assert.is_false(ok)
  return err
end

describe("a client's calls", function()
  it("time out on silence, before the first value and between values", function()
    local client = connect(serve(echo))
    assert.equal("TIMEOUT", failure(client:send("never", 1, { timeout = 20 })).code)
    assert.same({ 1, 2, 3 }, client:send("count", 30, { timeout = 200 }):collect():await())
    local seen = {}
    local err = failure(client:send("count", 300, { timeout = 50 }):tap(function(v) seen[#seen + 1] = v end))
    assert.equal("TIMEOUT", err.code)
    assert.equal("no value within 50 ms", err.message)
    assert.same({ 1 }, seen)
  end)

  it("end awaits with their own last value, never with one of the call before", function()
    local port = serve(function(app)
      echo(app)
      app:message("nothing", function()
        return perigee.reply(function(sink) sink:complete() end)
      end)
    end)
    local client = connect(port)
    local got = {}
    perigee.async(function()
      got[1] = client:send("count", 1):await()
      got[2] = client:send("nothing", 0):await() == nil
      local late = perigee.async(function() return client:send("count", 5):await() end)
      got[3] = failure(client:send("count", 60000, { timeout = 20 })).code
      got[4] = client:send("nothing", 0):await() == nil
      got[5] = late:await()
    end):await()
    assert.same({ 3, true, "TIMEOUT", true, 3 }, got)
  end)

  it("can be awaited in a coroutine of the script's own, not across C: then nothing is sent", function()
    local client = connect((serve(echo)))
    local got, refused = {}, nil
    perigee.async(function()
      local inner = coroutine.wrap(function()
        got[1] = client:send("echo", 1):await()
        coroutine.yield("between")
        got[2] = client:send("echo", 2):await()
      end)
      got[3] = inner()
      inner()
      local reply = client:send("echo", 4)
      pcall(table.sort, { 1, 2 }, function()
        refused = failure(reply).code
        error("enough")
      end)
      got[4] = client:status().pending
      got[5] = reply:await()
      refused = refused .. " " .. failure(client:send("echo", { print })).code
    end):await()
    assert.same({ 1, 2, "between", 0, 4 }, got)
    assert.equal("UNSUPPORTED INVALID_MESSAGE", refused)
  end)

  it("can be awaited by a task that a finalizer or a debug hook starts", function()
    local client = connect((serve(echo)))
    local started = {}
    local function ask() return client:send("echo", 7):await() end
    local function start() started[#started + 1] = perigee.async(ask) end
    getmetatable(newproxy(true)).__gc = start
    collectgarbage()
    collectgarbage()
    debug.sethook(function() if #started < 2 then start() end end, "l")
    local _ = started
    debug.sethook()
    assert.equal(2, #started)
    assert.same({ 7, 7 }, perigee.all(started):await())
  end)

  it("are asked once for each await of the Reply or its :raw(), and none is reported as never asked", function()
    local client = connect((serve(echo)))
    local got = {}
    perigee.async(function()
      local reply = client:send("echo", { 1 })
      local raw = reply:raw()
      got[1] = tostring(raw:await())
      got[2] = tostring(raw:raw():await())
      got[3] = reply:await()[1]
      got[4] = failure(client:send("echo", { print }):raw()).code
    end):await()
    for _ = 1, 2 do collectgarbage() end
    assert.same({ "[1]", "[1]", 1, "INVALID_MESSAGE" }, got)
    assert.same({}, lines)
  end)

  it("are made anew by each task that awaits the same Reply; one cancelled leaves the other alone", function()
    local client = connect((serve(echo)))
    local reply = client:send("count", 20)
    local one = perigee.async(function() return reply:await() end)
    local two = perigee.async(function() return reply:await() end)
    assert.equal(2, client:status().pending)
    one:cancel()
    assert.equal(1, client:status().pending)
    assert.equal(3, two:await())
    assert.equal("CANCELLED", failure(one).code)
  end)

  it("that find no room on the stack fail alone: their task goes on, and can be cancelled", function()
    local client = connect(serve(echo))
    client:connect():await()
    local function deep(n, fn)
      if n == 0 then return fn() end
      local value = deep(n - 1, fn)
      return value
    end
    local function ask() return client:send("echo", { a = 1 }):await().a end
    local refused, asked_again, outcome
    local work
    work = perigee.async(function()
      perigee.sleep(1):await()
      local fits, overflows = 1, 100000
      while overflows - fits > 1 do
        local n = math.floor((fits + overflows) / 2)
        if pcall(deep, n, function() end) then fits = n else overflows = n end
      end
      local n, good = fits - 400, true -- a little less deep, only the call itself finds no room
      while good and n < fits do
        n = n + 1
        good, refused = pcall(deep, n, ask)
      end
      asked_again = ask()
      pcall(deep, n, ask)
      work:cancel()
      outcome = { pcall(ask) }
    end)
    pcall(work.await, work)
    while not outcome do perigee.sleep(1):await() end
    assert.truthy(tostring(refused):find("stack overflow", 1, true))
    assert.equal(1, asked_again)
    assert.is_false(outcome[1])
    assert.equal("CANCELLED", outcome[2].code)
    assert.same({}, lines)
  end)

  it("end at their deadline, however many values came", function()
    local client = connect(serve(echo))
    local seen = 0
    local err = failure(client:send("count", 40, { deadline = 60 }):tap(function() seen = seen + 1 end))
    assert.equal("TIMEOUT: deadline exceeded", tostring(err))
    assert.is_true(seen >= 1 and seen < 3)
  end)

  it("take their default timeout from the client, and :timeout(ms) in the chain replaces it", function()
    local port = serve(echo)
    local client = connect({ host = "127.0.0.1", port = port, timeout = 30 })
    assert.equal("TIMEOUT", failure(client:send("never", 1)).code)
    assert.same({ 1, 2, 3 }, client:send("count", 60):timeout(500):collect():await())
    assert.same({ 1, 2, 3 }, client:send("count", 60):timeout(false):collect():await())
  end)

  it("leave no trace when they are cancelled: pending at once 0, the late reply dropped and counted", function()
    local server = tcp.listen()
    local client = connect(server.port)
    local call = client:send("x", 1):subscribe({})
    local peer = server:accept()
    local _, id = wire.strip_id((peer:read_frame()))
    assert.equal(1, client:status().hosts[1].pending)
    call:unsubscribe()
    assert.equal(0, client:status().hosts[1].pending)
    peer:write(wire.frame(('{"response":1,"isDisposed":true,"id":"%s"}'):format(id)))
    loop.wait_until(function() return client:status().late_replies == 1 end)
    peer:close()
    server:close()
  end)

  it("refuse options they do not know, through the Reply", function()
    local client = connect(serve(echo))
    local err = failure(client:send("echo", 1, { timeot = 5 }))
    assert.equal("INVALID_OPTION", err.code)
    assert.equal("unknown option 'timeot' (known: deadline, metadata, timeout)", err.message)
    assert.equal("INVALID_OPTION", failure(client:emit("echo", 1, { deadline = "soon" })).code)
  end)

  it("carry the metadata of their options and of the dispatch hook", function()
    local seen
    local client = connect(serve(function(app)
      app:message("who", function(_, ctx) seen = ctx.metadata return true end)
    end))
    client:send("who", 1, { metadata = { trace = "t1" } }):await()
    assert.same({ trace = "t1" }, seen)
    client:on_dispatch(function(packet)
      assert.equal("who", packet.pattern)
      packet.metadata = { trace = "t2" }
    end)
    client:send("who", 1):await()
    assert.same({ trace = "t2" }, seen)
  end)

  it("fail with what the dispatch hook raises, and send nothing", function()
    local client = connect(1)
    client:on_dispatch(function() error("no trace id", 0) end)
    assert.truthy(failure(client:send("x", 1)).message:find("no trace id", 1, true))
    assert.truthy(failure(client:emit("x", 1)).message:find("no trace id", 1, true))
    assert.equal("idle", client:status().hosts[1].state)
  end)

  it("come back in thousands, each with its own answer", function()
    local client = connect(serve(echo))
    client:connect():await()
    local calls, n = {}, 10000
    for i = 1, n do calls[i] = client:send("echo", i) end
    local values = perigee.all(calls):await()
    for i = 1, n do assert(values[i] == i) end
    assert.equal(0, client:status().hosts[1].pending)
  end)

  it("carry a megabyte and what lies above one read", function()
    local client = connect(serve(echo))
    local text = ("é😀x"):rep(200000)
    assert.equal(text, client:send("echo", text):await())
  end)

  it("yield a reply's bytes as they came with :raw()", function()
    local server = tcp.listen()
    local client = connect(server.port)
    local got = client:send("x", 1):raw():last()
    local peer = server:accept()
    local _, id = wire.strip_id((peer:read_frame()))
    peer:write(wire.frame(('{"id":"%s", "response" : { "b":1.00, "a":[ ] } ,"isDisposed":true}'):format(id)))
    assert.equal('{ "b":1.00, "a":[ ] }', tostring(got:await()))
    peer:close()
    server:close()
  end)
end)

describe("a client's limits", function()
  it("refuse a call beyond max_pending with OVERLOADED, and take the next when one has ended", function()
    local client = connect({ host = "127.0.0.1", port = serve(echo), max_pending = 2 })
    client:connect():await()
    local first = client:send("never", 1):subscribe({})
    local second = client:send("never", 1):subscribe({})
    assert.equal("OVERLOADED", failure(client:send("echo", 1)).code)
    first:unsubscribe()
    assert.equal(1, client:send("echo", 1):await())
    second:unsubscribe()
  end)

  it("refuse a call beyond max_waiting while nothing is connected", function()
    local client = connect({ host = "127.0.0.1", port = serve(echo), max_waiting = 1 })
    local waiting = client:send("echo", 7):last()
    assert.equal("OVERLOADED", failure(client:send("echo", 8)).code)
    assert.equal(7, waiting:await())
  end)

  it("refuse a message above max_send_buffer_size with FRAME_TOO_LARGE, and stay usable", function()
    local client = connect({ host = "127.0.0.1", port = serve(echo), max_send_buffer_size = 1000 })
    client:connect():await()
    assert.equal("FRAME_TOO_LARGE", failure(client:send("echo", ("x"):rep(2000))).code)
    assert.equal(1, client:send("echo", 1):await())
  end)

  it("refuse calls with OVERLOADED while the peer does not read", function()
    local server = tcp.listen()
    local client = connect({ host = "127.0.0.1", port = server.port, max_send_buffer_size = 100000, timeout = false })
    client:connect():await()
    local peer = server:accept()
    peer:pause()
    local code
    for _ = 1, 300 do
      local call = client:send("x", ("y"):rep(90000)):subscribe({ error = function(err) code = err.code end })
      loop.turn()
      if code then break end
      call:unsubscribe()
    end
    assert.equal("OVERLOADED", code)
    peer:close()
    server:close()
  end)
end)

describe("a pool", function()
  it("is shared by equal options, and closed with its last client", function()
    local server = tcp.listen()
    local one, two = connect(server.port), connect("tcp://127.0.0.1:" .. server.port)
    one:connect():await()
    two:connect():await()
    local peer = server:accept()
    assert.equal(1, server.accepted)
    one:close():await()
    assert.equal("connected", two:status().state)
    assert.equal("disconnected", one:status().state)
    local call = two:send("still", 1):subscribe({})
    peer:read_frame()
    call:unsubscribe()
    two:close():await()
    assert.equal("EOF", select(2, peer:read_end()))
    server:close()
  end)

  it("opens as many connections per host as it may, when calls are waiting", function()
    local server = tcp.listen()
    local client = connect({ host = "127.0.0.1", port = server.port, connections = 3, timeout = false })
    client:connect():await()
    local calls = {}
    for i = 1, 12 do
      calls[i] = client:send("x", i):subscribe({})
      loop.turn()
    end
    loop.wait_until(function() return server.accepted == 3 end)
    loop.run_for(20)
    assert.equal(3, server.accepted)
    for _, call in ipairs(calls) do call:unsubscribe() end
    client:close():await()
    for _ = 1, 3 do server:accept():close() end
    server:close()
  end)

  it("goes on to the next host when one refuses", function()
    local client = connect({ hosts = {
      { host = "127.0.0.1", port = tcp.free_port() },
      { host = "127.0.0.1", port = serve(echo) },
    } })
    for i = 1, 5 do assert.equal(i, client:send("echo", i):await()) end
    local hosts = client:status().hosts
    assert.equal("connected", hosts[2].state)
  end)

  it("fails a waiting call when every host has refused, with the last reason", function()
    local client = connect({ hosts = {
      { host = "127.0.0.1", port = tcp.free_port() }, { host = "127.0.0.1", port = tcp.free_port() },
    } })
    local err = failure(client:send("x", 1))
    assert.equal("CONNECT_FAILED", err.code)
    assert.truthy(err.message:find("connect ECONNREFUSED 127.0.0.1:", 1, true))
  end)

  it("leaves a host that keeps refusing alone for a moment: calls then fail at once", function()
    local dials = 0
    local client = connect(tcp.free_port())
    client:on("error", function() dials = dials + 1 end)
    for _ = 1, 50 do assert.equal("CONNECT_FAILED", failure(client:send("x", 1)).code) end
    assert.is_true(dials >= 2 and dials <= 10, "dialled " .. dials .. " times")
  end)

  it("fails with CONNECT_FAILED when a name does not resolve, and the loop goes on meanwhile", function()
    local client = connect({ host = "no-such-host.invalid", port = 1 })
    local ticks = 0
    local timer = loop.own(require("luv").new_timer())
    timer:start(0, 1, function() ticks = ticks + 1 end)
    local err = failure(client:send("x", 1))
    assert.equal("CONNECT_FAILED", err.code)
    assert.truthy(err.message:find("no-such-host.invalid", 1, true), err.message)
    assert.is_true(ticks > 0)
  end)
end)

describe("a client's life", function()
  it("tells its status: the last one to who comes late, no repeats (GEN-37)", function()
    local client, seen, late = connect(serve(echo)), {}, {}
    client:on("status", function(status) seen[#seen + 1] = status end)
    assert.same({}, seen)
    client:connect():await()
    client:connect():await()
    client:on("status", function(status) late[#late + 1] = status end)
    assert.same({ "connected" }, seen)
    assert.same({ "connected" }, late)
    client:close():await()
    assert.same({ "connected", "disconnected" }, seen)
    assert.same({ "connected", "disconnected" }, late)
  end)

  it("refuses an unknown event by name", function()
    local ok, err = pcall(perigee.client("tcp://127.0.0.1:1").on, perigee.client("tcp://127.0.0.1:1"), "conect", print)
    assert.is_false(ok)
    assert.equal("no event 'conect' (known: connect, disconnect, error, status)", err.message)
  end)

  it("unwraps only when connected, with Nest's words", function()
    local client = connect(serve(echo))
    local ok, err = pcall(client.unwrap, client)
    assert.is_false(ok)
    assert.equal('Not initialized. Please call the "connect" method first.', err.message)
    client:connect():await()
    assert.truthy(client:unwrap())
  end)

  it("fails what is pending with CONNECTION_CLOSED when it closes, and opens anew for the next call", function()
    local client = connect(serve(echo))
    local pending = client:send("never", 1):last()
    client:connect():await()
    client:close():await()
    local err = failure(pending)
    assert.equal("CONNECTION_CLOSED: Connection closed", tostring(err))
    assert.equal(1, client:send("echo", 1):await())
  end)

  it("still writes an event that was handed over just before the close", function()
    local server = tcp.listen()
    local client = connect(server.port)
    client:connect():await()
    client:emit("last", { words = true }):await()
    client:close():await()
    local peer = server:accept()
    assert.equal('{"pattern":"last","data":{"words":true}}', (peer:read_frame()))
    peer:close()
    server:close()
  end)

  it("closes when it never was connected", function()
    connect(1):close():await()
    assert.equal("disconnected", perigee.client("tcp://127.0.0.1:1"):status().state)
  end)

  it("takes a slice, and puts its bytes on the wire", function()
    local server = tcp.listen()
    local client = connect(server.port)
    local call = client:send("x", core.slice('{ "z":1.0, "a":[] }')):subscribe({})
    local peer = server:accept()
    assert.truthy((peer:read_frame()):find('"data":{ "z":1.0, "a":[] },', 1, true))
    call:unsubscribe()
    peer:close()
    server:close()
  end)
end)
