--- Hot reload of a script that listens on NATS: the connection stays, what is heard changes.

local brokers = require("spec.support.broker")
local loop = require("spec.support.loop")
local perigee = require("perigee")
local program = require("spec.support.perigee")

local HEAD = 'local perigee = require("perigee")\nlocal app = perigee.app()\n'

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

describe("a reload over NATS", function()
  local broker, client

  before_each(function()
    broker = brokers.nats()
    client = perigee.client(broker.url)
  end)

  after_each(function()
    client:close():await()
    program.clean()
    brokers.stop_all()
    loop.finish()
  end)

  local function script(handlers)
    return HEAD .. handlers .. ('\napp:listen(%q)\nreturn app\n'):format(broker.url)
  end

  local function wait_for(child, text, from)
    loop.wait_until(function() return child.stderr:find(text, from or 1, true) end, 10000, function()
      return ("%q from %s"):format(text, child:describe())
    end)
  end

  local function code_of(pattern)
    local outcome = perigee.settled({ client:send(pattern, {}) }):await()[1]
    return outcome.reason and outcome.reason.code or outcome.value
  end

  it("hears what is new, no more what is gone, and lets what runs end", function()
    local path = program.script(script([[
      app:message("kept", function() return 1 end)
      app:message("gone", function() return 1 end)
      app:message("slow", function() perigee.sleep(300):await() return "old" end)]]))
    local child = program.start({ "serve", path })
    program.urls(child)
    assert.are.same({ 1, 1 }, { code_of("kept"), code_of("gone") })
    local slow = client:send("slow", {}):first()
    client:send("kept", {}):await() -- it is behind "slow" on the wire
    write(path, script([[
      app:message("kept", function() return 2 end)
      app:message("new", function() return 2 end)]]))
    child:kill("sighup")
    wait_for(child, "generation 2 serves")
    assert.are.equal(2, code_of("kept"))
    loop.wait_until(function() return code_of("gone") == "NO_HANDLER" end)
    loop.wait_until(function() return code_of("new") == 2 end)
    assert.are.equal("old", slow:await())
  end)

  it("that cannot be subscribed is refused, and the old handlers go on", function()
    local path = program.script(script('app:message("kept", function() return 1 end)'))
    local child = program.start({ "serve", path })
    program.urls(child)
    local at = #child.stderr
    write(path, script('app:message("not this", function() return 2 end)'))
    child:kill("sighup")
    wait_for(child, "illegal subject: 'not this'", at)
    assert.are.equal(1, code_of("kept"))
  end)

  it("loses no request under load", function()
    local path = program.script(script('app:message("kept", function() return 1 end)'))
    local child = program.start({ "serve", path })
    program.urls(child)
    local answers, number = 0, 1
    local over = false
    local load = perigee.async(function()
      while not over do
        perigee.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, function() return client:send("kept", {}) end):await()
        answers = answers + 8
      end
    end)
    for _ = 1, 5 do
      number = number + 1
      write(path, script(('app:message("kept", function() return %d end)'):format(number)))
      local goal = answers + 100
      child:kill("sighup")
      wait_for(child, ("generation %d serves"):format(number))
      loop.wait_until(function() return answers >= goal or load.state == "rejected" end, 10000)
    end
    over = true
    load:await()
    assert.are.equal(number, code_of("kept"))
  end)
end)
