--- raw: values arrive as slices, undecoded. Means something to a client's send only.

local link = require("perigee.link")

local Raw = link.class()

function Raw.open(_, ctx)
  return link.with(ctx, "raw", true)
end

local source = link.through(Raw)

---@param self perigee.Reply
---@return perigee.Reply
return function(self)
  return link.lift(self, source, {})
end
