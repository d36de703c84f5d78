--- One environment per routing script: its globals, its modules, and what it has started.

local client_of = require("perigee.client")
local combinators = require("perigee.combinators")
local core = require("perigee.core")
local errors = require("perigee.errors")
local isolation = require("perigee.isolation")
local log = require("perigee.log")
local promise = require("perigee.promise")
local saga = require("perigee.saga")
local where_of = require("perigee.where")

local MAX_SOURCE = 16 * 1024 * 1024 -- bytes of one file
local PIECE = 16384
local UNDO_MS = 10000

---@class perigee.Environment
---@field path string of the script
---@field globals table of the script, see isolation.lua
---@field files table<string, string> the sources it has read, by path
---@field private given? table<string, string> sources to take instead of those on disk
---@field package table as the stock one, see own_package
---@field private loaded table<string, any> its modules
---@field private loading table<string, { co: thread|"main", done: perigee.Promise, failure: any }>
---@field private waiting table<thread|"main", table> what a coroutine waits for, of loading
---@field private search_path string
---@field private spawned table<perigee.Promise, true> weak
---@field private sagas table<perigee.Promise, true> weak; that nothing is left to undo
---@field private sleeping table<perigee.Promise, true> weak
---@field private clients table<table, true> weak
---@field private is_over boolean
---@field private is_loading boolean
local Environment = {}
Environment.__index = Environment
Environment.__name = "perigee.environment"

local WEAK = { __mode = "k" }

-- The script's own `perigee`: as the module, and what it makes belongs to the script.
local function own_perigee(self)
  local perigee = require("perigee")
  local own = {}
  for name, value in pairs(perigee) do own[name] = value end
  function own.client(options)
    local client = perigee.client(options)
    self.clients[client] = true
    if self.is_over then client_of.finish(client) end
    return client
  end
  local function keep(set, name)
    local start = combinators[name]
    own[name] = function(...)
      local work = start(...)
      if work.state == "pending" then set[work] = true end
      return work
    end
  end
  for _, name in ipairs({ "spawn", "async", "map", "deadline" }) do keep(self.spawned, name) end
  keep(self.sleeping, "sleep") -- what comes next may sleep again, for ever
  function own.saga(fn, options)
    local work, ended = saga.start(fn, options)
    self.spawned[work], self.sagas[ended] = true, true
    return work
  end
  return setmetatable(own, getmetatable(perigee))
end

-- A script that is served must not end the program for all the others.
local function without_exit()
  return setmetatable({
    exit = function() error("os.exit is for scripts of 'perigee run': what is served ends with its program", 2) end,
  }, { __index = os })
end

-- What the script puts into `package` is its own: the next generation would find it, and add to it.
local function own_package(self)
  return setmetatable({
    path = package.path,
    loaded = setmetatable(self.loaded, { __index = package.loaded }),
    preload = setmetatable({}, { __index = package.preload }),
    seeall = function(made) setmetatable(made, { __index = self.globals }) end,
  }, { __index = package })
end

-- Lua 5.1's `module`: the stock one writes into the globals and modules of all scripts.
local function own_module(self)
  return function(name, ...)
    local made = rawget(self.loaded, name)
    if type(made) ~= "table" then made = {} end
    made._M, made._NAME, made._PACKAGE = made, name, name:match("^(.*%.)[^.]*$") or ""
    self.loaded[name] = made
    if not name:find(".", 1, true) then rawset(self.globals, name, made) end
    for _, option in ipairs({ ... }) do option(made) end
    setfenv(2, made)
  end
end

