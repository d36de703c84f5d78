--- What `send` and `emit` share: URL PATTERN [DATA] from the command line.

local arguments = require("perigee.cli.arguments")
local client = require("perigee.client")
local core = require("perigee.core")
local errors = require("perigee.errors")
local options = require("perigee.options")

local FLAGS = {
  ["--timeout"] = { value = "ms" },
  ["--metadata"] = { value = "pair" },
  ["--option"] = { value = "pair" },
}

local message = {}

-- A bad URL or option is a mistake of the command line, not of the world.
local function make_client(url, texts)
  local ok, result = pcall(function()
    return client.new(options.client_from_text(url, texts or {}))
  end)
  if not ok then error({ exit = 2, cause = result }, 0) end
  return result
end

local function read_pattern(text)
  local value, broken = core.json_decode(text)
  if broken then return text end
  return value
end

local function read_data(text)
  if text == "-" then text = arguments.read_stdin() end
  local ok, broken = core.json_check(text)
  if not ok then
    error({ exit = 2, cause = errors.make("INVALID_MESSAGE", "DATA is not JSON: " .. broken) }, 0)
  end
  return setmetatable({ text }, core.slice_mt)
end

--- Parses, makes the client, calls fn(client, pattern, data, opts), and closes the client whatever happens.
---@param argv string[]
---@param fn fun(client: table, pattern: any, data: table, opts: table)
function message.run(argv, fn)
  local positional, flags = arguments.parse(argv, FLAGS)
  local url, pattern, data = unpack(positional)
  if not pattern then arguments.usage("it takes URL PATTERN [DATA]") end
  if #positional > 3 then arguments.usage("'%s' is one argument too many", positional[4]) end
  data = read_data(data or "{}")
  local made = make_client(url, flags.option)
  local ok, err = pcall(fn, made, read_pattern(pattern), data, { timeout = flags.timeout, metadata = flags.metadata })
  made:close():await()
  if not ok then error(err, 0) end
end

return message
