-- Scripts that take too long or too much: they are ended, and who cannot be ended ends with the process.

local http = require("spec.support.http")
local loop = require("spec.support.loop")
local program = require("spec.support.perigee")

after_each(function()
  program.clean()
  loop.finish()
end)

-- Each on a line of its own, which is what the log must name.
local RUNAWAYS = {
  { "loop", "while true do end" },
  { "for", "local x = 0 for i = 1, 1e12 do x = x + i % 7 end" },
  { "goto", "::again:: goto again" },
  { "pcall", "while true do pcall(function() while true do end end) end" },
  { "recursion", "local function f() pcall(f) pcall(f) end f()" },
  { "tail", "local function f(n) return f(n + 1) end return f(1)" },
  { "coroutine", "local co = coroutine.wrap(function() while true do coroutine.yield() end end) "
    .. "while true do co() end" },
  { "nested", "coroutine.wrap(function() pcall(coroutine.wrap(function() while true do end end)) "
    .. "while true do end end)()" },
  { "string", "local s = '' while true do s = 'x' .. #s end" },
  { "index", "local t = setmetatable({}, { __index = function(t, k) return t[k + 1] end }) "
    .. "while true do pcall(function() return t[1] end) end" },
  { "sort", "while true do table.sort({ 3, 1, 2 }, function(a, b) return a < b end) end" },
  { "gsub", "(('x'):rep(10)):gsub('.', function() while true do end end)" },
  { "loaded", "load('while true do end', '=runaway.lua:1: in')()", anywhere = true },
  { "hooked", "debug.sethook(function() end, '', 1000) while true do end" },
  { "interpreted", "jit.off(true) while true do end" },
  { "handler", "xpcall(error, function() while true do end end)" },
  { "async", "while true do perigee.async(function() end) end" },
  { "inner", "perigee.async(function() while true do end end):await()" },
  { "map", "return perigee.of(1):map(function() while true do end end):catch_error(function() return 'caught' end)" },
  { "retry", "return perigee.reply(function() error('again') end):retry(1e9)" },
  { "iterator", "return perigee.from(function() return 1 end):filter(function() return false end)" },
}

local function script_of(routes)
  local lines, at = { "local perigee = require('perigee') local app, kept = perigee.app(), {}" }, {}
  for _, route in ipairs(routes) do
    lines[#lines + 1] = ("app:get('/%s', function() %s end)"):format(route[1], route[2])
    at[route[1]] = #lines
  end
  lines[#lines + 1] = [[
    app:get("/good", function() return "good" end)
    app:get("/wait", function() perigee.sleep(200):await() return "waited" end)
    app:get("/heap", function()
      collectgarbage() collectgarbage()
      return { kib = collectgarbage("count") }
    end)
    app:message("loop", function() while true do end end)
    app:event("told", function() while true do end end)
    app:listen("http://127.0.0.1:0")
    app:listen("tcp://127.0.0.1:0")
    return app
  ]]
  local path = program.script(table.concat(lines, "\n"))
  return path, at
end

local function serve(path, ...)
  local child = program.start({ "serve", path, ... })
  local urls = program.urls(child, 2)
  return child, urls[1], urls[2]
end

local function assert_good(url)
  local response = http.request(url, "GET", "/good")
  assert.are.equal(200, response.status)
  assert.are.equal("good", response.body)
end

local function wait_for_log(child, text)
  loop.wait_until(function() return child.stderr:find(text, 1, true) end, nil, function()
    return ("%q in the log of %s"):format(text, child:describe())
  end)
end

-- Asks and does not wait for the answer.
local function ask(url, path)
  local peer = require("spec.support.tcp").connect(tonumber(url:match(":(%d+)$")))
  peer:write(http.bytes("GET", path))
  return peer
end

