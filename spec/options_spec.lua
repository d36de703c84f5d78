local options = require("perigee.options")

local function refusal(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return err.code, err.message
end

local function refused(expected, fn, ...)
  local code, message = refusal(fn, ...)
  assert.are.equal("INVALID_OPTION", code)
  assert.are.equal(expected, message)
end

describe("options of a client", function()
  it("MOD-06 falls back to TCP on localhost:3000", function()
    for _, given in ipairs({ {}, { transport = "carrier-pigeon" } }) do
      local got = options.client(given)
      assert.are.equal("tcp", got.transport)
      assert.are.same({ { host = "localhost", port = 3000 } }, got.hosts)
    end
  end)

  it("have the documented defaults", function()
    local got = options.client({})
    assert.are.same({ 5000, 2000, 16777216, 16777216, 30000, 1, 65536, 1024 }, {
      got.timeout, got.connect_timeout, got.max_buffer_size, got.max_send_buffer_size,
      got.incomplete_message_timeout, got.connections, got.max_pending, got.max_waiting,
    })
  end)

  it("take ports as text, as the environment gives them", function()
    assert.are.equal(3001, options.client({ port = "3001" }).hosts[1].port)
  end)

  it("name the option that was probably meant", function()
    refused("unknown option 'hots' (did you mean 'host'?)", options.client, { hots = "x" })
    refused("unknown option 'conect_timeout' (did you mean 'connect_timeout'?)", options.client, { conect_timeout = 1 })
    refused("unknown option 'zebra'", options.client, { zebra = 1 })
  end)

  it("check types and ranges", function()
    refused("option 'port' must be a port from 1 to 65535, not 65536", options.client, { port = 65536 })
    refused('option \'port\' must be a port from 1 to 65535, not "3001x"', options.client, { port = "3001x" })
    refused("option 'port' must be a port from 1 to 65535, not 0", options.client, { port = 0 })
    refused("option 'host' must be a non-empty string, not 7", options.client, { host = 7 })
    refused("option 'connections' must be a whole number from 1 to 64, not 0", options.client, { connections = 0 })
    refused("option 'connections' must be a whole number from 1 to 64, not 1.5", options.client, { connections = 1.5 })
    refused("option 'connections' must be a whole number from 1 to 64, not 65", options.client, { connections = 65 })
    local many = {}
    for i = 1, 65 do many[i] = "h:" .. i end
    refused("option 'hosts' must be a list of 1 to 64 hosts, not table", options.client, { hosts = many })
    refused("option 'timeout' must be milliseconds, or false for none, not boolean", options.client, { timeout = true })
    refused("option 'connect_timeout' must be milliseconds above 0, not boolean", options.client,
      { connect_timeout = false })
    refused("option 'idle_timeout' must be milliseconds above 0, not 0", options.listener, "http://h",
      { idle_timeout = 0 })
    refused("option 'serialize' must be a function, not table", options.client, { serialize = {} })
    refused("unknown option 'tls.cacert' (known: ca, cert, key, server_name, verify)", options.client,
      { tls = { cacert = "x" } })
    refused("options 'tls.cert' and 'tls.key' go together", options.client, { tls = { cert = "x" } })
    refused("options must be a table or a URL, not number", options.client, 7)
    refused("option 'transport' must be a string or a table, not number", options.client, { transport = 0 })
  end)

  it("turn timeouts off with false", function()
    local got = options.client({ timeout = false, incomplete_message_timeout = false })
    assert.is_false(got.timeout)
    assert.are.equal(0, got.incomplete_message_timeout)
  end)

  it("take several hosts", function()
    local got = options.client({ hosts = { "a:1", { host = "b" }, "[::1]:2" }, port = 9 })
    assert.are.same({ { host = "a", port = 1 }, { host = "b", port = 9 }, { host = "::1", port = 2 } }, got.hosts)
    refused("option 'hosts', entry 1: port must be a port from 1 to 65535", options.client, { hosts = { "a:0" } })
    for text, hosts in pairs({
      ["option 'hosts', entry 2: unknown 'prot' (known: host, path, port)"] = { "a", { host = "b", prot = 1 } },
      ["option 'hosts', entry 1: host must be a non-empty string"] = { { host = "" } },
      ["option 'hosts', entry 1: path must be a non-empty string"] = { { path = "" } },
      ["option 'hosts', entry 1: it needs a host or a path"] = { { port = 1 } },
      ["option 'hosts', entry 1: '***@a:1' is not host or host:port"] = { "u:p@a:1" },
      ["option 'hosts', entry 1: 'a:1,b:2' is not host or host:port"] = { "a:1,b:2" },
      ["option 'hosts', entry 1: 'a/x' is not host or host:port"] = { "a/x" },
      ["option 'hosts', entry 1: 'a?x=1' is not host or host:port"] = { "a?x=1" },
      ["option 'hosts' must be a list of hosts, not table"] = { "a", b = "c" },
    }) do
      refused(text, options.client, { hosts = hosts })
    end
    refused("option 'hosts' must be a list of hosts, not table", options.client, { hosts = { "a", nil, "b" } })
  end)

  it("take no NUL in a text, which would end it", function()
    refused([[option 'host' must be a non-empty string, not "a\0b"]], options.client, { host = "a\0b" })
  end)

  it("say which cannot be given in a URL", function()
    refused("option 'hosts' cannot be given as text", options.client, "tcp://h?hosts=a")
    refused("option 'serialize' cannot be given as text", options.client, "tcp://h?serialize=x")
  end)

  it("do not change the caller's table", function()
    local given = { host = "a", tls = { ca = "x" } }
    options.client(given)
    assert.are.same({ host = "a", tls = { ca = "x" } }, given)
  end)

  it("say which transports this version lacks", function()
    for _, name in ipairs({ "mqtt", "rmq", "kafka", "grpc" }) do
      assert.are.equal("UNSUPPORTED", (refusal(options.client, { transport = name })))
    end
    for _, text in ipairs({ "amqps://h", "mqtts://h" }) do
      assert.are.equal("UNSUPPORTED", (refusal(options.client, text)))
    end
  end)

  it("give equal keys for what can share a pool, whatever the order and the timeout", function()
    local a = options.client({ host = "h", port = 1, tls = { ca = "x", verify = false }, timeout = 1 })
    local b = options.client({ tls = { verify = false, ca = "x" }, port = "1", host = "h", timeout = 2 })
    assert.are.equal(a.key, b.key)
    assert.are_not.equal(a.key, options.client({ host = "h", port = 2, tls = { ca = "x", verify = false } }).key)
    assert.are_not.equal(a.key, options.client({ host = "h", port = 1 }).key)
    assert.are.equal(options.client("tcp://h:1").key, options.client({ host = "h", port = 1 }).key)
  end)

  it("MOD-04 take a transport written in Lua, which shares no pool", function()
    local transport = { connect = function() end, publish = function() end }
    local got = options.client({ transport = transport, timeout = 7 })
    assert.are.equal(transport, got.transport)
    assert.are.equal(7, got.timeout)
    assert.is_nil(got.key)
    refused("a transport written in Lua needs the function 'publish'", options.client,
      { transport = { connect = function() end } })
  end)
end)

describe("a client's URL", function()
  it("names host, port, TLS and options", function()
    local got = options.client("tls://h:1?ca=a.pem&server_name=s&verify=false&connect_timeout=7")
    assert.are.same({ { host = "h", port = 1 } }, got.hosts)
    assert.are.same({ ca = "a.pem", server_name = "s", verify = false }, got.tls)
    assert.are.equal(7, got.connect_timeout)
    assert.are.same({}, options.client("tls://h").tls)
  end)

  it("names a unix socket or a local server", function()
    assert.are.same({ { path = "/run/x" } }, options.client("unix:/run/x").hosts)
    assert.are.same({ { path = "/run/x" } }, options.client("unix:///run/x").hosts)
    local got = options.client("local:billing")
    assert.are.same({ "local", "billing" }, { got.transport, got.name })
  end)

  it("is refused when it makes no sense", function()
    refused("bad URL 'tpc://h': unknown scheme 'tpc'", options.client, "tpc://h")
    refused("bad URL 'http://h': unknown scheme 'http'", options.client, "http://h")
    refused("bad URL 'tcp://h/x': a path has no meaning here", options.client, "tcp://h/x")
    refused("bad URL 'tcp:h': '//' is missing after the scheme", options.client, "tcp:h")
    refused("bad URL 'unix:': the path is missing", options.client, "unix:")
    refused("bad URL 'local://h/x': a host has no meaning here", options.client, "local://h/x")
    refused("bad URL 'tcp://h?ca=x': 'ca' is for TLS only", options.client, "tcp://h?ca=x")
    refused("bad URL 'tcp://***@h': a user or a password has no meaning here", options.client, "tcp://u:p@h")
    refused("bad URL 'tcp://a,b': one host is enough", options.client, "tcp://a,b")
    refused("unknown option 'ports' (did you mean 'port'?)", options.client, "tcp://h?ports=1")
    refused('option \'connections\' must be a number, not "two"', options.client, "tcp://h?connections=two")
    assert.are.equal("INVALID_OPTION", (refusal(options.client, "tcp://h:99999")))
  end)
end)

describe("options of a listener", function()
  it("come from the URL and the table, which wins", function()
    local got = options.listener("tcp://127.0.0.1:0?max_buffer_size=5", { max_buffer_size = 6 })
    assert.are.same({ "tcp", "127.0.0.1", 0, 6 },
      { got.transport, got.core.host, got.core.port, got.core.max_buffer_size })
  end)

  it("of HTTP have the core's names", function()
    local got = options.listener("http://127.0.0.1:8080", { header_timeout = 1 })
    assert.are.equal("http", got.transport)
    assert.are.same({ 1, 30000, 1048576 },
      { got.core.header_timeout_ms, got.core.body_timeout_ms, got.core.max_body_bytes })
    assert.is_nil(got.core.header_timeout)
  end)

  it("of a unix socket have no host", function()
    local got = options.listener("unix:/run/x.sock")
    assert.are.same({ "tcp", "/run/x.sock" }, { got.transport, got.core.path })
    assert.is_nil(got.core.host)
  end)

  it("of TLS need a certificate", function()
    assert.are.equal("INVALID_OPTION", (refusal(options.listener, "https://h:1")))
    local got = options.listener("https://h:1?cert=c.pem", { tls = { cert = "d.pem", key = "k.pem" } })
    assert.are.same({ cert = "d.pem", key = "k.pem" }, got.core.tls)
    assert.are.same({ cert = "c.pem", key = "k.pem" }, options.listener("tls://h:1?cert=c.pem&key=k.pem").core.tls)
  end)

  it("are checked like a client's", function()
    refused("unknown option 'max_body_byte' (did you mean 'max_body_bytes'?)", options.listener, "http://h:1",
      { max_body_byte = 1 })
    assert.are.equal("UNSUPPORTED", (refusal(options.listener, "mqtt://h:1")))
  end)
end)
