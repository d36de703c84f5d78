--- A Reply whose source does nothing by itself: the spec plays the far end.

local reply = require("perigee.reply")

---@return perigee.Reply
---@return { asked: integer, cancelled: integer, observer: table, ctx: table? } control
local function manual(warn_unasked)
  local control = { asked = 0, cancelled = 0 }
  return reply.new(function(observer, ctx)
    control.asked = control.asked + 1
    control.observer, control.ctx = observer, ctx
    return function() control.cancelled = control.cancelled + 1 end
  end, nil, warn_unasked), control
end

--- Keeps log lines instead of printing them; call restore() at the end.
local function capture_log()
  local log = require("perigee.log")
  local lines = {}
  log.set_sink(function(line) lines[#lines + 1] = line end)
  return lines, function() log.set_sink(nil) end
end

return { manual = manual, capture_log = capture_log }
