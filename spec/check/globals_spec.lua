local static = require("spec.support.check").static

describe("rule global-write", function()
  for text, at in pairs({
    ["x = 1"] = "1:1", ["local a = 1\na, x = 1, 2"] = "2:4", ["function x() end"] = "1:10", ["_G.x = 1"] = "1:3",
    ["_G['x'] = 1"] = "1:3", ["return function() local x = 1 do x = 2 end end, function() x = 1 end"] = "1:60",
  }) do
    it("tells of " .. text:gsub("\n", " "), function()
      assert.are.same({ at .. ": error: undeclared global 'x'; use local [global-write]" }, static(text))
    end)
  end

  it("tells of the globals of every script too", function()
    assert.are.same({ "1:1: error: undeclared global 'print'; use local [global-write]" }, static("print = 1"))
  end)

  for _, text in ipairs({
    "local x = 1 x = 2", "local t = {} t.x = 1", "local x function x() end", "rawset(_G, 'x', 1) x = 2 _G.x = 3",
    "setfenv(1, {}) x = 1", "for x = 1, 2 do x = 3 end", "return function(x) x = 1 end",
  }) do
    it("says nothing of " .. text, function() assert.are.same({}, static(text)) end)
  end
end)

describe("rule undeclared-global", function()
  for text, expected in pairs({
    ["pritn(1)"] = "1:1: warning: undeclared global 'pritn' is read (did you mean 'print'?) [undeclared-global]",
    ["local orders = {}\nreturn order"] =
      "2:8: warning: undeclared global 'order' is read (did you mean 'orders'?) [undeclared-global]",
    ["do local a = 1 end\nif DEBUG then end"] = "2:4: warning: undeclared global 'DEBUG' is read [undeclared-global]",
    ["return vim"] = "1:8: warning: undeclared global 'vim' is read [undeclared-global]",
  }) do
    it("tells of " .. text:gsub("\n", " "), function() assert.are.same({ expected }, static(text)) end)
  end

  for _, text in ipairs({
    "print(arg[0], ..., jit, bit, unpack, loadstring, _G.absent, rawget(_G, 'absent'))", "rawset(_G, 'x', 1) return x",
    "require('part') return x", "local env = setmetatable({}, {}) setfenv(1, env) return x",
  }) do
    it("says nothing of " .. text, function()
      assert.are.same({}, static(text, { ["part.lua"] = "rawset(_G, 'x', 1)" }))
    end)
  end

  it("looks into the script's own modules, each once", function()
    assert.are.same({ "part/init.lua:1:29: warning: undeclared global 'x' is read [undeclared-global]" },
      static("require('part') require('part')", { ["part/init.lua"] = "local m = require('main') m(x)" }))
  end)
end)

describe("rule missing-module", function()
  it("tells of a module that is nowhere, also where loading would not ask for it", function()
    assert.are.same({ "1:27: warning: module 'no.such' is not found [missing-module]" },
      static("return function() require('no.such') end"))
  end)

  it("says nothing of modules that are there", function()
    assert.are.same({}, static([[
      require("perigee") require("perigee.json") require("luv") require("cjson") require("ffi") require("jit.util")
      require("string") require("part") require("a.b") pcall(require, "optional") require("x" .. "y")
      local require = print require("other")
    ]], { ["part.lua"] = "", ["a/b.lua"] = "" }))
  end)
end)
