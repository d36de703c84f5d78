--- What brokers have in common: a folder, a port that stays theirs, a life that specs begin, break and end.

local loop = require("spec.support.loop")
local process = require("spec.support.process")
local tcp = require("spec.support.tcp")

local START_MS = 15000 -- on a busy machine

---@class spec.Broker
---@field host string
---@field port integer the same after each start
---@field dir string its files; removed by `stop`
---@field process spec.Process
---@field private spec table how it is launched
local Broker = {}
Broker.__index = Broker

local living = {}

local function shell(command)
  local code = os.execute(command)
  assert(code == 0 or code == true, command)
end

--- Where a program is: server packages put theirs where not every user's PATH leads.
---@return string?
local function find_program(name)
  local pipe = assert(io.popen(("PATH=$PATH:/usr/sbin:/usr/local/sbin command -v %s"):format(name)))
  local path = pipe:read("*l")
  pipe:close()
  return path
end

---@return string dir
local function make_dir()
  local dir = os.tmpname()
  os.remove(dir)
  shell("mkdir -m 700 " .. dir)
  return dir
end

---@return string path
local function write_file(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

--- All it has said.
function Broker:log()
  return self.process.stdout .. self.process.stderr
end

--- Starts it, again on its port, and returns when it takes connections.
---@return spec.Broker self
function Broker:start()
  -- The kernel ends it with the spec, however that ends.
  local args = { "--pdeathsig", "KILL", "--", self.spec.program }
  for _, arg in ipairs(self.spec.args) do args[#args + 1] = arg end
  self.process = process.start("setpriv", args)
  loop.wait_until(function()
    return self:log():find(self.spec.ready, 1, true) or self.process.exit_code
  end, START_MS, function() return "a start of " .. self:log() end)
  if self.process.exit_code then error("it ended: " .. self:log(), 2) end
  return self
end

--- Ends it as a crash does, and returns when it is gone.
function Broker:kill()
  self.process:kill("sigkill")
  self.process:wait()
end

--- A crash and a new start.
function Broker:restart()
  self:kill()
  return self:start()
end

--- Stops it in its tracks: connections stay, nothing answers.
function Broker:pause()
  self.process:kill("sigstop")
end

function Broker:resume()
  self.process:kill("sigcont")
end

--- Waits until its log has the text, counted from `from`.
---@param text string plain
---@param from? integer a length of the log before
function Broker:await_log(text, ms, from)
  loop.wait_until(function() return self:log():find(text, from or 1, true) end, ms, function()
    return ("%q of %s"):format(text, self:log())
  end)
end

--- Ends it in good order and removes its files.
function Broker:stop()
  living[self] = nil
  if self.process and not self.process.exit_code then
    self:resume()
    self.process:stop()
  end
  shell("rm -rf " .. self.dir)
end

--- Makes and starts a broker on a free port.
---@param make fun(dir: string, port: integer): { program: string, args: string[], ready: string }
---@param fields? table more of its fields
---@return spec.Broker
local function launch(make, fields)
  local failure
  for _ = 1, 3 do -- a free port may be taken before it is used
    local broker = setmetatable({ host = "127.0.0.1", port = tcp.free_port(), dir = make_dir() }, Broker)
    for name, value in pairs(fields or {}) do broker[name] = value end
    living[broker] = true
    broker.spec = make(broker.dir, broker.port)
    local started
    started, failure = pcall(broker.start, broker)
    if started then return broker end
    broker:stop()
  end
  error(failure, 2)
end

return {
  launch = launch,
  find_program = find_program,
  make_dir = make_dir,
  write_file = write_file,
  --- For teardown: ends every broker that still runs.
  stop_all = function()
    for broker in pairs(living) do broker:stop() end
  end,
}
