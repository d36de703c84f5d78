--- The admin door of `perigee serve`, and the commands that go through it.

local folders = require("spec.support.folder")
local http = require("spec.support.http")
local loop = require("spec.support.loop")
local program = require("spec.support.perigee")
local tcp = require("spec.support.tcp")
local uv = require("luv")

local run = program.run

local APP = [[
local perigee = require("perigee")
local app = perigee.app()
app:get("/", function() return %q end)
app:get("/wait", function()
  print("waits")
  io.stdout:flush()
  perigee.sleep(60000):await()
end)
app:listen("http://127.0.0.1:0")
return app
]]

local folder

before_each(function() folder = folders.new() end)

after_each(function()
  program.clean()
  folders.remove(folder)
  loop.finish()
end)

local function write(name, text)
  local file = assert(io.open(folder .. "/" .. name, "w"))
  file:write(text)
  file:close()
  return folder .. "/" .. name
end

local function app(text) return write("app.lua", APP:format(text)) end

-- Its own runtime folder, so that nobody else's program is found.
local function serve(args)
  local child = program.start({ "serve", unpack(args) }, { PERIGEE_RUNTIME_DIR = folder })
  return child, program.urls(child)[1]
end

local function ask(args) return run(args, { env = { PERIGEE_RUNTIME_DIR = folder } }) end

local function socket_of(child) return ("%s/perigee-%d/%d.sock"):format(folder, uv.getuid(), child.pid) end

-- The port of a door that was asked for on port 0.
local function door_of(child)
  return loop.wait_until(function() return child.stderr:match("perigee: admin door at (http://%S+)\n") end)
end

local function mode_of(path) return assert(uv.fs_lstat(path)).mode % 512 end

it("the admin door is put, and found, where the session keeps such things", function()
  local child = program.start({ "serve", app("one") }, { XDG_RUNTIME_DIR = folder })
  program.urls(child)
  assert.are.equal(0, (run({ "status", "--pid", tostring(child.pid) }, { env = { XDG_RUNTIME_DIR = folder } })))
  assert.is_truthy(uv.fs_stat(socket_of(child)))
end)

