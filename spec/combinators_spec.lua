local combinators = require("perigee.combinators")
local json = require("perigee.json")
local promise = require("perigee.promise")
local source = require("spec.support.source")
local uv = require("luv")

local all, any, race, settled = combinators.all, combinators.any, combinators.race, combinators.settled
local async, sleep, of = combinators.async, combinators.sleep, combinators.of

local function soon(ms, value)
  return sleep(ms):next(function() return value end)
end

local function failing(ms, code)
  return sleep(ms):next(function() error({ code = code }) end)
end

local function outcome(p)
  return pcall(p.await, p)
end

-- Still running after an hour; tells when it was cancelled.
local function endless()
  local control = { cancelled = 0 }
  return promise.pending(function() control.cancelled = control.cancelled + 1 end), control
end

describe("all", function()
  it("gives the values in order: of Promises, Replies and plain values", function()
    assert.same({ "p", 2, "plain" }, all({ soon(2, "p"), of(1, 2), "plain" }):await())
    assert.same({}, all({}):await())
  end)

  it("asks all Replies at once", function()
    local a, one = source.manual()
    local b, two = source.manual()
    all({ a, b })
    assert.same({ 1, 1 }, { one.asked, two.asked })
  end)

  it("rejects with the first failure and cancels the rest", function()
    local r, control = source.manual()
    local p, rest = endless()
    local ok, err = outcome(all({ r, p, failing(1, "X") }))
    assert.is_false(ok)
    assert.equal("X", err.code)
    assert.same({ 1, 1 }, { control.cancelled, rest.cancelled })
  end)

  it("cancels all when cancelled", function()
    local r, control = source.manual()
    local p, rest = endless()
    all({ r, p }):cancel()
    assert.same({ 1, 1 }, { control.cancelled, rest.cancelled })
  end)

  it("works in a coroutine", function()
    assert.same({ 1, 2 }, async(function() return all({ soon(1, 1), soon(1, 2) }):await() end):await())
  end)

  it("refuses what is no list", function()
    for _, bad in ipairs({ 42, "x", of(1), { n = "2" }, { n = 1.5 }, { n = -1 }, { n = math.huge }, { n = 0 / 0 } }) do
      local ok, err = pcall(all, bad)
      assert.is_false(ok)
      assert.equal("INVALID_OPTION", err.code)
    end
  end)
end)

describe("any", function()
  it("gives the first value, whatever fails before, and cancels the losers", function()
    local r, control = source.manual()
    assert.equal("v", any({ failing(0, "X"), soon(2, "v"), r }):await())
    assert.equal(1, control.cancelled)
  end)

  it("fails when all fail: the last one's code, and all errors in order", function()
    local ok, err = outcome(any({ failing(5, "LATE"), failing(1, "EARLY") }))
    assert.is_false(ok)
    assert.equal("LATE", err.code)
    assert.equal("LATE", err.errors[1].code)
    assert.equal("EARLY", err.errors[2].code)
    assert.equal("INVALID_OPTION", select(2, outcome(any({}))).code)
    local strict = setmetatable({}, { __index = function(_, name) error("no field " .. name) end })
    for raised, text in pairs({ [strict] = "{}", [{ a = 1 }] = '{"a":1}', [{ code = 7 }] = "7" }) do
      local _, failed = outcome(any({ of(1):map(function() error(raised) end) }))
      assert.equal("all 1 failed, the last with: " .. text, failed.message)
      assert.is_true(failed.cause == raised)
    end
  end)
end)

describe("race", function()
  it("gives the first outcome and cancels the losers", function()
    local r, control = source.manual()
    assert.equal("v", race({ r, soon(1, "v") }):await())
    assert.equal(1, control.cancelled)
    local p, rest = endless()
    local _, err = outcome(race({ p, failing(1, "X") }))
    assert.equal("X", err.code)
    assert.equal(1, rest.cancelled)
    assert.equal("plain", race({ "plain", sleep(60000) }):await())
  end)

  it("does not cancel what somebody else waits for", function()
    local p, rest = endless()
    p:next(function() end)
    race({ p, 1 }):await()
    assert.equal(0, rest.cancelled)
  end)

  it("leaves no timer behind", function()
    race({ sleep(60000), 1 }):await()
    uv.run() -- would last a minute
  end)

  it("refuses what is no time", function()
    for _, bad in ipairs({ -1, "5", 0 / 0, math.huge, 1e300 }) do
      local ok, err = pcall(sleep, bad)
      assert.same({ false, "INVALID_OPTION" }, { ok, err.code })
    end
  end)
end)

describe("an empty list of results", function()
  it("is a list also as JSON", function()
    local made = { all({}), settled({}), combinators.map({}, print), combinators.of():collect() }
    for i = 1, 4 do assert.are.equal("[]", json.encode(made[i]:await())) end
  end)
end)