describe("a script that does not yield", function()
  it("is ended, the caller gets 500, the log the route and the line, others are served", function()
    local path, at = script_of(RUNAWAYS)
    local child, url = serve(path, "--budget", "50")
    for _, route in ipairs(RUNAWAYS) do
      local name = route[1]
      local response = http.request(url, "GET", "/" .. name)
      assert.are.equal(500, response.status, name .. ": " .. child:describe())
      assert.is_nil(response.body:find("took longer", 1, true))
      local where = route.anywhere and "" or path .. ":" .. at[name]
      wait_for_log(child, ("error: GET /%s: SCRIPT: took longer than 50 ms at %s"):format(name, where))
      assert_good(url)
    end
  end)

  it("is ended in message and event handlers too", function()
    local child, _, tcp = serve(script_of({}), "--budget", "50")
    local code, _, err = program.run({ "send", tcp, "loop" })
    assert.are.equal(1, code)
    assert.is_truthy(err:find("REMOTE: Internal server error", 1, true))
    wait_for_log(child, "error: message loop: SCRIPT: took longer than 50 ms at ")
    assert.are.equal(0, (program.run({ "emit", tcp, "told" })))
    wait_for_log(child, "error: event told: SCRIPT: took longer than 50 ms at ")
  end)

  it("does not harm the calls that wait meanwhile", function()
    local _, url = serve(script_of(RUNAWAYS), "--budget", "50")
    local waiting = ask(url, "/wait")
    assert.are.equal(500, http.request(url, "GET", "/loop").status)
    assert.are.equal("waited", http.read(waiting).body)
    waiting:close()
  end)

  it("leaves nothing behind, fifty times", function()
    local _, url = serve(script_of(RUNAWAYS), "--budget", "20")
    local function heap() return http.json(http.request(url, "GET", "/heap")).kib end
    local function end_some(n)
      for i = 1, n do
        local name = ({ "loop", "pcall", "nested", "inner", "async" })[i % 5 + 1]
        assert.are.equal(500, http.request(url, "GET", "/" .. name).status)
      end
    end
    end_some(10)
    local before = heap()
    end_some(50)
    local after = heap()
    -- Pools and compiled code vary by that much.
    assert.is_true(after < before + 512, ("%d KiB, then %d KiB"):format(before, after))
  end)

  it("that only queues more of itself leaves the loop to the others", function()
    local _, url = serve(script_of({
      { "chain", "local function again() perigee.async(function() end):next(again) end again()" },
    }))
    assert.are.equal(204, http.request(url, "GET", "/chain").status)
    for _ = 1, 3 do assert_good(url) end
  end)
end)