describe("the admin door", function()
  it("is a unix socket for this user alone, and goes with the program", function()
    local child = serve({ app("one") })
    local path = socket_of(child)
    assert.are.equal(tonumber("600", 8), mode_of(path))
    assert.are.equal(tonumber("700", 8), mode_of(path:match("^(.*)/")))
    child:kill()
    assert.are.equal(0, child:wait())
    assert.is_nil((uv.fs_lstat(path)))
  end)

  it("is not opened in a folder that others can write", function()
    local path = socket_of({ pid = 1 }):match("^(.*)/")
    assert(uv.fs_mkdir(path, tonumber("755", 8)))
    local session = { XDG_RUNTIME_DIR = folder }
    local child = program.start({ "serve", app("one") }, session)
    program.urls(child)
    assert.is_nil((uv.fs_lstat(socket_of(child)))) -- it went to /tmp
    assert.are.equal(0, (run({ "status", "--pid", tostring(child.pid) }, { env = session })))
  end)

  it("can be another unix socket, a port, or off", function()
    for _, given in ipairs({ "unix:" .. folder .. "/door", folder .. "/door2" }) do
      local path = given:gsub("^unix:", "")
      local child = serve({ app("one"), "--admin", given })
      assert.is_truthy(child.stderr:find("perigee: admin door at unix:" .. path .. "\n", 1, true))
      assert.are.equal(tonumber("600", 8), mode_of(path))
      assert.are.equal(0, (ask({ "status", "--admin", given })))
      child:stop()
      assert.is_nil((uv.fs_lstat(path)))
    end
    local child = serve({ app("one"), "--admin", "http://127.0.0.1:0" })
    assert.are.equal(0, (ask({ "status", "--admin", door_of(child) })))
    assert.is_nil((uv.fs_lstat(socket_of(child))))
    child = serve({ app("one"), "--admin", "off" })
    assert.is_nil((uv.fs_lstat(socket_of(child))))
  end)

  it("that cannot be opened as asked ends the program", function()
    local taken = tcp.listen()
    local code, _, err = ask({ "serve", app("one"), "--admin", "http://127.0.0.1:" .. taken.port })
    assert.are.same({ 1, ("perigee: LISTEN_FAILED: listen EADDRINUSE 127.0.0.1 %d (--admin)\n"):format(taken.port) },
      { code, err })
    taken:close()
    for _, given in ipairs({ "ftp://x:1", "http://127.0.0.1", "http://127.0.0.1:99999", "here", "unix:",
      "http://127.0.0.1:1/path" }) do
      code, _, err = ask({ "serve", app("one"), "--admin", given })
      assert.are.equal(2, code)
      assert.is_truthy(err:find("^perigee: INVALID_OPTION: %-%-admin"), err)
    end
  end)

  it("answers what it knows, and no more", function()
    local child = serve({ app("one"), "--admin", "http://127.0.0.1:0" })
    local door = door_of(child)
    assert.are.same({ 200, "alive\n" }, { http.request(door, "GET", "/livez").status,
      http.request(door, "GET", "/livez").body })
    assert.are.same({ 200, "ready\n" }, { http.request(door, "GET", "/readyz").status,
      http.request(door, "GET", "/readyz").body })
    assert.are.equal(200, http.request(door, "HEAD", "/status").status)
    assert.are.equal(404, http.request(door, "GET", "/").status)
    local response = http.request(door, "GET", "/reload")
    assert.are.same({ 405, "POST" }, { response.status, response.headers.allow })
    response = http.request(door, "DELETE", "/status")
    assert.are.same({ 405, "GET, HEAD" }, { response.status, response.headers.allow })
    assert.are.equal(413, http.request(door, "POST", "/reload", ("x"):rep(1024 * 1024 + 1)).status)
    response = http.request(door, "POST", "/reload", "", { origin = "http://evil.example" })
    assert.are.equal(403, response.status)
    response = http.request(door, "POST", "/reload", "")
    assert.are.same({ 200, { old = 1, new = 2 } }, { response.status, http.json(response).generation })
  end)

  it("says that it is not ready while it ends, and that it lives", function()
    local child, url = serve({ app("one"), "--admin", "http://127.0.0.1:0" })
    local door = door_of(child)
    local peer = tcp.connect(tonumber(url:match("%d+$")))
    peer:write(http.bytes("GET", "/wait"))
    child:line("waits")
    child:kill("sigterm")
    loop.wait_until(function() return child.stderr:find("draining", 1, true) end)
    assert.are.equal(503, http.request(door, "GET", "/readyz").status)
    assert.are.equal(200, http.request(door, "GET", "/livez").status)
    assert.is_true(http.json(http.request(door, "GET", "/status")).stopping)
    assert.are.equal(503, http.request(door, "POST", "/reload", "").status)
  end)
end)

