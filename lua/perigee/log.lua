--- Messages for the operator: one line each on stderr. Never raises.

local core = require("perigee.core")

local RANK = { error = 1, warn = 2, info = 3, none = 0 }

---@class perigee.log
---@field level "none"|"error"|"warn"|"info" what is let through; "info" is everything
local log = { level = "info" }

local function to_stderr(line)
  io.stderr:write(line, "\n")
end

local sink = to_stderr

-- Control bytes would let a peer's text forge lines of its own; tabs are harmless.
local function escape(text)
  return (text:gsub("[%z\1-\8\10-\31\127]", function(byte)
    if byte == "\n" then return "\\n" end
    if byte == "\r" then return "\\r" end
    return ("\\x%02x"):format(byte:byte())
  end))
end

-- A traceback keeps its lines, indented so that they read as part of the message.
local function indent(text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do
    lines[#lines + 1] = "    " .. escape(line:gsub("^%s+", ""))
  end
  return "\n" .. table.concat(lines, "\n")
end

local function render(fmt, ...)
  if select("#", ...) == 0 then return tostring(fmt) end
  local args = { ... }
  for i = 1, select("#", ...) do
    if type(args[i]) ~= "number" then args[i] = tostring(args[i]) end
  end
  return tostring(fmt):format(unpack(args, 1, select("#", ...)))
end

-- A peer must not be able to fill the disk: in one second a line is written a few times, and all lines together
-- some hundred times; the rest is counted, and told when the second is over and somebody logs again.
local MAX_SAME, MAX_LINES = 5, 200
local second, same, lines, dropped = 0, {}, 0, 0

--- Lines that were not written, ever.
log.dropped_total = 0

local function put(line, level)
  pcall(sink, line, level)
end

local function next_second(now)
  local missing = dropped
  second, same, lines, dropped = now, {}, 0, 0
  if missing == 0 then return end
  put(("perigee: warn: %d more lines like those before were not written"):format(missing), "warn")
end

local function put_bounded(line, level)
  local now = os.time()
  if now ~= second then next_second(now) end
  local count = (same[line] or 0) + 1
  same[line] = count
  if count > MAX_SAME or lines >= MAX_LINES then
    if lines >= MAX_LINES then same[line] = nil end -- no table of what is not written
    dropped, log.dropped_total = dropped + 1, log.dropped_total + 1
    return
  end
  lines = lines + 1
  put(line, level)
end

local function write(level, traceback, fmt, ...)
  if RANK[level] > (RANK[log.level] or RANK.info) then return end
  local ok, text = pcall(render, fmt, ...)
  -- A wrong format or a raising __tostring: the format alone still says where it came from.
  if not ok then text = type(fmt) == "string" and fmt or "(a message that cannot be shown)" end
  local line = "perigee: " .. level .. ": " .. escape(text)
  if traceback then line = line .. indent(traceback) end
  put_bounded(line, level)
end

---@param fmt string as for string.format, with %s taking anything
function log.error(fmt, ...) write("error", nil, fmt, ...) end

---@param fmt string
function log.warn(fmt, ...) write("warn", nil, fmt, ...) end

---@param fmt string
function log.info(fmt, ...) write("info", nil, fmt, ...) end

--- Logs "what: error", followed by the error's traceback when it has one.
---@param what string
---@param err any
function log.failure(what, err)
  local traceback = type(err) == "table" and rawget(err, "traceback") or nil
  if type(traceback) ~= "string" then traceback = nil end
  local mt = getmetatable(err)
  if type(err) == "table" and not (type(mt) == "table" and mt.__tostring) then
    err = rawget(err, "message") or rawget(err, "code") or core.json_encode(err) or err
  end
  local ok, text = pcall(tostring, err)
  write("error", traceback, "%s: %s", what, ok and text or "an error that cannot be shown")
end

--- Replaces where lines go; nil brings stderr back. What was held back is counted, and told, to each by itself.
---@param fn? fun(line: string, level: string)
function log.set_sink(fn)
  next_second(0)
  sink = fn or to_stderr
end

return log
