--- An HTTP listener: finds the route, runs the handler, turns what it returns or raises into a reply.

local core = require("perigee.core")
local entry = require("perigee.entry")
local errors = require("perigee.errors")
local link = require("perigee.link")
local log = require("perigee.log")
local promise = require("perigee.promise")
local registry = require("perigee.registry")
local request = require("perigee.request")
local response = require("perigee.response")
local scheduler = require("perigee.scheduler")
local scope = require("perigee.scope")

local RETRY_AFTER_S = 1
local STAMP = "perigee-generation"
local SLOTS = core.SLOTS -- number % SLOTS is the slot: a small index, used again

-- Statuses of errors that carry none; all else is 500.
local STATUS = {
  TIMEOUT = 504, CONNECT_FAILED = 502, CONNECTION_CLOSED = 502, BAD_FRAME = 502, OVERLOADED = 503, NO_HANDLER = 404,
}

---@class perigee.HttpServer
---@field closed perigee.Promise settles when everything is closed
---@field private core perigee.core.http
---@field private body function of the core; so are these:
---@field private forward function
---@field private reply function
---@field private reply_json function
---@field private router perigee.Router its handlers are { fn =, to =, on_error =, takes_context =, owner = }
---@field private stamps boolean
---@field private running table<integer, perigee.Exchange> until answered
local Http = {}
Http.__index = Http
Http.__name = "perigee.http"

--- Replies ------------------------------------------------------------------------------------------------------

---@class perigee.Exchange one request and its reply: a link, so that a Reply can be asked by it
local Exchange = link.class()

local function over(exchange)
  exchange.closed = true
  local running, slot = exchange.http.running, exchange.number % SLOTS
  if running[slot] == exchange then running[slot] = nil end
end

local function name_of(exchange)
  return exchange.req.method .. " " .. exchange.req.path
end

-- What the handler made cannot be sent: a fault of the script.
local function check_sent(exchange, ok, message)
  if ok or message == "CLOSED" then return end
  log.error("%s: the reply cannot be sent: %s", name_of(exchange), tostring(message))
  exchange.http.core:problem(exchange.number, 500)
end

local function is_status(value)
  return type(value) == "number" and value >= 400 and value <= 599 and value == math.floor(value)
end

-- Texts of faults and peers stay in the log; only an error made with a status speaks to the client.
function Exchange:fail(err)
  if self.closed then return end
  over(self)
  local own, detail = errors.field(err, "status"), errors.field(err, "message")
  if is_status(own) then
    if own >= 500 then log.failure(name_of(self), err) end
    return check_sent(self, self.http.core:problem(self.number, own, type(detail) == "string" and detail or nil))
  end
  local status = errors.is(err) and STATUS[err.code] or 500
  if status == 500 then
    log.failure(name_of(self), err)
  else
    log.warn("%s: %s", name_of(self), err)
  end
  return check_sent(self, self.http.core:problem(self.number, status, nil, status == 503 and RETRY_AFTER_S or nil))
end

local function send_body(exchange, status, headers, body)
  local http, number = exchange.http, exchange.number
  if body == nil then return http.reply(http.core, number, status or 204, headers) end
  if type(body) ~= "string" then return http.reply_json(http.core, number, status or 200, headers, body) end
  return http.reply(http.core, number, status or 200, headers, body)
end

local function respond(exchange, made)
  local headers, message = response.flat_headers(made)
  if message then
    over(exchange)
    return check_sent(exchange, nil, message)
  end
  local body = made.body
  if promise.follower(body) then
    local later = { down = exchange, status = made.status, headers = headers, closed = false }
    exchange.work = entry.observe(setmetatable(later, Exchange.Body), body)
    return
  end
  over(exchange)
  return check_sent(exchange, send_body(exchange, made.status, headers, body))
end

--- The handler's value, or a Reply's last. A string is text only when the handler itself returned it.
function Exchange:value(value, direct)
  if self.closed then return end
  if response.is(value) then return respond(self, value) end
  over(self)
  local http, number = self.http, self.number
  if value == nil then return check_sent(self, http.reply(http.core, number, 204)) end
  if direct and type(value) == "string" then return check_sent(self, http.reply(http.core, number, 200, nil, value)) end
  return check_sent(self, http.reply_json(http.core, number, 200, nil, value))
end

function Exchange:next(value)
  self.last = value
end

function Exchange:complete()
  if self.closed then return end
  self.upstream = nil
  return self:value(self.last)
end

function Exchange:error(err)
  self.upstream = nil
  return self:fail(err)
end

-- A response whose body comes later.
local Body = link.class()
Exchange.Body = Body

function Body:value(value)
  if self.closed then return end
  self.closed, self.upstream = true, nil
  local exchange = self.down
  if exchange.closed then return end
  over(exchange)
  -- A string that comes later is JSON, as everywhere.
  if type(value) == "string" then
    return check_sent(exchange, exchange.http.core:reply_json(exchange.number, self.status or 200, self.headers, value))
  end
  return check_sent(exchange, send_body(exchange, self.status, self.headers, value))