describe("perigee reload", function()
  it("prints the generations of each script", function()
    local child, url = serve({ app("one"), write("two.lua", 'return require("perigee").app()'), "--workers", "2" })
    program.workers(child)
    app("changed")
    local told = ("%s/app.lua: generation 1 -> 2\n%s/two.lua: generation 1 -> 2\n"):format(folder, folder)
    assert.are.same({ 0, told, "" }, { ask({ "reload" }) })
    for _ = 1, 8 do assert.are.equal("changed", http.request(url, "GET", "/").body) end
  end)

  it("says why not, with file and line, and exits 1", function()
    serve({ app("one") })
    local path = write("app.lua", "local x = nil\n\nx.y = 1\n")
    local code, out, err = ask({ "reload" })
    assert.are.same({ 1, "", ("perigee: SCRIPT: %s:3: attempt to index local 'x' (a nil value)\n"):format(path) },
      { code, out, err })
    local _, status = ask({ "status" })
    assert.is_truthy(status:find("last reload %S+ %S+: refused: SCRIPT: " .. path:gsub("%-", "%%-") .. ":3:"), status)
  end)

  it("tells both when one script is loaded and another refused", function()
    serve({ app("one"), write("two.lua", 'return require("perigee").app()') })
    local broken = write("two.lua", "return = 1")
    local code, out, err = ask({ "reload" })
    assert.are.equal(1, code)
    assert.are.equal(folder .. "/app.lua: generation 1 -> 2\n", out)
    assert.is_truthy(err:find("perigee: " .. broken .. ": SCRIPT: " .. broken .. ":1: ", 1, true), err)
  end)

  it("finds the one that runs, and wants to know which when there are two", function()
    local code, _, err = ask({ "reload" })
    assert.are.equal(1, code)
    assert.is_truthy(err:find("^perigee: CONNECT_FAILED: no `perigee serve` of this user is running"), err)
    local one = serve({ app("one") })
    local two = serve({ app("one") })
    code, _, err = ask({ "reload" })
    local first, second = math.min(one.pid, two.pid), math.max(one.pid, two.pid)
    assert.are.equal(2, code)
    assert.is_truthy(err:find(("2 of them are running: choose by --pid (%d, %d)"):format(first, second), 1, true), err)
    assert.are.equal(0, (ask({ "reload", "--pid", tostring(two.pid) })))
    two:kill("sigkill") -- its socket stays behind
    two:wait()
    assert.is_table(uv.fs_lstat(socket_of(two)))
    assert.are.equal(0, (ask({ "reload" })))
    assert.are.equal(1, (ask({ "reload", "--pid", tostring(two.pid) })))
    assert.is_nil((uv.fs_lstat(socket_of(two))))
  end)

  it("refuses what it does not understand with status 2", function()
    for _, args in ipairs({ { "reload", "now" }, { "reload", "--pid", "x" }, { "reload", "--json" },
      { "reload", "--pid", "1", "--admin", "/x" }, { "status", "--admin", "x" }, { "status", "x" } }) do
      assert.are.equal(2, (ask(args)))
    end
  end)
end)

describe("perigee status", function()
  it("tells generation, time, file and hash, workers and calls", function()
    local child, url = serve({ app("one"), "--workers", "2" })
    local pids = program.workers(child)
    local _, out = ask({ "status" })
    local path = (folder .. "/app.lua"):gsub("%-", "%%-")
    assert.is_truthy(out:find("^perigee, pid " .. child.pid .. ", up %d+ s\nlistening on " .. url .. "\n"), out)
    assert.is_truthy(out:find("\n" .. path .. ": generation 1, loaded %d+%-%d+%-%d+ %d+:%d+:%d+, sha256 %x+\n"), out)
    for i, pid in ipairs(pids) do
      local line = ("\nworker %d: serving, pid %d, 0 calls, 0 restarts, heard %%d+ ms ago\n"):format(i, pid)
      assert.is_truthy(out:find(line), out)
    end
  end)

  it("tells the calls that old generations still have", function()
    local child, url = serve({ app("one") })
    local peer = tcp.connect(tonumber(url:match("%d+$")))
    peer:write(http.bytes("GET", "/wait"))
    child:line("waits")
    assert.are.equal(0, (ask({ "reload" })))
    local _, out = ask({ "status" })
    assert.is_truthy(out:find(folder .. "/app.lua: generation 1 still has 1 calls\n", 1, true), out)
    assert.are.equal(1, program.status(child).workers[1].status.old[1].calls)
  end)

  it("answers while a worker is busy, with what it said last", function()
    local child = serve({ write("app.lua", [[
local app = require("perigee").app()
app:get("/", function() require("luv").sleep(1500) end)
app:listen("http://127.0.0.1:0")
return app
]]) })
    local peer = tcp.connect(tonumber(program.urls(child)[1]:match("%d+$")))
    assert.are.equal(0, (ask({ "status" })))
    peer:push(http.bytes("GET", "/"))
    local code, out = ask({ "status" })
    assert.are.equal(0, code)
    assert.is_truthy(out:find("worker 1: serving", 1, true))
  end)
end)
