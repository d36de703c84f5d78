-- One file for every host: luajit, Neovim, perigee run. Prints the same in each, and leaves nothing behind.
local perigee = require("perigee")
io.stdout:setvbuf("no")

local function say(...)
  io.stdout:write(table.concat({ ... }, " "), "\n")
end

local app = perigee.app()
app:message("double", function(n) return n * 2 end)
app:message("count", function() return perigee.of(1, 2, 3) end)
app:message("later", function(ms)
  perigee.sleep(ms):await()
  return "slept"
end)
app:listen("tcp://127.0.0.1:0")
app:start():await()

local client = perigee.client(app:addresses()[1])
say("await", tostring(client:send("double", 21):await()))
say("collect", table.concat(client:send("count", 1):collect():await(), ","))
local both = perigee.all({ client:send("double", 1), client:send("later", 10) }):await()
say("all", tostring(both[1]), both[2])
local ok, err = pcall(function() return client:send("later", 5000):timeout(20):await() end)
say("timeout", tostring(ok), err.code)
for value in coroutine.wrap(function()
  coroutine.yield("first")
  coroutine.yield(client:send("double", 4):await())
end) do
  say("generator", tostring(value))
end
say("async", perigee.async(function() return client:send("double", 5):await() + 1 end):await())
client:close():await()
app:stop():await()
say("end")