---@param path string of the script
---@param options? { files: table<string, string>?, is_served: boolean? } files: to take instead of those on disk
---@return perigee.Environment
local function new(path, options)
  local folder = path:match("^(.*)/[^/]*$") or "."
  local self = setmetatable({
    path = path, loaded = {}, loading = {}, waiting = setmetatable({}, WEAK),
    files = {}, given = options and options.files,
    -- "?" and ";" mean something in a search path.
    search_path = not folder:find("[?;]") and folder .. "/?.lua;" .. folder .. "/?/init.lua;" or "",
    spawned = setmetatable({}, WEAK), sagas = setmetatable({}, WEAK), sleeping = setmetatable({}, WEAK),
    clients = setmetatable({}, WEAK), is_over = false, is_loading = false,
  }, Environment)
  self.globals = isolation.new(path)
  rawset(self.globals, "require", function(name) return self:require(name) end)
  if options and options.is_served then
    self.loaded.os = without_exit()
    rawset(self.globals, "os", self.loaded.os)
  end
  self.package = own_package(self)
  rawset(self.globals, "package", self.package)
  rawset(self.globals, "module", own_module(self))
  self.loaded.package, self.loaded.perigee = self.package, own_perigee(self)
  return self
end

--- Modules ------------------------------------------------------------------------------------------------------

-- The file of a module; what was tried when there is none.
local function find(self, name)
  local path = self.search_path .. tostring(self.package.path)
  for template in self.given and path:gmatch("[^;]+") or function() end do
    local candidate = template:gsub("%?", (name:gsub("%.", "/"):gsub("%%", "%%%%")))
    if self.given[candidate] then return candidate end
  end
  return package.searchpath(name, path) -- it is there in LuaJIT
end

