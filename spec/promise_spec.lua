local errors = require("perigee.errors")
local promise = require("perigee.promise")
local reply = require("perigee.reply")
local scheduler = require("perigee.scheduler")
local source = require("spec.support.source")
local uv = require("luv")

-- Runs fn in a perigee coroutine and returns its outcome; everything must have settled when the loop is empty.
local function in_coroutine(fn)
  local result
  scheduler.start(function(ok, value) result = { ok = ok, value = value } end, fn)
  uv.run()
  return result
end

describe("await", function()
  it("gives the value, before and after it has settled, in a coroutine and in a main chunk", function()
    local p, resolve = promise.defer()
    scheduler.after(1, resolve, 7)
    assert.equal(7, p:await())
    assert.equal(7, p:await())
    assert.same({ ok = true, value = 7 }, in_coroutine(function() return p:await() end))
  end)

  it("wakes all who wait", function()
    local p, resolve = promise.defer()
    local got = {}
    for i = 1, 3 do scheduler.start(nil, function() got[i] = p:await() end) end
    resolve("v")
    uv.run()
    assert.same({ "v", "v", "v" }, got)
  end)

  it("raises the error table itself", function()
    local raised = { code = 402 }
    local ok, err = pcall(function() return promise.rejected(raised):await() end)
    assert.is_false(ok)
    assert.equal(raised, err)
  end)

  it("raises UNSUPPORTED in an operator callback even when settled", function()
    local p = promise.resolved(1)
    local ok, err = scheduler.protect(function() return p:await() end)
    assert.is_false(ok)
    assert.equal("UNSUPPORTED", err.code)
  end)
end)

describe("settling", function()
  it("happens once", function()
    local p, resolve, reject = promise.defer()
    resolve(1)
    resolve(2)
    reject("x")
    assert.equal(1, p:await())
  end)

  it("has happened before anyone is called", function()
    local p, resolve = promise.defer()
    local seen
    p:next(function() seen = p:await() end)
    resolve("v")
    uv.run()
    assert.equal("v", seen)
  end)

  it("takes the outcome of a Promise or Reply", function()
    local inner, resolve = promise.defer()
    local outer = promise.resolved(inner)
    scheduler.after(1, resolve, "p")
    assert.equal("p", outer:await())
    local r = reply.new(function(observer)
      observer:next("first")
      observer:next("last")
      observer:complete()
    end)
    assert.equal("last", promise.resolved(r):await())
    local ok, err = pcall(function() promise.resolved(promise.rejected("no")):await() end)
    assert.is_false(ok)
    assert.equal("no", err.message)
  end)

  it("ignores what comes after it was resolved with a Promise still pending", function()
    local inner, resolve_inner = promise.defer()
    local p, resolve, reject = promise.defer()
    resolve(inner)
    reject("late")
    resolve("late")
    resolve_inner("inner")
    assert.equal("inner", p:await())
  end)

  it("refuses to wait for itself", function()
    local p, resolve = promise.defer()
    resolve(p)
    local _, err = pcall(p.await, p)
    assert.equal("UNSUPPORTED", err.code)
  end)

  it("makes SCRIPT of a text", function()
    local p = promise.rejected("boom")
    local _, err = pcall(p.await, p)
    assert.same({ "SCRIPT", "boom" }, { err.code, err.message })
  end)
end)

describe("promise(executor)", function()
  it("runs it at once; a raise rejects", function()
    local ran = false
    promise.new(function() ran = true end)
    assert.is_true(ran)
    local p = promise.new(function() error("boom") end)
    local _, err = pcall(p.await, p)
    assert.matches("promise_spec.lua:%d+: boom", err.message)
  end)

  it("calls the function it returned on cancel", function()
    local cancelled = 0
    local p = promise.new(function() return function() cancelled = cancelled + 1 end end)
    p:cancel()
    p:cancel()
    assert.equal(1, cancelled)
  end)

  it("refuses anything but a function", function()
    local ok, err = pcall(promise.new, nil)
    assert.is_false(ok)
    assert.equal("INVALID_OPTION", err.code)
  end)
end)

