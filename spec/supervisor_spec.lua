--- `perigee serve` as a supervisor and its workers, seen from outside: births, deaths, shared sockets, the end.

local http = require("spec.support.http")
local loop = require("spec.support.loop")
local process = require("spec.support.process")
local program = require("spec.support.perigee")
local tcp = require("spec.support.tcp")
local uv = require("luv")

local run, script = program.run, program.script

-- Tells the worker that answers; "/hang" never ends, "/exit" ends the worker.
local APP = [[
local perigee = require("perigee")
local uv = require("luv")
local app = perigee.app()
app:get("/", function() return tostring(uv.os_getpid()) end)
app:get("/hang", function()
  print("hangs")
  io.stdout:flush()
  perigee.sleep(60000):await()
end)
app:get("/spin", function() uv.sleep(20000) end)
app:get("/exit", function() uv.kill(uv.os_getpid(), "sigkill") end)
]]

local function app(more) return script(APP .. (more or "") .. 'app:listen("http://127.0.0.1:0")\nreturn app\n') end

local function serve(args, env)
  local child = program.start({ "serve", unpack(args) }, env)
  return child, program.urls(child)[1]
end

local function get(url, path) return http.request(url, "GET", path or "/").body end

-- "S", "R", ...; nil: it is gone.
local function state_of(pid)
  local file = io.open(("/proc/%d/stat"):format(pid))
  local text = file and file:read("*a")
  if file then file:close() end
  return text and text:match("%) (%a)")
end

-- An orphan is a zombie until its new parent looks.
local function is_alive(pid)
  local state = state_of(pid)
  return state ~= nil and state ~= "Z" and state ~= "X"
end

