--- perigee send URL PATTERN [DATA]: a line of JSON per value, as received.

local core = require("perigee.core")
local message = require("perigee.cli.message")

-- Between its tokens JSON may have line breaks; one value stays one line.
local function line_of(value)
  local text = getmetatable(value) == core.slice_mt and value[1] or core.json_encode(value)
  return (text:gsub("[\r\n]", " "))
end

---@param argv string[]
---@return integer exit
return function(argv)
  message.run(argv, function(client, pattern, data, opts)
    for value in client:send(pattern, data, opts):raw():values() do
      io.stdout:write(line_of(value), "\n")
      io.stdout:flush()
    end
  end)
  return 0
end
