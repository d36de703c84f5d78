--- Certificates for specs, made once by openssl: a CA, a server for localhost, a client, a stranger with its own CA.

local certs = {}

local made

local function run(command)
  local code = os.execute(command .. " >/dev/null 2>&1")
  assert(code == 0 or code == true, command)
end

local function make_ca(dir, name)
  run(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj '/CN=%s' "
    .. "-addext basicConstraints=critical,CA:TRUE -keyout %s/%s.key -out %s/%s.pem"):format(name, dir, name, dir, name))
end

local function make_leaf(dir, ca, name, days)
  run(("openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=%s' "
    .. "-keyout %s/%s.key -out %s/%s.csr"):format(name, dir, name, dir, name))
  local extensions = assert(io.open(dir .. "/ext", "w"))
  extensions:write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
  extensions:close()
  run(("openssl x509 -req -in %s/%s.csr -CA %s/%s.pem -CAkey %s/%s.key -CAcreateserial -days %d -extfile %s/ext "
    .. "-out %s/%s.pem"):format(dir, name, dir, ca, dir, ca, days or 2, dir, dir, name))
end

--- Paths of the files: ca, server_cert, server_key, client_cert, client_key, stranger_ca, stranger_cert, stranger_key,
--- expired_cert, expired_key.
---@return table<string, string>
function certs.paths()
  if made then return made end
  local dir = os.tmpname()
  os.remove(dir)
  run("mkdir -m 700 " .. dir)
  make_ca(dir, "ca")
  make_ca(dir, "stranger-ca")
  make_leaf(dir, "ca", "server")
  make_leaf(dir, "ca", "client")
  make_leaf(dir, "stranger-ca", "stranger")
  make_leaf(dir, "ca", "expired", 0)
  made = {
    dir = dir,
    ca = dir .. "/ca.pem",
    server_cert = dir .. "/server.pem",
    server_key = dir .. "/server.key",
    client_cert = dir .. "/client.pem",
    client_key = dir .. "/client.key",
    stranger_ca = dir .. "/stranger-ca.pem",
    stranger_cert = dir .. "/stranger.pem",
    stranger_key = dir .. "/stranger.key",
    expired_cert = dir .. "/expired.pem",
    expired_key = dir .. "/expired.key",
  }
  return made
end

--- Removes them.
function certs.clean()
  if made then run("rm -r " .. made.dir) end
  made = nil
end

return certs
