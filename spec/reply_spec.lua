local core = require("perigee.core")
local errors = require("perigee.errors")
local reply = require("perigee.reply")
local scheduler = require("perigee.scheduler")
local source = require("spec.support.source")
local uv = require("luv")

local manual = source.manual

-- A Reply of these values, given at once.
local function of(...)
  local values, n = { ... }, select("#", ...)
  return reply.new(function(observer)
    for i = 1, n do observer:next(values[i]) end
    observer:complete()
  end)
end

local function failing(err)
  return reply.new(function(observer) observer:error(err) end)
end

local function task(fn)
  local got = { count = 0 }
  got.task = scheduler.start(function(ok, value)
    got.count, got.ok, got.value = got.count + 1, ok, value
  end, fn)
  return got
end

describe("a Reply", function()
  it("GEN-11 sends nothing until subscribed; two subscriptions, two requests", function()
    local r, control = manual()
    local mapped = r:map(tostring):take(1):timeout(10)
    assert.is_table(mapped)
    assert.equal(0, control.asked)
    r:subscribe({})
    assert.equal(1, control.asked)
    r:subscribe({})
    assert.equal(2, control.asked)
  end)

  it("is asked by each of await, next, catch, finally, first, last, collect, subscribe and values", function()
    local asked = 0
    local r = reply.new(function(observer)
      asked = asked + 1
      observer:complete()
    end)
    r:await()
    for i, name in ipairs({ "next", "catch", "finally", "first", "last", "collect" }) do
      r[name](r, function() end)
      assert.equal(i + 1, asked)
    end
    r:subscribe({})
    assert.equal(8, asked)
    local iterator = r:values()
    assert.equal(8, asked)
    iterator()
    assert.equal(9, asked)
  end)

  it("is asked once by r:next(f):catch(g), twice by r:next(f); r:catch(g)", function()
    local r, control = manual()
    r:next(print):catch(print)
    assert.equal(1, control.asked)
    r:next(print)
    r:catch(print)
    assert.equal(3, control.asked)
  end)

  it("rejects when its source raises", function()
    local r = reply.new(function() error("boom") end)
    local _, err = pcall(r.await, r)
    assert.equal("SCRIPT", err.code)
    assert.matches("boom", err.message)
  end)
end)

describe("await", function()
  it("gives the last value, nil for an empty answer", function()
    assert.equal(3, of(1, 2, 3):await())
    assert.is_nil(of():await())
    assert.is_false(of(false):await())
  end)

  it("raises the error, also after values", function()
    local r, control = manual()
    local got = task(function() return r:await() end)
    control.observer:next(1)
    control.observer:error(errors.make("REMOTE", "no"))
    assert.is_false(got.ok)
    assert.equal("REMOTE", got.value.code)
    assert.equal(0, control.cancelled)
  end)

  it("GEN-19 ignores what comes after the end", function()
    local r, control = manual()
    local got = task(function() return r:await() end)
    local observer = control.observer
    observer:next(1)
    observer:complete()
    observer:next(2)
    observer:complete()
    observer:error(errors.make("REMOTE", "late"))
    assert.equal(1, got.count)
    assert.equal(1, got.value)
  end)

  it("GEN-35 cancels the call when the task is cancelled", function()
    local r, control = manual()
    local got = task(function() return r:await() end)
    got.task:cancel()
    assert.equal(1, control.cancelled)
    assert.equal("CANCELLED", got.value.code)
    control.observer:next("late")
    control.observer:complete()
    assert.equal(1, got.count)
  end)

  it("runs the loop in a main chunk", function()
    local r = reply.new(function(observer)
      scheduler.after(1, function()
        observer:next("v")
        observer:complete()
      end)
    end)
    assert.equal("v", r:await())
  end)

  it("asks nothing where it may not wait", function()
    local r, control = manual()
    local ok, err = scheduler.protect(function() return r:await() end)
    assert.is_false(ok)
    assert.equal("UNSUPPORTED", err.code)
    assert.equal(0, control.asked)
  end)

  it("cancels by a function with arguments, or an object", function()
    local cancelled = {}
    local by_function = reply.new(function()
      return function(a, b) cancelled[1] = a .. b end, "x", "y"
    end)
    local object = { cancel = function(self) cancelled[2] = self end }
    local by_object = reply.new(function() return object end)
    by_function:subscribe({}):unsubscribe()
    by_object:subscribe({}):unsubscribe()
    assert.same({ "xy", object }, cancelled)
  end)
end)

