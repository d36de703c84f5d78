--- Reloads of several workers: all of them or none, one answer, whatever happens meanwhile.

local folders = require("spec.support.folder")
local http = require("spec.support.http")
local loop = require("spec.support.loop")
local program = require("spec.support.perigee")
local uv = require("luv")

local run = program.run

local folder, path

before_each(function()
  folder = folders.new()
  path = folder .. "/app.lua"
end)

after_each(function()
  program.clean()
  folders.remove(folder)
  loop.finish()
end)

local function write(name, text)
  local file = assert(io.open(folder .. "/" .. name, "w"))
  file:write(text)
  file:close()
end

-- An app whose "/" answers text; `before` runs when it is loaded.
local function write_app(text, before)
  write("app.lua", ([[
local perigee = require("perigee")
local app = perigee.app()
%s
app:get("/", function() return %q end)
app:listen("http://127.0.0.1:0")
return app
]]):format(before or "", text))
end

local function serve(...)
  local child = program.start({ "serve", path, ... })
  return child, program.urls(child)[1]
end

-- Starts `perigee reload`; its end is waited for by the caller.
local function start_reload(child)
  return program.start({ "reload", "--pid", tostring(child.pid) })
end

local function reload(child) return run({ "reload", "--pid", tostring(child.pid) }) end

-- What each worker answers: asked until every one of them was.
local function answers(url, n)
  local seen = {}
  for _ = 1, n or 12 do
    local body = http.request(url, "GET", "/").body
    seen[body] = (seen[body] or 0) + 1
  end
  return seen
end

local function only(seen)
  local name = next(seen)
  return next(seen, name) == nil and name
end

