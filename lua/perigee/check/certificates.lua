--- Rule certificate: those of an app's listeners that cannot be used, or whose time is over.

local core = require("perigee.core")

local DAY = 86400

local function expired(listener, seconds)
  local days = math.floor(-seconds / DAY)
  return ("the certificate of %s has expired %s ago"):format(listener.url, days == 0 and "less than a day"
    or days == 1 and "a day" or days .. " days")
end

--- Calls tell(listener, message, code) for each; code is that of the error it will be refused with, nil when it is
--- served all the same.
---@param app perigee.App
---@param tell fun(listener: perigee.ListenerOptions, message: string, code: string?)
return function(app, tell)
  for _, listener in ipairs(app.listens) do
    -- Over a broker it is a client's, which may have none.
    if listener.core.tls and listener.core.tls.cert then
      local seconds, code, message = core.tls_left(listener.core)
      if not seconds then tell(listener, message, code) end
      if seconds and seconds <= 0 then tell(listener, expired(listener, seconds)) end
    end
  end
end
