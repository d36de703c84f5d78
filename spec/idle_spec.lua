-- What `perigee serve` holds when nothing happens, by itself and for each connection.

local loop = require("spec.support.loop")
local perigee = require("spec.support.perigee")
local uv = require("luv")

local COUNT = 1000
local FIRST, TIMES = 50, 300 -- until the collector of Lua has been through
local SANITIZED = os.getenv("PERIGEE_ASAN") and 30 or 1 -- times as much, for what sanitizers keep beside

local SCRIPT = [[
local perigee = require("perigee")
local app = perigee.app()
local big = ("x"):rep(50000)
app:get("/", function(req) return req.query.big and big or "ok" end)
app:post("/", function(req) return #req:body() end)
app:message("size", function(data) return #data end)
app:message("small", function(data) return data end)
app:message("big", function() return big end)
app:listen("http://127.0.0.1:0")
app:listen("tcp://127.0.0.1:0")
return app
]]

local TEXT = ("x"):rep(50000)
local SENT = ('{"pattern":"size","data":"%s","id":"12"}'):format(TEXT)

local REQUESTS = {
  http = { small = "GET / HTTP/1.1\r\nhost: x\r\n\r\n", big = "GET /?big=1 HTTP/1.1\r\nhost: x\r\n\r\n" },
  tcp = {
    small = '44#{"pattern":"small","data":"hello","id":"12"}', big = '42#{"pattern":"big","data":"hello","id":"12"}',
  },
}
REQUESTS.http.sent = ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s"):format(#TEXT, TEXT)
REQUESTS.tcp.sent = #SENT .. "#" .. SENT
local LIBRARIES = { "/libssl.so.3", "/libssl.so.1.1" }
local SIZES = { small = 20, sent = 20, big = 50000 } -- of the answers, at least

local child, ports, clients

before_each(function()
  clients = {}
  child = perigee.start({ "serve", perigee.script(SCRIPT), "--admin", "off" })
  local urls = perigee.urls(child, 2)
  ports = { http = tonumber(urls[1]:match("(%d+)$")), tcp = tonumber(urls[2]:match("(%d+)$")) }
end)

after_each(function()
  for _, client in ipairs(clients) do loop.close(client) end
  perigee.clean()
  loop.finish()
end)

local function field(pid, name)
  local file = assert(io.open(("/proc/%d/status"):format(pid)))
  local text = file:read("*a")
  file:close()
  return tonumber(text:match(name .. ":%s*(%d+) kB")) * 1024
end

local function worker_of(supervisor)
  local file = assert(io.open(("/proc/%d/task/%d/children"):format(supervisor.pid, supervisor.pid)))
  local pid = tonumber(file:read("*a"):match("%d+"))
  file:close()
  return pid
end

-- Opens a connection; when it is open, or has been answered so many times, done is called.
local function open(port, request, size, times, done)
  local client, got, asked = loop.own(uv.new_tcp()), 0, 0
  clients[#clients + 1] = client
  local function ask()
    if not request or asked == times then return done() end
    got, asked = 0, asked + 1
    client:write(request)
  end
  client:connect("127.0.0.1", port, function(err)
    assert(not err, err)
    client:read_start(function(_, data)
      local before = got
      got = got + #(data or "")
      if before < size and got >= size then ask() end
    end)
    ask()
  end)
end

-- So many, one after the other: each has been answered when the next one comes.
local function open_all(count, port, request, size, times)
  local opened = 0
  local function next_one()
    opened = opened + 1
    if opened < count then open(port, request, size, times, next_one) end
  end
  open(port, request, size, times, next_one)
  loop.wait_until(function() return opened == count end, 30000, "connections")
end

-- Of the process's own memory. What is made once, and the garbage of Lua, is there before.
local function bytes_each(wire, kind)
  local request, size = REQUESTS[wire][kind], SIZES[kind]
  local pid = worker_of(child)
  open_all(FIRST, ports[wire], request, size, TIMES)
  loop.run_for(2200)
  local before = field(pid, "RssAnon")
  open_all(COUNT, ports[wire], request, size, 1)
  loop.run_for(2200)
  return (field(pid, "RssAnon") - before) / COUNT
end

describe("an idle connection", function()
  for _, case in ipairs({
    { "http", nil, 2048, "just opened" }, { "http", "small", 4096, "after a request" },
    { "tcp", nil, 2048, "just opened" }, { "tcp", "small", 4096, "after a message" },
    { "http", "sent", 12288, "after a body of 50 kB" }, { "tcp", "sent", 12288, "after a message of 50 kB" },
    { "http", "big", 12288, "after an answer of 50 kB" }, { "tcp", "big", 12288, "after an answer of 50 kB" },
  }) do
    local wire, kind, limit, when = unpack(case)
    it(("of %s holds %d bytes at most, %s"):format(wire, limit, when), function()
      local bytes = bytes_each(wire, kind)
      assert.is_true(bytes <= limit * SANITIZED, bytes .. " bytes")
    end)
  end
end)

describe("an idle program", function()
  it("holds little of its own, its supervisor less", function()
    assert.is_true(field(child.pid, "RssAnon") <= 512 * 1024 * SANITIZED)
    assert.is_true(field(worker_of(child), "RssAnon") <= 3 * 1024 * 1024 * SANITIZED)
  end)

  it("has not loaded OpenSSL", function()
    for _, pid in ipairs({ child.pid, worker_of(child) }) do
      for line in io.lines(("/proc/%d/maps"):format(pid)) do
        assert.is_nil(line:find("/libssl") or line:find("/libcrypto"), line)
      end
    end
  end)

  it("tells that OpenSSL is missing when it is needed", function()
    local folder = os.tmpname()
    os.remove(folder)
    assert(uv.fs_mkdir(folder, 448))
    for _, name in ipairs(LIBRARIES) do assert(io.open(folder .. name, "w")):close() end
    local code, _, err = perigee.run({ "send", "tls://127.0.0.1:1", "x" }, { env = { LD_LIBRARY_PATH = folder } })
    assert.equal(2, code)
    assert.is_truthy(err:find("INVALID_OPTION: tls: OpenSSL cannot be loaded: ", 1, true), err)
    for _, name in ipairs(LIBRARIES) do os.remove(folder .. name) end
    uv.fs_rmdir(folder)
  end)
end)