describe("the budget", function()
  local BUSY = "local uv = require('luv') local function busy(ms) "
    .. "local stop = uv.hrtime() + ms * 1e6 while uv.hrtime() < stop do end end "

  it("is for a slice: what yields in between may take longer", function()
    local _, url = serve(script_of({
      { "yields", BUSY .. "for _ = 1, 10 do busy(40) perigee.sleep(0):await() end return 'done'" },
    }), "--budget", "300")
    assert.are.equal("done", http.request(url, "GET", "/yields").body)
  end)

  it("is not that of many callbacks which run in one go", function()
    local _, url = serve(script_of({
      { "many", BUSY .. "local gate, all = perigee.sleep(1), {} "
        .. "for i = 1, 10 do all[i] = gate:next(function() busy(40) end) end "
        .. "perigee.all(all):await() return 'done'" },
    }), "--budget", "300")
    assert.are.equal("done", http.request(url, "GET", "/many").body)
  end)

  it("can be another, or none", function()
    local path = script_of({ { "busy", BUSY .. "busy(200) return 'done'" } })
    local _, url = serve(path, "--budget", "20")
    assert.are.equal(500, http.request(url, "GET", "/busy").status)
    _, url = serve(path, "--no-budget")
    assert.are.equal("done", http.request(url, "GET", "/busy").body)
    _, url = serve(path)
    assert.are.equal("done", http.request(url, "GET", "/busy").body)
  end)

  it("of a load is another: what runs away there is refused with status 78", function()
    local path = program.script("local n = 0\nwhile true do n = n + 1 end")
    local code, _, err = program.run({ "serve", path, "--budget", "10", "--load-budget", "50" })
    assert.are.equal(78, code)
    assert.is_truthy(err:find(("SCRIPT: took longer than 50 ms at %s:2"):format(path), 1, true), err)
  end)

  it("of a load is also for what the script waits for there, at the start and in a reload", function()
    local path = program.script('require("perigee").promise(function() end):await()')
    local told = ("SCRIPT: %s does not finish loading within 50 ms"):format(path)
    assert.are.same({ 78, "", "perigee: " .. told .. "\n" },
      { program.run({ "serve", path, "--load-budget", "50" }) })
    local served = script_of({})
    local child = serve(served, "--load-budget", "50")
    local file = assert(io.open(served, "w"))
    file:write('require("perigee").promise(function() end):await()')
    file:close()
    child:kill("sighup")
    loop.wait_until(function()
      return child.stderr:find(("SCRIPT: %s does not finish loading within 50 ms"):format(served), 1, true)
    end)
  end)

  it("of a load leaves it time that a request has not", function()
    local path = script_of({})
    local file = assert(io.open(path))
    local text = file:read("*a")
    file:close()
    local slow = program.script("do " .. BUSY .. "busy(150) end " .. text)
    local child, url = serve(slow, "--budget", "20", "--load-budget", "5000")
    assert_good(url)
    assert.is_nil(child.stderr:find("SCRIPT", 1, true))
  end)

  it("ends a reload that runs away, and the old generation serves on", function()
    local path = script_of({})
    local child, url = serve(path, "--load-budget", "50")
    local file = assert(io.open(path, "w"))
    file:write("local function forever()\nwhile true do end\nend\npcall(forever) return forever()")
    file:close()
    child:kill("sighup")
    wait_for_log(child, ("SCRIPT: took longer than 50 ms at %s:2"):format(path))
    assert_good(url)
  end)

  it("is for `run` what it is told to be, and none by default", function()
    local path = program.script(BUSY .. "\nbusy(300) io.stdout:write('done')")
    local code, _, err = program.run({ "run", path, "--budget", "50" })
    assert.are.equal(1, code)
    assert.is_truthy(err:find(("SCRIPT: took longer than 50 ms at %s:1"):format(path), 1, true), err)
    local out
    code, out = program.run({ "run", path })
    assert.are.equal(0, code)
    assert.are.equal("done", out)
  end)

  it("costs nothing while nothing runs", function()
    local child, url = serve(script_of({}), "--budget", "50")
    assert_good(url)
    local pid = program.workers(child)[1]
    local function switches()
      local n = 0
      for name in io.popen(("echo /proc/%d/task/*/status"):format(pid)):read("*a"):gmatch("%S+") do
        for line in io.lines(name) do n = n + (tonumber(line:match("^voluntary_ctxt_switches:%s*(%d+)")) or 0) end
      end
      return n
    end
    loop.run_for(300) -- the watch thread looks on for some ticks
    local before = switches()
    loop.run_for(500)
    assert.is_true(switches() - before <= 10)
  end)

  it("takes numbers", function()
    for _, args in ipairs({ { "--budget", "0" }, { "--load-budget", "soon" }, { "--max-memory", "1.5" } }) do
      local code, _, err = program.run({ "serve", "x.lua", unpack(args) })
      assert.are.equal(2, code)
      assert.is_truthy(err:find("INVALID_OPTION: " .. args[1] .. " takes m", 1, true), err)
    end
  end)
end)

