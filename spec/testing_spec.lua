-- perigee.testing, used as its users use it: under busted, on scripts. What fails a test is in cli_test_spec.lua.

local perigee = require("perigee")
local program = require("spec.support.perigee")
local tcp = require("spec.support.tcp")
local testing = require("perigee.testing")

local clock = testing.clock

after_each(program.clean)

local function load(text)
  return testing.load(program.script("local perigee = require('perigee')\nlocal app = perigee.app()\n" .. text
    .. "\nreturn app\n"))
end

local ONE_CLIENT = [[
  app:clients({ { name = "BILLING", host = "billing.internal" } })
  local billing = app:inject("BILLING")
]]

-- A script whose message "ask" asks BILLING for the pattern and data it is given, by opts.
local function asking(operators)
  return load(ONE_CLIENT .. [[
    app:message("ask", function(data) return billing:send(data.pattern, data.data, data.opts)]] .. (operators or "")
    .. [[ end)]])
end

local function ask(t, pattern, data, opts)
  return t:message("ask", { pattern = pattern, data = data or {}, opts = opts })
end

describe("load", function()
  it("runs the script afresh each time", function()
    local path = program.script([[
      local app, n = require("perigee").app(), 0
      app:message("count", function() n = n + 1 return n end)
      return app]])
    local first, second = testing.load(path), testing.load(path)
    assert.same({ 1, 2, 1 }, { first:message("count", 1).value, first:message("count", 1).value,
      second:message("count", 1).value })
  end)

  it("opens no listener: a port in use does not matter", function()
    local url = "127.0.0.1:" .. tcp.free_port()
    local t = load(([[app:listen("http://%s") app:listen("tcp://%s")
      app:get("/", function() return "here" end)]]):format(url, url))
    assert.equal("here", t:request({ path = "/" }).body)
    for _, address in ipairs(t.app:addresses()) do assert.is_nil(address:find(url, 1, true)) end
  end)

  it("tells where the script fails, or that it returns no app", function()
    local ok, err = pcall(load, "error('no luck')")
    assert.is_false(ok)
    assert.matches(":3: no luck$", err)
    ok, err = pcall(testing.load, program.script("return 1"))
    assert.is_false(ok)
    assert.matches("^INVALID_OPTION: .* does not return an app", tostring(err))
    ok, err = pcall(testing.load, "/nowhere.lua")
    assert.is_false(ok)
    assert.matches("^cannot open /nowhere.lua", err)
  end)

  it("checks the options of clients as if they were to dial", function()
    local ok, err = pcall(load, [[app:clients({ { name = "X", hots = "x" } })]])
    assert.is_false(ok)
    assert.matches("unknown option 'hots' %(did you mean 'host'%?%)", tostring(err))
  end)

  it("runs factories and on_start when the app starts, which may ask fakes", function()
    local t = load([[
      app:provide("config", { host = "a" })
      app:clients_async({ { name = "X", inject = { "config" },
        use_factory = function(config)
          app.state.host = config.host
          return { host = config.host, timeout = 700 }
        end } })
      app:on_start(function() app.state.hello = app:inject("X"):send("hello", 1):await() end)
      app:message("ask", function() return app:inject("X"):send("slow", 1) end)
    ]])
    t.app:override("config", { host = "b" })
    t:fake("X", { hello = "good day", slow = testing.never })
    assert.equal(t, t:start())
    assert.same({ host = "b", hello = "good day" }, t.app.state)
    assert.equal("TIMEOUT", t:message("ask", 1).err.code)
    assert.equal(700, clock.now())
  end)
end)

