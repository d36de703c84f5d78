--- perigee send URL PATTERN [DATA]: a line of JSON per value, as received.

local core = require("perigee.core")
local errors = require("perigee.errors")
local message = require("perigee.cli.message")

-- Between its tokens JSON may have line breaks; one value stays one line.
local function line_of(value)
  local text = getmetatable(value) == core.slice_mt and value[1] or core.json_encode(value)
  return (text:gsub("[\r\n]", " "))
end

-- When nobody reads on, such as `head`, the rest of the reply need not come.
local function write_line(text)
  local ok, why = io.stdout:write(text, "\n")
  if ok then ok, why = io.stdout:flush() end
  if not ok then error(errors.make("CANCELLED", "standard output cannot be written: " .. why), 0) end
end

---@param argv string[]
---@return integer exit
return function(argv)
  message.run(argv, function(client, pattern, data, opts)
    for value in client:send(pattern, data, opts):raw():values() do
      write_line(line_of(value))
    end
  end)
  return 0
end
