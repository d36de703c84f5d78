-- How `perigee run` ends; cli_spec has the rest.

local loop = require("spec.support.loop")
local program = require("spec.support.perigee")
local uv = require("luv")

after_each(function()
  program.clean()
  loop.finish()
end)

local run, script = program.run, program.script

describe("perigee run", function()
  it("ends with the status the chunk returns, and refuses what is none", function()
    assert.are.same({ 3, "out\n", "" }, { run({ "run", script('print("out") return 3') }) })
    assert.are.same({ 0, "", "" }, { run({ "run", script('return 0, "more"') }) })
    assert.are.same({ 0, "", "" }, { run({ "run", script('return { 3 }') }) })
    for _, number in ipairs({ "256", "-1", "1.5" }) do
      local told = "perigee: INVALID_OPTION: the script returned " .. number .. ", which is no exit status: 0 to 255\n"
      assert.are.same({ 1, "", told }, { run({ "run", script("return " .. number) }) })
    end
  end)

  it("waits for a Promise or a Reply the chunk returns, and ends with its outcome", function()
    local head = 'local perigee = require("perigee") return '
    assert.are.same({ 4, "", "" }, { run({ "run", script(head .. "perigee.sleep(1):next(function() return 4 end)") }) })
    assert.are.same({ 9, "", "" }, { run({ "run", script(head .. "perigee.of(1, 9)") }) })
    local failing = head .. 'perigee.async(function() perigee.sleep(1):await() error("no") end)'
    local code, _, err = run({ "run", script(failing) })
    assert.are.equal(1, code)
    assert.is_truthy(err:find("^perigee: SCRIPT: %S+:1: no\n"), err)
    local late = script(head .. "perigee.sleep(60000)")
    assert.are.same({ 1, "", "perigee: TIMEOUT: the script did not end within 20 ms\n" },
      { run({ "run", "--timeout", "20", late }) })
  end)

  it("goes on after what callbacks of luv raise, and logs it", function()
    local path = script([[
local timer = require("luv").new_timer()
timer:start(1, 0, function()
  timer:close()
  error("in a timer")
end)
require("perigee").sleep(20):await()
return 5
]])
    local code, _, err = run({ "run", path })
    assert.are.equal(5, code)
    assert.is_truthy(err:find("^perigee: error: in a callback: %S+:4: in a timer\n"), err)
  end)

  it("says what is wrong with a chunk that yields to nobody", function()
    local code, _, err = run({ "run", script("coroutine.yield(1)") })
    assert.are.equal(1, code)
    assert.is_truthy(err:find("^perigee: UNSUPPORTED: coroutine.yield outside a coroutine of the script's own\n"), err)
  end)

  it("ends at once on os.exit, with all that was printed", function()
    local path = script([[
local perigee = require("perigee")
perigee.spawn(function() perigee.sleep(60000):await() end)
perigee.sleep(1):await()
io.write(("x"):rep(100000))
os.exit(4)
]])
    -- At once: the state is not closed, which a leak detector would take amiss.
    local env = { ASAN_OPTIONS = (os.getenv("ASAN_OPTIONS") or "") .. ":detect_leaks=0" }
    assert.are.same({ 4, ("x"):rep(100000), "" }, { run({ "run", path }, { env = env }) })
  end)

  it("reads the script from standard input as '-'", function()
    local code, out, err = run({ "run", "-", "a" }, { input = "print(arg[0], ...) error('here')" })
    assert.are.same({ 1, "-\ta\n" }, { code, out })
    assert.are.equal("perigee: SCRIPT: -:1: here", err:match("[^\n]*"))
  end)

  describe("with a saga under way", function()
    -- Prints "undone" once it is cancelled, by an undo that has to wait.
    local SAGA = [[
local perigee = require("perigee")
local service = perigee.app()
service:message("undo", function() return perigee.sleep(20):next(function() return "undone" end) end)
service:listen("local:service")
service:start():await()
local client = perigee.client("local:service")
local work = perigee.saga(function(s)
  s:step("a", function() end, function() return client:send("undo", 1):map(print) end)
  s:step("b", function()
    print("waits")
    io.stdout:flush()
    perigee.sleep(60000):await()
  end)
end)
]]

    for name, code in pairs({ sigint = 130, sigterm = 143 }) do
      it("undoes it on " .. name:upper() .. " and exits " .. code, function()
        local child = program.start({ "run", script(SAGA .. "work:await()") })
        child:line("waits")
        child:kill(name)
        child:wait()
        assert.are.same({ code, "waits\nundone\n" }, { child.exit_code, child.stdout })
        assert.are.equal("perigee: CANCELLED: ended by " .. name:upper() .. "\n", child.stderr:match("[^\n]*\n"))
      end)
    end

    it("undoes it when it takes longer than --timeout", function()
      local code, out, err = run({ "run", script(SAGA .. "work:await()"), "--timeout", "500" })
      assert.are.same({ 1, "waits\nundone\n" }, { code, out })
      assert.are.equal("perigee: TIMEOUT: the script did not end within 500 ms\n", err:match("[^\n]*\n"))
    end)

    it("undoes it when nothing is left that could end a wait, and cancels what waits", function()
      local code, out, err = run({ "run", script([[
local perigee = require("perigee")
local function never()
  local _, why = pcall(function() perigee.promise(function() end):await() end)
  print(why)
  error(why)
end
perigee.saga(function(s)
  s:step("a", function() end, function() return perigee.sleep(5):next(function() print("undone") end) end)
  never()
end):await()
]]) })
      assert.are.same({ 1, "CANCELLED: cancelled\nundone\n" }, { code, out })
      assert.are.equal("perigee: CANCELLED: nothing is left on the loop that could end this wait\n", err)
    end)

    it("undoes it when the chunk ends without waiting for it, or fails", function()
      for code, last in pairs({ [5] = "return 5", [1] = "error('here')" }) do
        local path = script(SAGA .. last)
        local got, out, err = run({ "run", path })
        assert.are.same({ code, "waits\nundone\n" }, { got, out })
        assert.is_truthy(err:find(path .. ":7 still ran: it is cancelled", 1, true), err)
      end
    end)
  end)

  it("ends at once on a second signal, busy or not", function()
    for _, rest in ipairs({ "while true do end", "pcall(work.await, work) while true do end", "work:await()" }) do
      local child = program.start({ "run", script([[
local perigee = require("perigee")
local work = perigee.saga(function(s)
  s:step("a", function() end, function() perigee.sleep(60000):await() end)
  perigee.sleep(60000):await()
end)
print("waits")
io.stdout:flush()
]] .. rest) })
      child:line("waits")
      -- Two signals may be taken for one: what is pending already is not sent again.
      local again = loop.own(uv.new_timer())
      again:start(0, 20, function() child:kill("sigint") end)
      child:wait()
      loop.close(again)
      assert.are.equal(2, child.signal)
    end
  end)
end)