local function read_file(path)
  local file, message = io.open(path, "rb")
  if not file then error("cannot open " .. message, 0) end
  local parts, size, piece, failure = {}, 0
  repeat -- in pieces: what is read at once has its room allotted first
    piece, failure = file:read(PIECE)
    parts[#parts + 1] = piece
    size = size + #(piece or "")
  until not piece or size > MAX_SOURCE
  file:close()
  if failure then error(("cannot read %s: %s"):format(path, failure), 0) end
  if size > MAX_SOURCE then error(("%s is larger than %d bytes"):format(path, MAX_SOURCE), 0) end
  return table.concat(parts)
end

local function load_source(self, path)
  local text = self.given and self.given[path] or read_file(path)
  self.files[path] = text
  local chunk, message = loadstring(text:gsub("^#[^\n]*", ""), "@" .. path)
  if not chunk then error(message, 0) end
  return setfenv(chunk, self.globals)
end

-- A module that awaits while it loads can be asked for by another task meanwhile: that one waits, unless what it
-- waits for waits for a module that it loads itself. When the load is cancelled, it loads the module anew.
local function wait_or_refuse(self, name, loading)
  local co, waiting = coroutine.running() or "main", self.waiting
  local other = loading
  while other do
    if other.co == co then error(("loop in loading module '%s'"):format(name), 0) end
    other = waiting[other.co]
  end
  waiting[co] = loading
  local ok, value = pcall(loading.done.await, loading.done)
  waiting[co] = nil
  if ok then return value end
  local was_cancelled = value == loading.failure and type(value) == "table" and rawget(value, "code") == "CANCELLED"
  if not was_cancelled then error(value, 0) end
  return self:require(name)
end

-- load() gives the function that makes the module.
local function load_module(self, name, load, ...)
  local co = coroutine.running() or "main"
  local done = promise.bare()
  local loading = { co = co, done = done }
  promise.observe(done, { of = done, settle = function() end }) -- nobody who waits for it cancels it
  self.loading[name] = loading
  local ok, value = pcall(function(...) return load(...)(name) end, ...)
  self.loading[name] = nil
  if not ok then
    loading.failure = value
    promise.reject(done, value)
    error(value, 0)
  end
  if value == nil then value = rawget(self.loaded, name) end
  if value == nil then value = true end
  self.loaded[name] = value
  promise.settle(done, true, value)
  return value
end

-- C modules, and the host's.
local function require_elsewhere(self, name)
  local cpath = package.cpath
  package.cpath = self.package.cpath
  local ok, value = pcall(require, name)
  package.cpath = cpath
  return ok, value
end

--- As the stock `require`, but what it loads from Lua sources is this environment's own, and can await.
---@param name string
---@return any
function Environment:require(name)
  if type(name) ~= "string" then error("require takes a module's name, not a " .. type(name), 2) end
  local known = rawget(self.loaded, name)
  if known ~= nil then return known end
  local loading = self.loading[name]
  if loading then return wait_or_refuse(self, name, loading) end
  local preload = rawget(self.package.preload, name)
  if preload then return load_module(self, name, function() return preload end) end
  -- perigee itself and what the program has built in are one for all scripts.
  if name:find("^perigee%.") or package.preload[name] then return require(name) end
  local path, tried = find(self, name)
  if not path then
    local ok, value = require_elsewhere(self, name)
    if ok then return value end
    if tostring(value):find("^module '") then value = ("module '%s' not found:%s"):format(name, tried) end
    error(value, 2)
  end
  return load_module(self, name, load_source, self, path)
end

--- Running ------------------------------------------------------------------------------------------------------

local function run(self, raised, ...)
  local chunk = load_source(self, self.path)
  return xpcall(chunk, function(value)
    raised.where = where_of.text(where_of.capture())
    return errors.on_raise(value)
  end, ...)
end

-- Once: a chunk that yields its coroutine away never comes back to say that it has ended.
local function set_loading(self, is_loading)
  if self.is_loading == is_loading then return end
  self.is_loading = is_loading
  core.loading(is_loading)
end

--- Loads the script and runs it, in the calling coroutine.
---@param ... any its arguments
---@return boolean ok
---@return any result what it returned, or the error
---@return string? where file:line the error was raised at, when the error's text does not say
function Environment:run(...)
  local raised = {}
  set_loading(self, true)
  local read_ok, ok, result = pcall(run, self, raised, ...)
  set_loading(self, false)
  if not read_ok then return false, errors.from(ok) end -- the file cannot be read or is not Lua
  if ok then return true, result end
  result = errors.from(result) -- out of memory: a text, no handler was called
  local told = errors.is(result) and result.code == "SCRIPT" and result.message:find(":%d") ~= nil
  return false, result, not told and raised.where ~= "?" and raised.where or nil
end

local function list_of(set)
  local list = {}
  for item in pairs(set) do list[#list + 1] = item end
  return list
end

--- Cancels what the script has started and still runs, and logs it. Settles when its sagas have nothing left to undo,
--- or have been given their time; its clients are still there for that.
---@param limit_ms? number 10000 when not given
---@return perigee.Promise
function Environment:cancel(limit_ms)
  limit_ms = limit_ms or UNDO_MS
  set_loading(self, false)
  for _, work in ipairs(list_of(self.spawned)) do
    if work.state == "pending" then
      log.warn("%s: what was started at %s still ran: it is cancelled", self.path,
        where_of.text(work.func, work.line))
      promise.cancel_quietly(work)
    end
  end
  local sagas = list_of(self.sagas)
  self.sagas = setmetatable({}, WEAK)
  return combinators.settled(sagas):timeout(limit_ms):catch(function()
    log.error("%s: not everything was undone within %g ms", self.path, limit_ms)
  end):next(function() -- not before: what undoes may sleep, too
    for _, timer in ipairs(list_of(self.sleeping)) do promise.cancel_quietly(timer) end
  end)
end

--- Requests in flight that clients of the script's own have passed on without Lua.
---@return integer
function Environment:forwards()
  local n = 0
  for client in pairs(self.clients) do
    if client.core then n = n + client.core:forwards() end
  end
  return n
end

--- Ends what the script has started: as `cancel`, then its clients are closed for good.
---@return perigee.Promise
function Environment:close()
  return self:cancel():next(function()
    self.is_over = true
    local closing = {}
    for client in pairs(self.clients) do closing[#closing + 1] = client_of.finish(client) end
    return combinators.settled(closing)
  end)
end

return { new = new }
