--- A worker of `perigee serve`: does what its supervisor says (core/supervisor/protocol.h tells what that is).
---
---   PREPARE -> a candidate, READY or FAILED;   COMMIT -> DONE;   ABORT;   PING -> PONG;   STOP -> the end

local bundles = require("perigee.cli.bundle")
local combinators = require("perigee.combinators")
local errors = require("perigee.errors")
local json = require("perigee.json")
local promise = require("perigee.promise")
local reload = require("perigee.reload")
local report = require("perigee.cli.report")
local scheduler = require("perigee.scheduler")
local uv = require("luv")

local HEAD_SIZE = 9 -- length, kind, number
local MAX_BUNDLE = 16 * 1024 * 1024
local HOOKS_MS = 5000 -- for on_reload and on_start, beside the load itself

---@class perigee.Worker
---@field private set perigee.ReloadSet
---@field private pipe userdata
---@field private stopped perigee.Promise of the drain timeout
---@field private queue { kind: string, number: integer, payload: string }[] not yet done
---@field private candidate? perigee.Candidate ready
---@field private load_ms? integer how long a reload may load
---@field private on_lost fun(why: any)
---@field private is_first boolean nothing was committed yet
---@field private is_lead boolean what it loads, it has read itself: it logs for all
local Worker = {}
Worker.__index = Worker
Worker.__name = "perigee.worker"

--- Frames -------------------------------------------------------------------------------------------------------

local function u32(value)
  return string.char(value % 256, math.floor(value / 256) % 256, math.floor(value / 65536) % 256,
    math.floor(value / 16777216))
end

local function read_u32(text, at)
  local a, b, c, d = text:byte(at, at + 3)
  return a + b * 256 + c * 65536 + d * 16777216
end

