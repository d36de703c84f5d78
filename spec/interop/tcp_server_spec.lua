--- perigee as a TCP service: Nest 12's client, and raw sockets where the bytes matter. What `both` expects is first
--- shown to hold for a Nest 12 service, then asked of perigee.

local cjson = require("cjson")
local perigee = require("perigee")
local log = require("perigee.log")
local certs = require("spec.support.certs")
local loop = require("spec.support.loop")
local nest = require("spec.support.nest")
local process = require("spec.support.process")
local tcp = require("spec.support.tcp")
local wire = require("spec.support.wire")

local NO_HANDLER = '{"id":"I","status":"error",'
  .. '"err":"There is no matching message handler defined in the remote service."}'
local INTERNAL = '{"err":{"status":"error","message":"Internal server error"},"isDisposed":true,"id":"I"}'

local function value(json) return '{"response":' .. json .. ',"isDisposed":true,"id":"I"}' end

local function keys(n, prefix)
  local t = {}
  for i = 1, n do t[(prefix or "k") .. i] = i end
  return t
end

local function nested(levels, innermost)
  local t = innermost
  for i = levels, 1, -1 do t = { [string.char(96 + i)] = t } end
  return t
end

--- Handlers with the names and answers of spec/peers/service.js.
local function like_service_js(app, seen)
  app:message("echo", function(data) return data end)
  app:message({ cmd = "charge" }, function(data)
    return { id = "inv_8a1", amount = data.amount, status = "paid" }
  end)
  app:message("value.null", function() return perigee.null end)
  app:message("value.undefined", function() end)
  app:message("promise", function(data)
    return perigee.async(function() return data end)
  end)
  app:message("promise.stream", function()
    perigee.sleep(1):await()
    return perigee.of(1, 2)
  end)
  app:message("slow", function(data) return perigee.sleep(data.ms):next(function() return data.ms end) end)
  app:message("big", function(data) return ("x"):rep(data.units) end)
  app:message("stream", function() return perigee.of(1, 2, 3) end)
  app:message("stream.empty", function() return perigee.of() end)
  app:message("stream.undefined", function()
    return perigee.reply(function(sink)
      sink:next(1) sink:next(nil) sink:next(2) sink:next(nil)
      sink:complete()
    end)
  end)
  app:message("stream.late.end", function(data)
    return perigee.reply(function(sink)
      sink:next(1)
      perigee.sleep(data.ms):next(function() sink:complete() end)
    end)
  end)
  app:message("stream.error", function()
    return perigee.reply(function(sink)
      sink:next(1) sink:next(2)
      sink:error(perigee.error({ message = "mid" }))
    end)
  end)
  app:message("array", function() return { 1, 2 } end)
  app:message("error.text", function() error(perigee.error({ message = "bad" })) end)
  app:message("error.object", function() error({ code = 402, message = "no funds" }) end)
  app:message("error.array", function() error({ 1, 2 }) end)
  app:message("error.unknown", function() error("secret") end)
  app:message("context", function(_, ctx) return ctx.pattern end)
  app:message({ ctx = 1, a = 2 }, function(_, ctx) return ctx.pattern end)
  app:message({ b = { z = 1, a = 'x"y\\z' }, a = { 1, 2 } }, function() return "nested" end)
  app:message({ a = true, b = perigee.null, d = 1 }, function() return "bare" end)
  app:message(42, function() return "number" end)
  app:message("1.0", function() return "unreachable" end)
  app:message(true, function() return "boolean" end)
  app:message("true", function() return "unreachable" end)
  app:message(0, function() return "zero" end)
  app:message("1e+21", function() return "large" end)
  app:event("event", function(data) seen[#seen + 1] = { "event", data } end)
  app:event("event.two", function(data) seen[#seen + 1] = { "first", data } end)
  app:event("event.two", function(data) seen[#seen + 1] = { "second", data } end)
  app:event("event.failing", function() error("first fails") end)
  app:event("event.failing", function(data) seen[#seen + 1] = { "second", data } end)
  app:event("event.value", function() return "value" end)
  app:message("event.message", function(data) seen[#seen + 1] = { "message", data } end)
end

describe("perigee as a TCP service", function()
  local service, client -- Nest's, for the whole file
  local apps, logged

  setup(function()
    service = nest.service()
    client = nest.client()
  end)
  teardown(function()
    process.stop_all()
    certs.clean()
  end)

  before_each(function()
    apps, logged = {}, {}
    log.set_sink(function(...)
      local texts = {}
      for i = 1, select("#", ...) do texts[i] = tostring((select(i, ...))) end
      logged[#logged + 1] = table.concat(texts, " ")
    end)
  end)
  after_each(function()
    for _, app in ipairs(apps) do app:stop():await() end
    log.set_sink(nil)
    loop.finish()
  end)

  local function was_logged(text)
    return function() return table.concat(logged, "\n"):find(text, 1, true) end
  end

  --- Starts an app with what define adds, on a free port.
  local function serve(define, opts, scheme)
    local app, port = perigee.app(), tcp.free_port()
    define(app)
    app:listen(("%s://127.0.0.1:%d"):format(scheme or "tcp", port), opts)
    app:start():await()
    apps[#apps + 1] = app
    return port, app
  end

  local function serve_like_nest(opts)
    local seen = {}
    local port, app = serve(function(a) like_service_js(a, seen) end, opts)
    return port, seen, app
  end

  local function ask(port, bytes, packets)
    local peer = tcp.connect(port)
    peer:write(bytes)
    for _, packet in ipairs(packets) do assert.equal(packet, (peer:read_frame())) end
    -- One more exchange shows that no other packet of the first one was left.
    peer:write(wire.request('"echo"', '"probe"', '"P"'))
    assert.equal('{"response":"probe","isDisposed":true,"id":"P"}', (peer:read_frame()))
    peer:close()
  end

  --- Nest and perigee answer the same bytes.
  local function both(bytes, ...)
    ask(service.port, bytes, { ... })
    ask((serve_like_nest()), bytes, { ... })
  end

  --- The same, where the order of keys inside `err` is ours to choose.
  local function both_decoded(bytes, ...)
    for _, port in ipairs({ service.port, (serve_like_nest()) }) do
      local peer = tcp.connect(port)
      peer:write(bytes)
      for _, packet in ipairs({ ... }) do
        assert.same(cjson.decode(packet), cjson.decode((peer:read_frame())))
      end
      peer:close()
    end
  end

  --- Framing errors: the connection is closed, nothing was sent on it, and others are served.
  local function refuses(bytes, opts)
    local port, seen = serve_like_nest(opts)
    local peer = tcp.connect(port)
    peer:push(bytes)
    local rest = peer:read_end()
    assert.equal("", rest)
    ask(port, wire.request('"echo"', "1"), { value("1") })
    return seen
  end

  describe("patterns", function()
    it("GEN-01 routes strings and numbers by their text: -0 is 0, 1e21 is 1e+21", function()
      for pattern, answer in pairs({
        ["0"] = "zero", ["-0"] = "zero", ['"0"'] = "zero", ["1e21"] = "large", ['"1e+21"'] = "large",
        ["1000000000000000000000"] = "large", ["42.0"] = "number",
      }) do
        both(wire.request(pattern, "1"), value('"' .. answer .. '"'))
      end
    end)

    it("GEN-02 GEN-04 finds the handler for an event whose pattern Nest sent as its route", function()
      local patterns = {
        { B = 1, a = 2, A = 3, b = 4, _c = 5, ["10"] = 6, ["9"] = 7 },
        { text = 'q"b\\s' },
        { text = "l\nf" }, -- its route holds a raw line feed, so it is not JSON
        { text = "ä日😀" },
        { a = "x", a_b = 1, ["a-b"] = 2, a1 = 3, aa = 4, ab = 5, aB = 6, Ab = 7, AB = 8, ab1 = 9 },
        keys(20),
      }
      local seen = {}
      local port = serve(function(app)
        for i, pattern in ipairs(patterns) do app:event(pattern, function() seen[#seen + 1] = i end) end
      end)
      client:run("options", { port = port })
      for i, pattern in ipairs(patterns) do
        client:emit(pattern, 1)
        loop.wait_until(function() return seen[i] end, nil, "the event of pattern " .. i)
        assert.equal(i, seen[i])
      end
    end)

    it("GEN-03 takes an array for an object with index keys, [] for {}", function()
      local port = serve(function(app)
        app:message({ list = { "a", "b" }, none = perigee.array({}) }, function() return "found" end)
        app:message("echo", function(data) return data end)
      end)
      ask(port, wire.request('{"list":{"1":"b","0":"a"},"none":{}}', "1"), { value('"found"') })
      ask(port, wire.request('{"none":[],"list":["a","b"]}', "1"), { value('"found"') })
    end)

    it("GEN-05 does not look below the sixth object level", function()
      local port = serve(function(app)
        app:message(nested(7, 1), function() return "deep" end)
        app:message("echo", function(data) return data end)
      end)
      ask(port, wire.request(cjson.encode(nested(7, 2)), "1"), { value('"deep"') })
      ask(port, wire.request(cjson.encode(nested(6, 1)), "1"), { NO_HANDLER })
    end)

    it("GEN-06 takes all patterns of more than 20 keys for one, also nested", function()
      local port = serve(function(app)
        app:message(keys(21), function() return "many" end)
        app:message({ a = keys(21) }, function() return "many inside" end)
        app:message(keys(20), function() return "twenty" end)
        app:message("echo", function(data) return data end)
      end)
      ask(port, wire.request(cjson.encode(keys(21, "other")), "1"), { value('"many"') })
      ask(port, wire.request(cjson.encode({ a = keys(30) }), "1"), { value('"many inside"') })
      ask(port, wire.request(cjson.encode(keys(20)), "1"), { value('"twenty"') })
      ask(port, wire.request(cjson.encode(keys(20, "other")), "1"), { NO_HANDLER })
    end)

    it("GEN-07 writes booleans and null bare, and leaves a boolean pattern as it is", function()
      both(wire.request('{"d":1,"b":null,"a":true}', "1"), value('"bare"'))
      both(wire.request('{"d":1,"b":"null","a":"true"}', "1"), NO_HANDLER)
      both(wire.request("true", "1"), value('"boolean"'))
      both(wire.request('"true"', "1"), value('"boolean"')) -- the handler named "true" is out of reach
      both(wire.request("null", "1"), NO_HANDLER)
    end)

    it("GEN-08 finds a handler whatever the order of keys", function()
      both(wire.request('{"b":{"z":1,"a":"x\\"y\\\\z"},"a":[1,2]}', "1"), value('"nested"'))
      both(wire.request('{"a":[1,2],"b":{"a":"x\\"y\\\\z","z":1}}', "1"), value('"nested"'))
    end)

    it("GEN-09 parses a string pattern that holds JSON; 42 and \"42\" are one pattern", function()
      local json = '{ \\"ctx\\": 1, \\"a\\": 2 }'
      both(wire.request('"' .. json .. '"', "1"), value('"' .. json .. '"'))
      both(wire.request("42", "1"), value('"number"'))
      both(wire.request('"42"', "1"), value('"number"'))
      both(wire.request('"\\"echo\\""', "1"), value("1"))
    end)

    it("GEN-10 cannot reach a handler named \"1.0\": the name is parsed to 1", function()
      both(wire.request('"1.0"', "1"), NO_HANDLER)
      both(wire.request("1", "1"), NO_HANDLER)
    end)
  end)

  describe("replies", function()
    it("GEN-20 answers a single value with one final packet", function()
      both(wire.request('"echo"', "0"), value("0"))
      both(wire.request('"echo"', '{"k":"v"}'), value('{"k":"v"}'))
      both(wire.request('"promise"', '"p"'), value('"p"'))
      both(wire.request('"array"', "1"), value("[1,2]"))
      both(wire.request('"echo"', "[]"), value("[]"))
      both(wire.request('"echo"', "{}"), value("{}"))
    end)

    it("GEN-21 answers nil with an end only, null with a null response", function()
      both(wire.request('"value.undefined"', "1"), '{"isDisposed":true,"id":"I"}')
      both(wire.request('"value.null"', "1"), value("null"))
    end)

    it("GEN-22 sends a stream of 3 as two plain packets and a final one", function()
      both(wire.request('"stream"', "1"), '{"response":1,"id":"I"}', '{"response":2,"id":"I"}', value("3"))
      both(wire.request('"promise.stream"', "1"), '{"response":1,"id":"I"}', value("2"))
      both(wire.request('"stream.late.end"', '{"ms":20}'), '{"response":1,"id":"I"}', '{"isDisposed":true,"id":"I"}')
    end)

    it("GEN-23 sends the values of a stream that fails, then its error", function()
      both_decoded(wire.request('"stream.error"', "1"), '{"response":1,"id":"I"}', '{"response":2,"id":"I"}',
        '{"err":{"status":"error","message":"mid"},"isDisposed":true,"id":"I"}')
    end)

    it("GEN-24 sends nil in a stream as a bare id, an empty stream as an end", function()
      both(wire.request('"stream.undefined"', "1"), '{"response":1,"id":"I"}', '{"id":"I"}',
        '{"response":2,"id":"I"}', '{"isDisposed":true,"id":"I"}')
      both(wire.request('"stream.empty"', "1"), '{"isDisposed":true,"id":"I"}')
    end)

    it("GEN-25 sends a text as status and message, a table unchanged", function()
      both_decoded(wire.request('"error.text"', "1"),
        '{"err":{"status":"error","message":"bad"},"isDisposed":true,"id":"I"}')
      both_decoded(wire.request('"error.object"', "1"),
        '{"err":{"code":402,"message":"no funds"},"isDisposed":true,"id":"I"}')
      both(wire.request('"error.array"', "1"), '{"err":[1,2],"isDisposed":true,"id":"I"}')
    end)

    it("GEN-26 hides an unknown error from the peer, and logs it", function()
      both_decoded(wire.request('"error.unknown"', "1"), INTERNAL)
      assert.truthy(was_logged("secret")())
      assert.truthy(was_logged("tcp_server_spec.lua:")())
    end)

    it("GEN-27 sends what a filter raises verbatim, the error of a service behind it too", function()
      local billing = perigee.client({ transport = "tcp", host = "127.0.0.1", port = service.port })
      local port = serve(function(app)
        app:use(function(_, _, next_handler)
          local ok, result = pcall(next_handler)
          if ok then return result end
          if type(result) == "table" and result.code == "REMOTE" then error(result) end
          error({ filtered = true })
        end)
        app:message("fails", function() error("inside") end)
        app:message("passed.on", function() return billing:send("error.filter", 1):await() end)
        app:message("echo", function(data) return data end)
      end)
      ask(port, wire.request('"fails"', "1"), { '{"err":{"filtered":true},"isDisposed":true,"id":"I"}' })
      ask(port, wire.request('"passed.on"', "1"), { '{"err":"plain","isDisposed":true,"id":"I"}' })
      billing:close():await()
    end)

    it("GEN-28 answers an unknown pattern with a text in err", function()
      both(wire.request('"nosuch"', "1"), NO_HANDLER)
      both(wire.request('{"cmd":"nosuch"}', "1"), NO_HANDLER)
      both(wire.request('""', "1"), NO_HANDLER)
    end)

    it("GEN-33 echoes the id with its type; id null is a request, no id an event", function()
      for _, id in ipairs({ "7", "1.5", "null", "true", "false", '""', "[]", '{"a":1}', '"A"' }) do
        both(wire.request('"echo"', "1", id), '{"response":1,"isDisposed":true,"id":' .. id .. "}")
      end
      both(wire.request('"echo"', "1", false)) -- answered by nothing
    end)

    it("G6 answers a value that cannot be encoded with an error (Nest: with nothing)", function()
      local port = serve(function(app)
        app:message("function", function() return { f = print } end)
        app:message("stream", function() return perigee.of(1, { f = print }, 3) end)
      end)
      local peer = tcp.connect(port)
      peer:write(wire.request('"function"', "1"))
      local packet = cjson.decode((peer:read_frame()))
      assert.equal("INVALID_MESSAGE", packet.err.code)
      assert.equal("error", packet.err.status)
      assert.is_true(packet.isDisposed)
      peer:write(wire.request('"stream"', "1"))
      assert.equal('{"response":1,"id":"I"}', (peer:read_frame()))
      packet = cjson.decode((peer:read_frame()))
      assert.equal("INVALID_MESSAGE", packet.err.code)
    end)
  end)

  describe("handlers and events", function()
    it("GEN-29 logs an event nobody handles and stays connected", function()
      both(wire.request('"nobody.hears"', "1", false))
      assert.truthy(was_logged("nobody.hears")())
    end)

    it("GEN-30 runs all handlers of an event, also when the first fails", function()
      local port, seen = serve_like_nest()
      ask(port, wire.request('"event.two"', "1", false), {})
      ask(port, wire.request('"event.failing"', "2", false), {})
      loop.wait_until(function() return seen[3] end, nil, "three events")
      assert.same({ { "first", 1 }, { "second", 1 }, { "second", 2 } }, seen)
      assert.truthy(was_logged("first fails")())
    end)

    it("GEN-31 refuses a second message handler for a pattern (Nest: the later replaces the earlier)", function()
      local app = perigee.app()
      app:message({ cmd = "x", n = 1 }, function() return 1 end)
      local ok, err = pcall(function()
        app:message({ n = 1, cmd = "x" }, function() return 2 end)
        app:listen("tcp://127.0.0.1:" .. tcp.free_port())
        app:start():await()
      end)
      assert.is_false(ok)
      assert.truthy(tostring(err):find('{"cmd":"x","n":1}', 1, true), tostring(err))
    end)

    it("GEN-32 answers a request to an event pattern, runs a message handler for an event without reply", function()
      both(wire.request('"event.value"', "1"), value('"value"'))
      both(wire.request('"event"', "1"), '{"isDisposed":true,"id":"I"}')
      both(wire.request('"event.two"', "1"), value("{}"))
      local port, seen = serve_like_nest()
      ask(port, wire.request('"event.message"', "5", false), {})
      assert.same({ { "message", 5 } }, seen)
    end)

    it("GEN-34 reads the metadata of a Nest client's dispatch hook", function()
      local port = serve(function(app)
        app:message("metadata", function(_, ctx) return ctx.metadata end)
      end)
      client:run("options", { port = port })
      assert.same({ {} }, (client:send("metadata", 1)))
      client:run("metadata", { trace = "t1", user = "ä" })
      assert.same({ { trace = "t1", user = "ä" } }, (client:send("metadata", 1)))
    end)

    it("answers a Nest client: values, streams, errors, events", function()
      local port, seen = serve_like_nest()
      client:run("options", { port = port })
      assert.same({ { id = "inv_8a1", amount = 1999, status = "paid" } },
        (client:send({ cmd = "charge" }, { amount = 1999 })))
      assert.same({ 1, 2, 3 }, (client:send("stream", 1)))
      assert.same({}, (client:send("stream.empty", 1)))
      assert.same({ cjson.null }, (client:send("value.null", 1)))
      assert.same({ 1, { undefined = true }, 2 }, (client:send("stream.undefined", 1)))
      local values, err = client:send("stream.error", 1)
      assert.same({ 1, 2 }, values)
      assert.same({ status = "error", message = "mid" }, err)
      values, err = client:send("nosuch", 1)
      assert.same({}, values)
      assert.equal("There is no matching message handler defined in the remote service.", err)
      client:emit("event", { n = 1 })
      loop.wait_until(function() return seen[1] end, nil, "the event")
      assert.same({ { "event", { n = 1 } } }, seen)
    end)

    it("answers many requests of a Nest client at once, each with its own value", function()
      local port = serve_like_nest()
      client:run("options", { port = port })
      local ids = {}
      for i = 1, 200 do ids[i] = client:start({ op = "send", pattern = "echo", data = { token = i } }) end
      for i = 1, 200 do assert.same({ { token = i } }, (client:outcome(ids[i]))) end
    end)
  end)

  describe("frames", function()
    it("TCP-01 counts UTF-16 units, both ways", function()
      both(wire.request('"echo"', '"é😀日"'), value('"é😀日"'))
      local port = serve_like_nest()
      client:run("options", { port = port })
      local text = ("é😀日x"):rep(50000)
      assert.same({ text }, (client:send("echo", text, 20000)))
    end)

    it("TCP-02 takes a frame one byte at a time, also inside characters", function()
      local port = serve_like_nest()
      local peer = tcp.connect(port)
      peer:drip(wire.request('"echo"', '"é😀日"'))
      assert.equal(value('"é😀日"'), (peer:read_frame()))
      local text = wire.request('"echo"', '"é😀"') .. wire.request('"echo"', '"日"')
      for cut = 1, #text - 1 do
        peer:write(text:sub(1, cut))
        loop.turn()
        peer:write(text:sub(cut + 1))
        assert.equal(value('"é😀"'), (peer:read_frame()))
        assert.equal(value('"日"'), (peer:read_frame()))
      end
    end)

    it("TCP-03 answers several frames of one read, in order", function()
      local frames, answers = {}, {}
      for i = 1, 50 do
        frames[i] = wire.request('"echo"', tostring(i))
        answers[i] = value(tostring(i))
      end
      both(table.concat(frames), unpack(answers))
    end)

    it("TCP-04 closes a connection whose frame told its bytes instead of its units", function()
      local body = '{"pattern":"echo","data":"é😀日","id":"I"}'
      refuses(#body .. "#" .. body, { incomplete_message_timeout = 100 })
    end)

    it("TCP-05 closes on invalid UTF-8, and runs nothing of it (Nest: counts U+FFFD)", function()
      for _, bad in ipairs({ "\255", "\240\159\152", "\192\128", "\237\160\128", "\244\144\128\128" }) do
        for length = 32, 39 do -- whichever way the units of the bad bytes are counted
          local seen = refuses(length .. '#{"pattern":"event","data":"x' .. bad .. 'y"}        ')
          assert.same({}, seen)
        end
      end
    end)

    it("TCP-06 reads the length as parseInt does", function()
      local digits, rest = wire.request('"echo"', "1"):match("^(%d+)(#.*)$")
      for _, form in ipairs({ " %s", "\t%s", "+%s", "000%s", "%sx", "%s.9", "\r\n%s", "%s ", " +0%s,5" }) do
        both(form:format(digits) .. rest, value("1"))
      end
    end)

    it("TCP-07 closes on a length without digits: no byte goes out, running requests get no reply", function()
      for _, bad in ipairs({ "abc#", "#", "-#", "x36#{}", "- 5#" }) do refuses(bad) end
      local port = serve_like_nest()
      local peer = tcp.connect(port)
      peer:write(wire.request('"slow"', '{"ms":50}') .. "abc#")
      assert.equal("", (peer:read_end()))
      loop.run_for(80) -- the running handler ends with nobody to tell
      ask(port, wire.request('"echo"', "1"), { value("1") })
    end)

    it("TCP-08 closes on a length of zero and on a negative one", function()
      for _, bad in ipairs({ "0#", "-5#{}   ", "-0#", "0x10#" }) do refuses(bad) end
    end)

    it("TCP-09 closes on malformed JSON and drops the rest of the read", function()
      local event = wire.request('"event"', "1", false)
      for _, bad in ipairs({ '{"pattern":xx', '{"pattern":"event","data":1,}', "{", "nul", '{"a":"\1"}', "[1]]" }) do
        assert.same({}, refuses(wire.frame(bad) .. event))
      end
    end)

    it("TCP-10 closes when the input is above max_buffer_size without a frame, with or without a length", function()
      refuses(("1"):rep(1001), { max_buffer_size = 1000 })
      refuses('2000#"' .. ("x"):rep(1000), { max_buffer_size = 1000 })
      refuses("99999999999999999999#", { max_buffer_size = 1000 }) -- refused by its length (Nest: waits for the bytes)
      local port = serve_like_nest({ max_buffer_size = 1000 })
      local text = ("é"):rep(900) -- units are counted, not bytes
      ask(port, wire.request('"echo"', '"' .. text .. '"'), { value('"' .. text .. '"') })
    end)

    it("TCP-11 closes when a frame stops in the middle for incomplete_message_timeout", function()
      refuses('36#{"pattern":', { incomplete_message_timeout = 50 })
      refuses("3", { incomplete_message_timeout = 50 })
    end)

    it("TCP-12 accepts a slow drip, and an idle connection between frames", function()
      local port = serve_like_nest({ incomplete_message_timeout = 100 })
      local peer = tcp.connect(port)
      local bytes = wire.request('"echo"', "1")
      for i = 1, 8 do
        peer:write(i < 8 and bytes:sub(i, i) or bytes:sub(8))
        loop.run_for(30)
      end
      assert.equal(value("1"), (peer:read_frame()))
      loop.run_for(250)
      peer:write(bytes)
      assert.equal(value("1"), (peer:read_frame()))
    end)

    it("TCP-13 destroys a connection with more than max_send_buffer_size bytes queued", function()
      local release, waiting = nil, 0
      local gate = perigee.promise(function(resolve) release = resolve end)
      local port = serve(function(app)
        app:message("hold", function()
          waiting = waiting + 1
          gate:await()
          return ("x"):rep(256 * 1024)
        end)
        app:message("echo", function(data) return data end)
      end, { max_send_buffer_size = 1024 * 1024 })
      local peer = tcp.connect(port)
      peer:pause()
      peer:write(wire.request('"hold"', "1"):rep(64))
      loop.wait_until(function() return waiting == 64 end, nil, "64 running requests")
      release()
      peer:resume()
      local rest = peer:read_end()
      assert.is_true(#rest < 64 * 256 * 1024)
      ask(port, wire.request('"echo"', "1"), { value("1") })
    end)

    it("TCP-13 TCP-14 stops reading a peer that does not read, and goes on after it has, without loss", function()
      local total, run = 1500, 0
      local port = serve(function(app)
        app:message("next", function()
          run = run + 1
          return { n = run, pad = ("x"):rep(16 * 1024) }
        end)
      end, { max_send_buffer_size = 64 * 1024 * 1024 })
      local peer = tcp.connect(port)
      peer:pause()
      peer:push(wire.request('"next"', '"' .. ("y"):rep(8 * 1024) .. '"'):rep(total))
      local before
      repeat -- until it makes no more progress
        before = run
        loop.run_for(150)
      until run == before
      assert.is_true(run > 0, "it ran none of them")
      assert.is_true(run < total, "it ran all of them")
      peer:resume()
      for i = 1, total do
        local payload = peer:read_frame(10000)
        assert.equal(i, tonumber(payload:match('"n":(%d+)')))
      end
      assert.equal(total, run)
    end)

    it("TCP-14 goes on reading a peer when one write took all that had made it pause", function()
      local port = serve_like_nest()
      local peer = tcp.connect(port)
      peer:write(wire.request('"big"', '{"units":1024}'):rep(1100)) -- 1.1 MiB of answers in one turn
      for _ = 1, 1100 do peer:read_frame() end
      peer:write(wire.request('"echo"', "1"))
      assert.equal(value("1"), (peer:read_frame()))
    end)

    it("TCP-16 logs null, a string, a number, an array as packets, answers nothing, stays open", function()
      for _, body in ipairs({ "null", '"x"', "5", "[]", "[1]", "{}", "0", "false", '""', "true" }) do
        both(wire.frame(body))
      end
      assert.truthy(#logged > 0)
    end)

    it("TCP-17 answers data and id without pattern with no handler; a pattern alone reaches it with nil", function()
      both(wire.frame('{"data":1,"id":"I"}'), NO_HANDLER)
      both(wire.frame('{"pattern":"echo","id":"I"}'), '{"isDisposed":true,"id":"I"}')
      both(wire.frame('{"pattern":"echo","id":"I","data":null}'), value("null"))
    end)

    it("TCP-18 takes an id alone for an event nobody handles", function()
      both(wire.frame('{"id":"I"}'))
    end)

    it("takes keys in any order, with white space and escapes, the last of a pair of equal ones", function()
      both(wire.frame('{ "id" : "I" , "data" : { "id" : 2 } , "pattern" : "echo" }'), value('{"id":2}'))
      both(wire.frame('{"\\u0070attern":"ec\\u0068o","data":1,"\\u0069d":"I"}'), value("1"))
      both_decoded(wire.frame('{"id":"I","pattern":"echo","data":1,"id":"J"}'),
        '{"response":1,"isDisposed":true,"id":"J"}')
    end)
  end)

  describe("connections", function()
    it("TCP-22 answers a peer that has closed its half, then closes (Nest: the reply is lost)", function()
      local port = serve_like_nest()
      local peer = tcp.connect(port)
      peer:write(wire.request('"slow"', '{"ms":30}'))
      peer:shutdown()
      local rest, how = peer:read_end()
      assert.equal(wire.frame(value("30")), rest)
      assert.equal("EOF", how)
    end)

    it("TCP-23 serves TLS to a client that knows the CA, and nobody else", function()
      local files = certs.paths()
      local port = serve(function(app)
        app:message("echo", function(data) return data end)
      end, { tls = { cert = files.server_cert, key = files.server_key } }, "tls")
      client:run("options", { port = port, tls = { ca = files.ca } })
      assert.same({ "é😀" }, (client:send("echo", "é😀")))
      for _, options in ipairs({ { port = port, tls = { ca = files.stranger_ca } }, { port = port } }) do
        client:run("options", options)
        local values, err = client:send("echo", 1)
        assert.same({}, values)
        assert.equal("Connection closed", err.message)
      end
      local peer = tcp.connect(port)
      peer:write(wire.request('"echo"', "1"))
      peer:read_end()
    end)

    it("TCP-23 asks for a client certificate when it has a CA", function()
      local files = certs.paths()
      local port = serve(function(app)
        app:message("echo", function(data) return data end)
      end, { tls = { cert = files.server_cert, key = files.server_key, ca = files.ca } }, "tls")
      client:run("options", {
        port = port, tls = { ca = files.ca, cert = files.client_cert, key = files.client_key },
      })
      assert.same({ 1 }, (client:send("echo", 1)))
      for _, options in ipairs({
        { port = port, tls = { ca = files.ca } },
        { port = port, tls = { ca = files.ca, cert = files.stranger_cert, key = files.stranger_key } },
      }) do
        client:run("options", options)
        local values, err = client:send("echo", 1)
        assert.same({}, values)
        assert.equal("Connection closed", err.message)
      end
    end)

    it("TCP-24 fails to start with EADDRINUSE on a port in use", function()
      local server = tcp.listen()
      local app = perigee.app()
      app:listen("tcp://127.0.0.1:" .. server.port)
      local ok, err = pcall(function() app:start():await() end)
      assert.is_false(ok)
      assert.equal("LISTEN_FAILED", err.code)
      assert.truthy(tostring(err):find("EADDRINUSE", 1, true), tostring(err))
    end)

    it("TCP-25 stop lets running requests finish, then closes connections (Nest: cuts them)", function()
      local port, _, app = serve_like_nest()
      local idle, busy = tcp.connect(port), tcp.connect(port)
      busy:write(wire.request('"slow"', '{"ms":50}'))
      loop.turn()
      local stopped = app:stop()
      assert.equal(value("50"), (busy:read_frame()))
      assert.equal("", (busy:read_end()))
      assert.equal("", (idle:read_end()))
      stopped:await()
      apps = {}
      assert.is_false((pcall(tcp.connect, port)))
    end)

    it("TCP-25 a Nest client sees the end of a stopped service, and is served by its successor", function()
      local port, _, app = serve_like_nest()
      client:run("options", { port = port })
      client:send("echo", 1)
      app:stop():await()
      apps = {}
      loop.wait_until(function()
        local statuses = client:run("status")
        return statuses[#statuses] == "disconnected"
      end, nil, "the client to be disconnected")
      local successor = perigee.app()
      successor:message("echo", function() return "successor" end)
      successor:listen("tcp://127.0.0.1:" .. port)
      successor:start():await()
      apps[1] = successor
      assert.same({ "successor" }, (client:send("echo", 1)))
    end)

    it("TCP-26 tells pattern as received, metadata, peer and transport", function()
      local got
      local port = serve(function(app)
        app:message({ cmd = "ctx", a = 1 }, function(_, ctx)
          got = { pattern = ctx.pattern, metadata = ctx.metadata, peer = ctx.peer, transport = ctx.transport }
        end)
      end)
      local peer = tcp.connect(port)
      peer:write(wire.frame('{"pattern":{"cmd":"ctx","a":1},"data":1,"metadata":{"trace":"t1"},"id":"I"}'))
      peer:read_frame()
      assert.same({ cmd = "ctx", a = 1 }, type(got.pattern) == "string" and cjson.decode(got.pattern) or got.pattern)
      assert.same({ trace = "t1" }, got.metadata)
      assert.equal("tcp", got.transport)
      assert.truthy(tostring(got.peer):find("127.0.0.1", 1, true))
    end)

    -- A FIN alone may be a half close (TCP-22): it is the refusal of the next value that tells.
    it("TCP-27 cancels the stream of a client that is gone, and disturbs no other (Nest: it runs on)", function()
      local cancelled, sinks = 0, {}
      local port = serve(function(app)
        app:message("endless", function()
          return perigee.reply(function(sink)
            sinks[#sinks + 1] = sink
            sink:next(0)
            return function() cancelled = cancelled + 1 end
          end)
        end)
        app:message("echo", function(data) return data end)
      end)
      local gone, staying = tcp.connect(port), tcp.connect(port)
      gone:write(wire.request('"endless"', "1"))
      assert.equal('{"response":0,"id":"I"}', (gone:read_frame()))
      staying:write(wire.request('"endless"', "1"))
      assert.equal('{"response":0,"id":"I"}', (staying:read_frame()))
      gone:close()
      loop.wait_until(function()
        if cancelled == 1 then return true end
        sinks[1]:next("to nobody")
      end, nil, "the stream to be cancelled")
      sinks[1]:next("cancelled: goes nowhere")
      sinks[2]:next(1)
      assert.equal('{"response":1,"id":"I"}', (staying:read_frame()))
      staying:reset()
      loop.wait_until(function() return cancelled == 2 end, nil, "the other stream to be cancelled")
      ask(port, wire.request('"echo"', "1"), { value("1") })
    end)
  end)
end)
