local bundle = require("perigee.cli.bundle")

describe("a bundle", function()
  it("comes out of its text as it went in, whatever bytes are in the files", function()
    local bytes = {}
    for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
    local scripts = {
      {
        path = "a.lua", number = 3,
        files = { ["a.lua"] = "return 1\n", ["dir/with space\n.lua"] = table.concat(bytes) },
      },
      { path = "file 1 2", number = 12, files = { ["file 1 2"] = "" } },
    }
    assert.are.same(scripts, bundle.decode(bundle.encode(scripts)))
  end)

  it("of nothing is nothing", function()
    assert.are.same({}, bundle.decode(bundle.encode({})))
  end)
end)