describe("next", function()
  it("passes the first return value on, flattened", function()
    assert.equal(2, promise.resolved(1):next(function(v) return v + 1, "second" end):await())
    assert.equal("p", promise.resolved(1):next(function() return promise.resolved("p") end):await())
    assert.is_nil(promise.resolved(1):next(function() end):await())
  end)

  it("passes through what it has no callback for", function()
    assert.equal(1, promise.resolved(1):next(nil, function() return "wrong" end):await())
    assert.equal("caught", promise.rejected("x"):next(error):catch(function() return "caught" end):await())
  end)

  it("rejects when the callback raises", function()
    local _, err = pcall(function() promise.resolved(1):next(function() error("boom") end):await() end)
    assert.equal("SCRIPT", err.code)
    assert.matches("promise_spec.lua:%d+: boom", err.message)
  end)

  it("lets callbacks await", function()
    assert.equal("slept", promise.resolved(1):next(function()
      local p, resolve = promise.defer()
      scheduler.after(1, resolve, "slept")
      return p:await()
    end):await())
  end)

  it("never calls back inside the call that registers", function()
    local called = false
    local p = promise.resolved(1):next(function() called = true end)
    assert.is_false(called)
    p:await()
    assert.is_true(called)
  end)

  it("calls back in the order of registration", function()
    local order = {}
    local p, resolve = promise.defer()
    for i = 1, 3 do p:next(function() order[i] = #order + 1 end) end
    resolve()
    uv.run()
    assert.same({ 1, 2, 3 }, order)
  end)

  it("refuses what cannot be called", function()
    local ok, err = pcall(function() promise.resolved(1):next(42) end)
    assert.is_false(ok)
    assert.equal("INVALID_OPTION", err.code)
  end)
end)

describe("finally", function()
  it("passes the outcome through", function()
    local calls = 0
    local function count() calls = calls + 1 return "ignored" end
    assert.equal(1, promise.resolved(1):finally(count):await())
    local _, err = pcall(function() promise.rejected("x"):finally(count):await() end)
    assert.equal("x", err.message)
    assert.equal(2, calls)
  end)

  it("waits for the callback's Promise, whose failure wins", function()
    local p, resolve = promise.defer()
    local done = false
    local outer = promise.resolved(1):finally(function() return p end)
    outer:next(function() done = true end)
    uv.run()
    assert.is_false(done)
    resolve("ignored")
    assert.equal(1, outer:await())
    local _, err = pcall(function()
      promise.resolved(1):finally(function() return promise.rejected("wins") end):await()
    end)
    assert.equal("wins", err.message)
  end)
end)

describe("timeout", function()
  it("rejects with TIMEOUT and cancels the work", function()
    local cancelled = 0
    local p = promise.new(function() return function() cancelled = cancelled + 1 end end)
    local _, err = pcall(function() p:timeout(5):await() end)
    assert.equal("TIMEOUT", err.code)
    assert.equal("no value within 5 ms", err.message)
    assert.equal(1, cancelled)
  end)

  it("changes nothing in time, and leaves no timer", function()
    local p, resolve = promise.defer()
    local timed = p:timeout(60000)
    resolve(1)
    assert.equal(1, timed:await())
    local other = promise.pending():timeout(60000)
    other:cancel()
    uv.run() -- would last a minute
    assert.equal(2, promise.resolved(2):timeout(false):await())
  end)

  it("refuses what is not a time", function()
    for _, ms in ipairs({ -1, 0 / 0, "x", true, math.huge, 2 ^ 53 }) do
      local ok, err = pcall(function() promise.resolved(1):timeout(ms) end)
      assert.is_false(ok)
      assert.equal("INVALID_OPTION", err.code)
    end
  end)
end)

describe("cancel", function()
  it("rejects with CANCELLED at once and reaches the work behind, once", function()
    local arg
    local p = promise.pending(function(given) arg = given end, "work")
    p:cancel()
    local _, err = pcall(p.await, p)
    assert.equal("CANCELLED", err.code)
    assert.equal("work", arg)
  end)

  it("goes up the chain when nobody else waits there", function()
    local cancelled = 0
    local p = promise.pending(function() cancelled = cancelled + 1 end)
    local one, two = p:next(), p:next()
    one:cancel()
    assert.equal(0, cancelled)
    two:cancel()
    assert.equal(1, cancelled)
  end)

  it("reaches a callback that runs, and the Promise it returned", function()
    local got
    local blocked = promise.pending()
    local p = promise.resolved(1):next(function()
      local _, err = pcall(blocked.await, blocked)
      got = err.code
    end)
    uv.run()
    p:cancel()
    assert.equal("CANCELLED", got)
    local inner_cancelled = false
    local inner = promise.pending(function() inner_cancelled = true end)
    local q = promise.resolved(1):next(function() return inner end)
    uv.run()
    q:cancel()
    assert.is_true(inner_cancelled)
  end)

  it("reaches what a cancelled task waits for", function()
    local cancelled = false
    local p = promise.pending(function() cancelled = true end)
    local task = scheduler.start(nil, function() p:await() end)
    task:cancel()
    assert.is_true(cancelled)
  end)

  it("does nothing to a settled one", function()
    local p = promise.resolved(1)
    p:cancel()
    assert.equal(1, p:await())
  end)
end)

describe("a rejection nobody handles", function()
  local lines, restore

  before_each(function() lines, restore = source.capture_log() end)
  after_each(function() restore() end)

  local function collect()
    collectgarbage()
    collectgarbage()
    uv.run()
  end

  it("is logged with where the promise was made, once it is certain", function()
    local line = debug.getinfo(1, "l").currentline + 1
    local p = promise.rejected(errors.make("REMOTE", "no"))
    collect()
    assert.same({}, lines)
    assert.is_table(p)
    p = nil -- luacheck: ignore
    collect()
    assert.equal(1, #lines)
    assert.matches("promise_spec.lua:" .. line .. ": REMOTE: no", lines[1])
  end)

  it("was made where the script asked for it, whichever way", function()
    local perigee = require("perigee")
    local function fail() error("no") end
    local function failing() return promise.rejected("inner") end
    for name, make in pairs({
      rejected = function() return (promise.rejected("x")) end,
      promise = function() return (perigee.promise(fail)) end,
      async = function() return (perigee.async(fail)) end,
      spawn = function() return (perigee.spawn(fail)) end,
      deadline = function() return (perigee.deadline(1000, fail)) end,
      map = function() return (perigee.map({ 1 }, fail)) end,
      all = function() return (perigee.all({ failing() })) end,
      next = function() return (perigee.from({}):next(fail)) end,
      first = function() return (perigee.of(1):map(fail):first()) end,
      finally = function() return (perigee.async(fail):finally(function() end)) end,
      timeout = function() return (failing():timeout(1000)) end,
    }) do
      local funcs = {}
      promise.watch_unhandled(function(note)
        note.handled = true
        funcs[#funcs + 1] = note.func
      end)
      make()
      uv.run()
      promise.watch_unhandled()
      assert.equal(make, funcs[#funcs], name)
    end
  end)

  it("is not logged when somebody looked, even late", function()
    local p = promise.rejected("x")
    uv.run()
    pcall(p.await, p)
    p = nil -- luacheck: ignore
    promise.rejected("y"):catch(function() end)
    promise.pending():cancel()
    collect()
    assert.same({}, lines)
  end)

  it("is that of the last of a chain", function()
    promise.rejected("x"):next(function() end):finally(function() end)
    uv.run()
    collect()
    assert.equal(1, #lines)
  end)
end)
