--- The admin door of a running `perigee serve`: where it is, and how to ask it something.

local arguments = require("perigee.cli.arguments")
local combinators = require("perigee.combinators")
local core = require("perigee.core")
local errors = require("perigee.errors")
local scheduler = require("perigee.scheduler")
local url_of = require("perigee.url")
local uv = require("luv")

local door = {}

local ASK_MS = 60000 -- a reload waits for the one before it, and for its start hooks
local MAX_ANSWER = 64 * 1024 * 1024
local MAX_PATH = 107 -- of a unix socket

--- Addresses ----------------------------------------------------------------------------------------------------

local function parse_unix(path, text)
  if path == "" or #path > MAX_PATH or path:find("[%z\1-\31]") then
    arguments.usage("--admin: '%s' is no path of a unix socket (1 to %d bytes)", text, MAX_PATH)
  end
  return "unix " .. path
end

--- "off", "unix PATH" or "tcp HOST PORT"; raises what is a mistake of the command line.
---@param text string "off", "unix:PATH", "/PATH" or "http://HOST:PORT"
---@return string
function door.parse(text)
  if text == "off" then return text end
  if text:find("^/") then return parse_unix(text, text) end
  local url = url_of.parse(text)
  if url and url.scheme == "unix" then return parse_unix(url.opaque or url.path, text) end
  local is_plain = url and url.scheme == "http" and url.host and url.port and (url.path == "" or url.path == "/")
  if not is_plain or tonumber(url.port) > 65535 then
    arguments.usage("--admin takes unix:PATH, a path that starts with '/', http://HOST:PORT or off, not '%s'", text)
  end
  return ("tcp %s %s"):format(url.host, url.port)
end

-- Where the supervisor puts its socket (core/supervisor/admin_address.c): its environment may have been another.
local function folders()
  local list, seen = {}, {}
  local uid, own = uv.getuid(), os.getenv("PERIGEE_RUNTIME_DIR")
  if own and own ~= "" then return { ("%s/perigee-%d"):format(own, uid) } end
  for _, base in ipairs({ os.getenv("XDG_RUNTIME_DIR") or "", "/run/user/" .. uid, "/tmp" }) do
    local folder = ("%s/perigee-%d"):format(base, uid)
    if base ~= "" and not seen[folder] then
      seen[folder] = true
      list[#list + 1] = folder
    end
  end
  return list
end

--- Connecting ---------------------------------------------------------------------------------------------------

-- Ends with fn's callback: fn(done) calls done(err, result) once.
local function wait(fn)
  local outcome = scheduler.await(function(resume)
    fn(function(err, result)
      scheduler.enter()
      resume(true, { err = err, result = result })
      scheduler.leave()
    end)
  end)
  return outcome.err, outcome.result
end

local function close(handle)
  wait(function(done) handle:close(done) end)
end

local function connect_tcp(host, port)
  local err, found = wait(function(done) uv.getaddrinfo(host, nil, { socktype = "stream" }, done) end)
  if err then return nil, err end
  local socket = uv.new_tcp()
  err = wait(function(done) socket:connect(found[1].addr, port, done) end)
  return socket, err
end

-- A handle, or nil and why there is none.
local function connect(address)
  local host, port = address:match("^tcp (%S+) (%d+)$")
  local handle, err
  if host then
    handle, err = connect_tcp(host, tonumber(port))
  else
    handle = uv.new_pipe(false)
    err = wait(function(done) handle:connect(address:match("^unix (.*)$"), done) end)
  end
  if not err then return handle end
  if handle then close(handle) end
  return nil, err
end

--- Finding ------------------------------------------------------------------------------------------------------

-- Whoever was killed has left a socket behind that nobody listens on.
local function is_alive(path)
  local handle, err = connect("unix " .. path)
  if handle then close(handle) end
  if err == "ECONNREFUSED" then os.remove(path) end
  return handle ~= nil
end

-- The sockets of all that run, by process id.
local function running()
  local found = {}
  for _, folder in ipairs(folders()) do
    local scan = uv.fs_scandir(folder)
    local name = scan and uv.fs_scandir_next(scan)
    while name do
      local pid, path = tonumber(name:match("^(%d+)%.sock$")), folder .. "/" .. name
      if pid and is_alive(path) then found[#found + 1] = { pid = pid, path = path } end
      name = uv.fs_scandir_next(scan)
    end
  end
  table.sort(found, function(a, b) return a.pid < b.pid end)
  return found
end

local function of_pid(text)
  local pid = text:find("^%d+$") and tonumber(text)
  if not pid then arguments.usage("--pid takes a process id, not '%s'", text) end
  for _, one in ipairs(running()) do
    if one.pid == pid then return "unix " .. one.path end
  end
  error(errors.make("CONNECT_FAILED", ("no `perigee serve` of this user has the process id %d"):format(pid)), 0)
end

--- The address of the one that is meant.
---@param flags { admin?: string, pid?: string }
---@return string as door.parse
function door.find(flags)
  if flags.admin and flags.pid then arguments.usage("--admin and --pid are two names of one thing: give one") end
  if flags.admin then return door.parse(flags.admin) end
  if flags.pid then return of_pid(flags.pid) end
  local all = running()
  if #all == 1 then return "unix " .. all[1].path end
  if #all == 0 then
    error(errors.make("CONNECT_FAILED", "no `perigee serve` of this user is running, or its admin door is elsewhere:"
      .. " --admin names it"), 0)
  end
  local pids = {}
  for i, one in ipairs(all) do pids[i] = tostring(one.pid) end
  arguments.usage("%d of them are running: choose by --pid (%s)", #all, table.concat(pids, ", "))
end

--- Asking -------------------------------------------------------------------------------------------------------

-- All that comes until the other side closes.
local function read_all(handle)
  local parts, size = {}, 0
  local err = wait(function(done)
    handle:read_start(function(err, data)
      if not data then return done(err) end
      parts[#parts + 1], size = data, size + #data
      if size > MAX_ANSWER then done("its answer is too long") end
    end)
  end)
  return err, table.concat(parts)
end

local function exchange(address, method, path)
  local handle, err = connect(address)
  local text
  if handle then
    handle:write(("%s %s HTTP/1.1\r\nHost: perigee\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"):format(method,
      path))
    err, text = read_all(handle)
    close(handle)
  end
  local status, body = (text or ""):match("^HTTP/1%.1 (%d%d%d).-\r\n\r\n(.*)$")
  if status then return { status = tonumber(status), body = body } end
  error(errors.make("CONNECT_FAILED", ("the admin door at %s: %s"):format(address:gsub(" ", ":", 1),
    err or "it closed without an answer")), 0)
end

--- Asks; raises what went wrong, or what an answer says that is not 200. In a coroutine.
---@param address string as find gives it
---@param method "GET"|"POST"
---@param path string
---@return table value of the JSON that came
---@return string text of it
function door.ask(address, method, path)
  local answer = combinators.async(exchange, address, method, path):timeout(ASK_MS):await()
  local value = core.json_decode(answer.body)
  if type(value) ~= "table" then value = {} end
  if answer.status == 200 then return value, answer.body end
  error({ exit = 1, cause = value.detail or value.title or ("it answered %d"):format(answer.status) }, 0)
end

return door
