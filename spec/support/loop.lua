--- The host's loop in specs: waiting for events with a deadline, and leaving the loop as it was found.

local uv = require("luv")

local loop = {}

local owned = {} -- handles a spec opened, closed by finish()

--- Runs the loop step by step until pred returns something true, and returns that. pred is asked after each event only.
---@param pred fun(): any
---@param ms? integer deadline, 5000 by default; passing it raises
---@param what? string|fun(): string names what is waited for in the error
---@return any
function loop.wait_until(pred, ms, what)
  local late = false
  local timer = uv.new_timer() -- also what keeps the loop polling when nothing else is referenced
  timer:start(ms or 5000, 0, function() late = true end)
  local value = pred()
  while not value and not late do
    uv.run("once")
    value = pred()
  end
  timer:close()
  uv.run("nowait")
  if value then return value end
  if type(what) == "function" then what = what() end
  error(("waited %d ms in vain for %s"):format(ms or 5000, what or "a condition"), 2)
end

--- Runs the loop for a stretch of time, for showing that something does not happen.
---@param ms integer
function loop.run_for(ms)
  local done = false
  local timer = uv.new_timer()
  timer:start(ms, 0, function() done = true end)
  while not done do uv.run("once") end
  timer:close()
  uv.run("nowait")
end

--- Lets everything run that is ready now.
function loop.turn()
  uv.run("nowait")
  uv.run("nowait")
end

--- Remembers a handle of the spec, to be closed by finish.
---@generic T
---@param handle T
---@return T
function loop.own(handle)
  owned[handle] = true
  return handle
end

---@param handle userdata closing twice is fine
function loop.close(handle)
  owned[handle] = nil
  if not handle:is_closing() then handle:close() end
end

local function describe_handles()
  local open = {}
  uv.walk(function(handle)
    -- The core's handles are one table, which names them itself.
    local keeps = type(handle) == "table" or uv.is_active(handle) and uv.has_ref(handle) or uv.is_closing(handle)
    if keeps then open[handle] = true end
  end)
  local names = {}
  for handle in pairs(open) do names[#names + 1] = tostring(handle) end -- which may walk, too
  return table.concat(names, ", ")
end

--- Raises when anything still keeps the loop alive. Children of nest.lua do not: their handles are unreferenced.
---@param ms? integer how long closing may take, 2000 by default
function loop.assert_empty(ms)
  local deadline = uv.hrtime() + (ms or 2000) * 1e6
  while uv.loop_alive() and uv.hrtime() < deadline do
    local timer = uv.new_timer() -- ends a "once" step that nothing else would end
    timer:start(10, 0, function() end)
    uv.run("once")
    timer:close()
    uv.run("nowait")
  end
  if uv.loop_alive() then error("the loop is not empty: " .. describe_handles(), 2) end
end

--- For after_each: closes what the spec opened through own, then asserts that nothing else is left.
function loop.finish()
  for handle in pairs(owned) do
    if not handle:is_closing() then handle:close() end
  end
  owned = {}
  loop.assert_empty()
end

return loop