-- Processes whose parent is pid, zombies included.
local function children_of(pid)
  local file = assert(io.open(("/proc/%d/task/%d/children"):format(pid, pid)))
  local list = {}
  for child in file:read("*a"):gmatch("%d+") do list[#list + 1] = tonumber(child) end
  file:close()
  return list
end

local function wait_for(child, text)
  return loop.wait_until(function() return child.stderr:find(text) end, 10000, function()
    return ("%q from %s"):format(text, child:describe())
  end)
end

after_each(function()
  program.clean()
  loop.finish()
end)

describe("workers", function()
  it("share one listener, and its port is told once", function()
    local child, url = serve({ app(), "--workers", "3" })
    local pids = program.workers(child)
    assert.are.equal(3, #pids)
    local seen = {}
    program.poll(function() -- whoever wakes first takes a connection
      seen[get(url)] = true
      return seen[tostring(pids[1])] and seen[tostring(pids[2])] and seen[tostring(pids[3])]
    end, "an answer of each")
    assert.are.equal("perigee: listening on " .. url .. "\n", child.stderr)
  end)

  it("have about as many connections each, though whoever wakes first could take them all", function()
    local child, url = serve({ app(), "--workers", "2" })
    local pids = program.workers(child)
    local port, peers, count = tonumber(url:match("%d+$")), {}, { [pids[1]] = 0, [pids[2]] = 0 }
    for i = 1, 40 do
      peers[i] = tcp.connect(port)
      peers[i]:write(http.bytes("GET", "/"))
    end
    for _, peer in ipairs(peers) do
      local pid = tonumber(http.read(peer).body)
      count[pid] = count[pid] + 1
    end
    local one, other = count[pids[1]], count[pids[2]]
    assert.is_true(math.abs(one - other) <= 20, ("%d and %d"):format(one, other))
  end)

  it("are one by default, and a child of the supervisor", function()
    local child, url = serve({ app() })
    local pids = program.workers(child)
    assert.are.same({ get(url) }, { tostring(pids[1]) })
    assert.are.same(pids, children_of(child.pid))
  end)

  it("are as many as cores with auto", function()
    local child = serve({ app(), "--workers", "auto" })
    assert.are.equal(uv.available_parallelism(), #program.workers(child))
  end)

  it("cannot be 0, 257 or some word: status 2", function()
    for _, count in ipairs({ "0", "257", "many", "-1", "1.5" }) do
      local code, _, err = run({ "serve", app(), "--workers=" .. count })
      assert.are.equal(2, code)
      assert.are.equal(("perigee: INVALID_OPTION: --workers takes a number from 1 to 256, or auto, not '%s'\n"
        .. "see 'perigee help serve'\n"):format(count), err)
    end
  end)

  it("have a unix socket together, whose file outlives a worker and not the program", function()
    local path = os.tmpname()
    os.remove(path)
    local child = program.start({ "serve", script(APP .. 'app:message("pid", function() return uv.os_getpid() end)\n'
      .. ('app:listen("unix:%s")\nreturn app\n'):format(path)), "--workers", "2" })
    program.urls(child)
    local first = program.workers(child)
    for _, pid in ipairs(first) do uv.kill(pid, "sigkill") end
    program.poll(function() return not is_alive(first[1]) and not is_alive(first[2]) end, "their end")
    assert.is_table(uv.fs_stat(path))
    assert.are.equal(0, (run({ "send", "unix:" .. path, "pid" })))
    child:kill()
    assert.are.equal(0, child:wait())
    assert.is_nil((uv.fs_stat(path)))
  end)

  it("leave INT, TERM and HUP to the supervisor", function()
    local child, url = serve({ app() })
    local pid = program.workers(child)[1]
    for _, signal in ipairs({ "sigint", "sigterm", "sighup" }) do uv.kill(pid, signal) end
    assert.are.equal(tostring(pid), get(url))
    assert.are.same({ pid }, program.workers(child, 1))
  end)

  it("do not hand their signals, channel and mark on to programs that scripts start", function()
    local child, url = serve({ app([[
app:get("/child", function()
  local pipe = io.popen("grep SigIgn /proc/self/status; ls -l /proc/self/fd; env | grep PERIGEE_WORKER")
  local text = pipe:read("*a")
  pipe:close()
  return text
end)
]]) })
    local text = get(url, "/child")
    local ignored = tonumber(text:match("SigIgn:%s*(%x+)"):sub(-4), 16)
    assert.are.equal(0, ignored % 2 + math.floor(ignored / 2) % 2 + math.floor(ignored / 2 ^ 14) % 2, text)
    assert.is_nil(text:find("PERIGEE_WORKER", 1, true))
    for fd in text:gmatch("(%d+) %-> socket") do assert.is_true(tonumber(fd) <= 2, text) end
    assert.is_table(child)
  end)
end)

describe("a worker that dies", function()
  it("is replaced by one that has the same port and generation", function()
    local child, url = serve({ app() })
    local pid = program.workers(child)[1]
    uv.kill(pid, "sigkill")
    wait_for(child, "error: worker 1 %(pid " .. pid .. "%) was ended by signal 9 %(Killed%)\n")
    local answer = get(url) -- waits in the backlog meanwhile
    assert.are_not.equal(tostring(pid), answer)
    assert.are.same({ tonumber(answer) }, program.workers(child, 1))
    assert.are.equal(1, program.status(child).workers[1].restarts)
    assert.are.same({ tonumber(answer) }, children_of(child.pid))
  end)

  it("is replaced from what was committed, though the files are gone or wrong", function()
    local path = app()
    local child, url = serve({ path })
    local pid = program.workers(child)[1]
    local file = assert(io.open(path, "w"))
    file:write("this is = = not Lua")
    file:close()
    uv.kill(pid, "sigkill")
    assert.are_not.equal(tostring(pid), get(url))
    pid = program.workers(child, 1)[1]
    os.remove(path)
    uv.kill(pid, "sigkill")
    assert.are_not.equal(tostring(pid), get(url))
  end)

  it("waits longer and longer when it dies young", function()
    local path = os.tmpname() -- there: the script dies while it loads
    local child = serve({ script(([[
local file = io.open(%q)
local line = file and file:read("*a") or ""
if line ~= "" then require("luv").kill(require("luv").os_getpid(), "sigkill") end
]]):format(path) .. APP .. 'app:listen("http://127.0.0.1:0")\nreturn app\n') })
    local pid = program.workers(child)[1]
    local file = assert(io.open(path, "w"))
    file:write("die")
    file:close()
    local started = uv.hrtime()
    uv.kill(pid, "sigkill")
    loop.wait_until(function() return select(2, child.stderr:gsub("was ended by signal 9", "")) >= 4 end, 10000)
    -- After the one that has served 100 ms, after those that have not 200 and 400.
    assert.is_true((uv.hrtime() - started) / 1e6 >= 700)
    os.remove(path)
    program.workers(child, 1)
  end)

  it("takes along only the connections it had accepted: under load, one of two killed again and again", function()
    local child, url = serve({ app(), "--workers", "2" })
    local port = tonumber(url:match("%d+$"))
    program.workers(child)
    local counts = { good = 0, cut = 0, refused = 0 }
    local ended, open = false, 0
    local function knock()
      if ended then return end
      local socket, text = uv.new_tcp(), ""
      open = open + 1
      local function over(what)
        counts[what] = counts[what] + 1
        open = open - 1
        socket:close()
        knock()
      end
      socket:connect("127.0.0.1", port, function(err)
        if err then return over(err == "ECONNREFUSED" and "refused" or "cut") end
        socket:write(http.bytes("GET", "/", nil, { connection = "close" }))
        socket:read_start(function(failure, data)
          if data then
            text = text .. data
          else
            over(not failure and text:find("200 OK", 1, true) and "good" or "cut")
          end
        end)
      end)
    end
    for _ = 1, 8 do knock() end
    local kills = 0
    for i = 1, 12 do
      loop.run_for(250)
      local list = children_of(child.pid)
      local pid = list[i % #list + 1]
      if pid then
        uv.kill(pid, "sigkill")
        kills = kills + 1
      end
    end
    ended = true
    loop.wait_until(function() return open == 0 end)
    assert.are.equal(0, counts.refused)
    assert.is_true(counts.cut <= kills * 8, ("%d connections cut by %d kills"):format(counts.cut, kills))
    assert.is_true(counts.good > 200, counts.good .. " good")
    program.workers(child, 1)
    assert.are.equal(2, #children_of(child.pid))
  end)
end)

describe("a worker that is silent", function()
  it("is killed and replaced", function()
    local child = serve({ app(), "--workers", "2" })
    local pids = program.workers(child)
    uv.kill(pids[1], "sigstop") -- one that only loops ends by itself: budget_spec
    wait_for(child, "error: worker %d %(pid %d+%) is killed: it has been silent for 3%d%d%d ms\n")
    local now = program.workers(child, 1)
    assert.is_true(now[1] ~= pids[1] or now[2] ~= pids[2])
    assert.is_true(now[1] == pids[1] or now[2] == pids[2])
  end)
end)

describe("the end", function()
  it("of a supervisor killed with -9 is the end of its workers", function()
    local child = serve({ app(), "--workers", "2" })
    local pids = program.workers(child)
    child:kill("sigkill")
    child:wait()
    program.poll(function() return not is_alive(pids[1]) and not is_alive(pids[2]) end, "their end")
  end)

  it("comes to all workers by one TERM, each of which drains", function()
    local child, url = serve({ app(), "--workers", "2", "--drain-timeout", "300" })
    local pids = program.workers(child)
    local peer = tcp.connect(tonumber(url:match("%d+$")))
    peer:write(http.bytes("GET", "/hang"))
    child:line("hangs")
    child:kill("sigterm")
    assert.are.equal(0, child:wait())
    assert.is_false(is_alive(pids[1]) or is_alive(pids[2]))
    assert.is_truthy(child.stderr:find("info: draining\n"))
    assert.is_truthy(child.stderr:find("drain timeout of 300 ms", 1, true))
  end)

  it("comes at once by a second TERM, also to a worker that is stopped", function()
    local child = serve({ app() })
    local pid = program.workers(child)[1]
    uv.kill(pid, "sigstop")
    child:kill("sigterm")
    wait_for(child, "draining")
    child:kill("sigterm")
    assert.are.equal(1, child:wait())
    assert.is_false(is_alive(pid))
  end)

  it("of a start that fails tells what is wrong once, whatever --workers says", function()
    local path = script("local x = nil\nreturn x.y\n")
    local code, out, err = run({ "serve", path, "--workers", "4" })
    assert.are.same({ 78, "", ("perigee: SCRIPT: %s:2: attempt to index local 'x' (a nil value)\n"):format(path) },
      { code, out, err })
    assert.are.equal(2, (run({ "serve", app(), "--workers", "4", "--nonsense" })))
    code, out, err = run({ "serve", script('require("luv").kill(require("luv").os_getpid(), "sigkill")') })
    assert.are.same({ 1, "" }, { code, out })
    assert.is_truthy(err:find("^perigee: error: worker 1 %(pid %d+%) was ended by signal 9 %(Killed%)\n$"), err)
  end)

  it("comes while a script still loads", function()
    local child = program.start({ "serve", script(
      'print("loads")\nio.stdout:flush()\nrequire("perigee").sleep(60000):await()\n') })
    child:line("loads")
    child:kill("sigterm")
    assert.are.equal(0, child:wait())
  end)
end)

describe("a mark of a worker without its supervisor", function()
  it("ends the process", function()
    local child = process.start(os.getenv("PERIGEE") or "build/bin/perigee", { "version" },
      { env = { "PERIGEE_WORKER=1" } })
    assert.are.equal(1, child:wait())
  end)
end)
