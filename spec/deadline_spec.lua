-- perigee.deadline, and what inherits it.

local http = require("spec.support.http")
local log = require("perigee.log")
local loop = require("spec.support.loop")
local perigee = require("perigee")
local scope = require("perigee.scope")
local uv = require("luv")

local async, deadline, sleep, spawn = perigee.async, perigee.deadline, perigee.sleep, perigee.spawn

local closing, lines

before_each(function()
  closing, lines = {}, {}
  log.set_sink(function(line) lines[#lines + 1] = line end)
end)

after_each(function()
  for i = #closing, 1, -1 do closing[i]() end
  loop.finish()
  log.set_sink()
end)

local function later(fn) closing[#closing + 1] = fn end

-- An app of these handlers, on free ports or in-process.
local function serve(url, setup)
  local app = perigee.app()
  setup(app)
  app:listen(url)
  app:start():await()
  later(function() app:stop({ drain_timeout = 100 }):await() end)
  return app:addresses()[1]
end

local function connect(url, options)
  local client = perigee.client(url, options)
  later(function() client:close():await() end)
  return client
end

local function failure(waited)
  local ok, err = pcall(waited.await, waited)
  assert.is_false(ok)
  return err
end

-- Waits for ever; `control.code` tells what it was ended with.
local function endless(control)
  local ok, err = pcall(function() perigee.promise(function() end):await() end)
  assert(not ok)
  control.code = err.code
  error(err)
end

describe("deadline", function()
  local client, heard

  before_each(function()
    heard = 0
    client = connect(serve("local:scope", function(app)
      app:message("never", function()
        heard = heard + 1
        return perigee.promise(function() end)
      end)
      app:message("fail", function()
        heard = heard + 1
        error({ code = 1 })
      end)
      app:message("echo", function(data)
        heard = heard + 1
        return data
      end)
      app:event("told", function() heard = heard + 1 end)
    end))
  end)

  it("gives what the function returns, or raises", function()
    assert.equal(3, deadline(1000, function(a, b) return a + b end, 1, 2):await())
    assert.equal("v", deadline(1000, function() return client:send("echo", "v") end):await())
    assert.equal(7, failure(deadline(1000, function() error({ code = 7 }) end)).code)
  end)

  it("rejects with TIMEOUT when the time is over, and cancels what runs, children included", function()
    local body, child = {}, {}
    local err = failure(deadline(10, function()
      async(endless, child)
      endless(body)
    end))
    assert.equal("TIMEOUT: deadline exceeded", tostring(err))
    loop.turn()
    assert.same({ "CANCELLED", "CANCELLED" }, { body.code, child.code })
  end)

  it("bounds every send inside, whatever the send's own limits", function()
    local codes = {}
    failure(deadline(20, function()
      for i, call in ipairs({
        client:send("never", 1), client:send("never", 1, { deadline = 60000 }),
        client:send("never", 1, { timeout = false }), client:send("never", 1):timeout(60000),
        client:send("never", 1):raw(), client:send("never", 1):map(print),
      }) do
        call:subscribe({ error = function(err) codes[i] = tostring(err) end })
      end
      sleep(60000):await()
    end))
    loop.wait_until(function() return #codes == 6 end)
    for _, code in ipairs(codes) do assert.equal("TIMEOUT: deadline exceeded", code) end
  end)

  it("leaves a shorter limit of the send's own", function()
    assert.equal("TIMEOUT: no value within 5 ms", tostring(failure(deadline(60000, function()
      return client:send("never", 1, { timeout = 5 })
    end))))
    assert.equal("TIMEOUT: deadline exceeded", tostring(failure(deadline(60000, function()
      return client:send("never", 1, { deadline = 5 })
    end))))
  end)

  it("sends nothing when it has passed: send and emit fail at once", function()
    local err, told
    local work = deadline(5, function()
      pcall(function() sleep(60000):await() end) -- ended by the deadline
      err = failure(client:send("echo", 1))
      told = failure(client:emit("told", 1))
    end)
    assert.equal("TIMEOUT", failure(work).code)
    loop.wait_until(function() return told end)
    assert.equal("TIMEOUT: deadline exceeded", tostring(err))
    assert.equal("TIMEOUT: deadline exceeded", tostring(told))
    assert.equal(0, heard)
  end)

  it("asks no fake when it has passed", function()
    local app, err = perigee.app(), nil
    app:clients({ { name = "FAR", port = 1 } })
    app:override("FAR", { echo = function() heard = heard + 1 end })
    local far = app:inject("FAR")
    failure(deadline(5, function()
      pcall(endless, {})
      err = failure(far:send("echo", 1))
    end))
    loop.wait_until(function() return err end)
    assert.same({ "TIMEOUT: deadline exceeded", 0 }, { tostring(err), heard })
  end)

  it("can only get shorter inside another", function()
    deadline(1000, function()
      deadline(60000, function() assert.is_true(scope.left() <= 1000) end):await()
      deadline(100, function() assert.is_true(scope.left() <= 100) end):await()
      assert.is_true(scope.left() > 100)
    end):await()
    assert.equal("TIMEOUT", failure(deadline(60000, function()
      return deadline(5, function() return client:send("never", 1) end)
    end)).code)
    assert.equal("v", deadline(60000, function()
      pcall(function() deadline(1, endless, {}):await() end)
      return client:send("echo", "v"):await() -- the shorter one is over, not ours
    end):await())
  end)

  it("does not start what begins after an outer one has passed", function()
    local ran
    failure(deadline(1, function()
      pcall(endless, {})
      ran = deadline(1000, function() ran = true end)
    end))
    loop.wait_until(function() return ran end)
    assert.equal("TIMEOUT: deadline exceeded", tostring(failure(ran)))
  end)

  it("is inherited by async, map, callbacks of promises and iterators, and not by spawn", function()
    local seen = {}
    local function look(name)
      return function() seen[name] = scope.left() or "none" end
    end
    deadline(60000, function()
      spawn(look("spawn"))
      async(function() async(look("async")) end)
      perigee.all({
        perigee.map({ sleep(1) }, look("map")),
        sleep(1):next(look("next")), sleep(1):finally(look("finally")),
        perigee.promise(function(_, reject) reject(1) end):catch(look("catch")),
        client:send("echo", 1):next(look("reply")),
        perigee.from(look("from")):last(),
      }):await()
    end):await()
    assert.equal("none", seen.spawn)
    for _, name in ipairs({ "async", "map", "next", "finally", "catch", "reply", "from" }) do
      assert.is_true(type(seen[name]) == "number" and seen[name] <= 60000, name)
    end
    assert.is_nil(scope.left())
  end)

  it("holds for what an operator asks later, and ends a retry", function()
    local errs = {}
    local function note(name)
      return { error = function(err) errs[name] = tostring(err) end }
    end
    failure(deadline(15, function() -- nobody waits for these: only the deadline ends them
      client:send("fail", 1):catch_error(function() return client:send("never", 1) end):subscribe(note("caught"))
      client:send("fail", 1):retry({ attempts = 1e6, backoff = 2, factor = 1 }):subscribe(note("retried"))
      sleep(60000):await()
    end))
    loop.wait_until(function() return errs.caught and errs.retried end)
    assert.same({ caught = "TIMEOUT: deadline exceeded", retried = "TIMEOUT: deadline exceeded" }, errs)
  end)

  it("is not that of callbacks which run meanwhile", function()
    local seen
    sleep(1):next(function() seen = scope.left() or "none" end)
    deadline(60000, function()
      while not seen do uv.run("once") end
    end):await()
    assert.equal("none", seen)
  end)

  it("is cancelled with the coroutine that started it", function()
    local control = {}
    local work = async(function()
      deadline(60000, endless, control)
      endless({})
    end)
    work:cancel()
    loop.turn()
    assert.equal("CANCELLED", control.code)
    collectgarbage()
    collectgarbage()
    loop.turn()
    assert.same({}, lines) -- no rejection that nobody handles
  end)

  it("takes milliseconds and a function", function()
    for _, bad in ipairs({ { "soon", print }, { -1, print }, { 1 } }) do
      local ok, err = pcall(deadline, unpack(bad, 1, 2))
      assert.same({ false, "INVALID_OPTION" }, { ok, err.code })
    end
  end)

  it("is ctx.deadline: ms left to the handler, nil without one", function()
    local seen = {}
    local url = serve("http://127.0.0.1:0", function(app)
      app:use(function(_, ctx, next)
        seen[#seen + 1] = ctx.deadline == nil
        return deadline(5000, next)
      end)
      app:get("/", function(_, ctx)
        seen[#seen + 1] = ctx.deadline > 1000 and ctx.deadline <= 5000
        return client:send("left", 1)
      end)
    end)
    serve("local:left", function(app)
      app:message("left", function(_, ctx) return { tostring(ctx.deadline) } end)
    end)
    client = connect("local:left")
    assert.equal('["nil"]', http.request(url, "GET", "/").body)
    assert.same({ true, true }, seen)
  end)

  it("is 504 when an HTTP handler runs into it", function()
    local url = serve("http://127.0.0.1:0", function(app)
      app:use(function(_, _, next) return deadline(10, next) end)
      app:get("/", function() return client:send("never", 1) end)
    end)
    assert.equal(504, http.request(url, "GET", "/").status)
  end)

  it("of the first call does not end the connecting of a transport in Lua", function()
    local opened, left
    local other = connect({ transport = {
      connect = function()
        left = scope.left() or "none"
        return perigee.promise(function(resolve) opened = resolve end)
      end,
      publish = function(packet, callback) callback({ response = packet.data, isDisposed = true }) end,
    } })
    assert.equal("TIMEOUT", failure(deadline(5, function() return other:send("echo", 1) end)).code)
    opened()
    assert.equal("none", left)
    assert.equal(2, other:send("echo", 2):await())
  end)
end)
