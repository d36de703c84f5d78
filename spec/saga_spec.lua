local errors = require("perigee.errors")
local log = require("perigee.log")
local loop = require("spec.support.loop")
local perigee = require("perigee")
local program = require("spec.support.perigee")
local tcp = require("spec.support.tcp")

local async, deadline, saga = perigee.async, perigee.deadline, perigee.saga
local sleep, spawn = perigee.sleep, perigee.spawn

local lines, trace

before_each(function()
  lines, trace = {}, {}
  log.set_sink(function(line) lines[#lines + 1] = line end)
end)

after_each(function()
  loop.finish()
  log.set_sink()
end)

local function note(text)
  return function(value)
    trace[#trace + 1] = text .. (value ~= nil and " " .. tostring(value) or "")
    return value
  end
end

local function soon(value)
  return sleep(1):next(function() return value end)
end

local function failure(waited)
  local ok, err = pcall(waited.await, waited)
  assert.is_false(ok)
  return err
end

local function traced(n, what)
  loop.wait_until(function() return #trace >= n end, 5000, what)
  return trace
end

-- Waits for ever; the trace tells what it was ended with.
local function endless(name)
  local ok, err = pcall(function() perigee.promise(function() end):await() end)
  assert(not ok)
  note(name)(err.code)
  error(err)
end

local DECLINED = { code = 402, message = "declined" }

local function decline()
  error(DECLINED)
end

describe("saga", function()
  it("gives what its function returns, steps flattened, and undoes nothing", function()
    local result = saga(function(s)
      local a = s:step("plain", function() return 1 end, note("undo plain"))
      local b = s:step("promise", function() return soon(2) end, note("undo promise"))
      local c = s:step("reply", function() return perigee.of(0, 3) end, note("undo reply"))
      local d = s:step("awaits", function() return soon(4):await() end, note("undo awaits"))
      return { a, b, c, d, s:step("nothing to undo", function() end) }
    end):await()
    assert.same({ 1, 2, 3, 4 }, result)
    assert.same({}, trace)
    assert.equal(5, saga(function() return soon(5) end):await())
  end)

  it("undoes what was done, the last first, with its value, and then rejects with the error itself", function()
    local work = saga(function(s)
      s:step("a", function() return soon("A") end, function(value) return soon(value):next(note("undo a")) end)
      s:step("b", function() return "B" end, function(value)
        sleep(5):await()
        note("undo b")(value)
      end)
      s:step("no undo", function() return "C" end)
      s:step("c", decline, note("undo c"))
      s:step("d", note("never"))
    end)
    assert.equal(DECLINED, failure(work))
    assert.same({ "undo b B", "undo a A" }, trace)
    assert.same({}, lines)
  end)

  it("is undone by a raise between steps, and by what its function returns", function()
    local function fails(last)
      return saga(function(s)
        s:step("a", function() return 1 end, note("undo a"))
        return last()
      end)
    end
    assert.equal("SCRIPT", failure(fails(function() error("text") end)).code)
    assert.equal(DECLINED, failure(fails(function() return sleep(1):next(decline) end)))
    assert.equal(DECLINED, failure(fails(function()
      return perigee.reply(function(sink) sink:error(DECLINED) end)
    end)))
    assert.same({ "undo a 1", "undo a 1", "undo a 1" }, trace)
  end)

  it("goes on after a failed step that the function catches", function()
    assert.equal("cash", saga(function(s)
      s:step("a", function() end, note("undo a"))
      local ok = pcall(s.step, s, "card", decline, note("undo card"))
      return ok or s:step("cash", function() return "cash" end, note("undo cash"))
    end):await())
    assert.same({}, trace)
  end)

  it("undoes what was registered before it was done", function()
    failure(saga(function(s)
      s:step("a", function() end, note("undo a"))
      s:undo("charge", note("undo charge"))
      s:step("charge", function() error({ code = "TIMEOUT" }) end)
    end))
    assert.same({ "undo charge", "undo a" }, trace)
  end)

  it("runs all undos though some fail or hang, and reports them together", function()
    local err = failure(saga(function(s)
      s:step("a", function() end, function() error("broken") end)
      s:step("b", function() end, note("undo b"))
      s:step("c", function() end, function() return perigee.promise(function() end) end)
      s:step("d", function() end, decline)
      s:step("e", function() error(perigee.error({ code = "REMOTE", message = "no", status = 409, err = "no" })) end)
    end, { undo_timeout = 10 }))
    assert.same({ "undo b" }, trace)
    assert.is_true(errors.is(err))
    assert.same({ "REMOTE", "no", 409, "no", "no" }, { err.code, err.message, err.status, err.err, err.cause.message })
    local steps, codes = {}, {}
    for i, failed in ipairs(err.failures) do steps[i], codes[i] = failed.step, failed.error.code end
    assert.same({ "d", "c", "a" }, steps)
    assert.same({ 402, "TIMEOUT", "SCRIPT" }, codes)
    local told = "d (declined), c (TIMEOUT: deadline exceeded), a (SCRIPT: spec/saga_spec.lua:"
    assert.is_truthy(tostring(err):find("REMOTE: no; not undone: " .. told, 1, true), tostring(err))
    assert.equal(1, #lines)
    assert.is_truthy(lines[1]:find("the saga made at spec/saga_spec.lua:%d+ has not undone: d %(declined%), c "))
  end)

  it("keeps code and message of an error that is not perigee's when undos fail", function()
    local err = failure(saga(function(s)
      s:step("a", function() end, decline)
      decline()
    end))
    assert.same({ 402, "declined", DECLINED, 1 }, { err.code, err.message, err.cause, #err.failures })
  end)

  it("runs steps at once where the function starts them so, and cancels the rest when one fails", function()
    local err = failure(saga(function(s)
      s:step("first", function() end, note("undo first"))
      perigee.all({
        async(function() return s:step("quick", function() return soon(1) end, note("undo quick")) end),
        async(function() return s:step("slow", function() return endless("slow") end, note("undo slow")) end),
        async(function() s:step("fails", function() return sleep(10):next(decline) end, note("undo fails")) end),
      }):await()
    end))
    assert.equal(DECLINED, err)
    assert.same({ "slow CANCELLED", "undo quick 1", "undo first" }, trace)
  end)

  it("cancels children it does not wait for when it fails", function()
    failure(saga(function(s)
      async(function() s:step("slow", function() endless("slow") end, note("undo slow")) end)
      s:step("fails", decline)
    end))
    assert.same({ "slow CANCELLED" }, traced(1))
  end)
end)

describe("a cancelled saga", function()
  it("cancels the running step, rejects at once, and undoes", function()
    local work = saga(function(s)
      s:step("a", function() return 1 end, function(value)
        sleep(5):await() -- an undo waits like any other code
        note("undo a")(value)
      end)
      s:step("b", function() endless("b") end, note("undo b"))
    end)
    sleep(1):await()
    work:cancel()
    assert.equal("CANCELLED", failure(work).code)
    assert.same({ "b CANCELLED", "undo a 1" }, traced(2))
    assert.same({}, lines)
  end)

  it("begins no further step, even where the function swallows CANCELLED", function()
    local err
    local work = saga(function(s)
      s:step("a", function() end, note("undo a"))
      pcall(function() s:step("b", function() endless("b") end) end)
      local ok
      ok, err = pcall(s.step, s, "c", note("c"), note("undo c"))
      assert(not ok)
      pcall(s.undo, s, "d", note("undo d"))
      return "carries on"
    end)
    work:cancel()
    assert.same({ "b CANCELLED", "undo a" }, traced(2))
    loop.wait_until(function() return err end)
    assert.equal("CANCELLED: the saga is over: no 'c'", tostring(err))
    assert.equal("CANCELLED", failure(work).code)
  end)

  it("has cancelled all that runs beside before it undoes anything", function()
    local work = saga(function(s)
      s:step("a", function() end, note("undo a"))
      for i = 1, 3 do async(function() s:step("b", function() endless(i) end) end) end
      endless("body")
    end)
    work:cancel()
    assert.same({ "1 CANCELLED", "2 CANCELLED", "3 CANCELLED", "body CANCELLED", "undo a" }, traced(5))
  end)

  it("is undone also when its function has come to its end in the same turn", function()
    local work
    async(function()
      work = saga(function(s) s:step("a", function() end, note("undo a")) end)
      work:cancel()
    end)
    assert.equal("CANCELLED", failure(work).code)
    assert.same({ "undo a" }, traced(1))
  end)

  it("undoes a step that succeeds in spite of it, and logs an undo of it that fails", function()
    local go
    local work = saga(function(s)
      s:step("a", function() end, note("undo a"))
      s:step("stubborn", function()
        pcall(function() endless("stubborn") end)
        perigee.promise(function(resolve) go = resolve end):await()
        return "done"
      end, function(value)
        note("undo stubborn")(value)
        error({ code = "BROKEN", message = "stuck" })
      end)
    end)
    work:cancel()
    traced(2)
    loop.wait_until(function() return go end)
    go()
    assert.same({ "stubborn CANCELLED", "undo a", "undo stubborn done" }, traced(3))
    loop.wait_until(function() return #lines > 0 end)
    assert.is_truthy(lines[1]:find("has not undone: stubborn (stuck)", 1, true), lines[1])
  end)

  it("misses no step that succeeds while the undos end", function()
    for hops = 0, 12 do -- some of them are in the middle of the end
      trace = {}
      local go
      local work = saga(function(s)
        s:step("a", function() end, function()
          local chain = spawn(function() end)
          for _ = 1, hops do chain = chain:next() end
          chain:next(function() go() end)
        end)
        s:step("stubborn", function()
          pcall(endless, "stubborn")
          perigee.promise(function(resolve) go = resolve end):await()
        end, note("undo stubborn"))
      end)
      work:cancel()
      assert.same({ "stubborn CANCELLED", "undo stubborn" }, traced(2, hops .. " hops"))
    end
    assert.same({}, lines)
  end)

  it("logs the undos that fail: nobody else hears of them", function()
    local work = saga(function(s)
      s:step("a", function() end, decline)
      endless("body")
    end)
    work:cancel()
    loop.wait_until(function() return #lines > 0 end)
    assert.equal(1, #lines)
    assert.is_truthy(lines[1]:find("has not undone: a (declined)", 1, true))
  end)

  it("cancels with the coroutine that started it, whether that waits for it or not", function()
    for _, waits in ipairs({ true, false }) do
      trace = {}
      local outer = async(function()
        local work = saga(function(s)
          s:step("a", function() end, note("undo a"))
          endless("body")
        end)
        if waits then work:await() end
        perigee.promise(function() end):await()
      end)
      outer:cancel()
      local seen = traced(2)
      table.sort(seen)
      assert.same({ "body CANCELLED", "undo a" }, seen)
    end
  end)
end)

describe("a saga under a deadline", function()
  it("is undone when that has passed, and its undos have their own time", function()
    local left
    local err = failure(deadline(10, function()
      return saga(function(s)
        s:step("a", function() return 1 end, function(value)
          left = require("perigee.scope").left()
          sleep(20):await()
          note("undo a")(value)
        end)
        endless("body")
      end)
    end))
    assert.equal("TIMEOUT", err.code)
    assert.same({ "body CANCELLED", "undo a 1" }, traced(2))
    assert.is_true(left > 1000 and left <= 5000)
  end)

  it("has time also for a step that succeeds too late", function()
    local go
    failure(deadline(5, function()
      return saga(function(s)
        s:step("stubborn", function()
          pcall(endless, "stubborn")
          perigee.promise(function(resolve) go = resolve end):await()
        end, function() return sleep(1):next(note("undo stubborn")) end)
      end)
    end))
    loop.wait_until(function() return go end)
    go()
    assert.same({ "stubborn CANCELLED", "undo stubborn" }, traced(2))
    assert.same({}, lines)
  end)

  it("inside it rejects with TIMEOUT after the undos", function()
    local err = failure(saga(function(s)
      s:step("a", function() end, function()
        sleep(5):await()
        note("undo a")()
      end)
      deadline(10, function() s:step("b", function() endless("b") end) end):await()
    end))
    assert.equal("TIMEOUT", err.code)
    assert.same({ "b CANCELLED", "undo a" }, trace)
  end)
end)

describe("a saga of a served script", function()
  local ledger

  before_each(function()
    ledger = perigee.app()
    ledger:message("do", function() note("do")() return 1 end)
    ledger:event("begun", note("begun")) -- so the step's answer has arrived
    ledger:message("undo", function() note("undo")() return 1 end)
    ledger:listen("tcp://127.0.0.1:0")
    ledger:start():await()
  end)

  after_each(function()
    program.clean()
    ledger:stop():await()
  end)

  local function serve(...)
    local child = program.start({ "serve", program.script([[
local perigee = require("perigee")
local app = perigee.app()
app:clients({ { name = "LEDGER", transport = "tcp", host = "127.0.0.1", port = os.getenv("LEDGER_PORT") } })
local ledger = app:inject("LEDGER")
app:get("/", function()
  return perigee.saga(function(s)
    s:step("do", function() return ledger:send("do", 1) end, function() return ledger:send("undo", 1) end)
    ledger:emit("begun", 1)
    perigee.sleep(60000):await()
  end)
end)
return app
]]), "--listen", "http://127.0.0.1:0", ... }, { LEDGER_PORT = ledger:addresses()[1]:match("%d+$") })
    local peer = tcp.connect(tonumber(program.urls(child)[1]:match(":(%d+)$")))
    peer:write("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    traced(2)
    return child, peer
  end

  it("is undone when who asked has left", function()
    local _, peer = serve()
    peer:reset() -- after a mere FIN the answer is still sent
    assert.same({ "do", "begun 1", "undo" }, traced(3))
  end)

  it("is undone when the drain timeout cuts it, while the clients are still there", function()
    local child, peer = serve("--drain-timeout", "20")
    child:kill()
    assert.same({ "do", "begun 1", "undo" }, traced(3))
    assert.equal(0, (child:wait()))
    peer:close()
  end)
end)

describe("saga refuses", function()
  local function refused(...)
    local ok, err = pcall(saga, ...)
    assert.is_false(ok)
    return tostring(err)
  end

  it("what is no function, and options it does not know", function()
    assert.equal("INVALID_OPTION: saga takes functions, got boolean", refused())
    assert.equal("INVALID_OPTION: saga takes a table of options, got number", refused(print, 5))
    local message = "INVALID_OPTION: saga: unknown option 'timeout' (known: undo_timeout)"
    assert.equal(message, refused(print, { timeout = 1 }))
    for _, ms in ipairs({ 0, -1, 0 / 0, "x", math.huge }) do
      assert.is_truthy(refused(print, { undo_timeout = ms }):find("takes milliseconds above 0", 1, true))
    end
  end)

  it("steps without a name or an action, and undos that cannot be called", function()
    local messages = {}
    saga(function(s)
      for i, arguments in ipairs({ { print }, { "a" }, { "a", print, "b" } }) do
        local _, err = pcall(s.step, s, unpack(arguments, 1, 3))
        messages[i] = tostring(err)
      end
      local _, err = pcall(s.undo, s, "a")
      messages[4] = tostring(err)
    end):await()
    assert.same({
      "INVALID_OPTION: saga:step takes a name first, got function",
      "INVALID_OPTION: saga:step takes functions, got boolean",
      "INVALID_OPTION: saga:step takes functions, got string",
      "INVALID_OPTION: saga:undo takes functions, got boolean",
    }, messages)
  end)

  it("steps after its end, and more than 1024 to undo", function()
    local late
    saga(function(s) late = s end):await()
    assert.equal("CANCELLED: the saga is over: no 'a'", tostring(select(2, pcall(late.step, late, "a", note("a")))))
    local undone = 0
    local err = failure(saga(function(s)
      for i = 1, 2000 do
        s:step("step " .. i, function() end, function() undone = undone + 1 end)
      end
    end))
    assert.equal("OVERLOADED: a saga has 1024 undos at most: no 'step 1025'", tostring(err))
    assert.equal(1024, undone)
    assert.same({}, trace)
  end)
end)
