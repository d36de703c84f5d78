local environment = require("perigee.environment")
local log = require("perigee.log")
local loop = require("spec.support.loop")
local perigee = require("perigee")

local folder, lines

before_each(function()
  lines = {}
  log.set_sink(function(line) lines[#lines + 1] = line end)
  folder = os.tmpname()
  os.remove(folder)
  assert(os.execute("mkdir " .. folder) == 0)
end)

after_each(function()
  os.execute("rm -r " .. folder)
  loop.finish()
  log.set_sink()
end)

local function write(name, text)
  local path = folder .. "/" .. name
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

-- Runs the script in a coroutine of perigee's; returns what Environment:run does.
local function run(text, ...)
  local own = environment.new(write("main.lua", text))
  local results = perigee.async(function(...) return { own:run(...) } end, ...):await()
  return own, unpack(results, 1, 3)
end

describe("environment", function()
  it("gives the script its arguments and its own globals, over the host's", function()
    rawset(_G, "perigee_spec_global", 7)
    local own, ok, result = run("rawset(_G, 'x', perigee_spec_global); x = x + 1; return { x, ... }", "a")
    rawset(_G, "perigee_spec_global", nil)
    assert.is_true(ok)
    assert.are.same({ 8, "a" }, result)
    assert.are.equal(8, own.globals.x)
    assert.is_nil(rawget(_G, "x"))
  end)

  it("refuses writes to undeclared globals, in modules too, with file and line", function()
    write("part.lua", "\n\nfunction helper() end")
    for text, expected in pairs({
      ["local a = 1\nb = a"] = "main.lua:2: undeclared global 'b'; use local",
      ["_G.c = 1"] = "main.lua:1: undeclared global 'c'; use local",
      ["print = nil"] = "main.lua:1: undeclared global 'print'; use local",
      ["require('part')"] = "part.lua:3: undeclared global 'helper'; use local",
    }) do
      local _, ok, err = run(text)
      assert.is_false(ok)
      assert.are.same({ "SCRIPT", folder .. "/" .. expected }, { err.code, err.message })
    end
    local _, ok, result = run("return { absent == nil }") -- reads are for `perigee check`
    assert.are.same({ true, { true } }, { ok, result })
  end)

  it("gives what a script compiles the script's globals", function()
    local part = write("part.lua", "return mine")
    local _, ok, result = run(([[
      rawset(_G, "mine", 1)
      local other = setmetatable({ mine = 2 }, { __index = _G })
      return { loadstring("return mine")(), load(function() end)(), loadfile(%q)(), dofile(%q),
        load("return mine", "=x", "t", other)() or 0, loadfile(%q, "t", other)(), loadstring("= 1") == nil,
        pcall(loadstring("leak = 1")) }
    ]]):format(part, part, part))
    assert.is_true(ok)
    assert.are.same({ 1, nil, 1, 1, 2, 2, true, false, "[string \"leak = 1\"]:1: undeclared global 'leak'; use local" },
      result)
    assert.is_nil(rawget(_G, "leak"))
    _, ok, result = run("dofile('no/such.lua')")
    assert.is_false(ok)
    assert.is_truthy(result.message:find("no/such.lua", 1, true))
  end)

  it("loads modules from the script's folder, once per environment, into its globals", function()
    write("part.lua", "rawset(_G, 'count', (count or 0) + 1); return { name = ..., count = count }")
    write("deep.lua", "local part = require('part'); return part")
    local text = "local part = require('part'); return { part == require('deep'), part.name, count }"
    for _ = 1, 2 do
      local _, ok, result = run(text)
      assert.is_true(ok)
      assert.are.same({ true, "part", 1 }, result)
    end
    assert.is_nil(package.loaded.part)
  end)

  it("prefers the script's folder to package.path, and leaves C modules and perigee to the host", function()
    write("cjson_like.lua", "return 'mine'")
    local _, ok, result = run([[
      return { require("cjson_like"), require("cjson"), require("luv"), require("perigee.errors"), require("string") }
    ]])
    assert.is_true(ok)
    assert.are.same({ "mine", require("cjson"), require("luv"), require("perigee.errors"), string }, result)
  end)

  it("lets modules await, also when two tasks ask for one at once", function()
    write("slow.lua", [[
      local perigee = require("perigee")
      rawset(_G, "loads", (loads or 0) + 1)
      perigee.sleep(1):await()
      return { loads = loads }
    ]])
    local _, ok, result = run([[
      local perigee = require("perigee")
      local function load() return require("slow") end
      local both = perigee.all({ perigee.async(load), perigee.async(load) }):await()
      return { both[1] == both[2], both[1].loads }
    ]])
    assert.is_true(ok)
    assert.are.same({ true, 1 }, result)
  end)

  it("spares a task that waits for a module when another that does so, or loads it, is cancelled", function()
    write("slow.lua", [[
      require("perigee").sleep(20):await()
      return { 7 }
    ]])
    for cancelled = 1, 3 do
      local _, ok, result = run(([[
        local perigee = require("perigee")
        local tasks = {}
        for i = 1, 3 do tasks[i] = perigee.async(function() return require("slow") end) end
        tasks[%d]:cancel()
        local outcomes = perigee.settled(tasks):await()
        for i, one in ipairs(outcomes) do outcomes[i] = one.value and one.value[1] or one.reason.code end
        return table.concat(outcomes, " ")
      ]]):format(cancelled))
      assert.is_true(ok, tostring(result))
      assert.are.equal(({ "CANCELLED 7 7", "7 CANCELLED 7", "7 7 CANCELLED" })[cancelled], result)
    end
  end)

  it("refuses modules that require each other, also when two tasks load them at once", function()
    for one, other in pairs({ a = "b", b = "a" }) do
      write(one .. ".lua", ("require('perigee').sleep(5):await() return { require(%q) }"):format(other))
    end
    local _, ok, result = run([[
      local perigee = require("perigee")
      local outcomes = perigee.settled({
        perigee.async(function() return require("a") end), perigee.async(function() return require("b") end),
      }):timeout(1000):await()
      return outcomes[1].reason.message .. ", " .. outcomes[2].reason.message
    ]])
    assert.is_true(ok, tostring(result))
    assert.is_truthy(result:find("^loop in loading module '[ab]', loop in loading module '[ab]'$"), result)
  end)

  it("refuses a module that requires itself, one that is not there, and one that is broken", function()
    write("a.lua", "require('b')")
    write("b.lua", "require('a')")
    write("broken.lua", "local x = = 1")
    write("raises.lua", "error({ code = 'MINE' })")
    for expected, name in pairs({
      ["loop in loading module 'a'"] = "a", ["module 'absent' not found"] = "absent",
      ["broken.lua:1: unexpected symbol"] = "broken",
    }) do
      local _, ok, err = run(("require(%q)"):format(name))
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find(expected, 1, true), tostring(err))
    end
    local _, ok, err = run("require('raises')")
    assert.is_false(ok)
    assert.are.equal("MINE", err.code)
    -- A failed load is no load: the next one tries again.
    _, ok = run("pcall(require, 'raises'); local ok = pcall(require, 'raises'); assert(not ok)")
    assert.is_true(ok)
  end)

  it("tells the line an error table was raised at", function()
    local own, ok, err, where = run("local x = 1\nerror({ code = 'MINE' })\n")
    assert.is_false(ok)
    assert.are.equal("MINE", err.code)
    assert.are.equal(own.path .. ":2", where)
    own, ok, err, where = run("local x = 1\n\nlocal y = x.y.z\n")
    assert.is_false(ok)
    assert.are.equal("SCRIPT", err.code)
    assert.is_truthy(err.message:find(own.path .. ":3:", 1, true))
    assert.is_nil(where)
  end)

  it("says so when the script is not there", function()
    local own = environment.new(folder .. "/absent.lua")
    local ok, err = own:run()
    assert.is_false(ok)
    assert.are.equal("SCRIPT", err.code)
    assert.is_truthy(err.message:find("absent.lua", 1, true))
  end)

  it("cancels what has begun, and waits for its sagas to undo it before the clients close", function()
    local app = perigee.app()
    app:message("undo", function() return perigee.sleep(10):next(function() return "undone" end) end)
    app:listen("local:environment")
    app:start():await()
    local own, ok, result = run([[
      local perigee = require("perigee")
      local client = perigee.client("local:environment")
      local seen = {}
      local function saga(undo)
        perigee.saga(function(s)
          s:step("a", function() end, undo)
          perigee.sleep(60000):await()
        end, { undo_timeout = 200 })
      end
      saga(function() return client:send("undo", 1):tap(function(text) seen.text = text end) end)
      perigee.saga(function(s) s:step("done", function() end, function() seen.wrong = true end) end):await()
      return { seen, function() saga(function() perigee.sleep(60000):await() end) end }
    ]])
    assert.is_true(ok, tostring(result))
    local seen, hang = unpack(result)
    own:cancel(5000):await()
    assert.are.same({ text = "undone" }, seen)
    hang()
    own:cancel(20):await()
    local text = table.concat(lines, "\n")
    assert.is_truthy(text:find("main.lua: not everything was undone within 20 ms", 1, true), text)
    assert.is_truthy(text:find("has not undone: a (CANCELLED: cancelled)", 1, true), text)
    own:close():await()
    app:stop():await()
  end)

  it("gives the script a `package` of its own: path, loaded, preload", function()
    write("elsewhere.lua", "return 'found'")
    write("counted.lua", "n = n + 1 return { n = n }")
    local path, preload = package.path, package.preload.perigee_spec_preloaded
    local _, ok, result = run(([[
      rawset(_G, "n", 0)
      package.path = package.path .. ";%s/else?.lua"
      package.loaded.perigee_spec_stub = "stub"
      package.preload.perigee_spec_preloaded = function(name) return { name = name } end
      local first = require("counted")
      package.loaded.counted = nil
      return {
        require("where"), require("perigee_spec_stub"), require("perigee_spec_preloaded").name,
        require("perigee_spec_preloaded") == package.loaded.perigee_spec_preloaded,
        first.n, require("counted").n, require("luv") == package.loaded.luv, require("package") == package,
      }
    ]]):format(folder))
    assert.is_true(ok, tostring(result))
    assert.are.same({ "found", "stub", "perigee_spec_preloaded", true, 1, 2, true, true }, result)
    assert.are.same({ path, preload }, { package.path, package.preload.perigee_spec_preloaded })
    assert.is_nil(package.loaded.perigee_spec_stub)
    assert.is_nil(package.loaded.counted)
  end)

  it("keeps modules made with `module` to itself", function()
    write("legacy.lua", "module('legacy', package.seeall)\nfunction greet() return require('named') .. own end")
    write("named.lua", "return 'hello '")
    local _, ok, result = run([[
      rawset(_G, "own", "here")
      local made = require("legacy")
      return { made.greet(), made == legacy, made._NAME, package.loaded.legacy == made }
    ]])
    assert.is_true(ok, tostring(result))
    assert.are.same({ "hello here", true, "legacy", true }, result)
    assert.is_nil(rawget(_G, "legacy"))
    assert.is_nil(package.loaded.legacy)
  end)

  it("ends what the script has started, and says where that was", function()
    local own, ok, result = run([[
      local perigee = require("perigee")
      local seen = {}
      perigee.spawn(function()
        local fine, err = pcall(function() perigee.sleep(60000):await() end)
        seen.code = not fine and err.code
      end)
      seen.client = perigee.client("tcp://127.0.0.1:1")
      return seen
    ]])
    assert.is_true(ok)
    own:close():await()
    loop.wait_until(function() return result.code end)
    assert.are.equal("CANCELLED", result.code)
    assert.is_truthy(lines[1]:find(own.path .. ":3", 1, true), lines[1])
  end)

  it("ends a chain of timers, and all that a map or a deadline runs", function()
    local own, ok, result = run([[
      local perigee = require("perigee")
      local seen = { n = 0, codes = {} }
      local function tick()
        seen.n = seen.n + 1
        perigee.sleep(1):next(tick):next(function() end)
      end
      tick()
      local function wait()
        local _, err = pcall(function() perigee.sleep(60000):await() end)
        seen.codes[#seen.codes + 1] = err.code
      end
      perigee.map({ 1, 2 }, wait)
      perigee.deadline(60000, wait)
      return seen
    ]])
    assert.is_true(ok)
    loop.wait_until(function() return result.n > 2 end)
    own:close():await()
    assert.are.same({ "CANCELLED", "CANCELLED", "CANCELLED" }, result.codes)
    local n = result.n
    perigee.sleep(20):await()
    assert.are.equal(n, result.n)
    collectgarbage()
    collectgarbage()
    for _, line in ipairs(lines) do assert.is_nil(line:find("unhandled", 1, true), line) end
  end)

  it("lets what an undo waits for end before it cancels timers", function()
    local own, ok, result = run([[
      local perigee = require("perigee")
      local seen = {}
      local saga = perigee.saga(function(s)
        s:step("a", function() end, function()
          seen.is_undoing = true
          perigee.sleep(10):await()
          seen.is_undone = true
        end)
        error("no")
      end)
      saga:catch(function() end)
      return seen
    ]])
    assert.is_true(ok)
    loop.wait_until(function() return result.is_undoing end)
    own:close():await()
    assert.is_true(result.is_undone)
  end)

  it("lets nothing dial that still runs after its end", function()
    local own, ok, result = run([[
      local perigee = require("perigee")
      local client = perigee.client("tcp://127.0.0.1:1")
      return { client, function() return perigee.client("tcp://127.0.0.1:1") end }
    ]])
    assert.is_true(ok)
    own:close():await()
    for _, client in ipairs({ result[1], result[2]() }) do
      for _, asked in ipairs({ client:send("x", 1), client:emit("x", 1), client:connect() }) do
        local fine, err = pcall(asked.await, asked)
        assert.are.same({ false, "CANCELLED: the script that made this client has ended" }, { fine, tostring(err) })
      end
      assert.are.equal("disconnected", client:status().state)
      client:close():await()
    end
  end)
end)
