--- What becomes of Promises and Replies, for specs.

local loop = require("spec.support.loop")

local outcome = {}

--- Waits for a Promise or Reply that has to fail; returns its error.
function outcome.failure(awaitable)
  local ok, err = pcall(awaitable.await, awaitable)
  assert(not ok, "it did not fail")
  assert(type(err) == "table", err)
  return err
end

--- Subscribes and writes down what comes.
---@return { values: any[], over: boolean, error: any, subscription: table }
function outcome.watch(reply)
  local seen = { values = {}, over = false }
  seen.subscription = reply:subscribe({
    next = function(value) seen.values[#seen.values + 1] = value end,
    error = function(err) seen.error, seen.over = err, true end,
    complete = function() seen.over = true end,
  })
  return seen
end

--- Waits for the end of what is watched.
function outcome.finish(seen, ms)
  loop.wait_until(function() return seen.over end, ms, "the end of a Reply")
  return seen
end

return outcome