describe("first, last and collect", function()
  it("give a Promise of what they say", function()
    assert.equal(1, of(1, 2, 3):first():await())
    assert.equal(3, of(1, 2, 3):last():await())
    assert.same({ 1, 2, 3 }, of(1, 2, 3):collect():await())
  end)

  it("give nil, nil and an empty list for an empty answer", function()
    assert.is_nil(of():first():await())
    assert.is_nil(of():last():await())
    assert.same({}, of():collect():await())
  end)

  it("reject with the error", function()
    for _, name in ipairs({ "first", "last", "collect" }) do
      local r = failing(errors.make("REMOTE", "no"))
      local _, err = pcall(function() return r[name](r):await() end)
      assert.equal("REMOTE", err.code)
    end
  end)

  it("first cancels the call once it has its value", function()
    local r, control = manual()
    local p = r:first()
    control.observer:next("v")
    assert.equal(1, control.cancelled)
    assert.equal("v", p:await())
  end)

  it("first cancels a source that answers before it has returned its cancel", function()
    local cancelled = 0
    local r = reply.new(function(observer)
      observer:next(1)
      return function() cancelled = cancelled + 1 end
    end)
    assert.equal(1, r:first():await())
    assert.equal(1, cancelled)
  end)

  it("keep nil in a list as null", function()
    assert.same({ core.null, 2 }, of(nil, 2):collect():await())
  end)

  it("free the call when cancelled", function()
    local r, control = manual()
    r:last():cancel()
    r:next(print):cancel()
    assert.equal(2, control.cancelled)
  end)
end)

describe("next, catch and finally", function()
  it("see the last value or the error", function()
    assert.equal(4, of(1, 2):next(function(v) return v * 2 end):await())
    assert.equal("REMOTE", failing(errors.make("REMOTE", "no")):catch(function(e) return e.code end):await())
    local ended = false
    assert.equal(2, of(1, 2):finally(function() ended = true end):await())
    assert.is_true(ended)
  end)
end)