describe("a fake", function()
  it("answers with values, of a table or of a function that sees data and metadata", function()
    local t = asking()
    local seen
    t:fake("BILLING", {
      [{ cmd = "sum" }] = function(data, opts)
        seen = opts
        return data.a + data.b
      end,
      fixed = { list = {} }, no = false,
    })
    assert.equal(3, ask(t, { cmd = "sum" }, { a = 1, b = 2 }, { metadata = { trace = "t" } }).value)
    assert.same({ pattern = { cmd = "sum" }, metadata = { trace = "t" } }, seen)
    assert.same({ list = {} }, ask(t, "fixed").value)
    assert.is_false(ask(t, "no").value)
  end)

  it("answers with streams, Promises, nothing, and later", function()
    local t = asking()
    t:fake("BILLING", {
      three = perigee.from({ 1, 2, 3 }),
      two = function() return perigee.of("a", "b") end,
      promised = function() return perigee.sleep(60000):next(function() return "a minute" end) end,
      nothing = function() end,
      null = perigee.null,
    })
    assert.same({ 1, 2, 3 }, ask(t, "three").values)
    assert.same({ 1, 2, 3 }, ask(t, "three").values)
    assert.same({ "a", "b" }, ask(t, "two").values)
    assert.same({}, ask(t, "nothing").values)
    assert.same({ perigee.null }, ask(t, "null").values)
    assert.equal("a minute", ask(t, "promised", {}, { timeout = 90000 }).value)
    assert.equal(60000, clock.now())
  end)

  it("fails as a peer does: a table is its `err`, a text its fault", function()
    local t = asking([[:catch_error(function(err) return { err.code, err.err } end)]])
    t:fake("BILLING", {
      refused = function() error({ code = 402, message = "no" }) end,
      broken = function() error("oops") end,
    })
    assert.same({ "REMOTE", { code = 402, message = "no" } }, ask(t, "refused").value)
    assert.same({ "REMOTE", { status = "error", message = "Internal server error" } }, ask(t, "broken").value)
    assert.equal("NO_HANDLER", ask(t, "unknown").value[1])
    assert.matches("^the fake of 'BILLING', broken: SCRIPT: .*oops", t:logs()[1].text)
  end)

  it("fails as a wire does: an error of perigee's is what the call comes to", function()
    local t = asking([[:catch_error(function(err) return err.code .. " " .. err.message end)]])
    t:fake("BILLING", {
      away = function() error(perigee.error({ code = "CONNECT_FAILED", message = "ECONNREFUSED" })) end,
    })
    assert.equal("CONNECT_FAILED ECONNREFUSED", ask(t, "away").value)
  end)

  it("keeps the client's timeout, a call's own, and deadlines, and is cancelled by them", function()
    local t = asking()
    local ended = {}
    t:fake("BILLING", {
      x = testing.never,
      y = function() return testing.never end,
      z = function()
        ended[1] = pcall(function() perigee.sleep(1e9):await() end)
      end,
    })
    assert.equal("TIMEOUT", ask(t, "x").err.code)
    assert.equal(5000, clock.now())
    assert.equal("TIMEOUT", ask(t, "y", {}, { timeout = 30000 }).err.code)
    assert.equal(35000, clock.now())
    assert.equal("TIMEOUT", ask(t, "z", {}, { timeout = false, deadline = 86400000 }).err.code)
    assert.equal(86435000, clock.now())
    assert.same({ false }, ended)
  end)

  it("is asked again by retry, after its waits", function()
    local t = asking([[:retry({ attempts = 3, backoff = 1000, factor = 3 })]])
    t:fake("BILLING", { x = function() error({ message = "no" }) end })
    assert.same({ message = "no" }, ask(t, "x").err)
    local times = {}
    for i, call in ipairs(t:calls("BILLING")) do times[i] = call.at end
    assert.same({ 0, 1000, 4000, 13000 }, times)
  end)

  it("shares no tables with the script", function()
    local t = load(ONE_CLIENT .. [[
      app:message("ask", function()
        local sent = { list = { 1 } }
        local got = billing:send("x", sent):await()
        got.list[1] = "changed"
        return { sent = sent, again = billing:send("x", sent):await() }
      end)]])
    local mine = { list = { 1 } }
    t:fake("BILLING", { x = function(data)
      data.list[1] = "changed"
      return mine
    end })
    assert.same({ sent = { list = { 1 } }, again = { list = { 1 } } }, t:message("ask", 1).value)
  end)

  it("hears events, and may stand for all patterns", function()
    local t = load(ONE_CLIENT .. [[
      app:event("placed", function(data) return billing:emit("placed", data, { metadata = { a = "1" } }) end)
      app:forward(perigee.any_pattern, billing)]])
    local heard = {}
    t:fake("BILLING", { placed = function(data) heard[1] = data end,
      [perigee.any_pattern] = function(data, opts) return { opts.pattern, data } end })
    t:event("placed", { id = 7 })
    assert.same({ { id = 7 } }, heard)
    assert.same({ kind = "emit", pattern = "placed", data = { id = 7 }, metadata = { a = "1" }, at = 0 },
      t:calls("BILLING")[1])
    assert.same({ { cmd = "any" }, "thing" }, t:message({ cmd = "any" }, "thing").value)
  end)

  it("stands for a client the script made itself, by its URL", function()
    local t = load([[
      local one, two = perigee.client("tcp://a:1?timeout=9"), perigee.client({ hosts = { "b:2", "c:3" } })
      app:post("/one", perigee.to(one, "x"))
      app:message("two", function() return two:send("x", 1) end)]])
    t:fake("tcp://a:1", { x = "one" }):fake("tcp://b:2", { x = "two" })
    assert.equal('"one"', t:request({ path = "/one", json = {} }).body)
    assert.equal("two", t:message("two", 1).value)
  end)

  it("is the client itself for connect, status and dispatch hooks", function()
    local t = load([[
      local own = perigee.client("tcp://a:1")
      own:on_dispatch(function(packet) packet.metadata = { by = "hook" } end)
      app:on_start(function() own:connect():await() end)
      app:message("state", function() own:send("x", 1):await() return own:status().state end)]])
    t:fake("tcp://a:1", { x = 1 })
    assert.equal("connected", t:message("state", 1).value)
    assert.same({ by = "hook" }, t:called("tcp://a:1", "x").metadata)
  end)

  it("is refused for what the script has not", function()
    local t = asking()
    local _, err = pcall(t.fake, t, "BILING", {})
    assert.matches("has no client 'BILING' %(known: BILLING%)", tostring(err))
    _, err = pcall(t.fake, t, "BILLING", "x")
    assert.matches("a fake is a table of patterns, not a string", tostring(err))
  end)
end)

