local http = require("spec.support.http")
local log = require("perigee.log")
local loop = require("spec.support.loop")
local perigee = require("perigee")
local tcp = require("spec.support.tcp")

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

local function logged(text)
  for _, line in ipairs(lines) do
    if line:find(text, 1, true) then return line end
  end
end

local function start()
  app:listen("http://127.0.0.1:0")
  app:start():await()
  return app:addresses()[1]
end

local function ask(method, target, body, headers)
  return http.request(app:addresses()[1] or start(), method, target, body, headers)
end

-- The answer to GET / when the handler returns this.
local function answer(result)
  app:get("/", function() return result end)
  return ask("GET", "/")
end

-- The answer to GET / when the handler raises this.
local function refusal(err)
  app:get("/", function() error(err) end)
  return ask("GET", "/")
end

local function assert_json(expected, response)
  assert.are.equal("application/json", response.headers["content-type"])
  assert.are.same({ 200, expected }, { response.status, response.body })
end

describe("what a handler returns", function()
  it("is JSON when it is a table, a number, a boolean or null", function()
    assert_json('{"a":[1,2]}', answer({ a = { 1, 2 } }))
  end)

  it("is 200 null when it is perigee.null", function()
    assert_json("null", answer(perigee.null))
  end)

  it("is false as JSON when it is false", function()
    assert_json("false", answer(false))
  end)

  it("is text when it is a string", function()
    local response = answer("hello")
    assert.are.same({ 200, "hello", "text/plain; charset=utf-8" },
      { response.status, response.body, response.headers["content-type"] })
  end)

  it("is 204 when it is nothing, or an empty Reply", function()
    app:get("/reply", function() return perigee.of() end)
    local response = answer(nil)
    assert.are.same({ 204, "" }, { response.status, response.body })
    assert.are.equal(204, ask("GET", "/reply").status)
  end)

  it("is a Reply's last value, a string as JSON", function()
    assert_json('"c"', answer(perigee.of("a", "b", "c")))
  end)

  it("is a Promise's value, a string as JSON", function()
    assert_json('"later"', answer(perigee.sleep(1):next(function() return "later" end)))
  end)

  it("can await", function()
    app:get("/", function()
      perigee.sleep(1):await()
      return { 1 }
    end)
    assert_json("[1]", ask("GET", "/"))
  end)

  it("can be a response with status, headers and body", function()
    local response = answer(perigee.response({
      status = 201,
      headers = { location = "/x", ["x-count"] = 2, ["set-cookie"] = { "a=1", "b=2" } },
      body = { id = 1 },
    }))
    assert.are.same({ 201, '{"id":1}', "/x", "2", "a=1, b=2" }, {
      response.status, response.body, response.headers.location, response.headers["x-count"],
      response.headers["set-cookie"],
    })
  end)

  it("can be a response with a text of its own type, an empty one, or one whose body comes later", function()
    app:get("/html", function()
      return perigee.response({ headers = { ["Content-Type"] = "text/html" }, body = "<p>" })
    end)
    app:get("/empty", function() return perigee.response({}) end)
    app:get("/later", function() return perigee.response({ status = 202, body = perigee.of(1, 2) }) end)
    local html = ask("GET", "/html")
    assert.are.same({ 200, "<p>", "text/html" }, { html.status, html.body, html.headers["content-type"] })
    assert.are.equal(204, ask("GET", "/empty").status)
    local later = ask("GET", "/later")
    assert.are.same({ 202, "2" }, { later.status, later.body })
  end)

  it("has the type its headers say, once, also when its body is JSON", function()
    local typed = { headers = { ["Content-Type"] = "application/hal+json" }, body = { id = 1 } }
    app:get("/later", function()
      return perigee.response({ headers = typed.headers, body = perigee.of("x") })
    end)
    local now, later = answer(perigee.response(typed)), ask("GET", "/later")
    assert.are.same({ '{"id":1}', "application/hal+json" }, { now.body, now.headers["content-type"] })
    assert.are.same({ '"x"', "application/hal+json" }, { later.body, later.headers["content-type"] })
  end)

  for name, fields in pairs({
    ["a header value with a line break"] = { headers = { ["x-a"] = "a\r\nx-b: c" } },
    ["a header name with a space"] = { headers = { ["x a"] = "b" } },
    ["a header that is no text"] = { headers = { ["x-a"] = true } },
    ["a status of 99"] = { status = 99 },
    ["a status of 200.5"] = { status = 200.5 },
    ["a status that is text"] = { status = "200 OK" },
  }) do
    it("is a 500 when it has " .. name .. ", which never reaches the wire", function()
      local response = answer(perigee.response(fields))
      assert.are.equal(500, response.status)
      assert.is_nil(response.headers["x-b"])
      assert.is_truthy(logged("GET /: the reply cannot be sent"))
    end)
  end

  it("is a 500 when it cannot be encoded", function()
    assert.are.equal(500, answer({ f = print }).status)
    assert.is_truthy(logged("GET /: the reply cannot be sent"))
  end)
end)

