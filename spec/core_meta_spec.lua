-- The annotations of the C half name what is there, no more and no less.

local core = require("perigee.core")

local function annotated()
  local classes = {}
  for line in io.lines("lua/perigee/core_meta.lua") do
    local class, name = line:match("^function ([%a]+)[.:]([%w_]+)%(")
    if class then
      classes[class] = classes[class] or {}
      classes[class][name] = true
    end
  end
  return classes
end

local function functions_of(object)
  local names = {}
  for name, value in pairs(object) do
    if type(value) == "function" then names[name] = true end
  end
  return names
end

describe("core_meta.lua", function()
  it("has every function of perigee.core", function()
    assert.are.same(functions_of(core), annotated().core)
  end)

  for _, class in ipairs({ "client", "server", "http", "timer" }) do
    it("has every method of perigee.core." .. class, function()
      local methods = debug.getregistry()["perigee.core." .. class].__index
      assert.are.same(functions_of(methods), annotated()[class])
    end)
  end
end)
