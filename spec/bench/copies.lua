--- How often perigee copies each byte of a large payload that passes through `perigee.to`, there and back. Counted in
--- the process itself (copies.c), so the machine's load does not matter.

local loop = require("spec.support.loop")
local machine = require("spec.bench.machine")
local process = require("spec.support.process")
local tcp = require("spec.support.tcp")
local uv = require("luv")

local FOLDER = "build/bench/"
local BYTES, REQUESTS, WARM = 1000000, 20, 3

local APP = [[
local perigee = require("perigee")
local app = perigee.app()
app:post("/", perigee.to(perigee.client("tcp://127.0.0.1:" .. os.getenv("SERVICE_PORT")), "p"))
app:listen("http://127.0.0.1:0")
return app
]]

-- Without builtins, or its own memcpy would become a call of itself.
local BUILD = "mkdir -p build/bench && ${CC:-cc} -std=gnu11 -D_GNU_SOURCE -O2 -fno-builtin -fPIC -shared -Wall -Wextra "
  .. "-Wconversion -Wshadow -Werror -o build/bench/copies.so spec/bench/copies.c"

local function write(name, text)
  local file = assert(io.open(FOLDER .. name, "w"))
  file:write(text)
  file:close()
  return FOLDER .. name
end

local function counted(pid, path)
  os.remove(path)
  uv.kill(pid, "sigusr2")
  local n
  loop.wait_until(function()
    uv.sleep(1)
    local file = io.open(path)
    if file then
      n = file:read("*n")
      file:close()
    end
    return n
  end, 5000, "the count")
  return n
end

-- One request with this body, answered by this JSON.
local function pass(client, service, body, answer)
  client:push(("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body))
  local packet = service():read_frame(10000)
  local id = packet:sub(-64):match('"id":"([^"]+)"}$')
  local reply = ('{"response":%s,"isDisposed":true,"id":"%s"}'):format(answer, id)
  service():push(#reply .. "#" .. reply)
  local length
  repeat
    local line = client:read_line(10000)
    length = length or line:match("^Content%-Length: (%d+)")
  until line == ""
  assert(client:read(tonumber(length), 10000) == answer, "another answer")
end

-- No two alike: Lua would know the second again, and not copy it.
local function large(i) return ('"%08d%s"'):format(i, ("x"):rep(BYTES - 10)) end

local copies = {}

--- Copies of each byte by direction: `request`, `reply`, and `total`; `bytes` and `requests` say of what.
function copies.measure()
  local code = os.execute(BUILD)
  assert(code == 0 or code == true, "cannot build copies.so")
  local listener = tcp.listen()
  local file = FOLDER .. "copies.count"
  local env = { "PATH=" .. os.getenv("PATH"), "SERVICE_PORT=" .. listener.port,
    "LD_PRELOAD=" .. uv.cwd() .. "/" .. FOLDER .. "copies.so", "COPIES_FILE=" .. uv.cwd() .. "/" .. file }
  local child = process.start("build/bin/perigee", { "serve", write("copies_app.lua", APP), "--admin", "off" },
    { env = env })
  local port = loop.wait_until(function() return child.stderr:match("listening on %S+:(%d+)\n") end, 20000, function()
    return "a port of " .. child:describe()
  end)
  local worker, client, peer = machine.processes(child.pid)[2], tcp.connect(tonumber(port)), nil
  local function service()
    peer = peer or listener:accept()
    return peer
  end
  local function one() return "1" end
  local function per_byte(body, answer)
    for i = 1, WARM do pass(client, service, body(i), answer(i)) end
    local before = counted(worker, file)
    for i = WARM + 1, WARM + REQUESTS do pass(client, service, body(i), answer(i)) end
    return (counted(worker, file) - before) / BYTES / REQUESTS
  end
  local result = { bytes = BYTES, requests = REQUESTS, request = per_byte(large, one), reply = per_byte(one, large) }
  result.total = result.request + result.reply
  child:stop()
  loop.finish()
  return result
end

function copies.print(r)
  print(("copies of each byte of %d: %.2f on the way there, %.2f on the way back, %.2f in all"):format(r.bytes,
    r.request, r.reply, r.total))
end

return copies
