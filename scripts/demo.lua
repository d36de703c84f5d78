-- The main job, shown at once: a billing service and a gateway are started, an order is posted, the invoice comes back.
--
--   perigee run scripts/demo.lua
--     billing service   tcp://127.0.0.1:PORT    scripts/billing.lua
--     gateway           http://127.0.0.1:PORT   scripts/orders.lua
--     POST /orders/charge {"orderId":"ord_42","amount":1999}
--     200 {"amount":1999,"id":"inv_8a1","status":"paid"}
--
-- Both are processes of their own, `perigee serve SCRIPT`, on ports the system chose.

local perigee = require("perigee")
local uv = require("luv")

local HERE = arg[0]:match("^(.*)/") or "."
local children = {}

-- Starts `perigee serve SCRIPT`; the Promise is the URL it listens on.
local function serve(script, env)
  return perigee.promise(function(resolve, reject)
    local stderr, said = uv.new_pipe(false), ""
    local all = { "PATH=" .. (os.getenv("PATH") or "") }
    for name, value in pairs(env) do all[#all + 1] = name .. "=" .. value end
    children[#children + 1] = uv.spawn(uv.exepath(), {
      args = { "serve", HERE .. "/" .. script }, env = all, stdio = { nil, nil, stderr },
    }, function(code) reject(("%s ended with status %d:\n%s"):format(script, code, said)) end)
    uv.read_start(stderr, function(_, text)
      said = said .. (text or "")
      local url = said:match("listening on (%S+)\n")
      if url then resolve(url) end
      if not text then uv.close(stderr) end
    end)
  end)
end

-- One HTTP request over a socket of luv's; the Promise is status and body.
local function post(url, path, body)
  local host, port = url:match("^http://([^:]+):(%d+)")
  return perigee.promise(function(resolve, reject)
    local socket, got = uv.new_tcp(), ""
    uv.tcp_connect(socket, host, tonumber(port), function(err)
      if err then return reject(err) end
      uv.write(socket, ("POST %s HTTP/1.1\r\nHost: %s:%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        .. "Connection: close\r\n\r\n%s"):format(path, host, port, #body, body))
      uv.read_start(socket, function(_, text)
        if text then got = got .. text return end
        uv.close(socket)
        resolve({ status = got:match("^HTTP/1.1 (%d+)") or "no answer", body = got:match("\r\n\r\n(.*)") or "" })
      end)
    end)
  end)
end

local ok, err = pcall(function()
  local billing = serve("billing.lua", { BILLING_PORT = "0" }):timeout(10000):await()
  print("billing service   " .. billing .. "   scripts/billing.lua")
  local port = billing:match(":(%d+)$")
  local gateway = serve("orders.lua", { ORDERS_PORT = "0", BILLING_PORT = port }):timeout(10000):await()
  print("gateway           " .. gateway .. "  scripts/orders.lua")
  local order = '{"orderId":"ord_42","amount":1999}'
  print("POST /orders/charge " .. order)
  local answer = post(gateway, "/orders/charge", order):timeout(10000):await()
  print(answer.status .. " " .. answer.body)
  if answer.status ~= "200" then error("the gateway answered " .. answer.status, 0) end
end)
for _, child in ipairs(children) do uv.process_kill(child, "sigterm") end
if not ok then error(err, 0) end
