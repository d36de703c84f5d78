--- What `perigee check` finds in a text, for specs of its rules.

local check = require("perigee.check")

local support = {}

--- What reading finds in a script: "LINE:COLUMN: SEVERITY: MESSAGE [RULE]", in order.
---@param text string
---@param modules? table<string, string> files beside it, by name
---@return string[]
function support.static(text, modules)
  local files = { ["./main.lua"] = text }
  for name, module in pairs(modules or {}) do files["./" .. name] = module end
  local list = check.static({ "./main.lua" }, function(path) return files[path], "No such file" end)
  for i, finding in ipairs(list) do
    local at = ("%d:%s"):format(finding.line, finding.column or "?")
    local file = finding.file ~= "./main.lua" and finding.file:sub(3) .. ":" or ""
    list[i] = ("%s%s: %s: %s [%s]"):format(file, at, finding.severity, finding.message, finding.rule)
  end
  return list
end

return support
