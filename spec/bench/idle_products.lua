--- perigee and others as they are started by hand, with next to nothing to do: one HTTP route.

local uv = require("luv")

local FOLDER = "build/bench/"

local NGINX = [[
daemon off;
worker_processes 1;
worker_rlimit_nofile 19000;
pid %s.idle.pid;
error_log stderr crit;
events { worker_connections 18000; }
http {
  access_log off;
  keepalive_timeout 600s;
  client_header_timeout 600s;
  client_body_temp_path %s.body;
  proxy_temp_path %s.proxy;
  fastcgi_temp_path %s.fastcgi;
  uwsgi_temp_path %s.uwsgi;
  scgi_temp_path %s.scgi;
  server { listen 127.0.0.1:%d; location / { return 200 "ok"; } }
}
]]

local HAPROXY = [[
global
  nbthread 1
  no strict-limits
  maxconn 10500
  lua-load %s
defaults
  mode http
  timeout connect 2s
  timeout client 600s
  timeout server 600s
frontend in
  bind 127.0.0.1:%d
  http-request lua.look
  http-request return status 200 content-type text/plain string ok
]]

local LOOK = [[core.register_action("look", { "http-req" }, function(txn) txn.sf:path() end)]]

local function write(name, text)
  local file = assert(io.open(FOLDER .. name, "w"))
  file:write(text)
  file:close()
  return uv.cwd() .. "/" .. FOLDER .. name
end

local products = {}

--- Compiles a program of spec/bench.
---@param name string
---@return string path
function products.build(name)
  local path = FOLDER .. name
  assert(os.execute(("mkdir -p %s && ${CC:-cc} -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Wconversion -Wshadow " ..
    "-Werror -o %s spec/bench/%s.c"):format(FOLDER, path, name)) == 0, name)
  return path
end

---@class bench.Product
---@field name string
---@field line string[] the program and its arguments
---@field env? string[]

---@param http_port integer
---@param tcp_port? integer of a second listener, for Nest's clients
---@return bench.Product
function products.perigee(http_port, tcp_port)
  return {
    name = "perigee", line = { "build/bin/perigee", "serve", "spec/bench/idle_app.lua" },
    env = { "HTTP_PORT=" .. http_port, tcp_port and "TCP_PORT=" .. tcp_port },
  }
end

---@return bench.Product
function products.nginx(port)
  local at = uv.cwd() .. "/" .. FOLDER .. "nginx"
  local config = write("nginx-idle.conf", NGINX:format(at, at, at, at, at, at, port))
  return { name = "nginx", line = { "nginx", "-p", uv.cwd(), "-c", config } }
end

---@return bench.Product
function products.haproxy(port)
  local config = write("haproxy-idle.cfg", HAPROXY:format(write("haproxy-idle.lua", LOOK), port))
  return { name = "HAProxy+Lua", line = { "haproxy", "-db", "-f", config } }
end

--- Nest's gateway, which never asks the service behind it.
---@return bench.Product
function products.nest(port)
  local given = ('{"port":%d,"service":{"port":1}}'):format(port)
  return {
    name = "Nest 12",
    line = { "build/peers/node", "--preserve-symlinks", "--preserve-symlinks-main", "build/peers/gateway.js", given },
    env = { "NODE_ENV=production" },
  }
end

return products