describe("settled", function()
  it("gives every outcome, in order", function()
    local err = { code = "X" }
    assert.same({
      { status = "fulfilled", value = 1 },
      { status = "rejected", reason = err },
      { status = "fulfilled", value = 3 },
    }, settled({ soon(2, 1), promise.rejected(err), of(3) }):await())
    assert.same({}, settled({}):await())
  end)
end)

describe("map", function()
  it("gives the results in order", function()
    local function later(v, i) return soon(4 - i, v * 10 + i) end
    assert.same({ 11, 22, 33 }, combinators.map({ 1, 2, 3 }, later):await())
    assert.same({}, combinators.map({}, later):await())
  end)

  it("takes Promises and Replies too", function()
    assert.same({ 2, 4, 6 }, combinators.map({ soon(1, 1), of(0, 2), 3 }, function(v) return v * 2 end):await())
  end)

  it("runs no more at once than it is told, 64 when not", function()
    local function peak(n, options)
      local now, most = 0, 0
      local list = {}
      for i = 1, n do list[i] = i end
      combinators.map(list, function()
        now = now + 1
        most = math.max(most, now)
        sleep(1):await()
        now = now - 1
      end, options):await()
      return most
    end
    assert.equal(2, peak(7, { concurrency = 2 }))
    assert.equal(7, peak(7, { concurrency = 10 }))
    assert.equal(64, peak(100))
  end)

  it("rejects with the first failure, cancels the rest and starts no more", function()
    local started, codes = 0, {}
    local ok, err = outcome(combinators.map({ 1, 2, 3, 4 }, function(v)
      started = started + 1
      if v == 2 then error({ code = "X" }) end
      local good, why = pcall(function() sleep(60000):await() end)
      if not good then codes[#codes + 1] = why.code end
    end, { concurrency = 3 }))
    assert.is_false(ok)
    assert.equal("X", err.code)
    assert.equal(3, started)
    assert.same({ "CANCELLED", "CANCELLED" }, codes)
  end)

  it("cancels what runs when cancelled", function()
    local codes = {}
    local p = combinators.map({ 1, 2 }, function()
      local _, err = pcall(function() sleep(60000):await() end)
      codes[#codes + 1] = err.code
    end)
    sleep(1):await()
    p:cancel()
    sleep(1):await()
    assert.same({ "CANCELLED", "CANCELLED" }, codes)
  end)

  it("refuses options it does not know", function()
    for text, bad in pairs({
      ["map: unknown option 'concurency' (known: concurrency)"] = { concurency = 2 },
      ["map takes a table of options, got number"] = 2,
    }) do
      local ok, err = pcall(combinators.map, { 1 }, tostring, bad)
      assert.is_false(ok)
      assert.equal("INVALID_OPTION: " .. text, tostring(err))
    end
  end)

  it("refuses a concurrency below 1", function()
    for _, bad in ipairs({ 0, -1, 0 / 0, "x" }) do
      local ok, err = pcall(combinators.map, { 1 }, tostring, { concurrency = bad })
      assert.is_false(ok)
      assert.equal("INVALID_OPTION", err.code)
    end
  end)
end)

describe("async and spawn", function()
  it("start now, with arguments, and give a Promise of the first result", function()
    for _, start in ipairs({ async, combinators.spawn }) do
      local ran
      local p = start(function(a, b)
        ran = a
        sleep(1):await()
        return b, "second"
      end, 1, 2)
      assert.equal(1, ran)
      assert.equal(2, p:await())
    end
  end)

  it("flatten what is returned", function()
    assert.equal(2, async(function() return of(1, 2) end):await())
    assert.equal("p", async(function() return soon(1, "p") end):await())
  end)

  it("reject with what is raised", function()
    local _, err = outcome(async(function() error("boom") end))
    assert.equal("SCRIPT", err.code)
    assert.matches("combinators_spec.lua:%d+: boom", err.message)
    assert.matches("traceback", err.traceback)
  end)

  it("raise CANCELLED inside when cancelled, down to what runs", function()
    local r, control = source.manual()
    local inside
    local p = async(function()
      local _, err = pcall(r.await, r)
      inside = err.code
    end)
    p:cancel()
    assert.equal("CANCELLED", inside)
    assert.equal(1, control.cancelled)
    assert.equal("CANCELLED", select(2, outcome(p)).code)
  end)

  it("spawn logs a failure nobody looks at, with the line, and none that somebody does", function()
    local lines, restore = source.capture_log()
    local line = debug.getinfo(1, "l").currentline + 1
    local kept = combinators.spawn(function() error("boom") end)
    combinators.spawn(function() error("seen") end):catch(function() end)
    uv.run()
    restore()
    assert.is_table(kept)
    assert.equal(1, #lines)
    assert.matches("combinators_spec.lua:" .. line .. ": SCRIPT: .*boom", lines[1])
  end)

  it("refuse anything but a function", function()
    local ok, err = pcall(async, nil)
    assert.is_false(ok)
    assert.equal("INVALID_OPTION", err.code)
  end)
end)

describe("sleep", function()
  it("lasts, and frees its timer when cancelled", function()
    local core = require("perigee.core")
    local before = core.now()
    sleep(20):await()
    assert.is_true(core.now() - before >= 19)
    sleep(60000):cancel()
    uv.run() -- would last a minute
  end)
end)

describe("of and from", function()
  it("are cold and give the values each time", function()
    local r = of(1, nil, 3)
    local n = 0
    for _ = 1, 2 do r:subscribe({ next = function() n = n + 1 end }) end
    assert.equal(6, n)
  end)

  it("take lists, iterators, Promises and Replies", function()
    assert.same({ 1, 2 }, combinators.from({ 1, 2 }):collect():await())
    assert.same({ "a", "b" }, combinators.from(("a b"):gmatch("%a")):collect():await())
    assert.same({ "p" }, combinators.from(soon(1, "p")):collect():await())
    local r = of(1)
    assert.equal(r, combinators.from(r))
    assert.same({ 1, 2 }, combinators.from(of(1, 2):values()):collect():await())
  end)

  it("let a generator await", function()
    local r = combinators.from(coroutine.wrap(function()
      for i = 1, 2 do
        sleep(1):await()
        coroutine.yield(i)
      end
    end))
    assert.same({ 1, 2 }, r:collect():await())
  end)

  it("reject with the iterator's or the Promise's error", function()
    for _, bad in ipairs({ function() error({ code = "X" }) end, promise.rejected({ code = "X" }) }) do
      local r = combinators.from(bad)
      assert.equal("X", select(2, pcall(r.await, r)).code)
    end
  end)

  it("hand cancelling on", function()
    local inside
    combinators.from(function()
      local _, err = pcall(function() sleep(60000):await() end)
      inside = err.code
    end):subscribe({}):unsubscribe()
    assert.equal("CANCELLED", inside)
    local p, control = endless()
    combinators.from(p):subscribe({}):unsubscribe()
    assert.equal(1, control.cancelled)
  end)

  it("refuse the rest", function()
    local ok, err = pcall(combinators.from, 42)
    assert.is_false(ok)
    assert.equal("INVALID_OPTION", err.code)
  end)
end)

describe("reply", function()
  it("runs its producer for each request, and takes values at any time", function()
    local sinks = {}
    local r = combinators.reply(function(sink) sinks[#sinks + 1] = sink end)
    local a, b = r:collect(), r:last()
    sinks[1]:next(1)
    sinks[2]:next(2)
    sinks[1]:complete()
    sinks[2]:complete()
    assert.same({ 1 }, a:await())
    assert.equal(2, b:await())
  end)

  it("calls what the producer returned when the rest is not wanted, once, and not after the end", function()
    local cancelled = 0
    local sink
    local r = combinators.reply(function(given)
      sink = given
      return function() cancelled = cancelled + 1 end
    end)
    local subscription = r:subscribe({})
    subscription:unsubscribe()
    subscription:unsubscribe()
    assert.equal(1, cancelled)
    r:subscribe({})
    sink:complete()
    assert.equal(1, cancelled)
    combinators.reply(function(given)
      given:next(1)
      return function() cancelled = cancelled + 1 end
    end):take(1):subscribe({})
    assert.equal(2, cancelled)
  end)

  it("takes for a cancel only what can be one", function()
    local lines, restore = source.capture_log()
    for _, made in ipairs({ 0, true, "x", {}, { cancel = 1 } }) do
      local sink
      local first = combinators.reply(function(given)
        sink = given
        return made
      end):first()
      sink:next(1)
      assert.equal(1, first:await())
    end
    local cancelled = 0
    local function count() cancelled = cancelled + 1 end
    for _, made in ipairs({ count, { cancel = count }, setmetatable({}, { __call = count }) }) do
      combinators.reply(function() return made end):subscribe({}):unsubscribe()
      combinators.reply(function(sink) -- stopped before it returns
        sink:next(1)
        return made
      end):take(1):subscribe({})
    end
    restore()
    assert.same({}, lines)
    assert.equal(6, cancelled)
  end)

  it("makes error tables of texts and of raises", function()
    for _, producer in ipairs({
      function(sink) sink:error("boom") end,
      function() error("boom") end,
    }) do
      local r = combinators.reply(producer)
      local _, err = pcall(r.await, r)
      assert.equal("SCRIPT", err.code)
      assert.matches("boom", err.message)
    end
  end)

  it("forbids await in the producer, not in what it starts", function()
    local r = combinators.reply(function(sink)
      async(function()
        sink:next(soon(1, "v"):await())
        sink:complete()
      end)
      sleep(1):await()
    end)
    local _, err = pcall(r.await, r)
    assert.equal("UNSUPPORTED", err.code)
    uv.run()
  end)
end)