it("a reload reaches all workers at once, and is logged once", function()
  write_app("one")
  local child, url = serve("--workers", "3")
  program.workers(child)
  write_app("two")
  assert.are.same({ 0, path .. ": generation 1 -> 2\n", "" }, { reload(child) })
  assert.are.equal("two", only(answers(url)))
  assert.are.equal(3, #program.workers(child, 2))
  assert.are.equal(1, select(2, child.stderr:gsub("generation 2 serves", "")))
end)

it("a reload does not wait for a worker that cannot load what is served", function()
  local slow = ([[
local file = io.open(%q)
if file and file:read("*n") ~= require("luv").os_getpid() then
  perigee.sleep(300):await()
  error("not here")
end
]]):format(folder .. "/only")
  write_app("one", slow)
  local child, url = serve("--workers", "2")
  local pids = program.workers(child)
  write("only", tostring(pids[1]))
  uv.kill(pids[2], "sigkill")
  program.poll(function()
    local second = program.status(child).workers[2]
    return second.pid ~= pids[2] and second.state == "starting"
  end, "the second worker's successor")
  write_app("two", slow)
  assert.are.same({ 0, path .. ": generation 1 -> 2\n", "" }, { reload(child) })
  assert.are.equal("two", only(answers(url)))
  os.remove(folder .. "/only")
  assert.are.equal(2, #program.workers(child, 2))
end)

it("a module is read by one worker: all have the same, even while it changes", function()
  write("part.lua", "return 'one'")
  write_app("%s", "local part = require('part')")
  write("app.lua", (io.open(path):read("*a"):gsub('return "%%s"', "return part")))
  local child, url = serve("--workers", "3")
  program.workers(child)
  -- The lead changes the module as soon as it has it; the others are given what the lead has read.
  write("part.lua", ("local file = io.open(%q, 'w') file:write('return 1') file:close() return 'two'"):format(
    folder .. "/part.lua"))
  assert.are.equal(0, (reload(child)))
  assert.are.equal("two", only(answers(url)))
end)

it("what only one worker cannot load is refused for all", function()
  write_app("one")
  local child, url = serve("--workers", "3")
  program.workers(child)
  -- The first two to load find no third file; the last one fails.
  write_app("two", ([[
local uv = require("luv")
local n = 0
for i = 1, 3 do
  n = i
  local fd = uv.fs_open(%q .. i, "wx", 384)
  if fd then
    uv.fs_close(fd)
    break
  end
end
if n == 3 then error("no third time") end
]]):format(folder .. "/load"))
  local code, out, err = reload(child)
  assert.are.same({ 1, "" }, { code, out })
  assert.is_truthy(err:find("^perigee: SCRIPT: .*app%.lua:%d+: no third time\n$"), err)
  assert.are.equal("one", only(answers(url)))
  assert.are.equal(3, #program.workers(child, 1))
  write_app("three")
  assert.are.equal(0, (reload(child)))
  assert.are.equal("three", only(answers(url)))
  assert.are.equal(3, #program.workers(child, 2))
end)

it("a listener that no worker can open is refused, and the number of sockets stays", function()
  write_app("one")
  local child, url = serve("--workers", "2")
  program.workers(child)
  local function sockets()
    local n = 0
    for name in uv.fs_scandir_next, uv.fs_scandir(("/proc/%d/fd"):format(child.pid)) do
      local target = uv.fs_readlink(("/proc/%d/fd/%s"):format(child.pid, name))
      if target and target:find("^socket") then n = n + 1 end
    end
    return n
  end
  local before = sockets()
  local port = url:match("%d+$")
  write_app("two", ('app:listen("tcp://127.0.0.1:0")\napp:listen("tcp://127.0.0.1:%s")'):format(port))
  write("app.lua", (io.open(path):read("*a"):gsub('app:listen%("http://127.0.0.1:0"%)\n', "")))
  local code, _, err = reload(child) -- the port is this program's own, for HTTP
  assert.are.equal(1, code)
  assert.is_truthy(err:find("LISTEN_FAILED", 1, true), err)
  assert.are.equal("one", only(answers(url)))
  program.poll(function() return sockets() == before end, "the sockets to be closed")
end)

it("a listener that is new is told, one that is gone is closed", function()
  write_app("one")
  local child, url = serve("--workers", "2")
  program.workers(child)
  write("app.lua", (io.open(path):read("*a"):gsub("http://127.0.0.1:0", "http://0.0.0.0:0")))
  assert.are.equal(0, (reload(child)))
  local new = program.urls(child, 2)[2]
  assert.are.equal("one", only(answers(new)))
  assert.are.same({ new }, program.status(child).listening)
  program.poll(function()
    local refused, done
    local socket = uv.new_tcp()
    socket:connect("127.0.0.1", tonumber(url:match("%d+$")), function(err)
      refused, done = err == "ECONNREFUSED", true
    end)
    loop.wait_until(function() return done end)
    socket:close()
    return refused
  end, "the old port to be closed")
end)

it("a reload asked for while one runs is another, and both get an answer", function()
  write_app("one", ("require('perigee').sleep(io.open(%q) and 300 or 0):await()"):format(folder .. "/slow"))
  local child, url = serve("--workers", "2")
  program.workers(child)
  write("slow", "")
  local first = start_reload(child)
  program.poll(function()
    for _, worker in ipairs(program.status(child).workers) do
      if worker.state == "reloading" then return true end
    end
  end, "the reload to begin")
  write_app("two")
  local second, third = start_reload(child), start_reload(child)
  child:kill("sighup")
  assert.are.same({ 0, 0, 0 }, { (first:wait()), (second:wait()), (third:wait()) })
  assert.are.equal(path .. ": generation 1 -> 2\n", first.stdout)
  assert.are.equal(path .. ": generation 2 -> 3\n", second.stdout)
  assert.are.equal(second.stdout, third.stdout) -- one reload for all who waited
  assert.are.equal("two", only(answers(url)))
  program.workers(child, 3)
end)

it("a worker that dies while others load does not spoil the reload", function()
  write_app("one")
  local child, url = serve("--workers", "2")
  local before = program.workers(child)
  -- Only the second to load dies, once.
  write_app("two", ([[
local uv = require("luv")
for i = 1, 2 do
  local fd = uv.fs_open(%q .. i, "wx", 384)
  if fd and i == 2 then uv.kill(uv.os_getpid(), "sigkill") end
  if fd then
    uv.fs_close(fd)
    break
  end
end
]]):format(folder .. "/load"))
  assert.are.same({ 0, path .. ": generation 1 -> 2\n", "" }, { reload(child) })
  assert.are.equal("two", only(answers(url)))
  local after = program.workers(child, 2)
  assert.is_true(before[1] ~= after[1] or before[2] ~= after[2])
end)

it("a script that kills the worker that loads it is refused; the others serve on, the dead one comes back", function()
  write_app("one")
  local child, url = serve("--workers", "2")
  program.workers(child)
  write_app("two", 'require("luv").kill(require("luv").os_getpid(), "sigkill")')
  local code, _, err = reload(child)
  assert.are.equal(1, code)
  assert.is_truthy(err:find("^perigee: CONNECTION_CLOSED: worker %d %(pid %d+%) died while it loaded\n$"), err)
  assert.are.equal("one", only(answers(url)))
  program.workers(child, 1)
end)

it("reloads during kills: all workers end on one generation", function()
  write_app("0")
  local child, url = serve("--workers", "2")
  local pids = program.workers(child)
  for i = 1, 12 do
    write_app(tostring(i))
    local asked = start_reload(child)
    uv.kill(pids[i % 2 + 1], "sigkill")
    asked:wait()
    loop.run_for(20 * (i % 5))
    for k, worker in ipairs(program.status(child).workers) do
      if type(worker.pid) == "number" then pids[k] = worker.pid end
    end
  end
  assert.are.equal(0, (reload(child)))
  local generation = program.status(child).generation
  program.workers(child, generation)
  assert.are.equal("12", only(answers(url)))
end)
