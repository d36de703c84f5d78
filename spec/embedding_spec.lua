-- perigee inside hosts that have a loop already: plain luajit with luv, Neovim, and its own program.

local loop = require("spec.support.loop")
local process = require("spec.support.process")

local PERIGEE = os.getenv("PERIGEE") or "build/bin/perigee"
local PRELOAD = os.getenv("PERIGEE_PRELOAD")

local function environment(preload, asan)
  local env = {}
  for _, name in ipairs({ "PATH", "HOME", "LUA_PATH", "LUA_CPATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS" }) do
    if os.getenv(name) and not (asan and name == "ASAN_OPTIONS") then env[#env + 1] = name .. "=" .. os.getenv(name) end
  end
  if preload and PRELOAD then env[#env + 1] = "LD_PRELOAD=" .. PRELOAD end
  if asan then env[#env + 1] = "ASAN_OPTIONS=" .. asan end
  return env
end

local HOSTS = {
  luajit = function(file) return process.start("luajit", { file }, { env = environment(true) }) end,
  nvim = function(file)
    return process.start("nvim", { "--headless", "-u", "NONE", "-i", "NONE", "-c", "luafile " .. file, "-c", "qa!" },
      { env = environment(true, "detect_leaks=0") }) -- Neovim ends without closing its Lua state
  end,
  perigee = function(file) return process.start(PERIGEE, { "run", file }, { env = environment(false) }) end,
}

local function run(host, file)
  local child = HOSTS[host](file)
  local code, signal = child:wait(30000)
  return child, code, signal
end

local function with_script(text, fn)
  local name = os.tmpname()
  local file = assert(io.open(name, "w"))
  file:write(text)
  file:close()
  local ok, err = pcall(fn, name)
  os.remove(name)
  if not ok then error(err, 0) end
end

-- A service and a client in one host; %s is what the script does with them.
local AROUND = [[
io.stdout:setvbuf("no")
local perigee, uv = require("perigee"), require("luv")
local function say(...) -- Neovim's print does not write to stdout
  local all = {}
  for i = 1, select("#", ...) do all[i] = tostring((select(i, ...))) end
  io.stdout:write(table.concat(all, " "), "\n")
end
local app = perigee.app()
app:message("later", function(ms) perigee.sleep(ms):await() return "late" end)
app:message("now", function() return "at once" end)
app:listen("tcp://127.0.0.1:0")
app:start():await()
local url = app:addresses()[1]
%s
]]

describe("a host", function()
  after_each(loop.finish)

  it("runs the same file under luajit, Neovim and the program, and prints the same", function()
    local expected = "await 42\ncollect 1,2,3\nall 2 slept\n"
      .. "timeout false TIMEOUT\ngenerator first\ngenerator 8\nasync 11\nend\n"
    for _, host in ipairs({ "luajit", "nvim", "perigee" }) do
      local child, code, signal = run(host, "spec/support/hosts/same.lua")
      assert.same({ host, expected, "", 0, 0 }, { host, child.stdout, child.stderr, code, signal })
    end
  end)

  local function prints(expected, script, hosts)
    with_script(AROUND:format(script), function(file)
      for _, host in ipairs(hosts or { "luajit", "nvim", "perigee" }) do
        local child, code, signal = run(host, file)
        assert.same({ host, expected, 0, 0 }, { host, child.stdout, code, signal })
      end
    end)
  end

  it("has an empty loop, and not one handle of ours, when all is closed", function()
    prints("false 0\n", [[
      local client = perigee.client(url)
      client:send("now", 1):await()
      client:close():await()
      app:stop():await()
      local left = 0
      uv.walk(function() left = left + 1 end)
      say(uv.loop_alive(), left)
    ]], { "luajit" })
  end)

  it("exits cleanly with everything left open", function()
    prints("at once\n", [[
      local client = perigee.client(url)
      say(client:send("now", 1):await())
      client:send("later", 60000):next(say, function() end)
      perigee.spawn(function() perigee.sleep(60000):await() end)
      if not vim then return end
    ]], { "luajit", "nvim" })
  end)

  it("neither crashes nor loses the calls of a client that is collected", function()
    prints("late late nil\n", [[
      local client = perigee.client(url)
      local seen = setmetatable({ client }, { __mode = "v" })
      local calls = { client:send("later", 30):last(), client:send("later", 60):last() }
      client = nil
      for _ = 1, 5 do collectgarbage() end
      local values = perigee.all(calls):await()
      calls = nil
      for _ = 1, 5 do collectgarbage() end
      say(values[1], values[2], seen[1])
      app:stop():await()
    ]])
  end)

  it("closes the connection of a client that is collected with nothing in flight", function()
    prints("true\n", [[
      local client = perigee.client(url)
      client:send("now", 1):await()
      client = nil
      for _ = 1, 5 do collectgarbage() end
      app:stop():await() -- drains: it would wait for an open connection
      say(not uv.loop_alive() or vim ~= nil or arg ~= nil)
    ]])
  end)

  it("raises UNSUPPORTED for await in a bare callback of luv", function()
    prints("UNSUPPORTED\n", [[
      local client, code = perigee.client(url), nil
      local timer = uv.new_timer()
      timer:start(1, 0, function()
        timer:close()
        code = select(2, pcall(function() client:send("now", 1):await() end)).code
      end)
      perigee.sleep(50):await()
      say(code)
      client:close():await()
      app:stop():await()
    ]])
  end)

  it("lives on when the host forgets its modules, luv's too", function()
    with_script([[
      require("perigee.core")
      package.loaded["perigee.core"], package.loaded.luv = nil, nil
      for _ = 1, 5 do collectgarbage() end
      require("perigee").sleep(1):await()
      print("still here")
    ]], function(name)
      local child, code = run("luajit", name)
      assert.are.same({ 0, "still here\n" }, { code, child.stdout }, child.stderr)
    end)
  end)

  it("lets uv.walk of the host pass over our handles", function()
    prints("true\n", [[
      local n = 0
      uv.walk(function() n = n + 1 end)
      app:stop():await()
      say(n > 0)
    ]], { "luajit", "perigee" })
  end)
end)
