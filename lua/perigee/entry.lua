--- What happens around every handler: middleware, and what its result comes to.

local link = require("perigee.link")
local promise = require("perigee.promise")
local reply = require("perigee.reply")
local scheduler = require("perigee.scheduler")

local entry = {}

local RAW = { raw = true }

--- The handler with the middleware around it, the first outermost.
---@param middleware (fun(input: any, ctx: table, next: fun(): any): any)[]
---@param handler fun(input: any, ctx: table): any
---@return fun(input: any, ctx: table): any
function entry.compose(middleware, handler)
  local fn = handler
  for i = #middleware, 1, -1 do
    local around, inner = middleware[i], fn
    fn = function(input, ctx)
      return around(input, ctx, function() return inner(input, ctx) end)
    end
  end
  return fn
end

--- Whether the handler looks at its second parameter: where nothing does, no context is made.
---@param middleware function[]
---@param handler any
---@return boolean
function entry.takes_context(middleware, handler)
  if #middleware > 0 or type(handler) ~= "function" then return true end
  local info = debug.getinfo(handler, "u")
  return info.nparams == nil or info.isvararg or info.nparams > 1
end

-- Nobody looks at the values of a Reply that comes straight from a client: they stay undecoded.
local function settings(answer)
  local state = answer.state
  if type(state) == "table" and state.up then return nil end
  return RAW
end

-- A handler that has ended with children that still run: cancelling its answer reaches them.
local function with_children()
  local task = scheduler.scope()
  return task and task.scope and task.scope.children and task
end

local function cancel_children(observer)
  observer.started_by:cancel_children()
end

-- A function of its own: a closure in `observe` would keep that from being compiled.
local function both(own, task)
  return { cancel = function()
    own:cancel()
    task:cancel_children()
  end }
end

local function told(reaction, ok, value)
  if reaction.dropped then return end
  if ok then return reaction.observer:value(value) end
  return reaction.observer:error(value)
end

--- Tells the observer, a link of a class with `value(v)` beside `next error complete`, what a handler returned: a
--- Reply's values one by one, a Promise's or a plain value through `value`. Returns what cancels the rest, or nil.
---@param observer table
---@param result any
---@return { cancel: fun(self) }?
function entry.observe(observer, result)
  local task = with_children()
  if reply.is(result) then
    if task then observer.started_by, observer.release = task, cancel_children end
    link.connect(result, observer, settings(result))
    if not observer.closed then return observer end
  elseif promise.is(result) then
    local own = promise.bare()
    promise.resolve(own, result)
    promise.observe(own, { of = own, observer = observer, settle = told })
    return task and both(own, task) or own
  else
    return observer:value(result, true)
  end
end

return entry
