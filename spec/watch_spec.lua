--- perigee serve --watch: what editors, deployments and accidents do to files.

local folders = require("spec.support.folder")
local http = require("spec.support.http")
local loop = require("spec.support.loop")
local program = require("spec.support.perigee")
local uv = require("luv")

local folder, path

before_each(function()
  folder = folders.new()
  path = folder .. "/app.lua"
end)

after_each(function()
  program.clean()
  folders.remove(folder)
  loop.finish()
end)

local function write(name, text)
  local file = assert(io.open(folder .. "/" .. name, "w"))
  file:write(text)
  file:close()
end

local function app(text)
  return ('local app = require("perigee").app()\napp:get("/", function() return %s end)\n'
    .. 'app:listen("http://127.0.0.1:0")\nreturn app\n'):format(text)
end

local function serve(script, ...)
  local child = program.start({ "serve", script or path, "--watch", ... })
  local url = program.urls(child)[1]
  program.workers(child)
  return child, url
end

local function get(url) return http.request(url, "GET", "/").body end

local function wait_for(child, text, n)
  loop.wait_until(function() return select(2, child.stderr:gsub(text, "")) >= (n or 1) end, 10000, function()
    return ("%q from %s"):format(text, child:describe())
  end)
end

-- What is logged when that generation of a script serves.
local function serves(number) return ("generation %d serves"):format(number) end

describe("--watch loads anew", function()
  it("a script that is written in place", function()
    write("app.lua", app("'one'"))
    local child, url = serve()
    write("app.lua", app("'two'"))
    wait_for(child, serves(2))
    assert.are.equal("two", get(url))
  end)

  it("a script that is saved by renaming, as editors do, again and again", function()
    write("app.lua", app("'1'"))
    local child, url = serve()
    for i = 2, 4 do
      write("app.lua~", app(("'%d'"):format(i)))
      os.rename(path, folder .. "/app.lua.bak")
      os.rename(folder .. "/app.lua~", path)
      wait_for(child, serves(i))
      assert.are.equal(tostring(i), get(url))
    end
  end)

  it("a module that the script requires, also one of a module", function()
    write("inner.lua", "return 'one'")
    write("outer.lua", "return require('inner')")
    write("app.lua", "local text = require('outer')\n" .. app("text"))
    local child, url = serve()
    write("inner.lua", "return 'two'")
    wait_for(child, serves(2))
    assert.are.equal("two", get(url))
  end)

  it("what is behind a symbolic link that is swapped", function()
    for _, name in ipairs({ "a", "b" }) do
      assert(uv.fs_mkdir(folder .. "/" .. name, tonumber("755", 8)))
      write(name .. "/app.lua", app(("'%s'"):format(name)))
    end
    assert(uv.fs_symlink("a", folder .. "/current"))
    local child, url = serve(folder .. "/current/app.lua")
    for i, name in ipairs({ "b", "a" }) do
      assert(uv.fs_symlink(name, folder .. "/next"))
      os.rename(folder .. "/next", folder .. "/current")
      wait_for(child, serves(i + 1))
      assert.are.equal(name, get(url))
    end
    write("a/app.lua", app("'in place'"))
    wait_for(child, serves(4))
    assert.are.equal("in place", get(url))
  end)

  it("many writes in a row once", function()
    write("app.lua", app("'0'"))
    local child, url = serve()
    for i = 1, 50 do write("app.lua", app(("'%d'"):format(i))) end
    wait_for(child, "generation %d+ serves")
    program.poll(function() return get(url) == "50" end, "the last version")
    assert.is_true(program.status(child).generation <= 3)
  end)

  it("in all workers", function()
    write("app.lua", app("'one'"))
    local child, url = serve(nil, "--workers", "3")
    write("app.lua", app("'two'"))
    wait_for(child, serves(2))
    for _ = 1, 9 do assert.are.equal("two", get(url)) end
  end)
end)

describe("--watch serves on with what it has", function()
  it("when a file is touched or written as it was", function()
    write("app.lua", app("'one'"))
    local child, url = serve()
    write("app.lua", app("'one'"))
    local now = os.time()
    uv.fs_utime(path, now - 100, now - 100)
    loop.run_for(200) -- shows that nothing happens
    assert.are.equal(1, program.status(child).generation)
    assert.are.equal("one", get(url))
    write("app.lua", app("'two'"))
    wait_for(child, serves(2))
  end)

  it("when a file is written in two halves, until the second has come", function()
    write("app.lua", app("'one'"))
    local child, url = serve()
    local text = app("'two'")
    local file = assert(io.open(path, "w"))
    file:write(text:sub(1, 60))
    file:flush()
    wait_for(child, "the reload is refused: SCRIPT: ")
    assert.are.equal("one", get(url))
    file:write(text:sub(61))
    file:close()
    wait_for(child, serves(2))
    assert.are.equal("two", get(url))
  end)

  it("when the file is deleted, and comes back", function()
    write("app.lua", app("'one'"))
    local child, url = serve()
    os.remove(path)
    wait_for(child, "the reload is refused: ")
    assert.are.equal("one", get(url))
    write("app.lua", app("'two'"))
    wait_for(child, serves(2))
    assert.are.equal("two", get(url))
  end)

  it("when the file cannot be read", function()
    write("app.lua", app("'one'"))
    local child, url = serve()
    os.remove(path)
    assert(uv.fs_mkdir(path, tonumber("755", 8))) -- root reads whatever the mode says
    wait_for(child, "the reload is refused: ")
    assert.are.equal("one", get(url))
  end)

  it("when a module is missing, until it is there", function()
    write("app.lua", app("'one'"))
    local child, url = serve()
    write("app.lua", "local text = require('late')\n" .. app("text"))
    wait_for(child, "module 'late' not found")
    assert.are.equal("one", get(url))
    write("late.lua", "return 'two'")
    wait_for(child, serves(2))
    assert.are.equal("two", get(url))
  end)

  it("when the whole folder goes away, and comes back", function()
    assert(uv.fs_mkdir(folder .. "/app", tonumber("755", 8)))
    write("app/app.lua", app("'one'"))
    local child, url = serve(folder .. "/app/app.lua")
    os.rename(folder .. "/app", folder .. "/old")
    wait_for(child, "the reload is refused: ")
    assert.are.equal("one", get(url))
    assert(uv.fs_mkdir(folder .. "/app", tonumber("755", 8)))
    write("app/app.lua", app("'two'"))
    wait_for(child, serves(2))
    assert.are.equal("two", get(url))
  end)
end)

it("without --watch files are left alone until a reload is asked for", function()
  write("app.lua", app("'one'"))
  local child = program.start({ "serve", path })
  local url = program.urls(child)[1]
  write("app.lua", app("'two'"))
  loop.run_for(200) -- shows that nothing happens
  assert.are.equal("one", get(url))
  child:kill("sighup")
  wait_for(child, serves(2))
  assert.are.equal("two", get(url))
end)
