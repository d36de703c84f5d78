local static = require("spec.support.check").static

local HEAD = 'local perigee = require("perigee") local app = perigee.app()\n'

-- What is found in the line after those; with `rule`, by that alone.
local function found(text, rule)
  local list = {}
  for _, line in ipairs(static(HEAD .. text)) do
    if not rule or line:find("[" .. rule .. "]", 1, true) then list[#list + 1] = line end
  end
  return list
end

local function host(name)
  return (": hint: the host '%s' stands in the script: take it from the environment, as with os.getenv [literal-host]")
    :format(name)
end

local function credential(what)
  return (": hint: %s stands in the script: take it from the environment, as with os.getenv [literal-credential]")
    :format(what)
end

describe("rule literal-host", function()
  for text, place in pairs({
    ["perigee.client({ host = 'billing' })"] = "2:25", ["perigee.client('tcp://billing:3001')"] = "2:16",
    ["perigee.client('tcp://billing:' .. os.getenv('PORT'))"] = "2:16",
    ["perigee.client(('tcp://billing:%s'):format(os.getenv('PORT')))"] = "2:16",
    ["perigee.client({ hosts = { 'billing:1', 'localhost:2' } })"] = "2:28",
    ["perigee.client({ hosts = { { host = 'billing', port = 1 } } })"] = "2:37",
    ["perigee.client({ transport = 'nats', servers = 'nats://billing:4222' })"] = "2:48",
    ["perigee.client({ transport = 'kafka', brokers = { 'billing:9092' } })"] = "2:51",
    ["local HOST = 'billing' perigee.client({ host = HOST })"] = "2:48",
    ["local options = { host = ('billing') } perigee.client(options)"] = "2:26",
    ["app:clients({ { name = 'A', host = 'billing' } })"] = "2:36",
    ["app:clients({ is_global = true, clients = { { name = 'A', host = 'billing' } } })"] = "2:66",
    ["app:clients_async({ { name = 'A', use_factory = function() return { host = 'billing' } end } })"] = "2:76",
    ["app:provide('config', { host = 'billing' })"] = "2:32",
    ["app:provide('config', function() return { host = 'billing' } end)"] = "2:50",
    ["app:listen('http://billing:80')"] = "2:12", ["app:listen('http://localhost:80', { host = 'billing' })"] = "2:44",
  }) do
    it("tells of " .. text, function() assert.are.same({ place .. host("billing") }, found(text, "literal-host")) end)
  end

  it("tells of addresses, with IPv6 too", function()
    assert.are.same({ "2:16" .. host("10.0.0.1"), "2:49" .. host("[fd00::1]"), "2:85" .. host("0.0.0.0") },
      found("perigee.client('tcp://10.0.0.1') perigee.client('tcp://[fd00::1]:1') perigee.client('tcp://0.0.0.0')"))
  end)

  for _, text in ipairs({
    "perigee.client({ host = 'localhost' })", "perigee.client('tcp://127.0.0.1:3001')",
    "perigee.client('tls://[::1]:1')",
    "perigee.client('tcp://billing.localhost')", "perigee.client({ host = os.getenv('H') or 'billing' })",
    "perigee.client(os.getenv('URL') or 'tcp://billing:1')", "perigee.client('tcp://' .. os.getenv('H') .. ':1')",
    "perigee.client('tcp://bil' .. os.getenv('LING'))", "perigee.client('unix:/run/billing.sock')",
    "perigee.client('local:billing')", "perigee.client({ path = '/run/billing', port = 1 })",
    "app:listen('http://0.0.0.0:80')", "app:listen('tcp://[::]:1')", "app:listen('http://:80')",
    "perigee.client(({ host = 'billing' }).host)",
    "local host = 'billing' host = os.getenv('H') perigee.client({ host = host })",
    "local t = { host = 'billing' } print(t)", "app:get('/x', function() return 'http://billing/' end)",
    "perigee.client({ host = '127.0.0.1', tls = { server_name = 'billing' } })",
    "app:provide('url', 'http://billing/')", "app:clients_async({ { use_factory = print, inject = { 'billing' } } })",
    "app:clients_async({ { use_factory = function() local f = function() return { host = 'billing' } end f() end } })",
  }) do
    it("says nothing of " .. text, function() assert.are.same({}, found(text, "literal-host")) end)
  end
end)

describe("rule literal-credential", function()
  for text, expected in pairs({
    ["perigee.client({ password = 'hunter2' })"] = "2:29" .. credential("the option 'password'"),
    ["perigee.client({ token = ('x'):rep(3) .. 'y', pass = 'y' })"] = "2:54" .. credential("the option 'pass'"),
    ["local secret = 'x' perigee.client({ jwt = secret })"] = "2:43" .. credential("the option 'jwt'"),
    ["perigee.client('redis://:hunter2@localhost:1')"] = "2:16" .. credential("a credential in the URL"),
    ["perigee.client('nats://token@localhost')"] = "2:16" .. credential("a credential in the URL"),
    ["perigee.client({ sasl = { password = 'x' } })"] = "2:38" .. credential("the option 'password'"),
    ["perigee.client({ tls = { key = '-----BEGIN PRIVATE KEY-----' } })"] = "2:32" .. credential("a private key"),
    ["perigee.client({ transport = 'nats', creds = '-----BEGIN NATS USER JWT-----' })"] =
      "2:46" .. credential("a private key"),
    ["app:clients_async({ { use_factory = function() return { transport = 'nats', seed = 'SU' } end } })"] =
      "2:84" .. credential("the option 'seed'"),
  }) do
    it("tells of " .. text .. ", and does not repeat it", function()
      local list = found(text, "literal-credential")
      assert.are.same({ expected }, list)
      assert.is_nil(list[1]:find("hunter2", 1, true))
    end)
  end

  for _, text in ipairs({
    "perigee.client({ password = os.getenv('PW') })", "perigee.client({ password = os.getenv('PW') or 'guest' })",
    "perigee.client({ username = 'perigee', password = '' })", "perigee.client({ tls = { key = 'certs/client.key' } })",
    "perigee.client('redis://' .. os.getenv('USER') .. '@localhost')", "print({ password = 'x' })",
    "perigee.client('tcp://localhost/?a=b@c')",
  }) do
    it("says nothing of " .. text, function() assert.are.same({}, found(text, "literal-credential")) end)
  end
end)

describe("rules option and unknown-transport", function()
  it("tell of names in tables of options", function()
    local hots = ": error: unknown option 'hots' (did you mean 'host'?) [option]"
    assert.are.same({ "2:18" .. hots }, found("perigee.client({ hots = 'x' })"))
    assert.are.same({ "2:29" .. hots }, found("app:clients({ { name = 'A', hots = 'x' } })"))
    assert.are.same({}, found("app:clients({ { name = 'A', transport = 'local', server = 'x' } })"))
  end)

  local FACTORY = "app:clients_async({ { name = 'A', use_factory = function() return %s end } })"

  it("tell of names in what a factory returns", function()
    assert.are.same({ "2:69: error: unknown option 'hots' (did you mean 'host'?) [option]" },
      found(FACTORY:format("{ hots = os.getenv('H') }")))
    assert.are.same({ "2:88: error: unknown option 'prot' (did you mean 'port'?) [option]" },
      found(FACTORY:format("{ transport = 'tcp', prot = 1 }")))
    assert.are.same({
      "2:69: warning: there is no transport 'tpc', so it is tcp (did you mean 'tcp'?) [unknown-transport]",
    }, found(FACTORY:format("{ transport = 'tpc', port = 1 }")))
  end)

  it("know the names that a transport takes by itself", function()
    local tcp = require("perigee.transports").by_name.tcp
    tcp.prepare = function(given) given.hosts = given.servers end
    local list = found(FACTORY:format("{ servers = { os.getenv('A') }, sevrers = 1 }"))
    tcp.prepare = nil
    assert.are.same({ "2:99: error: unknown option 'sevrers' (did you mean 'servers'?) [option]" }, list)
  end)

  it("say nothing of what is right, or cannot be told", function()
    for _, options in ipairs({
      "{ transport = 'tcp', host = os.getenv('H'), port = 1, timeout = 5, tls = true }", "{ [os.getenv('X')] = 1 }",
      "{ transport = os.getenv('T'), queue = 'x' }", "{ transport = { connect = print } }", "print()",
      "{ transport = 'kafka', group = 'x' }", "{ transport = 'local', name = 'x' }",
    }) do assert.are.same({}, found(FACTORY:format(options)), options) end
  end)
end)
