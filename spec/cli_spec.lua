local http = require("spec.support.http")
local json = require("perigee.json")
local loop = require("spec.support.loop")
local process = require("spec.support.process")
local program = require("spec.support.perigee")
local tcp = require("spec.support.tcp")
local wire = require("spec.support.wire")

after_each(function()
  program.clean()
  loop.finish()
end)

local run, script = program.run, program.script

local function service(text)
  local child = program.start({ "serve", script([[
local perigee = require("perigee")
local app = perigee.app()
]] .. text .. "\nreturn app\n"), "--listen", "tcp://127.0.0.1:0" })
  return program.urls(child)[1], child
end

describe("perigee", function()
  it("tells its version and its usage", function()
    local code, out = run({ "version" })
    assert.are.equal(0, code)
    assert.is_truthy(out:find("^perigee %d+%.%d+%.%d+ "))
    assert.are.same({ 0, out, "" }, { run({ "--version" }) })
    for _, args in ipairs({ { "help" }, { "--help" } }) do
      code, out = run(args)
      assert.are.equal(0, code)
      for _, name in ipairs({ "serve", "run", "send", "emit", "check", "version", "help" }) do
        assert.is_truthy(out:find("\n  " .. name, 1, true), name)
      end
    end
  end)

  it("explains each command", function()
    for _, name in ipairs({ "serve", "run", "send", "emit", "check", "version", "help" }) do
      local code, out = run({ "help", name })
      assert.are.equal(0, code)
      assert.is_truthy(out:find("usage: perigee " .. name, 1, true))
      if name ~= "help" then assert.are.equal(out, select(2, run({ name, "--help" }))) end
    end
    assert.are.equal(2, (run({ "help", "fly" })))
  end)

  it("exits 2 for mistakes of the command line", function()
    for _, args in ipairs({
      {}, { "fly" }, { "serve" }, { "run" }, { "check" }, { "send" }, { "send", "tcp://h:1" }, { "emit", "tcp://h:1" },
      { "send", "tcp://h:1", "x", "1", "2" }, { "send", "tcp://h:1", "x", "--timeout" },
      { "send", "tcp://h:1", "x", "--timeout", "soon" }, { "send", "tcp://h:1", "x", "--metadata", "x" },
      { "send", "tcp://h:1", "x", "--fly" }, { "serve", "x.lua", "--stamp=1" },
      { "serve", "x.lua", "--listen", "ftp://x" },
    }) do
      local code, out, err = run(args)
      assert.are.equal(2, code, table.concat(args, " "))
      assert.are.equal("", out)
      assert.is_truthy(err:find(#args == 0 and "^usage: perigee" or "^perigee: INVALID_OPTION: "), err)
    end
  end)

  -- By a shell, which can close and redirect them.
  local function sh(redirected, args)
    local child = process.start("/bin/sh", { "-c", 'exec "$0" "$@" ' .. redirected, program.path, unpack(args) })
    child:close_stdin()
    child:wait()
    return child.exit_code, child.stdout, child.stderr
  end

  it("works with standard streams that are closed", function()
    local code, out, err
    for _, closed in ipairs({ "<&-", ">&-", "2>&-", "<&- >&- 2>&-" }) do
      code, out, err = sh(closed, { "version" })
      assert.are.same({ 0, "" }, { code, err }, closed)
      assert.are.equal(not closed:find(">&-", 1, true) or closed == "2>&-", out ~= "", closed)
      assert.are.same({ 3, "" }, { (sh(closed, { "run", script("return 3") })), "" }, closed)
    end
    code, out, err = sh("<&-", { "send", "tcp://127.0.0.1:1", "x", "-" })
    assert.are.same({ 2, "" }, { code, out })
    assert.is_truthy(err:find("^perigee: INVALID_MESSAGE: DATA is not JSON"), err)
  end)

  it("exits 1 when what it prints cannot be written, and keeps another status", function()
    local told = "perigee: CANCELLED: standard output cannot be written\n"
    assert.are.same({ 1, "", told }, { sh(">/dev/full", { "version" }) })
    assert.are.same({ 1, "", told }, { sh(">/dev/full", { "run", script('print(("x"):rep(100000)) return 0') }) })
    assert.are.same({ 3, "", "" }, { sh(">/dev/full", { "run", script('print("x") return 3') }) })
    assert.are.same({ 78, "", "" }, { sh(">/dev/full", { "check", "--json", script("return 1") }) })
  end)

  it("exits 1 when standard input cannot be read", function()
    local told = "perigee: INVALID_OPTION: cannot read standard input: Is a directory\n"
    assert.are.same({ 1, "", told }, { sh("</", { "send", "tcp://127.0.0.1:1", "x", "-" }) })
    assert.are.same({ 1, "", told }, { sh("</", { "run", "-" }) })
  end)

  it("says what this version does not have yet", function()
    assert.are.same({ 2, "", "perigee: UNSUPPORTED: transport 'mqtt' is not available in this version\n" },
      { run({ "send", "mqtt://h", "x" }) })
  end)
end)

describe("perigee send", function()
  local URL

  before_each(function()
    URL = service([[
      app:message("echo", function(data, ctx) return ctx.raw end)
      app:message("trace", function(_, ctx) return ctx.metadata.trace end)
      app:message({ cmd = "many" }, function() return perigee.of(1, { b = 1, a = 2 }, perigee.null) end)
      app:message("nothing", function() end)
      app:message("refuse", function() error({ code = 402, message = "no funds" }) end)
      app:message("mid", function() return perigee.reply(function(sink) sink:next(1) sink:error("x") end) end)
      app:message("never", function() perigee.sleep(60000):await() end)
      app:message("endless", function()
        return perigee.from(function()
          perigee.sleep(1):await()
          return 1
        end)
      end)
      app:message(42, function() return "number" end)
    ]])
  end)

  it("prints a line of JSON per value, and nothing for an empty answer", function()
    assert.are.same({ 0, '1\n{"a":2,"b":1}\nnull\n', "" }, { run({ "send", URL, '{"cmd":"many"}' }) })
    assert.are.same({ 0, "", "" }, { run({ "send", URL, "nothing" }) })
  end)

  it("takes a pattern that is JSON as JSON, anything else as a string", function()
    assert.are.same({ 0, '"number"\n', "" }, { run({ "send", URL, "42" }) })
    assert.are.same({ 0, "{}\n", "" }, { run({ "send", URL, "echo" }) })
    assert.are.same({ 0, "-5\n", "" }, { run({ "send", URL, "echo", "-5" }) })
  end)

  it("sends DATA byte for byte, from standard input too", function()
    local data = '{ "b" : 1.0, "a":[ ], "u":"\\u00e9" }'
    assert.are.same({ 0, data .. "\n", "" }, { run({ "send", URL, "echo", data }) })
    assert.are.same({ 0, data .. "\n", "" }, { run({ "send", URL, "echo", "-" }, { input = data }) })
    local peer = tcp.listen()
    local child = program.start({ "send", "tcp://127.0.0.1:" .. peer.port, "echo", data })
    local payload = peer:accept():read_frame()
    assert.is_truthy(payload:find('"data":' .. data, 1, true))
    child:kill()
    child:wait()
    peer:close()
  end)

  it("keeps a value with line breaks on one line", function()
    assert.are.same({ 0, '{ "a":  1}\n', "" }, { run({ "send", URL, "echo", '{ "a": \n1}' }) })
  end)

  it("ends with 1 when nobody reads what it prints", function()
    local child = process.start("/bin/sh", { "-c", '{ "$0" send "$1" endless; echo "status $?" >&2; } | head -n 2',
      program.path, URL })
    child:wait()
    assert.are.equal("1\n1\n", child.stdout)
    assert.are.equal("perigee: CANCELLED: standard output cannot be written: Broken pipe\nstatus 1\n", child.stderr)
  end)

  it("sends metadata", function()
    assert.are.same({ 0, '"t1=2"\n', "" }, { run({ "send", URL, "trace", "--metadata", "trace=t1=2" }) })
  end)

  it("exits 1 with the error, after the values that came", function()
    assert.are.same({ 1, "", "perigee: REMOTE: no funds\n" }, { run({ "send", URL, "refuse" }) })
    assert.are.same({ 1, "1\n", "perigee: REMOTE: Internal server error\n" }, { run({ "send", URL, "mid" }) })
    local code, _, err = run({ "send", URL, "nobody" })
    assert.are.equal(1, code)
    assert.is_truthy(err:find("^perigee: NO_HANDLER: "))
    code, _, err = run({ "send", URL, "never", "--timeout", "30" })
    assert.are.equal(1, code)
    assert.is_truthy(err:find("^perigee: TIMEOUT: "))
    code, _, err = run({ "send", "tcp://127.0.0.1:" .. tcp.free_port(), "x", "--option", "connect_timeout=500" })
    assert.are.equal(1, code)
    assert.is_truthy(err:find("^perigee: CONNECT_FAILED: .*ECONNREFUSED"))
  end)

  it("exits 2 for a bad URL, bad JSON, or an unknown option", function()
    for expected, args in pairs({
      ["^perigee: INVALID_OPTION: bad URL 'tpc://h'"] = { "tpc://h", "x" },
      ["^perigee: INVALID_MESSAGE: DATA is not JSON"] = { URL, "x", "{" },
      ["^perigee: INVALID_OPTION: unknown option 'conect_timeout' %(did you mean 'connect_timeout'%?%)"] =
        { URL, "x", "--option", "conect_timeout=1" },
    }) do
      local code, out, err = run({ "send", unpack(args) })
      assert.are.same({ 2, "" }, { code, out })
      assert.is_truthy(err:find(expected), err)
    end
  end)
end)

describe("perigee emit", function()
  it("prints nothing and ends when the event is handed over", function()
    local server = tcp.listen()
    local child = program.start({ "emit", "tcp://127.0.0.1:" .. server.port, '{"b":1,"a":2}', '{"x": 1}' })
    local peer = server:accept()
    assert.are.equal('{"pattern":"{\\"a\\":2,\\"b\\":1}","data":{"x": 1}}', peer:read_frame())
    assert.are.equal(0, child:wait())
    assert.are.same({ "", "" }, { child.stdout, child.stderr })
    server:close()
  end)

  it("exits 1 when it cannot connect", function()
    local code, out, err = run({ "emit", "tcp://127.0.0.1:" .. tcp.free_port(), "x" })
    assert.are.same({ 1, "" }, { code, out })
    assert.is_truthy(err:find("^perigee: CONNECT_FAILED: "))
  end)
end)

describe("perigee run", function()
  it("runs the chunk with its arguments and ends with it", function()
    local path = script('print(arg[0] ~= nil, arg[1], select("#", ...), ...)\n')
    assert.are.same({ 0, "true\ta\t3\ta\t--flag\tb\n", "" }, { run({ "run", path, "a", "--flag", "b" }) })
  end)

  it("lets the chunk await, in modules beside it too", function()
    local path = script([[
local perigee = require("perigee")
perigee.sleep(1):await()
package.loaded.leak = nil
print(require(arg[1]).value, leak)
]])
    local module = script([[
require("perigee").sleep(1):await()
rawset(_G, "leak", "stays in the script's environment")
return { value = "from the module" }
]])
    local name = module:match("([^/]+)$")
    os.rename(module, module .. ".lua")
    local code, out, err = run({ "run", path, name })
    os.remove(module .. ".lua")
    assert.are.same({ 0, "from the module\tstays in the script's environment\n", "" }, { code, out, err })
  end)

  it("cancels what was spawned, and says where", function()
    local path = script([[
local perigee = require("perigee")
perigee.spawn(function() perigee.sleep(60000):await() end)
print("end")
]])
    local code, out, err = run({ "run", path })
    assert.are.same({ 0, "end\n" }, { code, out })
    assert.is_truthy(err:find(path .. ":2", 1, true), err)
  end)

  it("exits 1 with the error and its place when the chunk raises", function()
    local path = script('local x = nil\nprint(x.y)\n')
    local code, _, err = run({ "run", path })
    assert.are.equal(1, code)
    assert.is_truthy(err:find("perigee: SCRIPT: " .. path .. ":2: attempt to index", 1, true), err)
    path = script('local perigee = require("perigee")\n'
      .. 'error(perigee.error({ code = "OUT_OF_STOCK", message = "none left" }))\n')
    code, _, err = run({ "run", path })
    assert.are.same({ 1, "perigee: OUT_OF_STOCK: none left (" .. path .. ":2)\n" }, { code, err })
    path = script("x = = 1\n")
    code, _, err = run({ "run", path })
    assert.are.equal(1, code)
    assert.is_truthy(err:find("perigee: SCRIPT: " .. path .. ":1: unexpected symbol", 1, true), err)
    assert.are.equal(1, (run({ "run", "no/such.lua" })))
  end)

  it("exits 1 when it takes longer than --timeout", function()
    local path = script('require("perigee").sleep(60000):await()')
    assert.are.same({ 1, "", "perigee: TIMEOUT: the script did not end within 30 ms\n" },
      { run({ "run", path, "--timeout", "30" }) })
  end)

  it("answers require of luv and cjson", function()
    local path = script('print(require("cjson").encode({ 1 }), type(require("luv").run))')
    assert.are.same({ 0, "[1]\tfunction\n", "" }, { run({ "run", path }) })
  end)
end)

describe("perigee check", function()
  local GOOD = [[
local perigee = require("perigee")
local app = perigee.app()
app:clients({ { name = "A", port = 1 } })
app:get("/a/:x", perigee.to(app:inject("A"), "x"))
app:message("m", function() end)
app:on_start(function() error("check does not start") end)
app:listen("http://127.0.0.1:1")
return app
]]

  it("loads and validates, and opens nothing", function()
    local code, out, err = run({ "check", script(GOOD) })
    assert.are.same({ 0, "" }, { code, err })
    assert.is_truthy(out:find("good", 1, true))
  end)

  for name, case in pairs({
    ["an unknown option"] = { "app:clients({ { name = 'B', hots = 'x' } })", "INVALID_OPTION: unknown option 'hots'" },
    ["a fault"] = { "local x = nil + 1", "SCRIPT: " },
    ["a bad listener"] = { "app:listen('ftp://x')", "INVALID_OPTION: bad URL 'ftp://x'" },
    ["a transport of later"] = { "app:listen('mqtt://localhost')", "UNSUPPORTED: " },
    ["two routes for one thing"] = { "app:get('/a/:y', print)", "INVALID_OPTION: GET /a/:y at " },
    ["two handlers for one pattern"] = { "app:message('m', print)", "INVALID_OPTION: a handler for m at " },
    ["a token nobody registered"] = { "app:inject('Z')", "nothing is registered as 'Z' (known: A)" },
    ["a factory's token nobody registered"] = {
      "app:clients_async({ { name = 'B', inject = { 'Z' }, use_factory = print } })", "nothing is registered as 'Z'",
    },
  }) do
    it("exits 78 for " .. name .. ", with its place", function()
      local path = script((GOOD:gsub("return app", case[1] .. "\nreturn app")))
      local code, out, err = run({ "check", path })
      assert.are.same({ 78, "" }, { code, out })
      assert.is_truthy(err:find(case[2], 1, true), err)
      assert.is_truthy(err:find("^" .. path:gsub("%p", "%%%0") .. ":8: error: [^\n]+ %[[%l-]+%]\n$"), err)
    end)
  end

  it("exits 78 when scripts are in each other's way, naming both", function()
    local one, two = script(GOOD), script(GOOD)
    local code, _, err = run({ "check", one, two })
    assert.are.equal(78, code)
    assert.is_truthy(err:find(one .. ":4", 1, true) and err:find(two .. ":4", 1, true), err)
  end)

  it("opens no connection, even when the script asks for one while it loads", function()
    local server = tcp.listen()
    local code, _, err = run({ "check", script(([[
local perigee = require("perigee")
perigee.client("tcp://127.0.0.1:%d"):connect():await()
return perigee.app()
]]):format(server.port)) })
    loop.turn()
    assert.are.same({ 78, 0 }, { code, server.accepted })
    assert.is_truthy(err:find("UNSUPPORTED: perigee check opens no port and no connection", 1, true), err)
    server:close()
  end)

  it("exits 78 with the array of its findings for --json, and 0 with an empty one", function()
    local path = script("print('said')\nio.write('written')\nio.stdout:write('put')\n" .. GOOD .. "-- \nx = 1")
    local code, out, err = run({ "check", path, "--json" })
    assert.are.same({ 78, "" }, { code, err })
    assert.are.same({ {
      file = path, line = 13, severity = "error", rule = "syntax", message = "'<eof>' expected near 'x'",
    } }, json.decode(out))
    path = script("print('said', nil)\nio.write('written')\nio.stdout:write('put')\n" .. GOOD)
    assert.are.same({ 0, "[]\n", "said\tnil\nwrittenput" }, { run({ "check", "--json", path }) })
  end)

  it("shows findings of all severities as lines, and exits 78 for hints too", function()
    local path = script((GOOD:gsub("port = 1 }", "host = 'billing.internal' }")))
    assert.are.same({ 78, "", path .. ":3: hint: the host 'billing.internal' stands in the script: take it from the "
      .. "environment, as with os.getenv [literal-host]\n" }, { run({ "check", path }) })
  end)

  it("only reads with --static", function()
    local path = script("io.stderr:write('ran')")
    assert.are.same({ 0, path .. ": good\n", "" }, { run({ "check", path, "--static" }) })
    assert.are.same({ 0, "[]\n", "" }, { run({ "check", path, "--static", "--json" }) })
    path = script("x = 1")
    assert.are.same({ 78, "", path .. ":1: error: undeclared global 'x'; use local [global-write]\n" },
      { run({ "check", path, "--static" }) })
  end)

  it("outlives a script that ends, or does not", function()
    for text, expected in pairs({
      ["os.exit(0)"] = ":1: error: SCRIPT: os.exit is for scripts of 'perigee run': what is served ends with its "
        .. "program [exit]\n",
      ["\nwhile true do end"] = ":2: error: the script does not finish loading within 50 ms [runaway]\n",
    }) do
      local path = script(text)
      assert.are.same({ 78, "", path .. expected }, { run({ "check", path, "--load-budget", "50" }) })
    end
  end)

  it("exits 78 for a script that returns no app, or is not there", function()
    local code, _, err = run({ "check", script("return 7") })
    assert.are.equal(78, code)
    assert.is_truthy(err:find("does not return an app", 1, true))
    assert.are.equal(78, (run({ "check", "no/such.lua" })))
  end)
end)

describe("perigee serve", function()
  local APP = 'local perigee = require("perigee")\nlocal app = perigee.app()\n'

  it("serves several scripts on the listeners of all, and of the command line", function()
    local child = program.start({
      "serve",
      script(APP .. 'app:get("/a", function() return "a" end)\napp:listen("http://127.0.0.1:0")\nreturn app'),
      script(APP .. 'app:get("/b", function() return "b" end)\napp:message("m", function() return 1 end)\n'
        .. 'app:listen("http://127.0.0.1:0")\nreturn app'), -- the same URL: the same listener
      "--listen", "http://0.0.0.0:0", "--listen=tcp://127.0.0.1:0",
    })
    local urls = program.urls(child, 3)
    for i = 1, 2 do
      assert.are.equal("a", http.request(urls[i], "GET", "/a").body)
      local response = http.request(urls[i], "GET", "/b")
      assert.are.equal("b", response.body)
      assert.is_nil(response.headers["perigee-generation"])
    end
    assert.are.same({ 0, "1\n", "" }, { run({ "send", urls[3], "m" }) })
  end)

  it("keeps the globals of scripts apart", function()
    local child = program.start({
      "serve",
      script(APP .. 'rawset(_G, "name", "one")\napp:get("/one", function() return name end)\nreturn app'),
      script(APP .. 'rawset(_G, "name", "two")\napp:get("/two", function() return name end)\nreturn app'),
      "--listen", "http://127.0.0.1:0",
    })
    local url = program.urls(child)[1]
    assert.are.same({ "one", "two" }, { http.request(url, "GET", "/one").body, http.request(url, "GET", "/two").body })
  end)

  it("stamps HTTP replies with the generation, errors and forwards too", function()
    local child = program.start({ "serve", script(APP .. [[
      app:get("/", function() return "x" end)
      app:post("/to", perigee.to(perigee.client("tcp://127.0.0.1:1"), "x"))
      app:listen("http://127.0.0.1:0")
      return app
    ]]), "--stamp" })
    local url = program.urls(child)[1]
    for _, request in ipairs({ { "GET", "/" }, { "GET", "/none" }, { "POST", "/to", "1" } }) do
      assert.are.equal("1", http.request(url, unpack(request)).headers["perigee-generation"])
    end
  end)

  it("drains on TERM: answers what runs, runs on_stop, exits 0", function()
    local child = program.start({ "serve", script(APP .. [[
      app:get("/", function()
        print("asked")
        io.stdout:flush()
        perigee.sleep(50):await()
        return "done"
      end)
      app:on_stop(function() print("stopped") end)
      app:listen("http://127.0.0.1:0")
      return app
    ]]) })
    local port = tonumber(program.urls(child)[1]:match(":(%d+)$"))
    local peer = tcp.connect(port)
    peer:write(http.bytes("GET", "/"))
    child:line("asked")
    child:kill("sigterm")
    assert.are.equal("done", http.read(peer).body)
    assert.are.equal(0, child:wait())
    assert.are.equal("asked\nstopped\n", child.stdout)
  end)

  it("ends at once at the second TERM or INT", function()
    local child = program.start({ "serve", script(APP .. [[
      app:get("/", function()
        print("asked")
        io.stdout:flush()
        perigee.sleep(60000):await()
      end)
      app:listen("http://127.0.0.1:0")
      return app
    ]]) })
    local peer = tcp.connect(tonumber(program.urls(child)[1]:match(":(%d+)$")))
    peer:write(http.bytes("GET", "/"))
    child:line("asked")
    child:kill("sigterm")
    loop.wait_until(function() return child.stderr:find("draining", 1, true) end)
    child:kill("sigint")
    assert.are.equal(1, child:wait())
  end)

  it("cuts what still runs after --drain-timeout", function()
    local child = program.start({ "serve", script(APP .. [[
      app:get("/", function()
        print("asked")
        io.stdout:flush()
        perigee.sleep(60000):await()
      end)
      app:listen("http://127.0.0.1:0")
      return app
    ]]), "--drain-timeout", "30" })
    local peer = tcp.connect(tonumber(program.urls(child)[1]:match(":(%d+)$")))
    peer:write(http.bytes("GET", "/"))
    child:line("asked")
    child:kill("sigint")
    assert.are.equal(0, child:wait())
    assert.is_truthy(child.stderr:find("drain timeout of 30 ms", 1, true))
  end)

  it("survives faults of the script, and logs them with file and line", function()
    local url, child = service([[
      app:message("fault", function() local x = nil; return x.y end)
      app:message("fine", function() return 1 end)
      app:event("fault_event", function() error("in an event") end)
    ]])
    local peer = tcp.connect(tonumber(url:match(":(%d+)$")))
    peer:write(wire.request('"fault"', "1") .. wire.request('"fault_event"', "1", false) .. wire.request('"fine"', "1"))
    assert.is_truthy(peer:read_frame():find("Internal server error", 1, true))
    assert.are.equal('{"response":1,"isDisposed":true,"id":"I"}', peer:read_frame())
    loop.wait_until(function() return child.stderr:find("in an event", 1, true) end)
    assert.is_truthy(child.stderr:find("message fault: SCRIPT: /%S+:3: attempt to index"), child.stderr)
  end)

  it("exits 78 when there is nothing to listen on, or the script is wrong", function()
    local code, _, err = run({ "serve", script(APP .. "return app") })
    assert.are.equal(78, code)
    assert.is_truthy(err:find("nothing to listen on", 1, true))
    assert.are.equal(78, (run({ "serve", script("return 1") })))
  end)

  it("exits 78 when a listener's name is none", function()
    for _, url in ipairs({ "http://nosuch.invalid:0", "tcp://nosuch.invalid:0" }) do
      local code, _, err = run({ "serve", script(APP .. ('app:listen("%s")\nreturn app'):format(url)) })
      assert.are.same({ 78, "perigee: LISTEN_FAILED: listen EAI_NONAME nosuch.invalid:0\n" }, { code, err })
    end
  end)

  it("tells the line of what a script raises that has no text", function()
    for _, raised in ipairs({ "nil", "print", '"text", 0', '{ code = "X", message = "m" }' }) do
      local path = script("local perigee = 1\nerror(" .. raised .. ")\n")
      local code, _, err = run({ "serve", path })
      assert.are.equal(78, code)
      assert.is_truthy(err:find((" (%s:2)\n"):format(path), 1, true), err)
    end
  end)

  it("hands on each line that a script prints at once", function()
    local url, child = service('app:event("note", function(data) print("noted " .. data) end)')
    assert.are.same({ 0, "", "" }, { run({ "emit", url, "note", '"this"' }) })
    child:line("noted this")
  end)

  it("survives what callbacks of luv raise, and logs it with file and line", function()
    local url, child = service([[
      local uv = require("luv")
      app:message("later", function()
        local timer = uv.new_timer()
        timer:start(1, 0, function()
          timer:close()
          error("in a timer")
        end)
        perigee.sleep(20):await()
        return uv.os_getpid()
      end)
      app:message("pid", function() return uv.os_getpid() end)]])
    local code, pid = run({ "send", url, "later" })
    assert.are.equal(0, code)
    assert.are.same({ 0, pid, "" }, { run({ "send", url, "pid" }) })
    assert.is_truthy(child.stderr:find("perigee: error: in a callback: /%S+:8: in a timer\n"), child.stderr)
  end)

  it("exits 1 when a port is in use or a start hook fails", function()
    local server = tcp.listen()
    local code, _, err = run({ "serve", script(APP .. "return app"), "--listen", "tcp://127.0.0.1:" .. server.port })
    assert.are.equal(1, code)
    assert.is_truthy(err:find("perigee: LISTEN_FAILED: .*EADDRINUSE"), err)
    server:close()
    code, _, err = run({ "serve", script(APP .. 'app:on_start(function() error("not ready") end)\nreturn app'),
      "--listen", "tcp://127.0.0.1:0" })
    assert.are.equal(1, code)
    assert.is_truthy(err:find("not ready", 1, true))
  end)
end)
