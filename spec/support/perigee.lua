--- The program itself, for specs: build/bin/perigee, or what $PERIGEE names.

local cjson = require("cjson")
local loop = require("spec.support.loop")
local process = require("spec.support.process")
local uv = require("luv")

local PROGRAM = os.getenv("PERIGEE") or "build/bin/perigee"

local perigee = { path = PROGRAM }

local function environment(more)
  local list = {}
  local all = uv.os_environ()
  for name, value in pairs(more or {}) do all[name] = value end
  for name, value in pairs(all) do list[#list + 1] = name .. "=" .. value end
  return list
end

--- Starts it.
---@param args string[]
---@param env? table<string, string> beside the spec's own
---@return spec.Process
function perigee.start(args, env)
  local child = process.start(PROGRAM, args, { env = environment(env) })
  child.env = env
  return child
end

--- Runs it to its end.
---@param args string[]
---@param options? { env: table<string, string>?, input: string? }
---@return integer exit_code
---@return string stdout
---@return string stderr
function perigee.run(args, options)
  local child = perigee.start(args, options and options.env)
  if options and options.input then child:write(options.input) end
  child:close_stdin()
  child:wait()
  return child.exit_code, child.stdout, child.stderr
end

--- Waits until it says that it listens; the URLs in their order.
---@param child spec.Process
---@param n? integer how many listeners, 1 by default
---@return string[]
function perigee.urls(child, n)
  return loop.wait_until(function()
    local urls = {}
    for url in child.stderr:gmatch("perigee: listening on (%S+)\n") do urls[#urls + 1] = url end
    return (#urls >= (n or 1) and urls) or (child.exit_code and error("it ended: " .. child.stderr))
  end, 10000, function() return "listeners of " .. child:describe() end)
end

--- What `perigee status` tells of a child that serves.
---@param child spec.Process
---@return table
function perigee.status(child)
  local code, out, err = perigee.run({ "status", "--json", "--pid", tostring(child.pid) }, { env = child.env })
  assert(code == 0, err)
  return cjson.decode(out)
end

--- Asks again and again until fn returns something true: for what tells nobody when it happens.
---@param fn fun(): any
---@param what string names what is waited for in the error
---@return any
function perigee.poll(fn, what)
  local started = uv.hrtime()
  while true do
    local value = fn()
    if value then return value end
    if uv.hrtime() - started > 10e9 then error("waited 10 s in vain for " .. what, 2) end
    loop.run_for(10)
  end
end

--- The process ids of its workers, once all of them serve one generation.
---@param child spec.Process
---@param generation? integer that one
---@return integer[]
function perigee.workers(child, generation)
  return perigee.poll(function()
    local status, pids = perigee.status(child), {}
    for i, worker in ipairs(status.workers) do
      if worker.state ~= "serving" or worker.generation ~= (generation or status.generation) then return false end
      pids[i] = worker.pid
    end
    return pids
  end, "all workers of " .. child:describe())
end

--- Writes a script to a file of its own, removed by `clean`.
local files = {}

---@param text string
---@return string path
function perigee.script(text)
  local path = os.tmpname()
  files[#files + 1] = path
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

--- For after_each: ends children, removes scripts.
function perigee.clean()
  process.stop_all()
  for _, path in ipairs(files) do os.remove(path) end
  files = {}
end

return perigee
