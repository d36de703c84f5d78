--- Rules option and unknown-transport: the names in tables of a client's options, also in those that factories return,
--- which loading does not reach; and the name of a transport, which as in Nest is TCP when nobody knows it (MOD-06).

local findings = require("perigee.check.findings")
local kinds = require("perigee.check.kinds")
local options = require("perigee.options")
local places = require("perigee.check.places")
local transports = require("perigee.transports")

local function did_you_mean(name, known)
  local near = options.nearest(name, known)
  return near and (" (did you mean '%s'?)"):format(near) or ""
end

-- The table by name; nil when some names are not literal.
local function named(made)
  local fields = {}
  for _, pair in ipairs(made) do
    if pair.tag ~= "Pair" or pair[1].tag ~= "String" then return nil end
    fields[pair[1].value] = pair
  end
  return fields
end

-- What tables take beside the transport's options.
local BESIDE = { client = { transport = true }, factory = { transport = true } }
BESIDE.entry = { transport = true, name = true, server = true }

local function check_names(made, transport, role, file, list)
  local types = options.client_types(transport)
  for _, pair in ipairs(types and made or {}) do
    local name = pair[1].value
    if not BESIDE[role][name] and not types[name] then
      list[#list + 1] = findings.new("option", file, pair, ("unknown option '%s'%s"):format(name,
        did_you_mean(name, types)), { code = "INVALID_OPTION" })
    end
  end
end

local function is_client(name)
  return transports.planned[name] or transports.by_name[name] and transports.by_name[name].client
end

local function check_place(place, file, list)
  local made = kinds.resolve(place.node)
  local fields = made.tag == "Table" and named(made)
  if not fields then return end
  local chosen = fields.transport and kinds.resolve(fields.transport[2])
  local name = not chosen and "tcp" or chosen.tag == "String" and chosen.value
  if name and not is_client(name) then
    list[#list + 1] = findings.new("unknown-transport", file, fields.transport,
      ("there is no transport '%s', so it is tcp%s"):format(name, did_you_mean(name, transports.by_name)))
  end
  if name then check_names(made, name, place.role, file, list) end
end

---@param facts perigee.check.Facts
---@param file string
---@param list perigee.Finding[] gets more
return function(facts, file, list)
  for _, place in ipairs(places(facts)) do
    if BESIDE[place.role] then check_place(place, file, list) end
  end
end
