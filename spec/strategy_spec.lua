local loop = require("spec.support.loop")
local perigee = require("perigee")

local app

before_each(function() app = perigee.app() end)

after_each(function()
  app:stop({ drain_timeout = 100 }):await()
  loop.finish()
end)

local function new_strategy(fields)
  local strategy = fields or {}
  strategy.handlers, strategy.order = {}, {}
  function strategy:add_handler(pattern, fn, is_event, extras)
    self.handlers[#self.handlers + 1] = { pattern = pattern, fn = fn, is_event = is_event, extras = extras }
  end
  function strategy:listen()
    return perigee.sleep(1):next(function() self.order[#self.order + 1] = "listening" end)
  end
  function strategy:close()
    return perigee.sleep(1):next(function() self.order[#self.order + 1] = "closed" end)
  end
  return strategy
end

describe("a listener written in Lua", function()
  it("MOD-05 is given raw patterns, whether it is an event, and extras; it is listened to and closed", function()
    local pattern = { b = 2, a = 1 }
    app:message(pattern, function() end, { transport = "mine", queue = "q" })
    app:event("e", function() end)
    app:message("other", function() end, { transport = "tcp" })
    local strategy = new_strategy({ name = "mine" })
    app:listen(strategy)
    app:start():await()
    assert.are.equal(2, #strategy.handlers)
    local message, event = unpack(strategy.handlers)
    assert.are.equal(pattern, message.pattern)
    assert.are.same({ false, "q" }, { message.is_event, message.extras.queue })
    assert.are.same({ "e", true, {} }, { event.pattern, event.is_event, event.extras })
    assert.are.same({ "listening" }, strategy.order)
    app:stop():await()
    assert.are.same({ "listening", "closed" }, strategy.order)
  end)

  it("GEN-39 without a name gets the handlers of every transport", function()
    app:message("a", function() end, { transport = "tcp" })
    app:message("b", function() end)
    local strategy = new_strategy()
    app:listen(strategy)
    app:start():await()
    assert.are.equal(2, #strategy.handlers)
  end)

  it("calls handlers with their middleware, and gets Replies", function()
    app:use(function(_, ctx, next) return next():map(function(n) return n + ctx.step end) end)
    app:message("count", function(data) return perigee.from(data) end)
    local strategy = new_strategy()
    app:listen(strategy)
    app:start():await()
    assert.are.same({ 11, 12 }, strategy.handlers[1].fn({ 1, 2 }, { step = 10 }):collect():await())
  end)

  it("refuses the start when it cannot listen", function()
    local strategy = new_strategy()
    function strategy.listen() error({ code = "NO_PORT" }) end
    app:listen(strategy)
    local ok, err = pcall(function() app:start():await() end)
    assert.is_false(ok)
    assert.are.equal("NO_PORT", err.code)
  end)

  it("needs its functions", function()
    local ok, err = pcall(app.listen, app, { listen = print })
    assert.is_false(ok)
    assert.are.equal("INVALID_OPTION", err.code)
  end)
end)
