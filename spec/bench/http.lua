--- HTTP load on one contender, by load.c: connections that are kept for all its rounds.

local cjson = require("cjson")
local machine = require("spec.bench.machine")

local FOLDER = "build/bench/"
local ORDER =
  '{"orderId":"ord_42","amount":1999,"currency":"EUR","customer":"cus_9f3b21","paid":false,"lines":[1,2,3]%s}'

local function write(name, text)
  local file = assert(io.open(name, "w"))
  file:write(text)
  file:close()
end

local function read(name)
  local file = assert(io.open(name))
  local text = file:read("*a")
  file:close()
  return text
end

-- An order of about so many bytes: a small one, or one that a text fills up.
local function order(bytes)
  local padding = bytes - #ORDER
  return ORDER:format(padding > 0 and (',"text":"%s"'):format(("x"):rep(padding)) or "")
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

local http = {}

--- Connects. The first answer is compared with what it answers, and load.c each further one with the first.
function http.open(contender, row)
  local sent, got = FOLDER .. "sent.json", FOLDER .. "answered.json"
  local body = order(row.bytes)
  write(sent, body)
  local port = machine.wait_port(contender.process)
  contender.load = machine.start("load", "build/bench/load",
    { tostring(port), contender.path, sent, got, tostring(row.connections) })
  contender.load:line("^ready", 30000)
  if not same(cjson.decode(body), cjson.decode(read(got))) then
    error(("%s %s answered %s"):format(row.name, contender.product, read(got)), 0)
  end
end

--- Loads it for so long: with so many requests a second, or with as many as are answered.
---@param rate? number
---@return { requests: integer, seconds: number, p50_us: number, p99_us: number, p999_us: number, max_us: number }
function http.run(contender, seconds, rate)
  contender.load:write(("%d %g\n"):format(seconds * 1000, rate or 0))
  return cjson.decode((contender.load:line("^{", seconds * 1000 + 30000)))
end

function http.close(contender) contender.load:stop() end

return http
