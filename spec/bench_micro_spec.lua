-- The programs of `make bench-micro`: they check each result before they measure. Here they do nothing else.

local program = require("spec.support.perigee")
local process = require("spec.support.process")

local BUILD = os.getenv("BUILD") or "build"

after_each(process.stop_all)

-- The names of what was done, none of them twice.
local function done(out)
  local names = {}
  for name in out:gmatch("([^\n]+)\tok\n") do
    assert.is_nil(names[name])
    names[name] = true
    names[#names + 1] = name
  end
  return names
end

local function in_c()
  local child = process.start(BUILD .. "/bench/micro/micro", { "once" })
  child:wait()
  return child.exit_code, child.stdout, child.stderr
end

local function in_lua()
  return program.run({ "run", "spec/bench/micro/micro.lua", "once" })
end

describe("each operation of the small bench", function()
  for language, run in pairs({ C = in_c, Lua = in_lua }) do
    it("gives its result in " .. language, function()
      local code, out, err = run()
      assert.same({ 0, "" }, { code, err })
      assert.is_true(#done(out) > 10)
    end)

    it("has its figures in the file that is compared with, in " .. language, function()
      local kept = assert(io.open("spec/bench/micro/baseline")):read("*a")
      local _, out = run()
      for _, name in ipairs(done(out)) do assert.is_truthy(kept:find("\n" .. name .. "  ", 1, true), name) end
    end)
  end
end)
