-- TLS and mutual TLS in front of and behind apps, by options and by URL.

local log = require("perigee.log")
local perigee = require("perigee")
local certs = require("spec.support.certs")
local options = require("perigee.options")
local loop = require("spec.support.loop")
local process = require("spec.support.process")
local program = require("spec.support.perigee")
local tcp = require("spec.support.tcp")

local app, clients

before_each(function()
  clients = {}
  log.set_sink(function() end)
  app = perigee.app()
  app:message("echo", function(data) return data end)
  app:get("/hello", function() return "hello" end)
end)

after_each(function()
  for _, client in ipairs(clients) do client:close():await() end
  program.clean()
  app:stop({ drain_timeout = 50 }):await()
  loop.finish()
  log.set_sink()
end)

teardown(certs.clean)

local function listen(scheme, tls)
  app:listen(scheme .. "://127.0.0.1:0", { tls = tls })
  app:start():await()
  return tonumber(app:addresses()[1]:match(":(%d+)$"))
end

local function connect(port, tls, connect_timeout)
  local client = perigee.client({ host = "127.0.0.1", port = port, tls = tls, connect_timeout = connect_timeout })
  clients[#clients + 1] = client
  return client
end

local function failure(waited)
  local ok, err = pcall(waited.await, waited)
  assert.is_false(ok)
  return err
end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

local function free_port()
  local server = tcp.listen()
  server:close()
  return server.port
end

describe("a listener's certificate", function()
  local function app_with(cert, key)
    return program.script(([[
local app = require("perigee").app()
app:listen("tls://127.0.0.1:0", { tls = { cert = %q, key = %q } })
return app
]]):format(cert, key))
  end

  it("that has expired is found by check, and warned of by serve", function()
    local files = certs.paths()
    local path = app_with(files.expired_cert, files.expired_key)
    local told = path .. ":2: %sthe certificate of tls://127.0.0.1:0 has expired less than a day ago [certificate]\n"
    assert.same({ 78, "", told:format("error: ") }, { program.run({ "check", path }) })
    local child = program.start({ "serve", path, "--workers", "2" })
    local url = program.urls(child)[1]
    assert.equal(("perigee: warn: %sperigee: listening on %s\n"):format(told:format(""), url), child.stderr)
  end)

  it("that cannot be used is found by check, and refused by serve", function()
    local files = certs.paths()
    local path = app_with(files.server_cert, files.client_key)
    local told = ("INVALID_OPTION: tls: key %s: key values mismatch"):format(files.client_key)
    assert.same({ 78, "", ("%s:2: error: %s [certificate]\n"):format(path, told) }, { program.run({ "check", path }) })
    assert.same({ 78, "", ("perigee: %s\n"):format(told) }, { program.run({ "serve", path }) })
    assert.equal(0, (program.run({ "check", app_with(files.server_cert, files.server_key) })))
  end)
end)

describe("renewed certificates", function()
  local files, cert, key

  before_each(function()
    files = certs.paths()
    cert, key = program.script(read(files.server_cert)), program.script(read(files.server_key))
  end)

  local function serve_renewable(...)
    local port = free_port()
    local path = program.script(([[
local app = require("perigee").app()
app:message("echo", function(data) return data end)
app:listen("tls://127.0.0.1:%d", { tls = { cert = %q, key = %q } })
return app
]]):format(port, cert, key))
    local child = program.start({ "serve", path, ... })
    program.urls(child)
    return child, port
  end

  it("are a listener's from a reload on, which refuses a pair that is none", function()
    local child, port = serve_renewable("--workers", "2")
    program.workers(child) -- both have read the first ones
    local first = connect(port, { ca = files.ca })
    assert.equal(1, first:send("echo", 1):await())

    write(cert, read(files.stranger_cert))
    local env = { "reload", "--pid", tostring(child.pid) }
    local code, _, err = program.run(env)
    assert.equal(1, code)
    assert.truthy(err:find("INVALID_OPTION: tls: key " .. key, 1, true), err)
    assert.equal(2, first:send("echo", 2):await())

    write(key, read(files.stranger_key))
    assert.equal(0, (program.run(env)))
    for _ = 1, 6 do -- whichever worker takes it
      local renewed = connect(port, { ca = files.stranger_ca }, 1000 + #clients)
      assert.equal(3, renewed:send("echo", 3):await())
    end
    local outdated = connect(port, { ca = files.ca }, 999)
    assert.equal("CONNECT_FAILED", failure(outdated:send("echo", 4)).code)
  end)

  it("leave a listener alone that has the same ones", function()
    local child, port = serve_renewable()
    local client = connect(port, { ca = files.ca })
    local states = {}
    client:on("status", function(state) states[#states + 1] = state end)
    assert.equal(1, client:send("echo", 1):await())
    write(cert, read(cert))
    assert.equal(0, (program.run({ "reload", "--pid", tostring(child.pid) })))
    assert.equal(2, client:send("echo", 2):await())
    assert.same({ "connected" }, states)
  end)

  it("are those of the next client with the same options", function()
    local mine = { host = "127.0.0.1", port = 1, tls = { cert = cert, key = key } }
    local before = options.client(mine).key
    assert.equal(before, options.client(mine).key)
    write(cert, read(files.client_cert))
    assert.not_equal(before, options.client(mine).key)
  end)
end)

describe("tls://", function()
  it("serves and calls with files, or with PEM texts", function()
    local files = certs.paths()
    local port = listen("tls", { cert = files.server_cert, key = files.server_key })
    assert.equal("é😀", connect(port, { ca = files.ca }):send("echo", "é😀"):await())
    assert.equal(1, connect(port, { ca = read(files.ca) }):send("echo", 1):await())
    local text = ("x"):rep(500000)
    assert.equal(text, connect(port, { ca = files.ca }):send("echo", text):await())
  end)

  it("is to be had by URL", function()
    local files = certs.paths()
    local port = listen("tls", { cert = files.server_cert, key = files.server_key })
    local client = perigee.client(("tls://127.0.0.1:%d?ca=%s"):format(port, files.ca))
    clients[1] = client
    assert.equal(1, client:send("echo", 1):await())
  end)

  it("refuses a wrong CA and a wrong name with CONNECT_FAILED and the reason, and never falls back to plain", function()
    local files = certs.paths()
    local port = listen("tls", { cert = files.server_cert, key = files.server_key })
    for _, tls in ipairs({ { ca = files.stranger_ca }, {}, { ca = files.ca, server_name = "elsewhere.example" } }) do
      local err = failure(connect(port, tls):send("echo", 1))
      assert.equal("CONNECT_FAILED", err.code)
      assert.truthy(err.message:lower():find("certificate", 1, true) or err.message:lower():find("mismatch", 1, true),
        err.message)
    end
    assert.equal(1, connect(port, { verify = false }):send("echo", 1):await())
  end)

  it("asks clients for a certificate when it has a CA: strangers are refused", function()
    local files = certs.paths()
    local port = listen("tls", { ca = files.ca, cert = files.server_cert, key = files.server_key })
    local mine = { ca = files.ca, cert = files.client_cert, key = files.client_key }
    assert.equal(1, connect(port, mine):send("echo", 1):await())
    for _, tls in ipairs({
      { ca = files.ca }, { ca = files.ca, cert = files.stranger_cert, key = files.stranger_key },
    }) do
      local code = failure(connect(port, tls):send("echo", 1)).code
      assert.truthy(code == "CONNECT_FAILED" or code == "CONNECTION_CLOSED", code)
    end
    assert.equal(2, connect(port, mine):send("echo", 2):await())
  end)

  it("closes a plain peer, and serves on", function()
    local files = certs.paths()
    local port = listen("tls", { cert = files.server_cert, key = files.server_key })
    local peer = tcp.connect(port)
    peer:write('27#{"pattern":"echo","data":1}')
    peer:read_end()
    assert.equal(1, connect(port, { ca = files.ca }):send("echo", 1):await())
  end)

  it("refuses certificates that cannot be read with INVALID_OPTION and the reason", function()
    local ok, err = pcall(perigee.client, { port = 1, tls = { ca = "/no/such/file.pem" } })
    assert.is_false(ok)
    assert.equal("INVALID_OPTION", err.code)
    assert.truthy(err.message:find("/no/such/file.pem", 1, true), err.message)
    app:listen("tls://127.0.0.1:0", { tls = { cert = certs.paths().server_cert, key = certs.paths().client_key } })
    assert.equal("INVALID_OPTION", failure(app:start()).code)
  end)
end)

describe("https://", function()
  it("serves curl, with the CA it trusts", function()
    local files = certs.paths()
    local port = listen("https", { cert = files.server_cert, key = files.server_key })
    local child = process.start("curl", { "-sS", "--cacert", files.ca, ("https://127.0.0.1:%d/hello"):format(port) })
    assert.equal(0, child:wait(10000), child.stderr)
    assert.equal("hello", child.stdout)
    child = process.start("curl", { "-sS", "--cacert", files.stranger_ca, ("https://127.0.0.1:%d/hello"):format(port) })
    assert.equal(60, (child:wait(10000)))
  end)
end)
