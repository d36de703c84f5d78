local certs = require("spec.support.certs")
local http = require("spec.support.http")
local log = require("perigee.log")
local loop = require("spec.support.loop")
local perigee = require("perigee")
local tcp = require("spec.support.tcp")
local uv = require("luv")

local app, lines

before_each(function()
  lines = {}
  log.set_sink(function(line) lines[#lines + 1] = line end)
  app = perigee.app()
end)

after_each(function()
  app:stop({ drain_timeout = 100 }):await()
  loop.finish()
  log.set_sink()
end)

teardown(certs.clean)

local function logged(text)
  for _, line in ipairs(lines) do
    if line:find(text, 1, true) then return line end
  end
end

local function refused(code, text, fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.are.equal(code, err.code)
  assert.is_truthy(err.message:find(text, 1, true), err.message)
end

describe("an app's life", function()
  it("resolves clients, then runs on_start in order, then listens; stops the other way round", function()
    local order = {}
    local port = tcp.free_port()
    local function accepts()
      local probe, result = uv.new_tcp(), nil
      probe:connect("127.0.0.1", port, function(err) result = err or "yes" end)
      loop.wait_until(function() return result end)
      probe:close()
      return result
    end
    app:clients_async({ { name = "A", use_factory = function()
      order[#order + 1] = "factory"
      return {}
    end } })
    app:on_start(function(given)
      assert.are.equal(app, given)
      perigee.sleep(1):await()
      order[#order + 1] = "start 1"
    end)
    app:on_start(function() order[#order + 1] = "start 2" end)
    app:on_stop(function()
      perigee.sleep(1):await()
      order[#order + 1] = "stop 1"
    end)
    app:on_stop(function() order[#order + 1] = "stop 2" end)
    app:listen("http://127.0.0.1:" .. port)
    assert.are.equal("ECONNREFUSED", accepts())
    app:start():await()
    assert.are.equal("yes", accepts())
    app:stop():await()
    assert.are.equal("ECONNREFUSED", accepts())
    assert.are.same({ "factory", "start 1", "start 2", "stop 1", "stop 2" }, order)
  end)

  it("MOD-03 closes the clients it has made", function()
    local server = tcp.listen()
    app:clients({ { name = "A", host = "127.0.0.1", port = server.port } })
    app:on_start(function() app:inject("A"):connect():await() end)
    app:start():await()
    local peer = server:accept()
    app:stop():await()
    assert.are.equal("EOF", select(2, peer:read_end()))
  end)

  it("refuses to start when a hook fails, and closes what was opened", function()
    local server = tcp.listen()
    app:clients({ { name = "A", host = "127.0.0.1", port = server.port } })
    local stopped = false
    app:on_start(function()
      app:inject("A"):connect():await()
      error({ code = "NOT_READY" })
    end)
    app:on_stop(function() stopped = true end)
    app:listen("http://127.0.0.1:0")
    local ok, err = pcall(function() app:start():await() end)
    assert.is_false(ok)
    assert.are.equal("NOT_READY", err.code)
    assert.are.equal("EOF", select(2, server:accept():read_end()))
    app:stop():await()
    assert.is_false(stopped)
  end)

  it("TCP-24 refuses to start when a port is in use, and frees the others", function()
    local server = tcp.listen()
    local free = tcp.free_port()
    app:listen("http://127.0.0.1:" .. free)
    app:listen("tcp://127.0.0.1:" .. server.port)
    refused("LISTEN_FAILED", "EADDRINUSE", function() app:start():await() end)
    tcp.listen(free):close()
  end)

  it("goes on stopping when an on_stop hook fails", function()
    local second = false
    app:on_stop(function() error("stuck") end)
    app:on_stop(function() second = true end)
    app:start():await()
    app:stop():await()
    assert.is_true(second)
    assert.is_truthy(logged("in on_stop: SCRIPT: "))
  end)

  it("starts again after a stop, and after a failed start", function()
    local starts, fails = 0, true
    app:on_start(function()
      starts = starts + 1
      if fails then error("not yet") end
    end)
    app:message("x", function(n) return n end)
    app:listen("local:again")
    refused("SCRIPT", "not yet", function() app:start():await() end)
    fails = false
    app:start():await()
    app:stop():await()
    app:start():await()
    assert.are.equal(3, starts)
    local client = perigee.client("local:again")
    assert.are.equal(1, client:send("x", 1):await())
    client:close():await()
  end)

  it("starts and stops once, however often it is asked", function()
    local starts = 0
    app:on_start(function() starts = starts + 1 end)
    perigee.all({ app:start(), app:start() }):await()
    perigee.all({ app:stop(), app:stop() }):await()
    assert.are.equal(1, starts)
  end)

  it("stops without having started", function()
    app:on_stop(function() error("not reached") end)
    app:stop():await()
    assert.are.same({}, lines)
  end)
end)

describe("draining", function()
  it("answers running requests first, and refuses new ones", function()
    local release
    app:get("/", function() return perigee.promise(function(resolve) release = resolve end) end)
    app:listen("http://127.0.0.1:0")
    app:start():await()
    local port = tonumber(app:addresses()[1]:match(":(%d+)$"))
    local peer = tcp.connect(port)
    peer:write(http.bytes("GET", "/"))
    loop.wait_until(function() return release end)
    local stopping = app:stop()
    loop.turn()
    local ok = pcall(tcp.connect, port)
    assert.is_false(ok)
    release("done")
    assert.are.equal('"done"', http.read(peer).body)
    stopping:await()
  end)

  it("cuts what still runs after the drain timeout", function()
    local cancelled
    app:message("wait", function()
      local ok, err = pcall(function() perigee.sleep(60000):await() end)
      cancelled = not ok and err.code
    end)
    app:get("/", function() perigee.sleep(60000):await() end)
    app:listen("http://127.0.0.1:0")
    app:listen("tcp://127.0.0.1:0")
    app:start():await()
    local client = perigee.client(app:addresses()[2])
    local reply = client:send("wait", 1):last()
    local peer = tcp.connect(tonumber(app:addresses()[1]:match(":(%d+)$")))
    peer:write(http.bytes("GET", "/"))
    reply:catch(function() end)
    perigee.sleep(10):await()
    app:stop({ drain_timeout = 20 }):await()
    assert.is_truthy(logged("the drain timeout of 20 ms has passed"))
    assert.are.equal("", (peer:read_end()))
    loop.wait_until(function() return cancelled end)
    assert.are.equal("CANCELLED", cancelled)
    client:close():await()
  end)

  it("waits for event handlers that still run", function()
    local heard, ended
    app:event("e", function()
      heard = true
      perigee.sleep(20):await()
      ended = true
    end)
    app:listen("tcp://127.0.0.1:0")
    app:start():await()
    local client = perigee.client(app:addresses()[1])
    client:emit("e", 1):await()
    loop.wait_until(function() return heard end)
    app:stop():await()
    assert.is_true(ended)
    client:close():await()
  end)
end)

describe("draining, with an event handler that does not end", function()
  it("cuts it after the drain timeout", function()
    local heard, cancelled
    app:event("e", function()
      heard = true
      local ok, err = pcall(function() perigee.sleep(60000):await() end)
      cancelled = not ok and err.code
    end)
    app:listen("tcp://127.0.0.1:0")
    app:start():await()
    local client = perigee.client(app:addresses()[1])
    client:emit("e", 1):await()
    loop.wait_until(function() return heard end)
    client:close():await()
    app:stop({ drain_timeout = 20 }):await()
    assert.are.equal("CANCELLED", cancelled)
  end)
end)

describe("listeners", function()
  local function echo()
    app:message("echo", function(data) return data end)
    app:get("/", function(req) return req.peer end)
  end

  local function send(options)
    local client = perigee.client(options)
    local value = client:send("echo", { 1 }):await()
    client:close():await()
    return value
  end

  it("tell the ports they were given", function()
    app:listen("http://127.0.0.1:0")
    app:listen("tcp://127.0.0.1:0")
    assert.are.same({}, app:addresses())
    app:start():await()
    local urls = app:addresses()
    assert.is_truthy(urls[1]:find("^http://127%.0%.0%.1:%d+$"))
    assert.is_truthy(urls[2]:find("^tcp://127%.0%.0%.1:%d+$"))
  end)

  it("serve unix sockets and local names", function()
    echo()
    local path = os.tmpname()
    os.remove(path)
    app:listen("unix:" .. path)
    app:listen("local:app_spec")
    app:start():await()
    assert.are.same({ "unix:" .. path, "local:app_spec" }, app:addresses())
    assert.are.same({ 1 }, send("unix:" .. path))
    assert.are.same({ 1 }, send("local:app_spec"))
    assert.are.same({ 1 }, send({ transport = "local", name = "app_spec" }))
  end)

  it("TCP-23 serve TLS, and mutual TLS", function()
    echo()
    local files = certs.paths()
    app:listen("tls://127.0.0.1:0", { tls = { cert = files.server_cert, key = files.server_key } })
    app:listen("tls://127.0.0.1:0", { tls = { cert = files.server_cert, key = files.server_key, ca = files.ca } })
    app:start():await()
    local one, both = unpack(app:addresses())
    assert.is_truthy(one:find("^tls://"))
    assert.are.same({ 1 }, send(one .. "?ca=" .. files.ca))
    local ok, err = pcall(send, one .. "?ca=" .. files.stranger_ca)
    assert.is_false(ok)
    assert.are.equal("CONNECT_FAILED", err.code)
    local mutual = ("%s?ca=%s&cert=%s&key=%s"):format(both, files.ca, files.client_cert, files.client_key)
    assert.are.same({ 1 }, send(mutual))
    assert.is_false(pcall(send, both .. "?ca=" .. files.ca))
  end)

  it("serve https", function()
    app:get("/", function() return "secret" end)
    local files = certs.paths()
    app:listen(("https://127.0.0.1:0?cert=%s&key=%s"):format(files.server_cert, files.server_key))
    app:start():await()
    local pipe, out = uv.new_pipe(false), ""
    local handle
    handle = uv.spawn("curl", {
      args = { "-s", "--cacert", files.ca, app:addresses()[1] }, stdio = { nil, pipe },
    }, function() handle:close() end)
    if not handle then
      pipe:close()
      error("curl is missing")
    end
    pipe:read_start(function(_, data)
      if data then out = out .. data else pipe:close() end
    end)
    loop.wait_until(function() return pipe:is_closing() and handle:is_closing() end)
    assert.are.equal("secret", out)
  end)

  it("are refused for URLs that make no sense, and for transports of later versions", function()
    refused("INVALID_OPTION", "unknown scheme 'ftp'", app.listen, app, "ftp://x")
    refused("INVALID_OPTION", "did you mean 'max_body_bytes'?", app.listen, app, "http://x", { max_body_byte = 1 })
    refused("UNSUPPORTED", "transport 'redis'", app.listen, app, "redis://x")
  end)
end)

describe("an app", function()
  it("says where the mistake is in what it is given", function()
    refused("INVALID_OPTION", "get takes a function, not a nil", app.get, app, "/")
    refused("INVALID_OPTION", "starts with '/', not as in 'orders'", app.get, app, "orders", print)
    refused("INVALID_OPTION", "message takes a function", app.message, app, "x", 7)
    refused("INVALID_OPTION", "the pattern is nil", app.message, app, nil, print)
    refused("INVALID_OPTION", "bad pattern", app.event, app, { print }, print)
    refused("INVALID_OPTION", "forward takes a client", app.forward, app, "x", nil)
    refused("INVALID_OPTION", "use takes a function", app.use, app, nil)
    refused("INVALID_OPTION", "on_start takes a function", app.on_start, app, nil)
    refused("INVALID_OPTION", "on_reload takes a function", app.on_reload, app, nil)
    refused("INVALID_OPTION", "provide takes a token and a value", app.provide, app, "x")
  end)

  it("refuses to start with two routes for one thing", function()
    app:get("/a/:x", print)
    app:get("/a/:y", print)
    refused("INVALID_OPTION", "GET /a/:y at spec/app_spec.lua:", function() app:start():await() end)
  end)

  it("has a state of its own", function()
    app.state.count = 1
    assert.are.same({}, perigee.app().state)
  end)
end)
