--- The rows of the table: what work, done by whom. A row to come is an entry in a file of rows/, and a load if it needs
--- another.
--
-- A contender's start(row) starts the process that is measured and returns it. `load` drives it: open(contender, row)
-- once, then run(contender, seconds, rate) in every round, close(contender) in the end. What stands side by side in a
-- row is started together, and loaded in turn.

---@class bench.Contender
---@field product string the first of a row is what the others are compared with
---@field path? string http: what is posted to
---@field call? fun(process: spec.Process, row: bench.Row): spec.Process calls: starts the client that is the load

---@class bench.Row
---@field name string
---@field load "http"|"calls"
---@field side? boolean less time for what is no goal's
---@field split? integer so many times the rounds, each as much shorter: where one hiccup of the machine decides a round
---@field connections? integer http
---@field bytes? integer http: of the body
---@field half_of? string http: an open loop, at half of what this product does in a closed one
---@field in_flight? integer calls
---@field contenders bench.Contender[]

local rows = {}
for _, kind in ipairs({ "http", "send", "serve" }) do
  for _, row in ipairs(require("spec.bench.rows." .. kind)) do rows[#rows + 1] = row end
end
return rows