describe("calls", function()
  it("are kept in order, and found by pattern and data", function()
    local t = asking()
    t:fake("BILLING", { [perigee.any_pattern] = 1 })
    ask(t, "a", { n = 1 })
    ask(t, { cmd = "b" }, { n = 2 })
    ask(t, "a", { n = 3 })
    assert.equal(3, #t:calls("BILLING"))
    assert.same({ n = 2 }, t:calls("BILLING", { cmd = "b" })[1].data)
    assert.same({ n = 3 }, t:called("BILLING", "a").data)
    assert.same({ n = 1 }, t:called("BILLING", "a", { n = 1 }).data)
    local _, err = pcall(t.called, t, "BILLING", "a", { n = 4 })
    assert.equal([['BILLING' was not called for a with {"n":4}; it was:
  send a {"n":1}
  send {"cmd":"b"} {"n":2}
  send a {"n":3}]], err:gsub("^[^\n]-:%d+: ", ""))
  end)
end)

describe("request", function()
  it("goes through parser, router, middleware, handler and reply", function()
    local t = load([[
      app:use(function(_, ctx, next) local r = next() r.pattern = ctx.pattern r.peer = ctx.peer return r end)
      app:put("/o/:id", function(req)
        return { id = req.params.id, q = req.query.q, h = req.headers["x-h"], body = req:json() }
      end)]])
    local response = t:request({ method = "PUT", path = "/o/%41?q=1&q=2", headers = { ["X-H"] = { "a", "b" } },
      json = { x = { perigee.null } } })
    assert.equal(200, response.status)
    assert.equal("application/json", response.headers["content-type"])
    assert.same({ id = "A", q = { "1", "2" }, h = "a, b", body = { x = { perigee.null } }, pattern = "PUT /o/:id",
      peer = "memory:" }, response:json())
  end)

  it("shows texts, empty replies, HEAD, repeated headers, and refusals", function()
    local t = load([[
      app:get("/text", function() return "plain" end)
      app:get("/none", function() end)
      app:get("/many", function() return perigee.response({ headers = { ["set-cookie"] = { "a=1", "b=2" } } }) end)
      app:get("/bad", function() return perigee.response({ headers = { ["x y"] = "1" } }) end)
      app:listen("http://127.0.0.1:1", { max_body_bytes = 10 })
      app:post("/small", function(req) return req:body() end)]])
    assert.equal("plain", t:request({ path = "/text" }).body)
    assert.same({ 204, "" }, { t:request({ path = "/none" }).status, t:request({ path = "/none" }).body })
    local head = t:request({ method = "HEAD", path = "/text" })
    assert.same({ 200, "", "5" }, { head.status, head.body, head.headers["content-length"] })
    assert.same({ "a=1", "b=2" }, t:request({ path = "/many" }).headers["set-cookie"])
    assert.equal(500, t:request({ path = "/bad" }).status)
    assert.equal("GET, HEAD", t:request({ method = "POST", path = "/text", body = "" }).headers.allow)
    assert.equal(404, t:request({ path = "/nowhere" }).status)
    assert.equal(413, t:request({ path = "/small", body = "01234567890" }).status)
    assert.equal("0123456789", t:request({ path = "/small", body = "0123456789" }).body)
  end)

  it("may wait, beside others", function()
    local t = load([[
      app:get("/:ms", function(req)
        perigee.sleep(tonumber(req.params.ms)):await()
        return req.path
      end)]])
    local work = {}
    for i, ms in ipairs({ 3000, 1000, 2000 }) do
      work[i] = perigee.async(function() return t:request({ path = "/" .. ms }).body end)
    end
    assert.same({ "/3000", "/1000", "/2000" }, perigee.all(work):await())
    assert.equal(3000, clock.now())
  end)

  it("refuses what is no request", function()
    local t = load("")
    for _, bad in ipairs({
      {}, { path = "/a b" }, { path = "/", metod = "GET" }, { path = "/", body = {} }, { path = "/", method = "get" },
      { path = "/", body = "", json = 1 }, { path = "/", headers = { a = "b\r\nc: d" } },
    }) do
      local ok, err = pcall(t.request, t, bad)
      assert.is_false(ok)
      assert.equal("INVALID_OPTION", err.code)
    end
  end)
end)

describe("message and event", function()
  it("give values, and errors as the peer sees them", function()
    local t = load([[
      app:message("many", function(n) local l = {} for i = 1, n do l[i] = i end return perigee.from(l) end)
      app:message("table", function() error({ code = 1 }) end)
      app:message("text", function() error("secret") end)
      app:message("half", function()
        return perigee.reply(function(sink) sink:next(1) sink:error(perigee.error({ code = "TIMEOUT" })) end)
      end)
      app:message("ctx", function(_, ctx) return { ctx.pattern, ctx.transport, ctx.metadata.m } end)]])
    assert.same({ value = 3, values = { 1, 2, 3 } }, t:message("many", 3))
    assert.same({ code = 1 }, t:message("table", 1).err)
    assert.same({ status = "error", message = "Internal server error" }, t:message("text", 1).err)
    assert.equal("There is no matching message handler defined in the remote service.", t:message("no", 1).err)
    local half = t:message("half", 1)
    assert.same({ { 1 }, "TIMEOUT" }, { half.values, half.err.code })
    assert.same({ "ctx", "tcp", "v" }, t:message("ctx", 1, { metadata = { m = "v" } }).value)
  end)

  it("come by the transport they are bound to", function()
    local t = load([[
      app:listen("local:here")
      app:message("x", function() return "tcp" end, { transport = "tcp" })
      app:message("x", function() return "local" end, { transport = "local" })]])
    assert.equal("local", t:message("x", 1).value)
    assert.equal("tcp", t:message("x", 1, { transport = "tcp" }).value)
    local _, err = pcall(t.message, t, "x", 1, { transport = "nats" })
    assert.matches("no handlers for the transport 'nats' %(known: local, tcp%)", tostring(err))
  end)

  it("run all handlers of an event, which may go on", function()
    local t = load([[
      app.state.heard = {}
      for _, ms in ipairs({ 0, 500 }) do
        app:event("e", function(data)
          if ms > 0 then perigee.sleep(ms):await() end
          table.insert(app.state.heard, ms .. data)
        end)
      end]])
    t:event("e", "!")
    assert.same({ "0!" }, t.app.state.heard)
    clock.advance(500)
    assert.same({ "0!", "500!" }, t.app.state.heard)
  end)
end)

describe("the clock", function()
  it("begins at 0 for each test, and moves only when everything waits", function()
    assert.equal(0, clock.now())
    local seen = {}
    local work = {}
    for i, ms in ipairs({ 86400000, 1, 500 }) do
      work[i] = perigee.sleep(ms):next(function() seen[#seen + 1] = clock.now() end)
    end
    assert.equal(0, clock.now())
    perigee.all(work):await()
    assert.same({ 1, 500, 86400000 }, seen)
    perigee.sleep(0):await()
    assert.equal(86400000, clock.now())
  end)

  it("advances by hand, firing on the way", function()
    local fired = {}
    local work = perigee.sleep(10):next(function()
      fired[1] = clock.now()
      return perigee.sleep(10):next(function() fired[2] = clock.now() end)
    end)
    clock.advance(15)
    assert.same({ 10 }, fired)
    clock.advance(15)
    assert.same({ { 10, 20 }, 30 }, { fired, clock.now() })
    work:await()
    assert.has_error(function() clock.advance(-1) end)
  end)
end)

describe("the end", function()
  it("runs on_stop, once, and closes what there is", function()
    local t = load([[
      app.state.stopped = 0
      app:on_stop(function() perigee.sleep(1000):await() app.state.stopped = app.state.stopped + 1 end)]])
    t:start()
    t:stop()
    t:stop()
    assert.equal(1, t.app.state.stopped)
    local ok, err = pcall(t.request, t, { path = "/" })
    assert.is_false(ok)
    assert.equal("UNSUPPORTED", err.code)
    assert.matches("load it in before_each", err.message)
  end)

  it("does not run on_stop of an app that never started", function()
    local t = load([[app:on_stop(function() app.state.stopped = true end)]])
    t:stop()
    assert.is_nil(t.app.state.stopped)
  end)

  it("ends what the app runs for itself, without a word", function()
    local t = load([[
      app.state.beats = 0
      app:on_start(function()
        perigee.spawn(function()
          while true do
            perigee.sleep(1000):await()
            app.state.beats = app.state.beats + 1
          end
        end)
      end)]])
    t:start()
    clock.advance(3500)
    assert.equal(3, t.app.state.beats)
    t:stop()
    clock.advance(5000)
    assert.same({ 3, {} }, { t.app.state.beats, t:logs() })
  end)

  it("keeps what was logged for the test to look at", function()
    local t = load([[app:message("x", function() error("oops") end)]])
    t:message("x", 1)
    local logs = t:logs()
    assert.equal("error", logs[1].level)
    assert.matches("^message x: SCRIPT: .*:3: oops", logs[1].text)
  end)
end)
