--- The operators by name: methods of Reply, one file each.

local NAMES = {
  "map", "filter", "tap", "scan", "reduce", "take", "timeout", "default", "catch_error", "retry", "raw",
}

local operators = {}
for _, name in ipairs(NAMES) do operators[name] = require("perigee.operators." .. name) end

return operators
