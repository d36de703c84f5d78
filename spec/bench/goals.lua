--- What the figures of one run have to show, and whether they do.

local figures = require("spec.bench.table")

---@class bench.Goal
---@field row? string of rows.lua: `of` is compared with `against` there, round by round
---@field of? string
---@field against? string
---@field once? string a measurement of run.lua: its field itself
---@field title? string what that field is
---@field field string "cpu_us", or for `once` "rss_mb.after", with the numbers of lists: "1.median"
---@field at_most? number
---@field at_least? number

---@type bench.Goal[]
local GOALS = {
  { row = "HTTP > to > TCP", of = "perigee", against = "the limit", field = "cpu_us", at_most = 1.4 },
  { row = "HTTP > to > TCP", of = "perigee", against = "HAProxy", field = "cpu_us", at_most = 0.6 },
  { row = "HTTP > to > TCP", of = "the limit", against = "nginx", field = "cpu_us", at_most = 0.45 },
  { row = "HTTP > script > TCP", of = "perigee", against = "HAProxy", field = "cpu_us", at_most = 0.7 },
  { row = "HTTP > script > TCP", of = "perigee", against = "Nest 12", field = "cpu_us", at_most = 1 / 8 },
  { row = "send > TCP", of = "perigee raw", against = "the limit", field = "cpu_us", at_most = 2 },
  { row = "send > TCP", of = "perigee", against = "the limit", field = "cpu_us", at_most = 3 },
  { row = "send > TCP", of = "perigee", against = "Nest 12", field = "cpu_us", at_most = 1 / 6 },
  { row = "send > Redis", of = "perigee", against = "Nest 12", field = "cpu_us", at_most = 1 / 8 },
  { row = "send > NATS", of = "perigee", against = "Nest 12", field = "cpu_us", at_most = 1 / 8 },
  { row = "serve < Nest's client", of = "perigee", against = "Nest 12", field = "cpu_us", at_most = 1 / 6 },
  { row = "serve < the limit's client", of = "perigee", against = "Nest 12", field = "cpu_us", at_most = 1 / 6 },
  { row = "HTTP > to > TCP, 1 MB", of = "perigee", against = "nginx", field = "rate", at_least = 0.8 },
  { row = "HTTP > to > TCP, half load", of = "perigee", against = "the limit", field = "p99_us", at_most = 1.5 },
  { once = "copies", field = "request", at_most = 2, title = "1 MB through perigee.to: copies of a byte there" },
  { once = "copies", field = "reply", at_most = 2, title = "1 MB through perigee.to: copies of a byte back" },
  { once = "idle", field = "2.bytes", at_most = 4096, title = "bytes of each of 10,000 idle HTTP connections" },
  { once = "idle", field = "3.bytes", at_most = 4096, title = "bytes of each of 10,000 idle Nest connections" },
  { once = "startup", field = "1.memory.rss", at_most = 8, title = "MB resident when idle, supervisor and worker" },
  { once = "startup", field = "1.median", at_most = 10, title = "ms to the first accepted connection" },
}

local FIELDS = { cpu_us = "CPU", rate = "req/s", p99_us = "p99" }

local function find(results, goal, product)
  for _, result in ipairs(results) do
    if result.row == goal.row and result.product == product then return result[goal.field] end
  end
end

local function compared(results, goal)
  local of, against = find(results, goal, goal.of), find(results, goal, goal.against)
  return of and against and figures.ratio(of.rounds, against.rounds)
end

local function measured(once, goal)
  local value = once[goal.once]
  for name in goal.field:gmatch("[^.]+") do value = value and value[tonumber(name) or name] end
  return value and { median = value, spread = 0, rounds = { value } }
end

-- What is looked at, and what it has to be.
local function words(goal)
  local bound = ("%s %.3g"):format(goal.at_most and "<=" or ">=", goal.at_most or goal.at_least)
  if goal.once then return goal.title, bound end
  return ("%s: %s's %s"):format(goal.row, goal.of, FIELDS[goal.field]), ("%s x %s's"):format(bound, goal.against)
end

local goals = {}

--- Those that this run can tell of.
---@param results table[] of the rows
---@param once table<string, table> of the measurements beside
---@return { goal: string, bound: string, seen: number, spread: number, rounds: number[], met: boolean }[]
function goals.judge(results, once)
  local judged = {}
  for _, goal in ipairs(GOALS) do
    local seen = goal.once and measured(once, goal) or goal.row and compared(results, goal)
    if seen then
      local met = goal.at_most and seen.median <= goal.at_most or goal.at_least and seen.median >= goal.at_least
      local what, bound = words(goal)
      judged[#judged + 1] = {
        goal = what, bound = bound, at_most = goal.at_most, at_least = goal.at_least, seen = seen.median,
        spread = seen.spread, rounds = seen.rounds, met = met or false,
      }
    end
  end
  return judged
end

--- As chart.lua takes them.
---@return { text: string, seen: string, limit: string, met: boolean }[]
function goals.lines(judged)
  local lines = {}
  for i, one in ipairs(judged) do
    lines[i] = { text = one.goal, seen = ("%.3g"):format(one.seen), limit = one.bound, met = one.met }
  end
  return lines
end

function goals.print(judged)
  if #judged == 0 then return end
  print(("\n%-78s %8s %7s  %s"):format("goal", "seen", "spread", "met"))
  for _, one in ipairs(judged) do
    local what, met = one.goal .. " " .. one.bound, one.met and "yes" or "NO"
    print(("%-78s %8.3f %6.0f%%  %s"):format(what, one.seen, one.spread * 100, met))
  end
end

return goals