describe("a script that nothing can stop", function()
  it("ends its process with the stack, and another serves", function()
    local hopeless = {
      { "pattern", "local s = ('a'):rep(30) coroutine.wrap(function() s:find(('a*'):rep(30) .. 'b') end)()",
        "in find" },
      { "handler", "xpcall(function() while true do end end, function() while true do end end)", "in xpcall" },
      { "blocked", "require('luv').sleep(30000)", "in sleep" },
    }
    local path, at = script_of(hopeless)
    local children, urls, peers = {}, {}, {}
    for i, route in ipairs(hopeless) do
      children[i], urls[i] = serve(path, "--budget", "50")
      peers[i] = ask(urls[i], "/" .. route[1])
    end
    for i, route in ipairs(hopeless) do
      local child, where = children[i], path .. ":" .. at[route[1]]
      peers[i]:read_end()
      wait_for_log(child, ("perigee: SCRIPT: %s did not come back within 50 ms and cannot be stopped: "):format(where)
        .. "the process ends\n")
      wait_for_log(child, "\n    " .. where .. ": in ")
      wait_for_log(child, route[3])
      wait_for_log(child, "exited with status 70\n")
      assert_good(urls[i])
    end
  end)

  it("ends a program that was not served with status 70", function()
    local path = program.script("local s = ('a'):rep(30)\nlocal at = s:find(('a*'):rep(30) .. 'b') return at")
    local code, _, err = program.run({ "run", path, "--budget", "50" })
    assert.are.equal(70, code)
    assert.is_truthy(err:find(("perigee: SCRIPT: %s:2 did not come back within 50 ms"):format(path), 1, true), err)
  end)
end)

describe("a script that holds too much", function()
  local HOGS = {
    { "table", "local t = {} while true do t[#t + 1] = { #t } end" },
    { "caught", "local t = {} while true do pcall(function() while true do t[#t + 1] = { #t } end end) end" },
    { "strings", "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end" },
    { "doubled", "local s = 'x' while true do s = s .. s end" },
    { "collected", "return perigee.from(function() return 1 end):collect()" },
  }

  it("is ended, the caller gets 500, the log the line, and the memory is free again", function()
    local path, at = script_of(HOGS)
    local child, url = serve(path, "--max-memory", "32")
    for round = 1, 5 do
      for _, route in ipairs(HOGS) do
        local name = route[1]
        assert.are.equal(500, http.request(url, "GET", "/" .. name).status, name .. ": " .. child:describe())
        assert_good(url)
        if round == 1 then
          wait_for_log(child, ("error: GET /%s: SCRIPT: not enough memory at %s:%d"):format(name, path, at[name]))
        end
      end
    end
    assert.is_true(http.json(http.request(url, "GET", "/heap")).kib < 16 * 1024)
  end)

  it("at once is told so", function()
    local child, url = serve(script_of({ { "huge", "return ('x'):rep(1e9)" } }), "--max-memory", "32")
    assert.are.equal(500, http.request(url, "GET", "/huge").status)
    wait_for_log(child, "error: GET /huge: SCRIPT: not enough memory")
    assert_good(url)
  end)

  it("is not who makes much garbage beside what lives", function()
    local child, url = serve(script_of({
      { "garbage", "local t = {} for i = 1, 2e5 do t[i] = { i } end "
        .. "for i = 1, 5e6 do t[i % 1000 + 1] = { i } end return #t" },
    }), "--max-memory", "32", "--budget", "60000")
    assert.are.equal("200000", http.request(url, "GET", "/garbage").body)
    assert.is_nil(child.stderr:find("SCRIPT", 1, true))
  end)

  it("for good ends its process, and another serves", function()
    local child, url = serve(script_of({
      { "leak", "for i = 1, 2e4 do kept[#kept + 1] = { i, tostring(i) } end return #kept" },
    }), "--max-memory", "16")
    loop.wait_until(function()
      pcall(http.request, url, "GET", "/leak")
      return child.stderr:find("exited with status 70\n", 1, true)
    end, 20000, "the end of the process")
    wait_for_log(child, "SCRIPT: not enough memory at ")
    wait_for_log(child, "of 16 MiB, which cannot be collected: the process ends\n")
    assert.is_nil(child.stderr:find("outside of any script", 1, true))
    assert_good(url)
  end)

  it("has no limit in `run` but the one given", function()
    local path = program.script("local t = {}\nfor i = 1, 1e6 do t[i] = { i } end io.stdout:write('done')")
    local code, _, err = program.run({ "run", path, "--max-memory", "16" })
    assert.are.equal(1, code)
    assert.is_truthy(err:find(("SCRIPT: not enough memory at %s:2"):format(path), 1, true), err)
    local out
    code, out = program.run({ "run", path })
    assert.are.equal(0, code)
    assert.are.equal("done", out)
  end)
end)
