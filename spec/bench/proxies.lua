--- HAProxy with a Lua action and nginx, as HTTP proxies before an HTTP server that answers with what it gets: what
--- people put where perigee stands. Each is one process with one thread.

local machine = require("spec.bench.machine")
local uv = require("luv")

local FOLDER = "build/bench/"

local HAPROXY = [[
global
  nbthread 1
  lua-load %s
defaults
  mode http
  timeout connect 2s
  timeout client 30s
  timeout server 30s
frontend in
  bind 127.0.0.1:%d
  http-request wait-for-body time 5s
  http-request lua.route
  use_backend %%[var(txn.to)]
backend billing
  http-reuse always
  server one 127.0.0.1:%d
]]

-- The least a routing script does: it looks at the request and says where it goes.
local ACTION = [[
core.register_action("route", { "http-req" }, function(txn)
  if txn.sf:path() == "/orders/charge" and txn.sf:req_body() ~= "" then txn:set_var("txn.to", "billing") end
end)
]]

local NGINX = [[
daemon off;
master_process off;
worker_processes 1;
pid %s.pid;
error_log stderr error;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path %s.body;
  proxy_temp_path %s.proxy;
  fastcgi_temp_path %s.fastcgi;
  uwsgi_temp_path %s.uwsgi;
  scgi_temp_path %s.scgi;
  keepalive_requests 1000000000;
  upstream billing { server 127.0.0.1:%d; keepalive 128; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:%d;
    location / { proxy_pass http://billing; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
]]

local function free_port()
  local socket = uv.new_tcp()
  assert(socket:bind("127.0.0.1", 0))
  local port = socket:getsockname().port
  socket:close()
  uv.run("nowait")
  return port
end

local function write(name, text)
  local file = assert(io.open(FOLDER .. name, "w"))
  file:write(text)
  file:close()
  return FOLDER .. name
end

local proxies = {}

---@param echo_port integer of the HTTP server behind
function proxies.haproxy(echo_port)
  local port = free_port()
  local config = HAPROXY:format(write("haproxy.lua", ACTION), port, echo_port)
  local child = machine.start("measured", "haproxy", { "-db", "-f", write("haproxy.cfg", config) })
  child.port = port
  return child
end

---@param echo_port integer
function proxies.nginx(echo_port)
  local port = free_port()
  local at = uv.cwd() .. "/" .. FOLDER .. "nginx"
  local config = NGINX:format(at, at, at, at, at, at, echo_port, port)
  local path = uv.cwd() .. "/" .. write("nginx.conf", config)
  local child = machine.start("measured", "nginx", { "-p", uv.cwd(), "-c", path })
  child.port = port
  return child
end

return proxies
