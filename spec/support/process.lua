--- Child processes for specs: lines in and out, an exit that is waited for. Their handles do not keep the loop alive.

local uv = require("luv")
local loop = require("spec.support.loop")

---@class spec.Process
---@field lines string[] lines of stdout not yet taken
---@field stdout string all of it, beside lines
---@field stderr string
---@field exit_code integer? set once it has ended; `signal` beside it
local Process = {}
Process.__index = Process

local running = {}

local function read(pipe, on_data)
  pipe:read_start(function(_, data)
    if data then on_data(data) else loop.close(pipe) end
  end)
  pipe:unref() -- not before: starting to read does not ref, but an inactive handle has nothing to unref
end

local function collect_lines(self)
  local parts = {} -- of the line that is still coming
  return function(data)
    local from = 1
    while true do
      local stop = data:find("\n", from, true)
      parts[#parts + 1] = data:sub(from, stop and stop - 1)
      if not stop then return end
      table.insert(self.lines, table.concat(parts))
      parts, from = {}, stop + 1
    end
  end
end

-- Ours, but for the sanitizers that `make asan` loads into luajit: other people's programs hang with them.
local function environment()
  local list = {}
  for name, value in pairs(uv.os_environ()) do
    if name ~= "LD_PRELOAD" then list[#list + 1] = name .. "=" .. value end
  end
  return list
end

local function spawn(self, file, args, options)
  local ended = function(code, signal)
    self.exit_code, self.signal = code, signal
    running[self] = nil
    loop.close(self.handle)
  end
  local pid
  self.handle, pid = uv.spawn(file, {
    args = args,
    env = options.env or environment(),
    cwd = options.cwd,
    stdio = { self.stdin, self.stdout_pipe, self.stderr_pipe },
  }, ended)
  return pid
end

--- Starts a program.
---@param file string
---@param args? string[]
---@param options? { env?: string[], cwd?: string }
---@return spec.Process
local function start(file, args, options)
  local self = setmetatable({
    lines = {},
    stdout = "",
    stderr = "",
    name = file,
    stdin = uv.new_pipe(false),
    stdout_pipe = uv.new_pipe(false),
    stderr_pipe = uv.new_pipe(false),
  }, Process)
  local pid = spawn(self, file, args or {}, options or {})
  if not self.handle then
    for _, pipe in ipairs({ self.stdin, self.stdout_pipe, self.stderr_pipe }) do pipe:close() end
    uv.run("nowait")
    error(("cannot start %s: %s"):format(file, pid), 2)
  end
  self.pid = pid
  self.handle:unref()
  self.stdin:unref()
  local collect = collect_lines(self)
  read(self.stdout_pipe, function(data)
    self.stdout = self.stdout .. data
    collect(data)
  end)
  read(self.stderr_pipe, function(data) self.stderr = self.stderr .. data end)
  running[self] = true
  return self
end

function Process:describe()
  local exit = self.exit_code and (" (exit %d, signal %d)"):format(self.exit_code, self.signal) or ""
  return ("%s%s; stderr: %s"):format(self.name, exit, self.stderr)
end

--- Takes the next line of stdout, or the next that matches; those before it are dropped.
---@param pattern? string Lua pattern
---@param ms? integer
---@return string line
---@return string? ... captures
function Process:line(pattern, ms)
  local found
  loop.wait_until(function()
    while self.lines[1] and not found do
      local line = table.remove(self.lines, 1)
      if line:find(pattern or "") then found = line end
    end
    return found or (self.exit_code and not uv.is_active(self.stdout_pipe))
  end, ms, function() return ("a line %q of %s"):format(pattern or "", self:describe()) end)
  if not found then error("ended without the line " .. (pattern or "") .. ": " .. self:describe(), 2) end
  return found, found:match(pattern or "")
end

function Process:write(text)
  self.stdin:write(text)
end

--- Closes its stdin.
function Process:close_stdin()
  loop.close(self.stdin)
end

---@param signal? string "sigterm" by default
function Process:kill(signal)
  if not self.exit_code then self.handle:kill(signal or "sigterm") end
end

--- Waits for its end and for the last bytes of its pipes.
---@return integer exit_code
---@return integer signal
function Process:wait(ms)
  loop.wait_until(function()
    return self.exit_code and self.stdout_pipe:is_closing() and self.stderr_pipe:is_closing()
  end, ms, function() return "the end of " .. self:describe() end)
  loop.close(self.stdin)
  loop.turn()
  return self.exit_code, self.signal
end

--- Ends it: stdin closed and TERM, KILL when that does not help.
function Process:stop()
  if self.exit_code and self.stdin:is_closing() then return end
  self:close_stdin()
  self:kill("sigterm")
  if not pcall(self.wait, self, 3000) then
    self:kill("sigkill")
    self:wait()
  end
end

return {
  start = start,
  --- For teardown: ends every child that still runs.
  stop_all = function()
    for child in pairs(running) do child:stop() end
  end,
}