describe("an error out of a handler", function()
  local function problem(response)
    assert.are.equal("application/problem+json", response.headers["content-type"])
    local body = http.json(response)
    assert.are.equal(response.status, body.status)
    return response.status, body.detail
  end

  for code, status in pairs({
    TIMEOUT = 504, CONNECT_FAILED = 502, CONNECTION_CLOSED = 502, BAD_FRAME = 502, OVERLOADED = 503, NO_HANDLER = 404,
    INVALID_MESSAGE = 500, REMOTE = 500, UNSUPPORTED = 500, FRAME_TOO_LARGE = 500,
  }) do
    it(code .. " is " .. status .. ", without its text", function()
      local response = refusal(perigee.error({ code = code, message = "inner text", err = {} }))
      assert.are.same({ status }, { problem(response) })
      assert.is_nil(response.body:find("inner text", 1, true))
      assert.is_truthy(logged("inner text"))
      assert.are.equal(code == "OVERLOADED", response.headers["retry-after"] ~= nil)
    end)
  end

  it("with a status is that status, with its message", function()
    assert.are.same({ 402, "no funds" }, { problem(refusal({ status = 402, message = "no funds" })) })
    assert.is_nil(logged("no funds"))
  end)

  it("with a status that is none is 500", function()
    assert.are.equal(500, refusal({ status = 200, message = "x" }).status)
  end)

  it("that raises when it is read is 500", function()
    local function raise() error("not to be read") end
    local response = refusal(setmetatable({}, { __index = raise, __tostring = raise }))
    assert.are.same({ 500 }, { problem(response) })
    assert.is_truthy(logged("GET /: an error that cannot be shown"))
  end)

  it("of a fault is 500 without a traceback, logged with file and line", function()
    local response = refusal("secret")
    assert.are.same({ 500 }, { problem(response) })
    assert.is_nil(response.body:find("secret", 1, true))
    assert.is_truthy(logged("GET /: SCRIPT: spec/http_spec.lua:"))
  end)

  it("of a Reply that is returned is mapped the same", function()
    app:clients({ { name = "B", host = "127.0.0.1", port = tcp.free_port() } })
    local billing = app:inject("B")
    app:get("/", function() return billing:send("x", 1) end)
    assert.are.equal(502, ask("GET", "/").status)
  end)
end)

describe("req", function()
  it("has method, path, params, query, headers and peer", function()
    local seen
    app:get("/a/:id", function(req)
      seen = {
        method = req.method, path = req.path, params = req.params, query = req.query, agent = req.headers["user-agent"],
        peer = req.peer, body = req:body(), missing = req.nothing,
      }
    end)
    ask("GET", "/a/b%20c?x=1&y=a+b%21&x=2&z&x=3", nil, { ["User-Agent"] = "spec" })
    assert.is_truthy(seen.peer:find("^127%.0%.0%.1"))
    seen.peer = nil
    assert.are.same({
      method = "GET", path = "/a/b%20c", params = { id = "b c" }, agent = "spec", body = "",
      query = { x = { "1", "2", "3" }, y = "a b!", z = "" },
    }, seen)
  end)

  it("decodes JSON whatever the content type", function()
    app:post("/", function(req) return req:json().a end)
    assert_json("7", ask("POST", "/", '{"a":7}', { ["content-type"] = "text/plain" }))
  end)

  it("answers 400 to JSON that is empty or broken, in json() and in raw", function()
    app:post("/json", function(req) return req:json() end)
    app:post("/raw", function(req) return req.raw end)
    for _, path in ipairs({ "/json", "/raw" }) do
      for _, body in ipairs({ "", "{", '{"a":1}x', '"\255"', "nan", "01" }) do
        local response = ask("POST", path, body)
        assert.are.equal(400, response.status, path .. " " .. body)
        assert.are.equal("application/problem+json", response.headers["content-type"])
      end
    end
  end)

  it("gives the body back byte for byte as a slice", function()
    app:post("/", function(req) return req.raw end)
    local body = ' { "b" : 1.0 , "a" : [ ] }\n'
    assert_json(body, ask("POST", "/", body))
  end)
end)