end

function Body:next(value) self.last = value end
function Body:complete() return self:value(self.last) end

function Body:error(err)
  self.closed, self.upstream = true, nil
  return self.down:fail(err)
end

--- Requests -----------------------------------------------------------------------------------------------------

local function context_index(ctx, name)
  if name == "headers" or name == "peer" or name == "raw" then return ctx.req[name] end
  if name == "deadline" then return scope.left() end
  local value
  if name == "pattern" then
    value = ctx.route.method .. " " .. ctx.route.path
  elseif name == "metadata" then
    value = {}
  else
    return nil
  end
  rawset(ctx, name, value)
  return value
end

local CONTEXT = { __index = context_index, __name = "perigee.context" }

--- The handler has ended.
function Exchange:ended(ok, result)
  if not ok then return self:fail(result) end
  self.work = entry.observe(self, result) or self.work
end

local function run(self, route, req)
  local ctx
  if route.handler.takes_context then
    ctx = setmetatable({ transport = "http", cancelled = false, req = req, route = route }, CONTEXT)
  end
  local exchange = setmetatable({
    http = self, number = req.number, req = req, route = route, ctx = ctx, closed = false, work = false,
  }, Exchange)
  self.running[req.number % SLOTS] = exchange
  local task = scheduler.start_two(exchange, route.handler.fn, req, ctx)
  if not exchange.closed and not exchange.work then exchange.work = task end
end

-- perigee.to without a word of Lua, where nothing in Lua is in the way.
local function forward(self, number, route)
  local to = route.handler.to
  local client, timeout = registry.direct(to.client)
  if not client then return false end
  local ok, message = self.forward(self.core, number, client, to.json, timeout, route.handler.on_error)
  if not ok and message ~= "CLOSED" then self.core:problem(number, 400, message) end
  return true
end

local function receive(self, number, method, path, query, has_body)
  local route, params, allow = self.router:find(method, path)
  if not route then
    return self.core:problem(number, params, nil, nil, allow and { "allow", allow })
  end
  if self.stamps then self.core:stamp(STAMP, route.handler.owner.number, number) end
  if route.handler.to and forward(self, number, route) then return end
  return run(self, route, request.new({
    http = self.core, number = number, method = method, path = path, params = params,
    query_text = query, body_text = has_body and self.body(self.core, number) or nil,
  }))
end

local function cancel_work(exchange)
  if exchange.ctx then exchange.ctx.cancelled = true end
  local work = exchange.work
  if work == exchange then return exchange:cancel() end
  exchange.closed = true
  if work then work:cancel() end
end

-- The peer has left before the answer.
local function aborted(self, number)
  local exchange = self.running[number % SLOTS]
  if not exchange or exchange.number ~= number then return end
  self.running[number % SLOTS] = nil
  return cancel_work(exchange)
end

--- Life ---------------------------------------------------------------------------------------------------------

--- Listens. Raises LISTEN_FAILED.
---@param router perigee.Router
---@param options perigee.ListenerOptions
---@return perigee.HttpServer
local function open(router, options)
  local self = setmetatable({ router = router, running = {}, stamps = false, closed = promise.pending() }, Http)
  local server, code, message = core.http(options.core, {
    on_request = function(number, method, path, query, has_body)
      return receive(self, number, method, path, query, has_body)
    end,
    on_abort = function(number) return aborted(self, number) end,
    on_close = function() return promise.resolve(self.closed, nil) end,
  })
  if not server then error(errors.make(code, message), 0) end
  self.core = server
  for _, name in ipairs({ "body", "forward", "reply", "reply_json" }) do self[name] = server[name] end -- a look-up less
  return self
end

--- From the next request on; what runs goes on as it began.
---@param routes perigee.Router
function Http:use(routes) self.router = routes end

--- No new connections while held.
---@param held boolean
function Http:hold(held) self.core:hold(held) end

--- Replies say which generation made them; those that no route makes, this one.
---@param number integer
function Http:stamp(number)
  self.stamps = true
  self.core:stamp(STAMP, number)
end

--- How many requests of a generation still run.
---@param owner perigee.Generation
---@return integer
function Http:calls(owner)
  local n = 0
  for _, exchange in pairs(self.running) do
    if exchange.route.handler.owner == owner then n = n + 1 end
  end
  return n
end

--- Cancels them; who asked gets a 503.
---@param owner perigee.Generation
function Http:cut(owner)
  local exchanges = {}
  for _, exchange in pairs(self.running) do
    if exchange.route.handler.owner == owner then exchanges[#exchanges + 1] = exchange end
  end
  for _, exchange in ipairs(exchanges) do
    self.running[exchange.number % SLOTS] = nil
    self.core:problem(exchange.number, 503, nil, RETRY_AFTER_S)
    cancel_work(exchange)
  end
end

function Http:drain() self.core:drain() end
function Http:close() self.core:close() end

---@return string
function Http:address() return self.core:address() end

return { open = open }
