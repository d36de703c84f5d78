-- Cancelling and what it reaches; deadline_spec has the other half of scopes.

local log = require("perigee.log")
local loop = require("spec.support.loop")
local perigee = require("perigee")
local scheduler = require("perigee.scheduler")
local tcp = require("spec.support.tcp")
local wire = require("spec.support.wire")

local async, sleep, spawn = perigee.async, perigee.sleep, perigee.spawn

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

describe("cancelling a coroutine", function()
  it("cancels what it waits for and the async children it has started, at any depth", function()
    local child, grandchild, awaited = {}, {}, {}
    local work = async(function()
      async(function()
        async(endless, grandchild)
        endless(child)
      end)
      async(endless, awaited):await()
    end)
    work:cancel()
    loop.turn()
    assert.same({ "CANCELLED", "CANCELLED", "CANCELLED" }, { child.code, grandchild.code, awaited.code })
  end)

  it("leaves what it has spawned alone", function()
    local spawned = {}
    local other
    local work = async(function()
      other = spawn(endless, spawned)
      endless({})
    end)
    work:cancel()
    loop.turn()
    assert.is_nil(spawned.code)
    other:cancel()
    loop.turn()
    assert.equal("CANCELLED", spawned.code)
  end)

  it("cancels a map that it does not wait for", function()
    local mapped = {}
    local work = async(function()
      perigee.map({ 1 }, function() endless(mapped) end)
      sleep(1):await()
      endless({})
    end)
    sleep(5):await()
    work:cancel()
    loop.turn()
    assert.equal("CANCELLED", mapped.code)
  end)

  it("reaches children also while it does not wait", function()
    local child = {}
    local work
    work = async(function()
      sleep(1):await()
      async(endless, child)
      work:cancel()
      assert.is_not_nil(child.code)
    end)
    assert.equal("CANCELLED", failure(work).code)
    loop.turn()
    assert.same({ code = "CANCELLED" }, child)
    assert.same({}, lines)
  end)

  it("spares the children it starts after it was told", function()
    local ran
    local work = async(function()
      local ok = pcall(endless, {})
      assert(not ok)
      ran = async(function()
        sleep(1):await()
        return "cleaned"
      end):await()
    end)
    work:cancel()
    loop.wait_until(function() return ran end)
    assert.equal("cleaned", ran)
  end)

  it("reaches grandchildren whose parent has ended, and not those whose scope has", function()
    local inherited, free = {}, {}
    local outer = async(function()
      async(function() async(endless, inherited) end)
      endless({})
    end)
    local ended
    local other = async(function()
      ended = async(endless, free)
    end)
    other:await()
    outer:cancel()
    other:cancel()
    loop.turn()
    assert.equal("CANCELLED", inherited.code)
    assert.is_nil(free.code)
    ended:cancel()
    loop.turn()
  end)

  it("reaches children of one that has returned what it waits for", function()
    local child = {}
    local work = async(function()
      async(endless, child)
      return sleep(60000)
    end)
    loop.turn()
    work:cancel()
    loop.turn()
    assert.equal("CANCELLED", child.code)
  end)

  it("keeps no children that have ended, however many it starts", function()
    async(function()
      for _ = 1, 100 do async(sleep, 0):await() end
      assert.is_true(scheduler.scope().scope.children.n <= 16)
      local live = {}
      for i = 1, 100 do live[i] = async(sleep, 60000) end
      for _ = 1, 1000 do async(function() return 1 end) end
      assert.is_true(scheduler.scope().scope.children.n <= 200)
      for i = 1, 100 do live[i]:cancel() end
    end):await()
  end)

  it("cancels in the order they were started, those it starts before it hears of it too", function()
    local order = {}
    local function child(name)
      local ok, err = pcall(endless, {})
      if not ok then order[#order + 1] = name end
      error(err)
    end
    local work
    work = async(function()
      sleep(1):await()
      for i = 1, 3 do async(child, i) end
      work:cancel()
      async(child, 4)
      sleep(1):await()
    end)
    failure(work)
    loop.turn()
    assert.same({ 1, 2, 3, 4 }, order)
  end)

  it("collects a child that nothing can end, its parent alive or not", function()
    local gone = setmetatable({}, { __mode = "k" })
    local go
    local work = async(function()
      gone[async(function() perigee.promise(function() end):await() end)] = true
      perigee.promise(function(resolve) go = resolve end):await()
    end)
    for _ = 1, 10 do -- a stack that is still in use elsewhere may hold it for a round or two
      collectgarbage()
      loop.turn()
    end
    assert.is_nil(next(gone))
    go()
    work:await()
  end)
end)

describe("a caller that leaves", function()
  it("cancels the children of an HTTP handler, which waits or has answered with a Promise", function()
    local waiting, answered, started = {}, {}, 0
    local url = serve("http://127.0.0.1:0", function(app)
      app:get("/waits", function()
        started = started + 1
        async(endless, waiting)
        endless({})
      end)
      app:get("/answers", function()
        started = started + 1
        async(endless, answered)
        return perigee.promise(function() end)
      end)
    end)
    local port = tonumber(url:match("%d+$"))
    for path, control in pairs({ ["/waits"] = waiting, ["/answers"] = answered }) do
      local peer = tcp.connect(port)
      local before = started
      peer:write("GET " .. path .. " HTTP/1.1\r\nHost: x\r\n\r\n")
      loop.wait_until(function() return started > before end)
      assert.is_nil(control.code)
      peer:reset() -- after a mere FIN the answer is still sent
      loop.wait_until(function() return control.code end)
      assert.equal("CANCELLED", control.code)
    end
  end)

  it("cancels the children of a message handler, which waits or streams (G7)", function()
    local waiting, streaming, started = {}, {}, 0
    local url = serve("tcp://127.0.0.1:0", function(app)
      app:message("waits", function()
        started = started + 1
        async(endless, waiting)
        endless({})
      end)
      app:message("streams", function()
        started = started + 1
        async(endless, streaming)
        return perigee.reply(function() end)
      end)
    end)
    for pattern, control in pairs({ waits = waiting, streams = streaming }) do
      local peer = tcp.connect(tonumber(url:match("%d+$")))
      local before = started
      peer:write(wire.request(("%q"):format(pattern), "1"))
      loop.wait_until(function() return started > before end)
      assert.is_nil(control.code)
      peer:reset() -- after a mere FIN the answer is still sent
      loop.wait_until(function() return control.code end)
      assert.equal("CANCELLED", control.code)
    end
  end)
end)
