--- Hot reload of `perigee serve`, seen from outside: what is answered, what is logged.

local folders = require("spec.support.folder")
local http = require("spec.support.http")
local loop = require("spec.support.loop")
local perigee = require("perigee")
local program = require("spec.support.perigee")
local tcp = require("spec.support.tcp")
local uv = require("luv")

local HEAD = 'local perigee = require("perigee")\nlocal app = perigee.app()\n'

local folder

local function path_of(name) return folder .. "/" .. name end

local function write(name, text)
  local file = assert(io.open(path_of(name), "w"))
  file:write(text)
  file:close()
  return path_of(name)
end

-- An app that answers "/" with a text, over HTTP on any port.
local function app(text, more)
  return ('%s%s\napp:get("/", function() return %q end)\napp:listen("http://127.0.0.1:0")\nreturn app\n'):format(
    HEAD, more or "", text)
end

local function get(url, path)
  local response = http.request(url, "GET", path or "/")
  return response.body, response.headers["perigee-generation"], response.status
end

local function wait_for(child, text, n)
  return loop.wait_until(function()
    local count, at = 0, 1
    while true do
      local _, stop = child.stderr:find(text, at, true)
      if not stop then break end
      count, at = count + 1, stop + 1
    end
    return count >= (n or 1) and count
  end, 10000, function() return ("%q from %s"):format(text, child:describe()) end)
end

local function reload(child, name, number)
  child:kill("sighup")
  return wait_for(child, ("%s: generation %d serves"):format(path_of(name), number))
end

-- What is logged of the next refused reload.
local function refusal(child)
  local before = #child.stderr
  child:kill("sighup")
  local text
  loop.wait_until(function()
    text = child.stderr:sub(before + 1):match("perigee: error: ([^\n]*the reload is refused: [^\n]*)\n")
    return text
  end, 10000, function() return "a refusal of " .. child:describe() end)
  return (text:gsub(folder:gsub("%p", "%%%0") .. "/", ""))
end

