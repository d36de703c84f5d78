-- TLS and mutual TLS in front of and behind apps, by options and by URL.

local log = require("perigee.log")
local perigee = require("perigee")
local certs = require("spec.support.certs")
local loop = require("spec.support.loop")
local process = require("spec.support.process")
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

local function connect(port, tls)
  local client = perigee.client({ host = "127.0.0.1", port = port, tls = tls })
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