describe("subscribe", function()
  it("calls back for each value and the end", function()
    local got = {}
    of("a", "b"):subscribe({
      next = function(v) got[#got + 1] = v end,
      complete = function() got[#got + 1] = "end" end,
    })
    assert.same({ "a", "b", "end" }, got)
    failing({ code = "X" }):subscribe({ error = function(e) got[#got + 1] = e.code end })
    assert.equal("X", got[4])
  end)

  it("GEN-35 unsubscribe cancels once; nothing is called after", function()
    local r, control = manual()
    local calls = 0
    local function count() calls = calls + 1 end
    local subscription = r:subscribe({ next = count, error = count, complete = count })
    subscription:unsubscribe()
    subscription:unsubscribe()
    control.observer:next(1)
    control.observer:complete()
    assert.equal(0, calls)
    assert.equal(1, control.cancelled)
  end)

  it("does not cancel what has ended", function()
    local r, control = manual()
    local subscription = r:subscribe({})
    control.observer:complete()
    subscription:unsubscribe()
    assert.equal(0, control.cancelled)
  end)

  it("logs a raise in a callback; the source and later values are not disturbed", function()
    local lines, restore = source.capture_log()
    local got = {}
    of(1, 2):subscribe({ next = function(v)
      got[#got + 1] = v
      if v == 1 then error("boom") end
    end })
    restore()
    assert.same({ 1, 2 }, got)
    assert.equal(1, #lines)
    assert.matches("reply_spec.lua:%d+: boom", lines[1])
  end)

  it("logs an error that has no callback, with the line", function()
    local lines, restore = source.capture_log()
    failing(errors.make("REMOTE", "no")):subscribe({})
    restore()
    assert.equal(1, #lines)
    assert.matches("reply_spec.lua:%d+: REMOTE: no", lines[1])
  end)

  it("forbids await in its callbacks, not in what they start", function()
    local _, err
    local inner
    of(1):subscribe({ next = function()
      _, err = pcall(function() return of(2):await() end)
      inner = task(function() return of(3):await() end)
    end })
    assert.equal("UNSUPPORTED", err.code)
    assert.equal(3, inner.value)
  end)

  it("refuses anything but callbacks", function()
    for _, bad in ipairs({ 42, "x", { next = 1 } }) do
      local ok, err = pcall(function() of(1):subscribe(bad) end)
      assert.is_false(ok)
      assert.equal("INVALID_OPTION", err.code)
    end
  end)
end)

describe("values", function()
  it("iterates in order, waiting for each", function()
    local r, control = manual()
    local seen = {}
    local got = task(function()
      for value in r:values() do seen[#seen + 1] = value end
      return "over"
    end)
    control.observer:next(1)
    control.observer:next(false)
    control.observer:next(3)
    assert.same({ 1, false, 3 }, seen)
    control.observer:complete()
    assert.equal("over", got.value)
  end)

  it("works in a main chunk, buffering what comes faster", function()
    local seen = {}
    for value in of(1, 2, 3):values() do seen[#seen + 1] = value end
    assert.same({ 1, 2, 3 }, seen)
  end)

  it("gives null for nil, which would end the loop", function()
    local iterator = of(nil, 1):values()
    assert.equal(core.null, iterator())
    assert.equal(1, iterator())
    assert.is_nil(iterator())
    assert.is_nil(iterator())
  end)

  it("raises the error after the values before it", function()
    local r = reply.new(function(observer)
      observer:next(1)
      observer:error(errors.make("REMOTE", "no"))
    end)
    local seen = {}
    local _, err = pcall(function()
      for value in r:values() do seen[#seen + 1] = value end
    end)
    assert.same({ 1 }, seen)
    assert.equal("REMOTE", err.code)
  end)

  it("cancels on close, and wakes who waits", function()
    local r, control = manual()
    local iterator = r:values()
    local got = task(function() return iterator() end)
    iterator:close()
    assert.equal(1, control.cancelled)
    assert.same({ 1, true, nil }, { got.count, got.ok, got.value })
    assert.is_nil(iterator())
  end)

  it("cancels when the coroutine ends early", function()
    local r, control = manual()
    task(function()
      for _ in r:values() do break end -- luacheck: ignore
    end)
    control.observer:next(1)
    assert.equal(1, control.cancelled)
  end)

  it("cancels when the task is cancelled", function()
    local r, control = manual()
    local got = task(function() for _ in r:values() do end end) -- luacheck: ignore
    got.task:cancel()
    assert.equal(1, control.cancelled)
    assert.equal("CANCELLED", got.value.code)
  end)

  it("ends with CANCELLED for who goes on after the coroutine that began has ended", function()
    local r, control = manual()
    local iterator = r:values()
    task(function() return iterator() end)
    control.observer:next(1)
    assert.equal(1, control.cancelled)
    local ok, err = pcall(iterator)
    assert.same({ false, "CANCELLED" }, { ok, err.code })
    assert.is_nil(iterator())
  end)

  it("wakes with CANCELLED who waits when the coroutine that began ends", function()
    local r, control = manual()
    local iterator = r:values()
    local first = task(function()
      iterator()
      scheduler.await(function() end)
    end)
    control.observer:next(1)
    local other = task(function() return iterator() end)
    first.task:cancel()
    assert.equal(1, control.cancelled)
    assert.same({ false, "CANCELLED" }, { other.ok, other.value and other.value.code })
  end)

  it("keeps waiting when another coroutine has taken the value", function()
    local r, control = manual()
    local iterator = r:values()
    local thief
    local first = task(function() return iterator() end)
    task(function() -- what it wakes runs when it has ended
      control.observer:next(1)
      thief = iterator()
    end)
    assert.same({ 1, 0, 0 }, { thief, first.count, control.cancelled })
    control.observer:next(2)
    assert.equal(2, first.value)
  end)

  it("cancels when the iterator is collected", function()
    local cancelled = 0
    local r = reply.new(function(observer)
      observer:next(1)
      return function() cancelled = cancelled + 1 end
    end)
    local iterator = r:values()
    assert.equal(1, iterator())
    iterator = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    uv.run()
    assert.equal(1, cancelled)
  end)

  it("gives up with OVERLOADED when a million values wait", function()
    local cancelled = false
    local r = reply.new(function(observer)
      for i = 1, 1048577 do observer:next(i) end
      return function() cancelled = true end
    end)
    local ok, err = pcall(r:values())
    assert.is_false(ok)
    assert.equal("OVERLOADED", err.code)
    assert.is_true(cancelled)
  end)
end)

describe("a Reply collected without being asked", function()
  local lines, restore

  before_each(function() lines, restore = source.capture_log() end)
  after_each(function() restore() end)

  local function collect()
    collectgarbage()
    collectgarbage()
  end

  it("is warned about once per line of code", function()
    for _ = 1, 3 do manual(true):map(tostring) end
    collect()
    assert.equal(1, #lines)
    assert.matches("support/source.lua:%d+ was never asked", lines[1])
    for _ = 1, 3 do manual(true) end
    collect()
    assert.equal(1, #lines)
  end)

  it("names the line", function()
    local line = debug.getinfo(1, "l").currentline + 1
    reply.new(function() end, nil, true)
    collect()
    assert.equal(1, #lines)
    assert.matches("reply_spec.lua:" .. line .. " ", lines[1])
  end)

  it("is no matter when it was asked, or its source is not a send", function()
    reply.new(function(observer) observer:complete() end, nil, true):await()
    reply.new(function() end, nil, true):map(tostring):subscribe({})
    reply.new(function() end)
    collect()
    assert.same({}, lines)
  end)
end)
