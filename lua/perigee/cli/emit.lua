--- perigee emit URL PATTERN [DATA]: prints nothing; ends when the event is handed to the wire.

local message = require("perigee.cli.message")

---@param argv string[]
---@return integer exit
return function(argv)
  message.run(argv, function(client, pattern, data, opts)
    client:emit(pattern, data, opts):await()
  end)
  return 0
end