describe("routing", function()
  it("answers 404, 405 with Allow, and 400 to a bad escape", function()
    app:get("/a/:x", function() return "a" end)
    app:post("/a/:x", function() return "a" end)
    assert.are.equal(404, ask("GET", "/b").status)
    local response = ask("DELETE", "/a/1")
    assert.are.same({ 405, "GET, HEAD, POST" }, { response.status, response.headers.allow })
    assert.are.equal(400, ask("GET", "/a/%zz").status)
    assert.are.equal("application/problem+json", response.headers["content-type"])
  end)

  it("answers HEAD with GET's headers and no body", function()
    app:get("/", function() return "hello" end)
    local response = ask("HEAD", "/")
    assert.are.same({ 200, "5", "" }, { response.status, response.headers["content-length"], response.body })
  end)

  it("knows all methods of the contract", function()
    for _, method in ipairs({ "get", "post", "put", "patch", "delete", "options" }) do
      app[method](app, "/" .. method, function(req) return req.method end)
    end
    app:any("/any", function(req) return req.method end)
    for _, method in ipairs({ "get", "post", "put", "patch", "delete", "options" }) do
      local upper = method:upper()
      assert.are.equal(upper, ask(upper, "/" .. method).body)
      assert.are.equal(upper, ask(upper, "/any").body)
    end
  end)

  it("refuses a body over the listener's limit with 413", function()
    app:post("/", function() return "taken" end)
    app:listen("http://127.0.0.1:0", { max_body_bytes = 8 })
    app:start():await()
    assert.are.equal("taken", ask("POST", "/", "12345678").body)
    assert.are.equal(413, ask("POST", "/", "123456789").status)
  end)
end)

describe("middleware", function()
  it("wraps HTTP handlers, and may answer for them", function()
    app:use(function(req, ctx, next)
      if req.headers.authorization ~= "yes" then error({ status = 401, message = "who are you?" }) end
      local result = next()
      result.transport, result.pattern = ctx.transport, ctx.pattern
      return result
    end)
    app:get("/a/:x", function(req) return { x = req.params.x } end)
    assert.are.equal(401, ask("GET", "/a/1").status)
    assert_json('{"pattern":"GET /a/:x","transport":"http","x":"1"}',
      ask("GET", "/a/1", nil, { authorization = "yes" }))
  end)
end)

describe("a client that leaves", function()
  it("cancels the handler", function()
    local ctx, ended
    app:get("/", function(_, given)
      ctx = given
      local ok, err = pcall(function() perigee.sleep(60000):await() end)
      ended = not ok and err.code
    end)
    start()
    local peer = tcp.connect(tonumber(app:addresses()[1]:match(":(%d+)$")))
    peer:write(http.bytes("GET", "/"))
    loop.wait_until(function() return ctx end)
    peer:reset()
    loop.wait_until(function() return ended end)
    assert.are.equal("CANCELLED", ended)
    assert.is_true(ctx.cancelled)
  end)
end)