describe("a reload", function()
  before_each(function()
    folder = folders.new()
  end)

  after_each(function()
    program.clean()
    folders.remove(folder)
  end)

  local function serve(...)
    local child = program.start({ "serve", ... })
    return child, program.urls(child)[1]
  end

  it("answers with the new script and its modules, and stamps their generation", function()
    write("words.lua", 'return { greeting = "one" }')
    local text = HEAD .. 'local words = require("words")\napp:get("/", function() return words.greeting end)\n'
      .. 'app:listen("http://127.0.0.1:0")\nreturn app'
    local child, url = serve(write("app.lua", text), "--stamp")
    assert.are.same({ "one", "1", 200 }, { get(url) })
    write("words.lua", 'return { greeting = "two" }')
    reload(child, "app.lua", 2)
    assert.are.same({ "two", "2", 200 }, { get(url) })
    assert.are.same({ "2", 404 }, { select(2, get(url, "/none")) })
  end)

  it("keeps the connections of its listeners", function()
    local child, url = serve(write("app.lua", app("one")))
    local peer = tcp.connect(tonumber(url:match(":(%d+)$")))
    peer:write(http.bytes("GET", "/"))
    assert.are.equal("one", http.read(peer).body)
    write("app.lua", app("two"))
    reload(child, "app.lua", 2)
    peer:write(http.bytes("GET", "/"))
    assert.are.equal("two", http.read(peer).body)
  end)

  it("lets calls in flight end on the generation they began with, and runs its on_stop then", function()
    local more = [[
      app:get("/slow", function()
        print("asked %s")
        io.stdout:flush()
        perigee.sleep(120):await()
        return "%s"
      end)
      app:on_stop(function() print("stopped %s") io.stdout:flush() end)
    ]]
    local child, url = serve(write("app.lua", app("one", more:gsub("%%s", "one"))), "--stamp")
    local peer = tcp.connect(tonumber(url:match(":(%d+)$")))
    peer:write(http.bytes("GET", "/slow"))
    child:line("asked one")
    write("app.lua", app("two", (more:gsub("%%s", "two"))))
    reload(child, "app.lua", 2)
    assert.are.same({ "two", "2", 200 }, { get(url) })
    assert.is_nil(child.stdout:find("stopped", 1, true))
    local response = http.read(peer)
    assert.are.same({ "one", "1" }, { response.body, response.headers["perigee-generation"] })
    child:line("stopped one")
    child:kill("sigterm")
    assert.are.equal(0, child:wait())
    assert.are.equal("asked one\nstopped one\nstopped two\n", child.stdout)
  end)

  it("lets what is passed on without Lua end, though the client that carries it is gone from the script", function()
    local answer = {}
    local service = perigee.app()
    service:message("slow", function()
      return perigee.promise(function(resolve) answer[#answer + 1] = resolve end)
    end)
    service:listen("tcp://127.0.0.1:0")
    service:start():await()
    local relays = ([[
      local service = perigee.client(%q)
      app:post("/slow", perigee.to(service, "slow"))
      app:forward("slow", service)
      app:listen("tcp://127.0.0.1:0")
      app:on_stop(function() print("stopped") io.stdout:flush() end)
    ]]):format(service:addresses()[1])
    local more = 'app:listen("tcp://127.0.0.1:0")'
    local child = program.start({ "serve", write("app.lua", app("one", relays)), "--stamp" })
    local urls = program.urls(child, 2)
    local peer = tcp.connect(tonumber(urls[2]:match(":(%d+)$")))
    peer:write(http.bytes("POST", "/slow", "{}"))
    local asked = program.start({ "send", urls[1], "slow" })
    loop.wait_until(function() return #answer == 2 end, 10000, "both requests")
    write("app.lua", app("two", more))
    reload(child, "app.lua", 2)
    assert.are.same({ "two", "2", 200 }, { get(urls[2]) })
    assert.are.equal("", child.stdout)
    for _, resolve in ipairs(answer) do resolve("late") end
    local response = http.read(peer)
    assert.are.same({ 200, '"late"', "1" }, { response.status, response.body, response.headers["perigee-generation"] })
    assert.are.equal(0, asked:wait())
    assert.are.equal('"late"\n', asked.stdout)
    child:line("stopped")
    service:stop():await()
  end)

  it("lets streams over TCP end on the generation they began with", function()
    local function service(text)
      return HEAD .. ([[
        app:message("count", function()
          return perigee.reply(function(sink)
            perigee.async(function()
              for i = 1, 40 do
                sink:next("%s" .. i)
                perigee.sleep(5):await()
              end
              sink:complete()
            end)
          end)
        end)
        app:listen("tcp://127.0.0.1:0")
        return app
      ]]):format(text)
    end
    local child, url = serve(write("app.lua", service("a")))
    local asked = program.start({ "send", url, "count" })
    asked:line("a3")
    write("app.lua", service("b"))
    reload(child, "app.lua", 2)
    local after = program.start({ "send", url, "count" })
    local wanted = { a = {}, b = {} }
    for i = 1, 40 do
      for name, lines in pairs(wanted) do lines[i] = ('"%s%d"\n'):format(name, i) end
    end
    assert.are.equal(0, asked:wait())
    assert.are.equal(0, after:wait())
    assert.are.equal(table.concat(wanted.a), asked.stdout)
    assert.are.equal(table.concat(wanted.b), after.stdout)
  end)

  it("hands the state over: the same table, or what on_reload makes of it", function()
    local counting = 'app.state.n = (app.state.n or 0)\napp:get("/n", function() app.state.n = app.state.n + 1 '
      .. 'return { n = app.state.n } end)\n'
    local child, url = serve(write("app.lua", app("one", counting)))
    assert.are.same({ '{"n":1}', '{"n":2}' }, { (get(url, "/n")), (get(url, "/n")) })
    reload(child, "app.lua", 2)
    assert.are.equal('{"n":3}', (get(url, "/n")))
    write("app.lua", app("one", counting .. "app:on_reload(function(old) return { n = old.n * 10 } end)\n"))
    reload(child, "app.lua", 3)
    assert.are.equal('{"n":31}', (get(url, "/n")))
  end)

  it("dials nothing anew for clients whose options are the same", function()
    local service, service_url = serve(write("service.lua", HEAD
      .. 'app:message("peer", function(_, ctx) return ctx.peer end)\napp:listen("tcp://127.0.0.1:0")\nreturn app'))
    assert.is_nil(service.exit_code)
    local more = ('local service = perigee.client(%q)\napp:get("/peer", function() return service:send("peer", 1) end)')
      :format(service_url)
    local child, url = serve(write("app.lua", app("one", more)))
    local peer = get(url, "/peer")
    reload(child, "app.lua", 2)
    assert.are.equal(peer, (get(url, "/peer")))
  end)

  it("opens what is new and closes what is gone, after its calls have ended", function()
    local slow = 'app:get("/slow", function() print("asked") io.stdout:flush() perigee.sleep(100):await() '
      .. 'return "slow" end)\napp:listen("http://127.0.0.1:0")\nreturn app'
    local child, url = serve(write("app.lua", HEAD .. slow))
    local port = tonumber(url:match(":(%d+)$"))
    local peer = tcp.connect(port)
    peer:write(http.bytes("GET", "/slow"))
    child:line("asked")
    write("app.lua", HEAD .. 'app:message("m", function() return 1 end)\napp:listen("tcp://localhost:0")\nreturn app')
    reload(child, "app.lua", 2)
    assert.are.equal("slow", http.read(peer).body)
    loop.wait_until(function()
      local ok, late = pcall(tcp.connect, port)
      if ok then late:close() end
      return not ok
    end, 5000, "the old listener to close")
  end)

  describe("is refused, and all goes on as it was, with", function()
    local function refused(text, message)
      local child, url = serve(write("app.lua", app("one")), "--stamp")
      write("app.lua", type(text) == "function" and text() or text)
      assert.are.equal("app.lua: the reload is refused: " .. message, refusal(child))
      assert.are.same({ "one", "1", 200 }, { get(url) })
      write("app.lua", app("two")) -- the refused one does not count
      reload(child, "app.lua", 2)
      assert.are.same({ "two", "2", 200 }, { get(url) })
    end

    it("a syntax error", function()
      refused("x x", "SCRIPT: app.lua:1: '=' expected near 'x'")
    end)

    it("a chunk that raises a text", function()
      refused(HEAD .. 'error("no database")', "SCRIPT: app.lua:3: no database")
    end)

    it("a chunk that raises an error table", function()
      refused(HEAD .. '\nerror(perigee.error({ code = "NO", message = "no" }))', "NO: no (app.lua:4)")
    end)

    it("no app", function()
      refused("return 1", "SCRIPT: app.lua does not return an app: it should end with 'return app'")
    end)

    it("an option that is wrong", function()
      refused(app("x", 'app:clients({ { name = "A", transport = "tcp", hots = "h" } })'),
        "INVALID_OPTION: unknown option 'hots' (did you mean 'host'?) (app.lua:3)")
    end)

    it("two routes for one thing", function()
      refused(app("x", 'app:get("/", function() end)'),
        "INVALID_OPTION: GET / at app.lua:4 is already routed at app.lua:3")
    end)

    it("no listener", function()
      refused(HEAD .. "return app", "INVALID_OPTION: there is nothing to listen on: app:listen(URL) or --listen URL")
    end)

    it("a listener that cannot bind", function()
      local server = uv.new_tcp()
      assert(server:bind("127.0.0.1", 0))
      assert(server:listen(1, function() end))
      local port = server:getsockname().port
      refused(app("x", ('app:listen("tcp://127.0.0.1:%d")'):format(port)),
        ("LISTEN_FAILED: listen EADDRINUSE 127.0.0.1:%d"):format(port))
      server:close()
    end)

    it("a start hook that fails", function()
      refused(app("x", 'app:on_start(function() error({ message = "no migration" }) end)'),
        "no migration")
    end)

    it("a reload hook that fails", function()
      refused(app("x", 'app:on_reload(function(old) return old.a.b end)'),
        "SCRIPT: app.lua:3: attempt to index field 'a' (a nil value)")
    end)

    it("a start hook that does not end", function()
      refused(app("x", "app:on_start(function() perigee.sleep(60000):await() end)"),
        "TIMEOUT: on_start did not end within 5000 ms")
    end)

    it("a chunk that yields to nobody", function()
      refused(HEAD .. "coroutine.yield(app)", "UNSUPPORTED: coroutine.yield outside a coroutine of the script's own")
    end)

    it("a factory that does not end", function()
      refused(app("x", 'app:provide("config", function() perigee.sleep(60000):await() end)'),
        "TIMEOUT: what makes clients and values did not end within 5000 ms")
    end)

    it("a global that nobody declared, wherever it is written", function()
      refused(app("x", 'app:get("/later", function() total = 1 end)'),
        "SCRIPT: app.lua:3: undeclared global 'total'; use local")
    end)

    it("os.exit", function()
      refused(app("x", "os.exit(3)"),
        "SCRIPT: app.lua:3: os.exit is for scripts of 'perigee run': what is served ends with its program")
    end)

    it("a module that fails", function()
      refused(function()
        write("broken.lua", "local a = {}\nreturn a.b.c")
        return app("x", 'require("broken")')
      end, "SCRIPT: broken.lua:2: attempt to index field 'b' (a nil value)")
    end)

    it("half of a file, and takes the whole when it is there", function()
      local whole = app("two")
      local child, url = serve(write("app.lua", app("one")))
      write("app.lua", whole:sub(1, #HEAD + 30))
      assert.are.equal("app.lua: the reload is refused: SCRIPT: app.lua:4: '=' expected near '<eof>'", refusal(child))
      assert.are.equal("one", (get(url)))
      write("app.lua", whole)
      reload(child, "app.lua", 2)
      assert.are.equal("two", (get(url)))
    end)

    it("a file that is gone, or cannot be read", function()
      local child, url = serve(write("app.lua", app("one")))
      os.remove(path_of("app.lua"))
      assert.are.equal("app.lua: the reload is refused: SCRIPT: cannot open app.lua: No such file or directory",
        refusal(child))
      uv.fs_mkdir(path_of("app.lua"), 493)
      assert.are.equal("app.lua: the reload is refused: SCRIPT: cannot read app.lua: Is a directory", refusal(child))
      assert.are.equal("one", (get(url)))
      uv.fs_rmdir(path_of("app.lua"))
      write("app.lua", app("two"))
      reload(child, "app.lua", 2)
      assert.are.equal("two", (get(url)))
    end)

    it("a module that fails only the second time", function()
      local flag = path_of("flag")
      write("moody.lua", ('local f = io.open(%q)\nif f then error("not again") end\nio.open(%q, "w"):close()\nreturn 1')
        :format(flag, flag))
      local child, url = serve(write("app.lua", app("one", 'require("moody")')))
      assert.are.equal("app.lua: the reload is refused: SCRIPT: moody.lua:2: not again", refusal(child))
      assert.are.equal("one", (get(url)))
    end)
  end)

  it("follows a symlink that is swapped", function()
    write("v1.lua", app("one"))
    write("v2.lua", app("two"))
    assert(uv.fs_symlink(path_of("v1.lua"), path_of("app.lua")))
    local child, url = serve(path_of("app.lua"))
    assert(uv.fs_symlink(path_of("v2.lua"), path_of("next")))
    assert(uv.fs_rename(path_of("next"), path_of("app.lua")))
    reload(child, "app.lua", 2)
    assert.are.equal("two", (get(url)))
  end)

  it("of several scripts is each on its own", function()
    local function part(name, text)
      return HEAD .. ('app:get("/%s", function() return %q end)\nreturn app'):format(name, text)
    end
    local child, url = serve(write("a.lua", part("a", "a1")), write("b.lua", part("b", "b1")), "--stamp",
      "--listen", "http://127.0.0.1:0")
    write("a.lua", part("a", "a2"))
    write("b.lua", "x x")
    reload(child, "a.lua", 2)
    wait_for(child, "b.lua: the reload is refused: SCRIPT: ")
    assert.are.same({ "a2", "2", 200 }, { get(url, "/a") })
    assert.are.same({ "b1", "1", 200 }, { get(url, "/b") })
    write("b.lua", part("a", "b2")) -- now both route /a
    reload(child, "a.lua", 3)
    wait_for(child, ("b.lua: the reload is refused: INVALID_OPTION: GET /a at %s:3 is already routed at %s:3"):format(
      path_of("b.lua"), path_of("a.lua")))
    assert.are.same({ "b1", "1", 200 }, { get(url, "/b") })
  end)

  it("of several scripts is refused where it wants a shared listener with other options", function()
    local function part(name, options)
      local text = 'app:get("/%s", function() return %q end)\napp:listen("http://127.0.0.1:0"%s)\nreturn app'
      return HEAD .. text:format(name, name, options)
    end
    local child, url = serve(write("a.lua", part("a", "")), write("b.lua", part("b", "")))
    write("b.lua", part("b", ", { max_body_bytes = 10 }"))
    assert.are.equal("b.lua: the reload is refused: INVALID_OPTION: the listener http://127.0.0.1:0 has other options "
      .. "in b.lua than in a.lua", refusal(child))
    assert.are.equal("b", (get(url, "/b")))
  end)

  describe("ends what does not end by itself within the drain timeout:", function()
    it("a call gets a 503, and is logged", function()
      local child, url = serve(write("app.lua", app("one", [[
        app:get("/slow", function()
          print("asked")
          io.stdout:flush()
          local ok, err = pcall(function() perigee.sleep(60000):await() end)
          print(ok, err.code)
          io.stdout:flush()
        end)
      ]])), "--drain-timeout", "100")
      local peer = tcp.connect(tonumber(url:match(":(%d+)$")))
      peer:write(http.bytes("GET", "/slow"))
      child:line("asked")
      reload(child, "app.lua", 2)
      assert.are.equal(503, http.read(peer).status)
      child:line("^false\tCANCELLED$")
      wait_for(child, "app.lua, generation 1: 1 calls still ran after 100 ms: they are cancelled")
    end)

    it("a stop hook is cancelled, and is logged", function()
      local child = serve(write("app.lua", app("one", "app:on_stop(function() perigee.sleep(60000):await() end)")),
        "--drain-timeout", "100")
      write("app.lua", app("two"))
      reload(child, "app.lua", 2)
      wait_for(child, "app.lua, generation 1: in on_stop: TIMEOUT: on_stop did not end within ")
    end)

    it("work that was spawned is cancelled", function()
      local child = serve(write("app.lua", app("one", [[
        perigee.spawn(function()
          local ok, err = pcall(function() perigee.sleep(60000):await() end)
          print(ok, err.code)
          io.stdout:flush()
        end)
      ]])))
      write("app.lua", app("two"))
      reload(child, "app.lua", 2)
      child:line("^false\tCANCELLED$")
      wait_for(child, "what was started at " .. path_of("app.lua") .. ":3 still ran: it is cancelled")
    end)
  end)

  it("leaves nothing of an old generation behind", function()
    local child, url = serve(write("app.lua", app("one", [[
      app.state.seen = setmetatable({ [app] = true }, { __mode = "k" })
      app:on_reload(function(old) old.seen[app] = true return old end)
      app:get("/alive", function()
        local n = 0
        for _ in pairs(app.state.seen) do n = n + 1 end
        return { n = n }
      end)
    ]])))
    for number = 2, 6 do reload(child, "app.lua", number) end
    loop.wait_until(function() return (get(url, "/alive")) == '{"n":1}' end, 10000, "old generations to be collected")
  end)
end)
