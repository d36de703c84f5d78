--- raw: values arrive as slices, undecoded. Means something to a client's send only.

local link = require("perigee.link")

local Raw = link.class()

function Raw.open(_, ctx)
  return link.with(ctx, "raw", true)
end

local source = link.through(Raw)

-- await's short cut goes on to the call's own: see Reply.direct.
local function direct(reply, task)
  local up = reply.up
  if up.direct then return up.direct(up, task, true) end
end

local class -- of these Replies

---@param self perigee.Reply
---@return perigee.Reply
return function(self)
  class = class or self._class(source, direct)
  return setmetatable({ up = self }, class)
end
