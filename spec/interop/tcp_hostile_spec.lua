-- Messages that are allowed and unkind: what they cost, and that everybody else is served. Broken frames are in
-- tcp_server_spec and tcp_client_spec (TCP-05 to TCP-11).

local cjson = require("cjson")
local log = require("perigee.log")
local perigee = require("perigee")
local loop = require("spec.support.loop")
local tcp = require("spec.support.tcp")
local wire = require("spec.support.wire")

local DEEP = ("["):rep(200000) .. ("]"):rep(200000)

describe("a service over TCP", function()
  local apps, backend, clients

  before_each(function()
    apps, clients = {}, {}
    log.set_sink(function() end)
  end)

  after_each(function()
    for _, client in ipairs(clients) do client:close():await() end
    for i = #apps, 1, -1 do apps[i]:stop({ drain_timeout = 100 }):await() end
    loop.finish()
    log.set_sink()
  end)

  local function serve(setup)
    local app = perigee.app()
    apps[#apps + 1] = app
    setup(app)
    app:listen("tcp://127.0.0.1:0")
    app:start():await()
    return tonumber(app:addresses()[1]:match(":(%d+)$"))
  end

  it("answers 200,000-deep data with an error where it is decoded, and keeps the connection", function()
    local ran = false
    local port = serve(function(app)
      app:message("decode", function() ran = true return 1 end)
      app:message("echo", function(data) return data end)
    end)
    local peer = tcp.connect(port)
    peer:write(wire.request('"decode"', DEEP))
    local packet = cjson.decode((peer:read_frame()))
    assert.equal("INVALID_MESSAGE", packet.err.code)
    assert.is_false(ran)
    peer:write(wire.request('"echo"', "1"))
    assert.equal('{"response":1,"isDisposed":true,"id":"I"}', (peer:read_frame()))
    peer:close()
  end)

  it("passes 200,000-deep data through a forward, untouched both ways", function()
    local port = serve(function(app)
      app:message("raw", function(_, ctx) return ctx.raw end)
    end)
    backend = perigee.client("tcp://127.0.0.1:" .. port)
    clients[1] = backend
    local front = serve(function(app) app:forward(perigee.any_pattern, backend) end)
    local peer = tcp.connect(front)
    -- The service behind decodes before it runs a handler, so it refuses; the way there and back is untouched.
    peer:write(wire.request('"raw"', DEEP))
    assert.equal("INVALID_MESSAGE", cjson.decode((peer:read_frame())).err.code)
    local spaced = '{ "b" : 1.00 , "a" : [ ] }'
    peer:write(wire.request('"raw"', spaced))
    assert.equal('{"response":' .. spaced .. ',"isDisposed":true,"id":"I"}', (peer:read_frame()))
    peer:close()
  end)

  it("finds no handler for a pattern nested 200,000 deep, and serves on", function()
    local port = serve(function(app) app:message("echo", function(data) return data end) end)
    local peer = tcp.connect(port)
    peer:write(wire.request(DEEP, "1"))
    assert.truthy((peer:read_frame()):find("There is no matching message handler", 1, true))
    peer:write(wire.request('"echo"', "2"))
    assert.equal('{"response":2,"isDisposed":true,"id":"I"}', (peer:read_frame()))
    peer:close()
  end)

  it("echoes an id of any size, and answers ten thousand requests of one read", function()
    local port = serve(function(app) app:message("echo", function(data) return data end) end)
    local peer = tcp.connect(port)
    local id = '"' .. ("i"):rep(100000) .. '"'
    peer:write(wire.request('"echo"', "1", id))
    assert.equal('{"response":1,"isDisposed":true,"id":' .. id .. "}", (peer:read_frame()))
    peer:push(wire.request('"echo"', "1"):rep(10000))
    for _ = 1, 10000 do peer:read_frame() end
    peer:close()
  end)
end)
