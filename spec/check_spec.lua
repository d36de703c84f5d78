local check = require("perigee.check")
local findings = require("perigee.check.findings")
local json = require("perigee.json")
local loop = require("spec.support.loop")
local perigee = require("perigee")
local log = require("perigee.log")
local static = require("spec.support.check").static

local folder, files

before_each(function()
  log.set_sink(function() end)
  folder, files = os.tmpname(), {}
  os.remove(folder)
  assert(os.execute("mkdir " .. folder) == 0)
end)

after_each(function()
  os.execute("rm -r " .. folder)
  log.set_sink()
  loop.finish()
end)

local function write(name, text)
  local path = folder .. "/" .. name
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  files[#files + 1] = name
  return path
end

-- What check.run finds in scripts, without the folder.
local function run(options, ...)
  local paths = { ... }
  local list = perigee.async(function() return { check.run(paths, options) } end):await()[1]
  for i, finding in ipairs(list) do list[i] = findings.text(finding):gsub(folder:gsub("%p", "%%%0") .. "/", "") end
  return list
end

local HEAD = 'local perigee = require("perigee")\nlocal app = perigee.app()\n'

local function found(text, limit)
  return run({ limit = limit }, write("main.lua", HEAD .. text .. "\nreturn app"))
end

local EXIT = "main.lua:3: error: SCRIPT: os.exit is for scripts of 'perigee run': what is served ends with its program "
  .. "[exit]"

describe("check", function()
  it("finds nothing in a good script", function()
    assert.are.same({}, found("app:get('/', function() end) app:listen('http://127.0.0.1:1')"))
  end)

  for text, expected in pairs({
    ["local x = = 1"] = "main.lua:3: error: unexpected symbol near '=' [syntax]",
    ["if"] = "main.lua:4: error: unexpected symbol near 'return' [syntax]",
    ["local x = app.x.y"] = "main.lua:3: error: SCRIPT: attempt to index field 'x' (a nil value) [load]",
    ["error('none', 0)"] = "main.lua:3: error: SCRIPT: none [load]",
    ["error({ code = 'MINE', message = 'two\\nlines' })"] = "main.lua:3: error: MINE: two [load]",
    ["error({ 1 })"] = "main.lua:3: error: [1] [load]",
    ["require('no.such')"] = "main.lua:3: error: SCRIPT: module 'no.such' is not found [missing-module]",
    ["require('main')"] = "main.lua:3: error: SCRIPT: loop in loading module 'main' [load]",
    ["app:clients({ { name = 'B', hots = 'x' } })"] =
      "main.lua:3: error: INVALID_OPTION: unknown option 'hots' (did you mean 'host'?) [option]",
    ["app:clients({\n{ name = 'B', port = 1 },\n{ name = 'C',\nhots = 'x' } })"] =
      "main.lua:6: error: INVALID_OPTION: unknown option 'hots' (did you mean 'host'?) [option]", -- the call is at 3
    ["app:listen('http://localhost', { max_body = 1 })"] =
      "main.lua:3: error: INVALID_OPTION: unknown option 'max_body' [option]",
    ["app:get('x', print)"] =
      "main.lua:3: error: INVALID_OPTION: a route's path starts with '/', not as in 'x' [option]",
    ["app:inject('Z')"] =
      "main.lua:3: error: INVALID_OPTION: nothing is registered as 'Z' (known: nothing) [unknown-token]",
    ["app:provide('A', 1)\napp:provide('A', 1)"] =
      "main.lua:4: error: INVALID_OPTION: 'A' at main.lua:4 is already defined at main.lua:3 [duplicate-token]",
    ["app:message('m', print)\napp:message('m', print)"] =
      "main.lua:4: error: INVALID_OPTION: a handler for m at main.lua:4 is already defined at main.lua:3 "
      .. "[duplicate-pattern]",
    ["app:get('/x', print)\napp:get('/x', print)"] =
      "main.lua:4: error: INVALID_OPTION: GET /x at main.lua:4 is already routed at main.lua:3 [duplicate-route]",
    ["app:message(print, print)"] =
      "main.lua:3: error: INVALID_OPTION: bad pattern: a function cannot be JSON [pattern]",
    ["app:message(nil, print)"] = "main.lua:3: error: INVALID_OPTION: the pattern is nil [pattern]",
    ["os.exit(0)"] = EXIT, ["require('os').exit(0)"] = EXIT,
    ["loadstring('x = 1')()"] =
      "main.lua:3: error: SCRIPT: [string \"x = 1\"]:1: undeclared global 'x'; use local [load]",
    ["x = 1"] = "main.lua:3: error: undeclared global 'x'; use local [global-write]", -- once: loading finds it too
    ["app = 7"] =
      "main.lua:4: error: SCRIPT: main.lua does not return an app: it should end with 'return app' [no-app]",
  }) do
    it("tells of " .. text:gsub("\n", " "), function()
      assert.are.same({ expected }, found(text))
    end)
  end

  it("tells of both when reading and loading tell different things", function()
    assert.are.same({
      "main.lua:3: error: INVALID_OPTION: unknown option 'hots' (did you mean 'host'?) [option]",
      "main.lua:3: error: INVALID_OPTION: option 'port' must be a port from 1 to 65535, not 0 [option]",
    }, found("perigee.client({ port = 0 }) perigee.client({ hots = 1 })"))
    assert.are.same({
      "main.lua:3: error: SCRIPT: module 'absent' is not found [missing-module]",
      "main.lua:4: warning: module 'absent' is not found [missing-module]",
    }, found("require('absent')\nrequire('absent')"))
  end)

  it("tells the file and line in a module", function()
    for text, expected in pairs({
      ["local x\nreturn x.y"] = "SCRIPT: attempt to index local 'x' (a nil value) [load]",
      ["\nreturn return"] = "unexpected symbol near 'return' [syntax]",
      ["\nrequire('other')"] = "SCRIPT: module 'other' is not found [missing-module]",
    }) do
      write("part.lua", text)
      assert.are.same({ "part.lua:2: error: " .. expected }, found("require('part')"))
    end
  end)

  it("tells the whole name of a file that Lua shortens", function()
    local deep = folder .. "/" .. ("deep"):rep(30)
    assert(os.execute("mkdir " .. deep) == 0)
    local name = ("deep"):rep(30) .. "/main.lua"
    for text, expected in pairs({
      ["local x = x.y"] = ":1: error: SCRIPT: attempt to index local 'x' (a nil value) [load]",
      ["local x = app.\n1"] = ":2: error: '<name>' expected near '1' [syntax]",
      [HEAD .. "app:clients({ { name = 'A', hots = 1 } })"] =
        ":3: error: INVALID_OPTION: unknown option 'hots' (did you mean 'host'?) [option]",
      [HEAD .. "app:message('1.0', print) return app"] = ":3: warning: the pattern \"1.0\" is a string that is JSON: "
        .. "requests for it look for 1 [unreachable-pattern]",
    }) do
      text = text:gsub("^local x = x.y$", "local x x = x.y")
      assert.are.same({ name .. expected }, run({}, write(name, text)))
    end
  end)

  it("tells of a file that is not there, and of a folder", function()
    assert.are.same({ "absent.lua:1: error: No such file or directory [file]" }, run({}, folder .. "/absent.lua"))
    assert(os.execute("mkdir " .. folder .. "/folder.lua") == 0)
    assert.are.same({ "folder.lua:1: error: Is a directory [file]" }, run({}, folder .. "/folder.lua"))
  end)

  it("ends chunks that do not end, and tells where they were", function()
    local ends = "the script does not finish loading within 50 ms [runaway]"
    for _, text in ipairs({
      "while true do end", "while true do pcall(function() while true do end end) end", "::a:: goto a",
      "local function f() return f() end f()", "coroutine.wrap(function() while true do end end)()",
    }) do assert.are.same({ "main.lua:3: error: " .. ends }, found(text, 50), text) end
    assert.are.same({ "main.lua:1: error: " .. ends }, found("perigee.sleep(60000):await()", 50))
    assert.is_true(jit.status())
    assert.is_nil(debug.gethook())
  end)

  it("tells of scripts that are in each other's way, and of what each has wrong itself", function()
    local one = write("one.lua", HEAD .. "app:get('/x', print)\nreturn app")
    local two = write("two.lua", HEAD .. "app:get('/x', print) y()\nreturn app")
    local three = write("three.lua", "x = = 1")
    assert.are.same({
      "two.lua:3: warning: undeclared global 'y' is read [undeclared-global]",
      "two.lua:3: error: SCRIPT: attempt to call global 'y' (a nil value) [load]",
      "three.lua:1: error: unexpected symbol near '=' [syntax]",
    }, run({}, one, two, three))
    write("two.lua", HEAD .. "app:get('/x', print)\nreturn app")
    assert.are.same({
      "two.lua:3: error: INVALID_OPTION: GET /x at two.lua:3 is already routed at one.lua:3 [duplicate-route]",
      "three.lua:1: error: unexpected symbol near '=' [syntax]",
    }, run({}, one, two, three))
  end)

  it("looks into modules whose names are made while the script runs, not into those of others", function()
    write("part.lua", "rawset(_G, 'shared', 1) return function() return pritn, shared end")
    local elsewhere = os.tmpname()
    local file = assert(io.open(elsewhere, "w"))
    file:write("return function() return pritn end")
    file:close()
    local before = package.path
    package.path = elsewhere:match("^(.*/)") .. "?;" .. package.path
    local list = run({}, write("main.lua", HEAD .. ("require('pa' .. 'rt')(require(%q))\nreturn app, shared"):format(
      elsewhere:match("[^/]*$"))))
    package.path = before
    os.remove(elsewhere)
    assert.are.same({ "part.lua:1: warning: undeclared global 'pritn' is read (did you mean 'print'?) "
      .. "[undeclared-global]" }, list)
  end)

  it("tells of a module that two scripts share once", function()
    write("part.lua", "return undeclared")
    local one = write("one.lua", HEAD .. "require('part') return app")
    local two = write("two.lua", HEAD .. "require('part') return app")
    assert.are.same({ "part.lua:1: warning: undeclared global 'undeclared' is read [undeclared-global]" },
      run({}, one, two))
  end)

  it("refuses all that a reload refuses", function()
    local host = require("perigee.host")
    local real = getmetatable(host.new()).check
    getmetatable(host.new()).check = function() error({ code = "INVALID_OPTION", message = "new" }, 0) end
    local ok, list = pcall(found, "")
    getmetatable(host.new()).check = real
    assert.is_true(ok, list)
    assert.are.same({ "main.lua:1: error: INVALID_OPTION: new [option]" }, list)
  end)

  it("says of a file that is nested too deeply that it cannot be checked", function()
    assert.are.same({ "1:?: warning: this file is too deeply nested to be checked [syntax]" },
      static("return 1" .. (" + 1"):rep(100000)))
    assert.are.same({}, static("local x = require('perigee').client({}) x" .. (":next(print)"):rep(900)))
  end)

  it("leaves bytecode alone", function()
    assert.are.same({}, static(string.dump(loadstring("x = y"))))
  end)

  it("reads the files a generation was made of, for a reload", function()
    write("part.lua", "return function() require('later') end")
    write("later.lua", "return 1")
    local path = write("main.lua", HEAD .. "require('part')\nreturn app, pritn")
    local generation = perigee.async(require("perigee.script").load, path, 1):await()
    write("main.lua", "x = = 1") -- what is on disk by now does not count
    local list = check.generation(generation)
    assert.are.same({ 1, "undeclared-global", 4, path }, { #list, list[1].rule, list[1].line, list[1].file })
    perigee.async(generation.finish, generation, 1):await()
  end)
end)

describe("a generation", function()
  local function admit(text)
    local path = write("main.lua", HEAD .. text .. "\nreturn app")
    local generation = perigee.async(require("perigee.script").load, path, 1):await()
    local ok, refusal = pcall(check.admit, generation)
    perigee.async(generation.finish, generation, 1):await()
    return ok, refusal, path
  end

  it("is admitted with its warnings logged, its hints not", function()
    local lines = {}
    log.set_sink(function(line) lines[#lines + 1] = line end)
    local ok, _, path = admit("app:get('/', function() return pritn, perigee.client('tcp://billing') end)")
    assert.is_true(ok)
    assert.are.same({ "perigee: warn: " .. path .. ":3: undeclared global 'pritn' is read (did you mean 'print'?) "
      .. "[undeclared-global]" }, lines)
  end)

  it("is refused for errors, as one that does not load", function()
    local ok, refusal, path = admit("app:get('/', function() total = 1 end)")
    assert.is_false(ok)
    assert.are.equal("SCRIPT: " .. path .. ":3: undeclared global 'total'; use local", tostring(refusal.cause))
    assert.is_nil(refusal.where)
    ok, refusal, path = admit("app:get('/', function() return perigee.client({ hots = 1 }) end)")
    assert.is_false(ok)
    assert.are.same({ "INVALID_OPTION: unknown option 'hots' (did you mean 'host'?)", path .. ":3" },
      { tostring(refusal.cause), refusal.where })
  end)
end)

describe("a comment that ignores", function()
  local UNDECLARED = "1:1: warning: undeclared global 'foo' is read [undeclared-global]"

  it("silences its line, or the named rules on it", function()
    for _, comment in ipairs({
      "-- perigee: ignore", "--perigee:ignore", "-- perigee: ignore undeclared-global", "--[[ perigee: ignore ]]",
      "-- perigee: ignore literal-host, undeclared-global (the host defines it)",
      "-- perigee: ignore (the host defines it)",
    }) do assert.are.same({}, static("foo() " .. comment), comment) end
  end)

  it("silences nothing else", function()
    for _, text in ipairs({
      "foo() -- perigee: ignore literal-host", "foo()\n-- perigee: ignore", "foo() -- perigee ignore",
      "foo() -- perigee: ignored", "foo() -- do not perigee: ignore", "foo('-- perigee: ignore')",
    }) do assert.are.same({ UNDECLARED }, static(text), text) end
  end)

  it("does not silence errors: the script would not load", function()
    assert.are.same({ "1:1: error: undeclared global 'foo'; use local [global-write]" },
      static("foo = 1 -- perigee: ignore"))
  end)

  it("tells of rules there are not", function()
    assert.are.same({ UNDECLARED, "1:7: warning: there is no rule 'undeclared' [ignore]" },
      static("foo() -- perigee: ignore undeclared"))
    assert.are.same({ "1:1: warning: there is no rule 'literal-hosts' (did you mean 'literal-host'?) [ignore]" },
      static("-- perigee: ignore literal-hosts"))
  end)

  it("silences what loading tells, too", function()
    assert.are.same({}, found("app:message('1.0', print) -- perigee: ignore unreachable-pattern"))
  end)
end)

describe("findings", function()
  it("are an array of objects for editors, empty when there is none", function()
    assert.are.equal("[]", check.json({}))
    local list = check.static({ write("main.lua", "x = 1\n") })
    assert.are.same({ {
      file = folder .. "/main.lua", line = 1, column = 1, severity = "error", rule = "global-write",
      message = "undeclared global 'x'; use local",
    } }, json.decode(check.json(list)))
  end)

  it("keep to their line, and to UTF-8", function()
    local text = "local p = require('perigee').client({ host = 'a\\nb' })\nh\233 = p"
    local list = check.static({ write("main.lua", text) })
    assert.is_truthy(check.text(list[1]):find("the host 'a b' stands", 1, true))
    local decoded = json.decode(check.json(list))
    assert.is_truthy(decoded[1].message:find("the host 'a\nb' stands", 1, true))
    assert.are.equal("undeclared global 'h?'; use local", decoded[2].message)
  end)

  it("are of rules that the help names", function()
    local _, out = require("spec.support.perigee").run({ "help", "check" })
    for rule in pairs(findings.RULES) do assert.is_truthy(out:find(rule, 1, true), rule) end
  end)
end)
