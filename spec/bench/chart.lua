--- The bench's results as a picture: an SVG of bars, CPU per message, with nothing but this file.
--
--   row   product |########|-|    12.3  1/8.0      bar: the median, whisker: the smallest and largest round
--
-- Each row has a scale of its own: rows differ a thousandfold, and only bars of one row are comparable.

local chart = {}

local WIDTH, MARGIN = 900, 24
local BARS, BARS_END = 190, 720 -- from where to where; the figures follow
local BAR, STEP, ROW_HEAD, ROW_GAP = 14, 21, 26, 12
local GOAL_COLUMNS = { { "goal", MARGIN }, { "seen", 520 }, { "limit", 640 }, { "", WIDTH - MARGIN } }

local STYLE = [[
<style>
  text { font: 13px sans-serif; fill: #24292f }
  .title { font-size: 17px; font-weight: 600 } .row { font-weight: 600 }
  .quiet { fill: #6e7781; font-size: 12px } .end { text-anchor: end }
  .page { fill: #f6f7f8 } .bar { fill: #a9b1ba } .own { fill: #1f6feb }
  .whisker { stroke: #24292f; stroke-width: 1.2; fill: none } .line { stroke: #d0d7de }
  .met { fill: #1a7f37; font-weight: 600 } .missed { fill: #cf222e; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .quiet { fill: #8d96a0 } .page { fill: #1c2026 } .bar { fill: #59626d }
    .own { fill: #4c8dff } .whisker { stroke: #e6edf3 } .line { stroke: #3d444d }
    .met { fill: #3fb950 } .missed { fill: #ff7b72 }
  }
</style>]]

local ESCAPES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

local function escape(text) return (tostring(text):gsub('[&<>"]', ESCAPES)) end

---@class bench.Canvas
---@field lines string[] of the SVG
---@field y number how far down it is filled
local Canvas = {}
Canvas.__index = Canvas

function Canvas:add(format, ...) self.lines[#self.lines + 1] = format:format(...) end

-- y is the middle of the line: not all that draw SVG know of dominant-baseline.
function Canvas:text(x, y, class, text)
  y = y + 4.5
  self:add('<text x="%g" y="%g" class="%s">%s</text>', x, y, class, escape(text))
end

function Canvas:rule()
  self:add('<path class="line" d="M%g %gH%g"/>', MARGIN, self.y, WIDTH - MARGIN)
end

-- A list of { row =, the results of it ... } in the order of the table; what has no CPU time is not drawn.
local function by_row(results)
  local rows, found = {}, {}
  for _, result in ipairs(results) do
    if result.cpu_us then
      local row = found[result.row]
      if not row then
        row = { name = result.row, largest = 0 }
        found[result.row] = row
        rows[#rows + 1] = row
      end
      row[#row + 1] = result
      row.largest = math.max(row.largest, unpack(result.cpu_us.rounds))
    end
  end
  return rows
end

-- Three digits, as far as they are some.
local function figure(value)
  if type(value) ~= "number" then return tostring(value == nil and "-" or value) end
  local digits = value < 10 and 2 or value < 100 and 1 or 0
  return ("%." .. digits .. "f"):format(value)
end

local function whisker(canvas, from, to, y)
  local half = BAR / 2 - 3
  canvas:add('<path class="whisker" d="M%.1f %gv%gM%.1f %gv%gM%.1f %gH%.1f"/>', from, y - half, 2 * half,
    to, y - half, 2 * half, from, y, to)
end

local function draw_bar(canvas, result, largest)
  local y, cpu = canvas.y + STEP / 2, result.cpu_us
  local function place(us) return BARS + (BARS_END - BARS) * us / largest end
  local from, to = place(math.min(unpack(cpu.rounds))), place(math.max(unpack(cpu.rounds)))
  local own = result.product:find("^perigee") and " own" or ""
  canvas:text(BARS - 10, y, "end", result.product)
  canvas:add('<rect class="bar%s" x="%g" y="%g" width="%.1f" height="%g"/>', own, BARS, y - BAR / 2,
    place(cpu.median) - BARS, BAR)
  if to > from then whisker(canvas, from, to, y) end
  canvas:text(to + 8, y, "", figure(cpu.median) .. " us")
  if result.ratio then canvas:text(WIDTH - MARGIN, y, "quiet end", ("1/%.1f"):format(result.ratio.median)) end
  canvas.y = canvas.y + STEP
end

local function draw_row(canvas, row)
  canvas:text(MARGIN, canvas.y + ROW_HEAD / 2, "row", row.name)
  canvas.y = canvas.y + ROW_HEAD
  for _, result in ipairs(row) do draw_bar(canvas, result, row.largest) end
  canvas.y = canvas.y + ROW_GAP
end

local function draw_title(canvas, about)
  canvas:text(MARGIN, 30, "title", "CPU time per message, microseconds")
  canvas.y = 50
  local machine, words = about.machine, {}
  if machine then
    words[1] = ("%s, %d cores"):format(machine.cpu, machine.cores)
    words[2] = machine.system
  end
  words[#words + 1] = about.at
  if #words > 0 then
    canvas:text(MARGIN, canvas.y + 4, "quiet", table.concat(words, " · "))
    canvas.y = canvas.y + 18
  end
  canvas:text(MARGIN, canvas.y + 4, "quiet",
    "Bars: median; whiskers: smallest and largest round; each row has its own scale; right: beside its first product.")
  canvas.y = canvas.y + 24
end

local OUTCOMES = { [true] = "met", [false] = "missed" }

local function draw_goals(canvas, goals)
  canvas.y = canvas.y + ROW_GAP
  for _, column in ipairs(GOAL_COLUMNS) do canvas:text(column[2], canvas.y + STEP / 2, "row", column[1]) end
  canvas.y = canvas.y + STEP
  canvas:rule()
  for _, goal in ipairs(goals) do
    local outcome = OUTCOMES[goal.met]
    local cells = { goal.text, figure(goal.seen), figure(goal.limit), outcome or "not measured" }
    for i, cell in ipairs(cells) do
      local class = i == #cells and (outcome or "quiet") .. " end" or ""
      canvas:text(GOAL_COLUMNS[i][2], canvas.y + STEP / 2 + 2, class, cell)
    end
    canvas.y = canvas.y + STEP
  end
end

--- Draws the results into an SVG file.
---@param path string in a folder that is there
---@param results table[] as in bench.json
---@param goals? { text: string, seen: any, limit: any, met: boolean? }[] a table beneath
---@param about? { machine: table?, at: string? } as in bench.json: where and when
function chart.write(path, results, goals, about)
  local canvas = setmetatable({ lines = {}, y = 0 }, Canvas)
  draw_title(canvas, about or {})
  for _, row in ipairs(by_row(results)) do draw_row(canvas, row) end
  if goals and #goals > 0 then draw_goals(canvas, goals) end
  local height = canvas.y + MARGIN
  local file = assert(io.open(path, "w"))
  file:write(('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">\n'):format(
    WIDTH, height, WIDTH, height), STYLE, '\n<rect class="page" width="100%" height="100%"/>\n',
    table.concat(canvas.lines, "\n"), "\n</svg>\n")
  assert(file:close())
end

return chart
