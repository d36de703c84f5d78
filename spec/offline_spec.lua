-- Events emitted while nobody is there, over TCP; over brokers: spec/nats_life_spec.lua.

local loop = require("spec.support.loop")
local perigee = require("perigee")
local tcp = require("spec.support.tcp")

describe("offline", function()
  local clients

  before_each(function() clients = {} end)

  after_each(function()
    for _, client in ipairs(clients) do client:close():await() end
    loop.finish()
  end)

  local function client(port, offline, more)
    local options = { host = "127.0.0.1", port = port, offline = offline }
    for name, value in pairs(more or {}) do options[name] = value end
    clients[#clients + 1] = perigee.client(options)
    return clients[#clients]
  end

  local function code_of(promise) return perigee.settled({ promise }):await()[1].reason.code end

  it('"fail", the default, ends an event with the dial', function()
    assert.are.equal("CONNECT_FAILED", code_of(client(tcp.free_port(), nil):emit("ev", 1)))
    assert.are.equal("CONNECT_FAILED", code_of(client(tcp.free_port(), "fail"):emit("ev", 1)))
  end)

  it('"queue" keeps events until somebody listens', function()
    local port = tcp.free_port()
    local c, failed = client(port, "queue"), 0
    c:on("error", function() failed = failed + 1 end)
    local sent = { c:emit("ev", 1), c:emit("ev", 2) }
    loop.wait_until(function() return failed >= 2 end, 10000, "dials in vain")
    assert.are.equal(2, c:status().waiting)
    assert.are.equal("CONNECT_FAILED", code_of(c:send("p", 1):first())) -- requests do not wait
    local peer = tcp.listen(port):accept()
    perigee.all(sent):await()
    assert.are.equal('{"pattern":"ev","data":1}', (peer:read_frame()))
    assert.are.equal('{"pattern":"ev","data":2}', (peer:read_frame()))
    peer:close()
  end)

  it('"drop" counts what is gone, and dials for what comes later', function()
    local port = tcp.free_port()
    local c = client(port, "drop")
    assert.are.equal("CONNECT_FAILED", code_of(c:emit("ev", 0))) -- the first waits for the first dial
    c:emit("ev", 1):await()
    c:emit("ev", 2):await()
    assert.are.equal(2, c:status().dropped_events)
    local server = tcp.listen(port)
    c:connect():catch(function() end):await()
    c:connect():await()
    c:emit("ev", 3):await()
    local peer = server:accept()
    assert.are.equal('{"pattern":"ev","data":3}', (peer:read_frame()))
    peer:close()
  end)

  it("is one of three", function()
    local ok, err = pcall(perigee.client, { offline = "keep" })
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find([[option 'offline' must be "fail", "queue" or "drop", not "keep"]], 1, true))
  end)
end)
