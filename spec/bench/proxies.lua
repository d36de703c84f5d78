--- HAProxy with a Lua action and nginx, as HTTP proxies before an HTTP server that answers with what it gets: what
--- people put where perigee stands. Each is one process with one thread.

local machine = require("spec.bench.machine")
local uv = require("luv")
local tcp = require("spec.support.tcp")

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
  server one 127.0.0.1:%s
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
events { worker_connections %d; }
http {
  access_log off;
  client_body_temp_path %s.body;
  proxy_temp_path %s.proxy;
  fastcgi_temp_path %s.fastcgi;
  uwsgi_temp_path %s.uwsgi;
  scgi_temp_path %s.scgi;
  keepalive_requests 1000000000;
  # What is large stays in memory, as it does in the others.
  client_max_body_size 2m;
  client_body_buffer_size 2m;
  proxy_buffers 64 32k;
  proxy_max_temp_file_size 0;
  upstream billing { server 127.0.0.1:%s; keepalive %d; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:%d backlog=4096;
    location / { proxy_pass http://billing; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
]]

local function write(name, text)
  local file = assert(io.open(FOLDER .. name, "w"))
  file:write(text)
  file:close()
  return FOLDER .. name
end

local proxies = {}

---@param echo_port string of the HTTP server behind
function proxies.haproxy(echo_port)
  local port = tcp.free_port()
  local config = HAPROXY:format(write("haproxy.lua", ACTION), port, echo_port)
  local child = machine.start("measured", "haproxy", { "-db", "-f", write("haproxy.cfg", config) })
  child.port = port
  return child
end

---@param echo_port string
---@param connections integer each may have one to the server behind as well
function proxies.nginx(echo_port, connections)
  local port = tcp.free_port()
  local at = uv.cwd() .. "/" .. FOLDER .. "nginx"
  local at_least = math.max(connections, 128)
  -- It closes idle connections when a sixteenth of what it may have is left.
  local config = NGINX:format(at, at_least * 4, at, at, at, at, at, echo_port, at_least, port)
  local path = uv.cwd() .. "/" .. write("nginx.conf", config)
  local child = machine.start("measured", "nginx", { "-p", uv.cwd(), "-c", path })
  child.port = port
  return child
end

return proxies
