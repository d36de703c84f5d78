--- Cuts this process off, for `check`: a script that calls out while it loads is told so.

local core = require("perigee.core")

local function refused()
  return nil, "UNSUPPORTED", "perigee check opens no port and no connection"
end

local Wire = {
  send = refused, emit = refused, connect = refused, asker = function() return refused end, cancel = function() end,
  close = function(_, on_closed) on_closed() end,
  status = function() return { state = "disconnected", hosts = {}, late_replies = 0 } end,
}
Wire.__index = Wire

return function()
  core.client = function() return setmetatable({}, Wire) end
  core.server, core.http = refused, refused
end
