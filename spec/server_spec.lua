local cjson = require("cjson")
local log = require("perigee.log")
local perigee = require("perigee")
local loop = require("spec.support.loop")
local tcp = require("spec.support.tcp")
local wire = require("spec.support.wire")

local app, client, lines

before_each(function()
  lines = {}
  log.set_sink(function(line) lines[#lines + 1] = line end)
  app = perigee.app()
end)

after_each(function()
  if client then client:close():await() end
  client = nil
  app:stop({ drain_timeout = 100 }):await()
  loop.finish()
  log.set_sink()
end)

local function logged(text)
  for _, line in ipairs(lines) do
    if line:find(text, 1, true) then return line end
  end
end

local function port()
  return tonumber(app:addresses()[1]:match(":(%d+)$"))
end

-- A perigee client of the app, which listens on a free port.
local function start()
  app:listen("tcp://127.0.0.1:0")
  app:start():await()
  client = perigee.client({ host = "127.0.0.1", port = port() })
  return client
end

-- A raw connection to the app.
local function connect()
  app:listen("tcp://127.0.0.1:0")
  app:start():await()
  return tcp.connect(port())
end

-- The packets a request is answered with, up to the last one.
local function exchange(peer, pattern, data, id)
  peer:write(wire.request(pattern, data, id))
  local packets = {}
  repeat
    packets[#packets + 1] = peer:read_frame()
    local packet = cjson.decode(packets[#packets])
  until packet.isDisposed or packet.status
  return packets
end

local function failure(reply)
  local ok, err = pcall(function() return reply:await() end)
  assert.is_false(ok)
  return err
end

local END = '{"isDisposed":true,"id":"I"}'

describe("a message handler's result on the wire", function()
  it("GEN-20 GEN-21 is one final packet: a value, null, or only the end", function()
    local results = { zero = 0, no = false, text = "", list = perigee.array({}), null = perigee.null }
    app:message("get", function(name) return results[name] end)
    local peer = connect()
    for name, expected in pairs({
      zero = '{"response":0,"isDisposed":true,"id":"I"}', no = '{"response":false,"isDisposed":true,"id":"I"}',
      text = '{"response":"","isDisposed":true,"id":"I"}', list = '{"response":[],"isDisposed":true,"id":"I"}',
      null = '{"response":null,"isDisposed":true,"id":"I"}', absent = END,
    }) do
      assert.are.same({ expected }, exchange(peer, '"get"', '"' .. name .. '"'))
    end
  end)

  it("GEN-22 streams the values of a Reply, the last one final", function()
    app:message("count", function(n) return perigee.from(n) end)
    local peer = connect()
    assert.are.same({
      '{"response":1,"id":"I"}', '{"response":2,"id":"I"}', '{"response":3,"isDisposed":true,"id":"I"}',
    }, exchange(peer, '"count"', "[1,2,3]"))
  end)

  it("GEN-24 sends a nil in a stream as a packet with only the id, and an empty stream as the end", function()
    app:message("holes", function() return perigee.of(1, nil, 2, nil) end)
    app:message("empty", function() return perigee.of() end)
    local peer = connect()
    assert.are.same({ '{"response":1,"id":"I"}', '{"id":"I"}', '{"response":2,"id":"I"}', END },
      exchange(peer, '"holes"', "1"))
    assert.are.same({ END }, exchange(peer, '"empty"', "1"))
  end)

  it("GEN-23 sends what came before an error, then the error", function()
    app:message("mid", function()
      return perigee.reply(function(sink)
        sink:next(1)
        sink:next(2)
        sink:error(perigee.error({ message = "mid" }))
      end)
    end)
    assert.are.same({
      '{"response":1,"id":"I"}', '{"response":2,"id":"I"}',
      '{"err":{"status":"error","message":"mid"},"isDisposed":true,"id":"I"}',
    }, exchange(connect(), '"mid"', "1"))
  end)

  it("is a Promise's value, and an array is one value", function()
    app:message("later", function() return perigee.sleep(1):next(function() return { 1, 2 } end) end)
    assert.are.same({ '{"response":[1,2],"isDisposed":true,"id":"I"}' }, exchange(connect(), '"later"', "1"))
  end)

  it("GEN-33 echoes the id with its type", function()
    app:message("echo", function(data) return data end)
    local peer = connect()
    for _, id in ipairs({ "7", "null", '{"a":1}', '"x"' }) do
      assert.are.same({ '{"response":1,"isDisposed":true,"id":' .. id .. "}" }, exchange(peer, '"echo"', "1", id))
    end
  end)

  it("GEN-28 is the no-handler packet when there is no handler", function()
    app:message("x", function() end)
    assert.are.same({
      '{"id":"I","status":"error","err":"There is no matching message handler defined in the remote service."}',
    }, exchange(connect(), '"y"', "1"))
  end)

  it("is an error when it cannot be encoded, and the connection stays usable", function()
    app:message("bad", function() return { f = print } end)
    app:message("stream", function() return perigee.of(1, print, 3) end)
    app:message("good", function() return 1 end)
    local peer = connect()
    local packet = cjson.decode(exchange(peer, '"bad"', "1")[1])
    assert.are.same({ "error", "INVALID_MESSAGE" }, { packet.err.status, packet.err.code })
    local packets = exchange(peer, '"stream"', "1")
    assert.are.equal('{"response":1,"id":"I"}', packets[1])
    assert.are.equal("INVALID_MESSAGE", cjson.decode(packets[2]).err.code)
    assert.are.same({ '{"response":1,"isDisposed":true,"id":"I"}' }, exchange(peer, '"good"', "1"))
    assert.is_truthy(logged("message bad: the result cannot be sent"))
  end)
end)

describe("an error out of a message handler", function()
  local function err_of(raise)
    app:message("fail", raise)
    return failure(start():send("fail", 1)).err
  end

  it("GEN-25 GEN-27 goes out unchanged when it is a table", function()
    assert.are.same({ code = 402, message = "no funds" }, err_of(function()
      error({ code = 402, message = "no funds" })
    end))
  end)

  it("GEN-25 goes out with its message when it is perigee.error", function()
    assert.are.same({ status = "error", message = "bad" }, err_of(function()
      error(perigee.error({ message = "bad" }))
    end))
  end)

  it("keeps its code when it is another perigee error", function()
    assert.are.same({ status = "error", code = "NO_HANDLER", message = "nobody" }, err_of(function()
      error(perigee.error({ code = "NO_HANDLER", message = "nobody" }))
    end))
  end)

  it("passes on what a peer sent", function()
    assert.are.same({ 1, 2 }, err_of(function()
      error(perigee.error({ code = "REMOTE", err = { 1, 2 }, message = "x" }))
    end))
  end)

  it("GEN-26 is an internal server error when it is a text or a fault, and is logged with file and line", function()
    assert.are.same({ status = "error", message = "Internal server error" }, err_of(function() error("secret") end))
    assert.is_truthy(logged("message fail: SCRIPT: spec/server_spec.lua:"))
    assert.is_truthy(logged("secret"))
  end)

  it("is an internal server error when the table cannot be sent", function()
    assert.are.same({ status = "error", message = "Internal server error" }, err_of(function()
      error({ f = print })
    end))
  end)

  it("leaves the connection usable", function()
    app:message("ok", function() return 1 end)
    err_of(function() error("x") end)
    assert.are.equal(1, client:send("ok", 1):await())
  end)
end)

describe("finding the handler", function()
  it("GEN-08 does not mind the order of a pattern's keys", function()
    app:message({ b = 2, a = { 1, 2 } }, function() return "found" end)
    assert.are.same({ '{"response":"found","isDisposed":true,"id":"I"}' },
      exchange(connect(), '{"a":[1,2],"b":2}', "1"))
  end)

  it("GEN-09 parses a string pattern that is JSON", function()
    app:message({ cmd = "sum" }, function() return "object" end)
    app:message(42, function() return "number" end)
    start()
    assert.are.equal("object", client:send('{"cmd":"sum"}', 1):await())
    assert.are.equal("number", client:send("42", 1):await())
  end)

  it("GEN-10 warns about a handler nobody can reach", function()
    app:message("1.0", function() return 1 end)
    assert.is_truthy(logged('spec/server_spec.lua'))
    assert.is_truthy(logged("unreachable"))
    assert.are.equal("NO_HANDLER", failure(start():send("1.0", 1)).code)
  end)

  it("warns about patterns of more than 20 keys, which are all one", function()
    local pattern = {}
    for i = 1, 21 do pattern["k" .. i] = i end
    app:message(pattern, function() return 1 end)
    assert.is_truthy(logged("more than 20 keys"))
  end)

  it("GEN-39 heeds the transport a handler is bound to", function()
    app:message("here", function() return 1 end, { transport = "tcp" })
    app:message("there", function() return 1 end, { transport = "local" })
    start()
    assert.are.equal(1, client:send("here", 1):await())
    assert.are.equal("NO_HANDLER", failure(client:send("there", 1)).code)
  end)

  it("takes one handler for each transport, but not a general one beside them", function()
    app:message("x", function() return "tcp" end, { transport = "tcp" })
    app:message("x", function() return "local" end, { transport = "local" })
    assert.are.equal("tcp", start():send("x", 1):await())
    local other = perigee.app()
    other:message("x", function() end, { transport = "local" })
    other:message("x", function() end)
    local ok, err = pcall(function() other:start():await() end)
    assert.is_false(ok)
    assert.is_truthy(err.message:find("a handler for x at spec/server_spec.lua:", 1, true))
  end)

  it("refuses a second message handler for one pattern, which Nest lets win (GEN-31)", function()
    app:message({ a = 1, b = 2 }, function() end)
    local ok, err = pcall(app.message, app, '{"b":2,"a":1}', function() end)
    assert.is_true(ok, tostring(err)) -- a string that is JSON is another pattern: unreachable, as in Nest
    ok, err = pcall(app.message, app, { b = 2, a = 1 }, function() end)
    assert.is_false(ok)
    assert.are.equal("INVALID_OPTION", err.code)
    assert.is_truthy(err.message:find("is already defined at spec/server_spec.lua:", 1, true))
  end)
end)

describe("events", function()
  it("GEN-30 run every handler, also when the first fails", function()
    local heard = {}
    app:event("e", function() error("first") end)
    app:event("e", function(data) heard[#heard + 1] = data.n end)
    app:event("e", function(data) return perigee.of(1):tap(function() heard[#heard + 1] = data.n + 1 end) end)
    start():emit("e", { n = 1 }):await()
    loop.wait_until(function() return #heard == 2 end)
    assert.are.same({ 1, 2 }, heard)
    assert.is_truthy(logged("event e: SCRIPT: "))
  end)

  it("GEN-29 without a handler are logged", function()
    start():emit("nobody", 1):await()
    loop.wait_until(function()
      return logged("There is no matching event handler defined in the remote service. Event pattern:")
    end)
  end)

  it("GEN-32 run a message handler without a reply, and requests to an event handler are answered", function()
    local heard
    app:message("m", function(data)
      heard = data
      return "ignored"
    end)
    app:event("one", function() return "one" end)
    app:event("two", function() return "a" end)
    app:event("two", function() return perigee.sleep(1):next(function() return "b" end) end)
    app:event("two", function() end)
    start():emit("m", 5):await()
    loop.wait_until(function() return heard end)
    assert.are.equal(5, heard)
    assert.are.equal("one", client:send("one", 1):await())
    assert.are.same({ current = "a", next = { current = "b" } }, client:send("two", 1):await())
  end)

  it("leave the pattern to a message handler, whichever was first", function()
    local heard = {}
    app:event("x", function() heard[#heard + 1] = "event" end)
    app:message("x", function() heard[#heard + 1] = "message" end)
    start():emit("x", 1):await()
    loop.wait_until(function() return heard[1] end)
    assert.are.same({ "message" }, heard)
    assert.is_truthy(logged("never runs"))
    assert.are.equal(1, #lines)
  end)
end)

describe("ctx", function()
  it("TCP-26 tells pattern, transport, metadata, peer and the raw data", function()
    local seen
    app:message({ cmd = "x" }, function(_, ctx)
      seen = { ctx.pattern, ctx.transport, ctx.metadata.trace, tostring(ctx.raw[1]), ctx.cancelled, ctx.deadline }
      return ctx.peer
    end)
    local peer = start():send({ cmd = "x" }, { b = 1 }, { metadata = { trace = "t1" } }):await()
    assert.are.same({ '{"cmd":"x"}', "tcp", "t1", '{"b":1}', false }, seen)
    assert.is_truthy(peer:find("^127%.0%.0%.1:%d+$"))
  end)

  it("has empty metadata and headers when there are none", function()
    app:message("x", function(_, ctx) return { ctx.pattern, next(ctx.metadata) == nil, next(ctx.headers) == nil } end)
    assert.are.same({ "x", true, true }, start():send("x", 1):await())
  end)

  it("refuses acknowledgements the transport does not have", function()
    app:message("x", function(_, ctx) ctx:ack() end)
    assert.are.equal("UNSUPPORTED", failure(start():send("x", 1)).err.code)
  end)

  it("is cancelled, and the handler with it, when the peer leaves", function()
    local ctx, ended, stopped
    app:message("wait", function(_, given)
      ctx = given
      local ok, err = pcall(function() perigee.sleep(60000):await() end)
      ended = not ok and err.code
    end)
    app:message("stream", function(_, given)
      ctx = given
      return perigee.reply(function() return function() stopped = true end end)
    end)
    local peer = connect()
    peer:write(wire.request('"wait"', "1"))
    loop.wait_until(function() return ctx end)
    peer:reset() -- after a mere FIN the answer is still sent
    loop.wait_until(function() return ended end)
    assert.are.equal("CANCELLED", ended)
    assert.is_true(ctx.cancelled)
    ctx = nil
    peer = tcp.connect(port())
    peer:write(wire.request('"stream"', "1"))
    loop.wait_until(function() return ctx end)
    peer:reset() -- after a mere FIN the answer is still sent
    loop.wait_until(function() return stopped end)
    assert.is_true(ctx.cancelled)
  end)
end)

describe("forward", function()
  local service

  before_each(function()
    service = perigee.app()
    service:message({ cmd = "echo" }, function(data, ctx)
      return { data = data, pattern = ctx.pattern, trace = ctx.metadata.trace }
    end)
    service:message("many", function() return perigee.of(1, 2, 3) end)
    service:message("refuse", function() error({ code = 402 }) end)
    service:listen("tcp://127.0.0.1:0")
    service:start():await()
    app:clients({ { name = "S", host = "127.0.0.1", port = service:addresses()[1]:match(":(%d+)$") } })
  end)

  after_each(function() service:stop({ drain_timeout = 100 }):await() end)

  for _, with_middleware in ipairs({ false, true }) do
    local how = with_middleware and " (through middleware)" or ""

    it("passes everything on: pattern, data, metadata, all values, errors" .. how, function()
      if with_middleware then app:use(function(_, _, next) return next() end) end
      app:forward(perigee.any_pattern, app:inject("S"))
      start()
      assert.are.same({ data = { b = 1, a = { 2 } }, pattern = '{"cmd":"echo"}', trace = "t" },
        client:send({ cmd = "echo" }, { b = 1, a = { 2 } }, { metadata = { trace = "t" } }):await())
      assert.are.same({ 1, 2, 3 }, client:send("many", 1):collect():await())
      assert.are.same({ code = 402 }, failure(client:send("refuse", 1)).err)
      assert.are.equal("NO_HANDLER", failure(client:send("nobody", 1)).code)
    end)

    it("passes events on" .. how, function()
      if with_middleware then app:use(function(_, _, next) return next() end) end
      local heard
      service:event("late", function() end) -- declared too late to count
      app:forward("placed", app:inject("S"), { to = { cmd = "echo" } })
      app:override("S", { [{ cmd = "echo" }] = function(data) heard = data.id end })
      start():emit("placed", { id = 7 }):await()
      loop.wait_until(function() return heard end)
      assert.are.equal(7, heard)
    end)
  end

  it("can change the pattern, and leaves exact handlers their messages", function()
    app:message("own", function() return "own" end)
    app:forward("renamed", app:inject("S"), { to = { cmd = "echo" } })
    app:forward(perigee.any_pattern, app:inject("S"))
    start()
    assert.are.equal("own", client:send("own", 1):await())
    assert.are.equal('{"cmd":"echo"}', client:send("renamed", 1):await().pattern)
  end)

  it("tells of an event only when it was not passed on", function()
    local heard
    service:stop():await()
    app:forward("away", app:inject("S"))
    local events, to_events = perigee.app(), perigee.client("local:events")
    app:forward("here", to_events)
    events:event("here", function() heard = true end)
    events:listen("local:events")
    events:start():await()
    start():emit("here", 1):await() -- the first has to wait for its connection
    client:emit("away", 1):await()
    loop.wait_until(function() return heard and logged("event away was not passed on: CONNECT_FAILED: connect ") end)
    assert.is_nil((logged("event here")))
    perigee.all({ to_events:close(), events:stop() }):await()
  end)

  it("follows an override", function()
    app:forward(perigee.any_pattern, app:inject("S"))
    start()
    app:override("S", { many = "fake" })
    assert.are.equal("fake", client:send("many", 1):await())
  end)

  it("answers with an error when the service is away", function()
    service:stop():await()
    app:forward(perigee.any_pattern, app:inject("S"))
    local err = failure(start():send("many", 1)).err
    assert.are.same({ "error", "CONNECT_FAILED" }, { err.status, err.code })
  end)

  it("is refused twice for one pattern", function()
    app:forward(perigee.any_pattern, app:inject("S"))
    local ok, err = pcall(app.forward, app, perigee.any_pattern, app:inject("S"))
    assert.is_false(ok)
    assert.is_truthy(err.message:find("perigee.any_pattern", 1, true))
  end)
end)

describe("middleware", function()
  it("runs around every handler in order, and sees the result", function()
    local seen = {}
    app:use(function(_, ctx, next)
      seen[#seen + 1] = "a " .. ctx.pattern
      local result = next()
      seen[#seen + 1] = "a end"
      return result
    end)
    app:use(function(data, _, next)
      seen[#seen + 1] = "b " .. data.n
      perigee.sleep(1):await()
      return next() + 1
    end)
    app:message("m", function(data) return data.n end)
    assert.are.equal(2, start():send("m", { n = 1 }):await())
    assert.are.same({ "a m", "b 1", "a end" }, seen)
  end)

  it("can answer instead of the handler", function()
    app:use(function() error({ code = 401 }) end)
    app:message("m", function() return 1 end)
    assert.are.same({ code = 401 }, failure(start():send("m", 1)).err)
  end)
end)
