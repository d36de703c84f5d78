local errors = require("perigee.errors")
local scheduler = require("perigee.scheduler")
local source = require("spec.support.source")
local uv = require("luv")

-- A subscribe function that answers when the spec says so.
local function later()
  local control = { cancelled = 0 }
  return function(resume)
    control.resume = resume
    return function() control.cancelled = control.cancelled + 1 end
  end, control
end

local function after(ms, value)
  return function(resume)
    local timer = scheduler.after(ms, function() resume(true, value) end)
    return function() timer:cancel() end
  end
end

local function outcome()
  local got = { count = 0 }
  return got, function(ok, value)
    got.count, got.ok, got.value = got.count + 1, ok, value
  end
end

describe("start", function()
  it("runs the function at once, with its arguments, and reports its first result", function()
    local got, on_done = outcome()
    scheduler.start(on_done, function(a, b) return a + b, "second" end, 1, 2)
    assert.same({ count = 1, ok = true, value = 3 }, got)
  end)

  it("reports a raised text as SCRIPT with the traceback of the raise", function()
    local got, on_done = outcome()
    local function deep() error("boom") end
    scheduler.start(on_done, function()
      deep()
      return nil
    end)
    assert.is_false(got.ok)
    assert.equal("SCRIPT", got.value.code)
    assert.matches("scheduler_spec.lua:%d+: boom", got.value.message)
    assert.matches("in function 'deep'", got.value.traceback)
  end)

  it("keeps a raised table, also across a wait", function()
    local got, on_done = outcome()
    local raised = { code = 402 }
    local subscribe, control = later()
    scheduler.start(on_done, function()
      scheduler.await(subscribe)
      error(raised)
    end)
    control.resume(true)
    assert.equal(raised, got.value)
  end)

  it("reuses coroutines", function()
    local first, second
    scheduler.start(nil, function() first = coroutine.running() end)
    scheduler.start(nil, function() second = coroutine.running() end)
    assert.equal(first, second)
  end)

  it("refuses tasks that start each other without end, and goes on", function()
    local depth, got = 0, nil
    local function deeper()
      depth = depth + 1
      scheduler.start(function(ok, value) got = got or { ok = ok, value = value } end, deeper)
    end
    scheduler.start(nil, deeper)
    assert.is_true(depth > 10000)
    assert.same({ false, "SCRIPT", "stack overflow: coroutines start each other" },
      { got.ok, got.value.code, got.value.message })
    local ended = outcome()
    scheduler.start(function(ok) ended.ok = ok end, function() end)
    assert.is_true(ended.ok)
  end)

  it("refuses coroutines of the script's own that resume each other without end", function()
    local depth = 0
    local function deeper()
      depth = depth + 1
      return coroutine.wrap(deeper)()
    end
    for _ = 1, 2 do
      depth = 0
      assert.same({ false, "stack overflow: coroutines resume each other" }, { pcall(deeper) })
      assert.is_true(depth > 10000)
    end
  end)

  it("reuses one that a script has kept, and resumed since, too", function()
    local kept
    scheduler.start(nil, function() kept = coroutine.running() end)
    for _, arguments in ipairs({ {}, { 1 }, { 1, 2, 3 }, { tostring, 1 } }) do
      coroutine.resume(kept, unpack(arguments))
      assert.equal("suspended", coroutine.status(kept))
    end
    local got, done = outcome()
    scheduler.start(done, function() return coroutine.running() end)
    assert.same({ count = 1, ok = true, value = kept }, got)
  end)

  it("keeps nested tasks apart", function()
    local order = {}
    local subscribe, control = later()
    scheduler.start(nil, function()
      scheduler.start(nil, function()
        scheduler.await(subscribe)
        order[#order + 1] = "inner"
      end)
      order[#order + 1] = "outer"
    end)
    control.resume(true)
    assert.same({ "outer", "inner" }, order)
  end)

  it("fails a task that yields to nobody", function()
    local got, on_done = outcome()
    local line = debug.getinfo(1, "l").currentline + 1
    scheduler.start(on_done, function() coroutine.yield(1) end)
    assert.equal("UNSUPPORTED", got.value.code)
    assert.matches("scheduler_spec.lua:" .. line, got.value.traceback, 1, true)
  end)
end)

describe("await", function()
  it("returns the value, given later or at once", function()
    local got, on_done = outcome()
    local subscribe, control = later()
    scheduler.start(on_done, function()
      local a = scheduler.await(function(resume) resume(true, 1) end)
      return a + scheduler.await(subscribe)
    end)
    assert.equal(0, got.count)
    control.resume(true, 2)
    assert.equal(3, got.value)
  end)

  it("raises the error it is given, where pcall can catch it", function()
    local got, on_done = outcome()
    local subscribe, control = later()
    local err = errors.make("TIMEOUT", "x")
    scheduler.start(on_done, function()
      local ok, caught = pcall(scheduler.await, subscribe)
      return { ok, caught }
    end)
    control.resume(false, err)
    assert.same({ false, err }, got.value)
  end)

  it("counts the first answer only", function()
    local got, on_done = outcome()
    local first, one = later()
    local second, two = later()
    scheduler.start(on_done, function()
      return { scheduler.await(first), scheduler.await(second) }
    end)
    one.resume(true, "a")
    one.resume(true, "stale")
    assert.equal(0, got.count)
    two.resume(true, "b")
    assert.same({ "a", "b" }, got.value)
  end)

  it("runs the loop in a main chunk", function()
    assert.equal("v", scheduler.await(after(1, "v")))
  end)

  it("gives up in a main chunk when nothing on the loop can answer", function()
    local subscribe, control = later()
    local ok, err = pcall(scheduler.await, subscribe)
    assert.is_false(ok)
    assert.equal("CANCELLED", err.code)
    assert.equal(1, control.cancelled)
  end)

  it("raises UNSUPPORTED in a callback of the loop, and works in a task started there", function()
    local ok, err
    local got, on_done = outcome()
    local timer = uv.new_timer()
    timer:start(0, 0, function()
      timer:close()
      ok, err = pcall(scheduler.await, after(1))
      scheduler.start(on_done, function() return scheduler.await(after(1, "v")) end)
    end)
    uv.run()
    assert.is_false(ok)
    assert.equal("UNSUPPORTED", err.code)
    assert.matches("perigee.async", err.message)
    assert.equal("v", got.value)
  end)

  it("raises UNSUPPORTED between enter and leave, and when the host runs the loop from C", function()
    scheduler.enter()
    local _, entered = pcall(scheduler.await, after(1))
    scheduler.leave()
    assert.equal("UNSUPPORTED", entered.code)
    scheduler.set_host_runs_loop(true)
    local _, hosted = pcall(scheduler.await, after(1))
    scheduler.set_host_runs_loop(false)
    assert.equal("UNSUPPORTED", hosted.code)
  end)

  it("raises UNSUPPORTED under a C function, before anything is asked", function()
    local got, on_done = outcome()
    local asked = false
    scheduler.start(on_done, function()
      local _, err = pcall(string.gsub, "a", "a", function()
        scheduler.await(function() asked = true end)
      end)
      return err
    end)
    assert.equal("UNSUPPORTED", got.value.code)
    assert.is_false(asked)
  end)

  it("raises UNSUPPORTED in a protected callback, of this coroutine only", function()
    local got, on_done = outcome()
    local inner, inner_done = outcome()
    scheduler.start(on_done, function()
      local ok, err = scheduler.protect(function()
        scheduler.start(inner_done, function() return scheduler.await(after(1, "inner")) end)
        return scheduler.await(after(1))
      end)
      assert.is_false(ok)
      return err.code .. scheduler.await(after(2, " then"))
    end)
    uv.run()
    assert.equal("UNSUPPORTED then", got.value)
    assert.equal("inner", inner.value)
  end)

  it("raises UNSUPPORTED in a protected callback of a main chunk", function()
    local ok, err = scheduler.protect(scheduler.await, after(1))
    assert.is_false(ok)
    assert.equal("UNSUPPORTED", err.code)
  end)
end)

describe("a task woken by another", function()
  it("runs when that one has come back, so that chains do not nest", function()
    local n, woken = 20000, 0
    local resumes = {}
    for i = 1, n do
      scheduler.start(nil, function()
        scheduler.await(function(resume) resumes[i] = resume end)
        woken = woken + 1
        if resumes[i + 1] then resumes[i + 1](true) end
      end)
    end
    resumes[1](true)
    assert.equal(n, woken)
  end)
end)

describe("cancel", function()
  it("cancels what the task waits for and raises CANCELLED there", function()
    local got, on_done = outcome()
    local subscribe, control = later()
    local task = scheduler.start(on_done, function() scheduler.await(subscribe) end)
    task:cancel()
    assert.equal(1, control.cancelled)
    assert.equal("CANCELLED", got.value.code)
    control.resume(true)
    task:cancel()
    assert.equal(1, got.count)
    assert.equal(1, control.cancelled)
  end)

  it("lets the task clean up, waiting again", function()
    local got, on_done = outcome()
    local first = later()
    local second, control = later()
    local task = scheduler.start(on_done, function()
      pcall(scheduler.await, first)
      return scheduler.await(second)
    end)
    task:cancel()
    control.resume(true, "cleaned")
    assert.equal("cleaned", got.value)
  end)

  it("reaches a running task at its next await", function()
    local got, on_done = outcome()
    local subscribe, control = later()
    local task
    task = scheduler.start(on_done, function()
      scheduler.await(subscribe)
      task:cancel()
      scheduler.await(after(1))
    end)
    control.resume(true)
    assert.equal("CANCELLED", got.value.code)
  end)

  it("reaches a wait inside the script's own coroutine", function()
    local got, on_done = outcome()
    local subscribe, control = later()
    local task = scheduler.start(on_done, function()
      coroutine.wrap(function() scheduler.await(subscribe) end)()
    end)
    task:cancel()
    assert.equal(1, control.cancelled)
    assert.equal("CANCELLED", got.value.code)
  end)
end)

describe("await inside the script's own coroutines", function()
  local function generator()
    return coroutine.wrap(function()
      for i = 1, 3 do coroutine.yield(i * scheduler.await(after(1, 10))) end
    end)
  end

  local function collect()
    local values = {}
    for value in generator() do values[#values + 1] = value end
    return values
  end

  it("reaches the scheduler from a task; the generator's caller sees its values only", function()
    local got, on_done = outcome()
    scheduler.start(on_done, collect)
    uv.run()
    assert.same({ 10, 20, 30 }, got.value)
  end)

  it("runs the loop from a main chunk", function()
    assert.same({ 10, 20, 30 }, collect())
  end)

  it("passes through several levels, by wrap and by resume", function()
    local got, on_done = outcome()
    local function outer()
      local co = coroutine.create(function(a)
        local b = coroutine.yield(a + scheduler.await(after(1, 1)))
        return b + coroutine.wrap(function() return scheduler.await(after(1, 100)) end)()
      end)
      local _, first = coroutine.resume(co, 1)
      local _, second = coroutine.resume(co, 5)
      return { first, second, coroutine.status(co) }
    end
    scheduler.start(on_done, function() return coroutine.wrap(outer)() end)
    uv.run()
    assert.same({ 2, 105, "dead" }, got.value)
    assert.same({ 2, 105, "dead" }, coroutine.wrap(outer)())
  end)

  it("raises the error inside the generator", function()
    local step = coroutine.wrap(function()
      local ok, err = pcall(scheduler.await, function(resume) resume(false, { code = "X" }) end)
      return ok, err.code
    end)
    assert.same({ false, "X" }, { step() })
  end)

  it("is normal, and cannot be resumed by others, while it waits", function()
    local got, on_done = outcome()
    local subscribe, control = later()
    local co = coroutine.create(function() return scheduler.await(subscribe) end)
    scheduler.start(on_done, function() return select(2, coroutine.resume(co)) end)
    assert.equal("normal", coroutine.status(co))
    assert.same({ false, "cannot resume non-suspended coroutine" }, { coroutine.resume(co) })
    control.resume(true, "v")
    assert.equal("v", got.value)
    assert.equal("dead", coroutine.status(co))
  end)

  it("raises UNSUPPORTED when an operator callback drives the generator", function()
    local ok, err = scheduler.protect(function() return generator()() end)
    assert.is_false(ok)
    assert.equal("UNSUPPORTED", err.code)
  end)

  it("raises UNSUPPORTED when a C function is between generator and task", function()
    local got, on_done = outcome()
    local subscribe, control = later()
    scheduler.start(on_done, function()
      local _, err = pcall(string.gsub, "a", "a", function()
        return coroutine.wrap(function() return scheduler.await(subscribe) end)()
      end)
      return err
    end)
    assert.equal("UNSUPPORTED", got.value.code)
    assert.equal(1, control.cancelled)
  end)

  it("raises UNSUPPORTED in one that was resumed behind its back", function()
    local coroutines = require("perigee.coroutines")
    local co = coroutine.create(function() scheduler.await(after(1)) end)
    local ok, err = coroutines.resume(co)
    assert.is_false(ok)
    assert.equal("UNSUPPORTED", err.code)
  end)
end)

describe("the replaced coroutine functions", function()
  it("pass values both ways, nils and all", function()
    local co = coroutine.create(function(...)
      local n = select("#", ...)
      return n, coroutine.yield(nil, n, nil)
    end)
    assert.same({ n = 4, true, nil, 3, nil }, { n = select("#", coroutine.resume(co, nil, 1, nil)), true, nil, 3, nil })
    assert.same({ true, 3, "x" }, { coroutine.resume(co, "x") })
    assert.same({ false, "cannot resume dead coroutine" }, { coroutine.resume(co) })
  end)

  it("raise from wrap with the caller's position, as before", function()
    local step = coroutine.wrap(function() error("boom", 0) end)
    local line = debug.getinfo(1, "l").currentline + 1
    local _, err = pcall(function() local _ = step() end)
    assert.matches("scheduler_spec.lua:" .. line .. ": boom$", err)
    local _, dead = pcall(function() local _ = step() end)
    assert.matches("scheduler_spec.lua:%d+: cannot resume dead coroutine$", dead)
  end)

  it("keep raised tables", function()
    local raised = {}
    local ok, err = pcall(coroutine.wrap(function() error(raised) end))
    assert.is_false(ok)
    assert.equal(raised, err)
  end)

  it("refuse what they refused", function()
    assert.matches("bad argument #1 to 'wrap' %(function expected, got no value%)", select(2, pcall(coroutine.wrap)))
    assert.matches("function expected, got number", select(2, pcall(coroutine.wrap, 1)))
    assert.matches("coroutine expected", select(2, pcall(coroutine.resume, 1)))
    local co
    co = coroutine.create(function() return coroutine.resume(co) end)
    assert.same({ true, false, "cannot resume running coroutine" }, { coroutine.resume(co) })
    assert.equal("dead", coroutine.status(co))
  end)

  it("are installed once, also when the module is loaded again", function()
    local before = coroutine.resume
    local loaded = package.loaded["perigee.coroutines"]
    package.loaded["perigee.coroutines"] = nil
    local again = require("perigee.coroutines")
    package.loaded["perigee.coroutines"] = loaded
    assert.equal(before, coroutine.resume)
    assert.equal(loaded, again)
  end)
end)

describe("post", function()
  it("runs after the code running now, before the loop waits again", function()
    local order = {}
    scheduler.start(nil, function()
      scheduler.post(function() order[#order + 1] = "posted" end)
      order[#order + 1] = "running"
    end)
    assert.same({ "running", "posted" }, order)
    scheduler.enter()
    scheduler.post(function() order[#order + 1] = "entry" end)
    assert.equal(2, #order)
    scheduler.leave()
    assert.equal("entry", order[3])
  end)

  it("gets its turn from the loop in a main chunk", function()
    local ran = false
    scheduler.post(function() ran = true end)
    assert.is_false(ran)
    uv.run()
    assert.is_true(ran)
  end)

  it("logs a fault and goes on", function()
    local lines, restore = source.capture_log()
    local ran = false
    scheduler.start(nil, function()
      scheduler.post(error, "boom")
      scheduler.post(function() ran = true end)
    end)
    restore()
    assert.is_true(ran)
    assert.equal(1, #lines)
    assert.matches("boom", lines[1])
  end)
end)

describe("a task's belongings", function()
  it("are cancelled when it ends", function()
    local cancelled = 0
    local subscribe, control = later()
    scheduler.start(nil, function()
      scheduler.own(scheduler.acquire(), { cancel = function() cancelled = cancelled + 1 end })
      scheduler.await(subscribe)
      error("x")
    end)
    assert.equal(0, cancelled)
    control.resume(true)
    assert.equal(1, cancelled)
  end)
end)
