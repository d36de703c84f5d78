--- raw: values arrive as slices, undecoded. Means something to a client's send only.

local link = require("perigee.link")

local Raw = link.class()

function Raw.open(_, ctx)
  return link.with(ctx, "raw", true)
end

local source = link.through(Raw)

-- await's short cut goes on to the call's own: see Reply.direct.
local function direct(reply, task, co)
  local up = reply.up
  local cancel, arg = up.direct(up, task, co, true)
  if up.slot and (cancel or arg) then up:_asked() end
  return cancel, arg
end

---@param self perigee.Reply
---@return perigee.Reply
return function(self)
  local reply = { up = self, source = source, state = false, direct = self.direct and direct }
  reply.state = reply -- as in reply.adopt
  return setmetatable(reply, getmetatable(self))
end
