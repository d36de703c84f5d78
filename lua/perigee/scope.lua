--- What a task hands down: its children are cancelled with it, its deadline is theirs.

local core = require("perigee.core")
local errors = require("perigee.errors")
local scheduler = require("perigee.scheduler")

local FIRST_SWEEP = 16

local WEAK = { __mode = "v" } -- what nobody could settle any more is collected as it would be without a parent

---@class perigee.Scope of a task
---@field deadline? number when its sends are over, on core.now()'s clock
---@field children? { n: integer, sweep_at: integer, [integer]: perigee.Promise } in the order they were started

local scope = {}

-- Those that have settled are only taken out when the list is about to double: settling costs nothing.
local function sweep(children)
  local n = 0
  for i = 1, children.n do
    local child = children[i]
    children[i] = nil
    if child and child.state == "pending" then
      n = n + 1
      children[n] = child
    end
  end
  children.n, children.sweep_at = n, math.max(FIRST_SWEEP, 2 * n)
end

--- Makes the promise a child: it is cancelled when the parent is.
---@param promise perigee.Promise
---@param parent? perigee.Task the running one when not given; outside tasks nothing happens
function scope.adopt(promise, parent)
  parent = parent or scheduler.running_task()
  if not parent then return end
  local own = parent.scope or {}
  local children = own.children or setmetatable({ n = 0, sweep_at = FIRST_SWEEP }, WEAK)
  parent.scope, own.children = own, children
  if children.n >= children.sweep_at then sweep(children) end
  children.n = children.n + 1
  children[children.n] = promise
  promise.parent = parent
end

--- Children of an ended task go to the parent it had.
---@param task perigee.Task
---@param parent perigee.Task
function scope.bequeath(task, parent)
  local children = task.scope.children
  for i = 1, children.n do
    local child = children[i]
    if child and child.state == "pending" then scope.adopt(child, parent) end
  end
end

--- ms left to the running code, 0 when its deadline has passed, nil when it has none.
---@return number?
function scope.left()
  local at = scheduler.deadline()
  return at and math.max(0, at - core.now()) or nil
end

--- What a send ends with when its deadline has passed.
---@param cause? any
---@return perigee.Error
function scope.too_late(cause)
  return errors.new({ code = "TIMEOUT", message = "deadline exceeded", cause = cause })
end

return scope