-- At once if it can be: an idle worker is to make few system calls.
function Worker:send(kind, number, payload)
  local frame = u32(#payload) .. kind .. u32(number) .. payload
  local sent = self.pipe:try_write(frame) or 0
  if sent < #frame then self.pipe:write(frame:sub(sent + 1)) end
end

-- Calls on_frame for each whole frame; pieces are joined once, when a frame is complete.
local function reader(on_frame)
  local parts, size, wanted = {}, 0, HEAD_SIZE
  return function(data)
    parts[#parts + 1], size = data, size + #data
    while size >= wanted do
      local text = table.concat(parts)
      local total = HEAD_SIZE + read_u32(text, 1)
      if size < total then
        parts, wanted = { text }, total
        return
      end
      on_frame(text:sub(5, 5), read_u32(text, 6), text:sub(HEAD_SIZE + 1, total))
      parts, size, wanted = { text:sub(total + 1) }, size - total, HEAD_SIZE
    end
  end
end

--- Reloads ------------------------------------------------------------------------------------------------------

local function text_of(refusal)
  return report.text(refusal.error, refusal.where)
end

local function report_of(candidate)
  local scripts, refused = json.array(), json.array()
  for i, change in ipairs(candidate.changes) do
    scripts[i] = { file = change.script, old = change.old or json.null, new = change.new }
  end
  for i, one in ipairs(candidate.refused) do refused[i] = { file = one.script, error = text_of(one) } end
  return json.encode({ scripts = scripts, refused = refused })
end

-- What a start tells on stderr. The scripts' own mistakes need no traceback.
local function failure(err)
  local refusal = reload.is_refusal(err) and err or { error = errors.from(err), exit = 1 }
  local text = text_of(refusal)
  local cause = refusal.error
  local traceback = refusal.exit == 1 and type(cause) == "table" and rawget(cause, "traceback")
  if type(traceback) == "string" then text = text .. "\n" .. traceback end
  return ("%d\n%s"):format(refusal.exit, text)
end

-- At the start there is nobody who waits, and the supervisor tells what is wrong.
local function prepare(self, bundle)
  local work = self.set:prepare(bundle)
  if self.is_first or not self.load_ms then return work:await() end
  local ok, result = pcall(function() return work:timeout(self.load_ms):await() end)
  if not ok and work.state == "pending" then work:cancel() end
  if ok then return result end
  error(result, 0)
end

local function lead(candidate)
  local refused = candidate.refused
  report.reload({ changes = {}, refused = refused })
  local bundle, told = bundles.encode(candidate.bundle), report_of(candidate)
  if #bundle > MAX_BUNDLE then
    error(errors.make("FRAME_TOO_LARGE", ("the scripts and their modules are %d bytes, the most is %d"):format(#bundle,
      MAX_BUNDLE)), 0)
  end
  local err = refused[1] and refused[1].script .. ": " .. text_of(refused[1]) or ""
  return ("%d %d %d\n"):format(candidate.is_same and 1 or 0, #told, #err) .. told .. err .. bundle
end

function Worker:P(number, payload)
  local is_lead, ready = payload == "", ""
  self.is_lead = is_lead
  local ok, result = pcall(prepare, self, not is_lead and bundles.decode(payload) or nil)
  if ok then
    self.candidate = result
    if is_lead then ok, ready = pcall(lead, result) end
    if ok then return self:send("R", number, ready) end
    result = ready
    self:A()
  end
  if not self.is_first and reload.is_refusal(result) then report.reload(nil, result) end
  self:send("F", number, failure(result))
end

function Worker:C(number)
  local candidate = self.candidate
  self.candidate = nil
  local ok, err = pcall(candidate.commit, candidate)
  if not ok then return self:send("F", number, failure(err)) end
  self.is_first = false
  if self.is_lead then report.reload({ changes = candidate.changes, refused = {} }) end
  local addresses = table.concat(self.set:addresses(), "\n")
  self:send("D", number, addresses .. (addresses ~= "" and "\n\n" or "\n"))
end

function Worker:A()
  local candidate = self.candidate
  self.candidate = nil
  if candidate then candidate:abort():await() end
end

--- The talk -----------------------------------------------------------------------------------------------------

-- One after the other: an ABORT waits for the load it ends.
local function work_off(self)
  while self.queue[1] do
    local frame = self.queue[1]
    local ok, err = pcall(self[frame.kind], self, frame.number, frame.payload)
    if not ok then return self.on_lost(err) end -- the supervisor would wait for ever for what it was owed
    table.remove(self.queue, 1)
  end
end

local function status_text(self)
  local status = self.set:status()
  status.scripts, status.old = json.array(status.scripts), json.array(status.old)
  return json.encode(status)
end

local function on_frame(self, kind, number, payload)
  if kind == "?" then
    self:send("!", number, payload ~= "" and status_text(self) or "")
  elseif kind == "S" then
    promise.settle(self.stopped, true, number)
  elseif kind == "P" or kind == "C" or kind == "A" then
    self.queue[#self.queue + 1] = { kind = kind, number = number, payload = payload }
    if #self.queue == 1 then combinators.spawn(work_off, self) end
  end
end

-- Its supervisor is gone: so is this process, if the kernel has not seen to it.
local function listen(self)
  local take = reader(function(...) on_frame(self, ...) end)
  self.pipe:read_start(function(_, data)
    if not data then return self.on_lost("the supervisor is gone") end
    scheduler.enter()
    take(data)
    scheduler.leave()
  end)
end

local function close(handle)
  scheduler.await(function(resume)
    handle:close(function() resume(true) end)
  end)
end

--- Serves until the supervisor says STOP. In a coroutine.
---@param control integer the descriptor of the supervisor's channel
---@param set perigee.ReloadSet
---@param hello table<string, string|number> what the command line says to the supervisor
---@param on_lost fun(why: any) ends the process
local function run(control, set, hello, on_lost)
  local self = setmetatable({
    set = set, pipe = uv.new_pipe(false), stopped = promise.bare(), queue = {}, is_first = true,
    on_lost = on_lost,
    load_ms = hello.load_budget > 0 and hello.load_budget + HOOKS_MS or nil,
  }, Worker)
  assert(self.pipe:open(control))
  listen(self)
  local lines = {}
  for name, value in pairs(hello) do lines[#lines + 1] = ("%s %s\n"):format(name, value) end
  self:send("H", 0, table.concat(lines))
  local drain_ms = self.stopped:await()
  set:stop({ drain_timeout = math.max(drain_ms, 1) }):await()
  close(self.pipe)
end

return { run = run }
