--- Figures of several rounds made into one: medians, spreads, the table on the screen.

local figures = {}

--- The middle of the values, and (largest - smallest) / middle.
---@param values number[]
---@return number? median nil for no values
---@return number? spread
function figures.median(values)
  local sorted = { unpack(values) }
  table.sort(sorted)
  local n = #sorted
  if n == 0 then return nil end
  local middle = (sorted[math.floor((n + 1) / 2)] + sorted[math.ceil((n + 1) / 2)]) / 2
  return middle, (sorted[n] - sorted[1]) / middle
end

--- One field of all rounds, summed up.
---@return { median: number, spread: number, rounds: number[] }? nil where the load does not tell it
function figures.sum_up(rounds, field)
  local values = {}
  for _, round in ipairs(rounds) do values[#values + 1] = round[field] end
  local median, spread = figures.median(values)
  return median and { median = median, spread = spread, rounds = values } or nil
end

--- One over the other, round by round: neighbours in time share the machine's mood, which moves more from round to
--- round than what is compared.
---@param values number[]
---@param base number[]
---@return { median: number, spread: number, rounds: number[] }
function figures.ratio(values, base)
  local ratios = {}
  for i, value in ipairs(values) do ratios[i] = value / base[i] end
  local median, spread = figures.median(ratios)
  return { median = median, spread = spread, rounds = ratios }
end

local COLUMNS = {
  { "CPU us/req", "cpu_us", 1, "%.1f" }, { "spread", "cpu_us", nil, "%.0f%%" }, { "req/s", "rate", 1, "%.0f" },
  { "p50 ms", "p50_us", 1e3, "%.2f" }, { "p99 ms", "p99_us", 1e3, "%.2f" }, { "p99.9 ms", "p999_us", 1e3, "%.2f" },
  { "RSS MB", "rss_mb", 1, "%.1f" }, { "busy", "busy", 0.01, "%.0f%%" }, -- of one core
}
local NAMES, CELL = "%-28s %-11s", "%11s"

local function cell(result, column)
  local _, field, unit, format = unpack(column)
  local summed = result[field]
  if not summed then return "-" end
  return format:format(unit and summed.median / unit or summed.spread * 100)
end

-- Of the row's first: "1/8.3" for less, "1.2" for more.
local function ratio_cell(ratio)
  if not ratio then return "1" end
  return ratio.median < 1 and ("1/%.1f"):format(1 / ratio.median) or ("%.1f"):format(ratio.median)
end

--- Prints what came out; results are in the order of rows.lua.
function figures.print(results)
  if #results == 0 then return end
  local head = { NAMES:format("row", "product") }
  for _, column in ipairs(COLUMNS) do head[#head + 1] = CELL:format(column[1]) end
  print(table.concat(head) .. CELL:format("CPU ratio"))
  local row
  for _, result in ipairs(results) do
    local line = { NAMES:format(result.row ~= row and result.row or "", result.product) }
    row = result.row
    for _, column in ipairs(COLUMNS) do line[#line + 1] = CELL:format(cell(result, column)) end
    line[#line + 1] = CELL:format(ratio_cell(result.ratio))
    print(table.concat(line))
  end
end

return figures