for _, way in ipairs({ "core", "middleware", "fake" }) do
  describe("perigee.to through " .. way, function()
    local service, heard

    before_each(function()
      heard = {}
      service = perigee.app()
      service:message({ cmd = "echo" }, function(data, ctx)
        heard[#heard + 1] = ctx.raw[1]
        return data
      end)
      service:message("none", function() end)
      service:message("many", function() return perigee.of(1, 2, 3) end)
      service:message("refuse", function() error({ code = 402 }) end)
      service:listen("tcp://127.0.0.1:0")
      service:start():await()
      app:clients({ {
        name = "S", host = "127.0.0.1", port = service:addresses()[1]:match(":(%d+)$"), timeout = 1000,
      } })
      if way == "middleware" then app:use(function(_, _, next) return next() end) end
      if way == "fake" then
        local real = perigee.client({ host = "127.0.0.1", port = service:addresses()[1]:match(":(%d+)$") })
        app:on_stop(function() real:close():await() end)
        app:override("S", { send = function(_, pattern, data, opts) return real:send(pattern, data, opts) end })
      end
      for _, pattern in ipairs({ "none", "many", "refuse", "nobody" }) do
        app:post("/" .. pattern, perigee.to(app:inject("S"), pattern))
      end
      app:post("/echo", perigee.to(app:inject("S"), { cmd = "echo" }))
    end)

    after_each(function() service:stop({ drain_timeout = 100 }):await() end)

    it("passes the body on as it is", function()
      local body = '{ "b" : 1.50,"a":[ ] }'
      local response = ask("POST", "/echo", body)
      assert.are.equal(200, response.status)
      assert.are.equal(1.5, http.json(response).b)
      assert.are.same({ body }, heard)
    end)

    -- Large ones are handed on without a copy, alone and with another request behind them.
    it("passes large bodies on, and large answers back", function()
      local peer = tcp.connect(tonumber(start():match(":(%d+)$")))
      for _, size in ipairs({ 32767, 32768, 70000, 1000000 }) do
        for _, char in ipairs({ "x", "é", "😀" }) do
          local body = '["' .. char:rep(math.floor(size / #char)) .. '",' .. size .. "]"
          local bytes = http.bytes("POST", "/echo", body)
          for i = 1, 2 do
            peer:push(i == 1 and bytes or bytes .. http.bytes("POST", "/many", "1"))
            local response = http.read(peer)
            assert.are.equal(200, response.status)
            assert.is_true(response.body == body, "another body")
            assert.is_true(table.remove(heard) == body, "the service heard another body")
          end
          assert.are.equal("3", http.read(peer).body)
        end
      end
      peer:close()
    end)

    it("sends {} when the body is empty", function()
      assert_json("{}", ask("POST", "/echo"))
    end)

    it("answers 400 to a body that is not JSON, and sends nothing", function()
      assert.are.equal(400, ask("POST", "/echo", '{"a":}').status)
      assert.are.same({}, heard)
    end)

    it("answers with the last of many values, and 204 without one", function()
      assert_json("3", ask("POST", "/many", "1"))
      assert.are.equal(204, ask("POST", "/none", "1").status)
    end)

    it("maps errors as a handler's", function()
      assert.are.equal(500, ask("POST", "/refuse", "1").status)
      assert.are.equal(404, ask("POST", "/nobody", "1").status)
    end)
  end)
end

describe("a client's Reply that a handler returns as it is", function()
  it("is not decoded on its way: the bytes stay", function()
    local body = '{ "b" : 1.50, "a":[ ], "n":12345678901234567890 }'
    app:message("service", function(_, ctx) return ctx.raw end)
    app:listen("http://127.0.0.1:0")
    app:listen("local:http_spec")
    app:clients({ { name = "S", transport = "local", server = "http_spec" } })
    local service = app:inject("S")
    app:message("relay", function(_, ctx) return service:send("service", ctx.raw) end)
    app:post("/", function(req) return service:send("relay", req.raw) end)
    app:start():await()
    assert_json(body, ask("POST", "/", body))
  end)
end)

describe("perigee.to", function()
  it("follows an override of the handle", function()
    app:clients({ { name = "S", host = "127.0.0.1", port = tcp.free_port() } })
    app:post("/", perigee.to(app:inject("S"), "x"))
    start()
    assert.are.equal(502, ask("POST", "/", "1").status)
    app:override("S", { x = { answer = 42 } })
    assert_json('{"answer":42}', ask("POST", "/", "1"))
    app:override("S", { send = function(_, _, slice) return { got = perigee.json.decode(tostring(slice)) } end })
    assert_json('{"got":1}', ask("POST", "/", "1"))
  end)

  it("refuses what is no client", function()
    assert.has_error(function() perigee.to({}, "x") end)
    assert.has_error(function() perigee.to(app, nil) end)
  end)
end)
