--- What a spec is told that leaves something open: luv's handles and the core's.

local core = require("perigee.core")
local loop = require("spec.support.loop")
local uv = require("luv")

local function complaint()
  local ok, message = pcall(loop.assert_empty, 0)
  assert.is_false(ok)
  return message
end

describe("core.handles", function()
  after_each(loop.finish)

  it("is empty while the core needs no loop", function()
    assert.equal("", core.handles())
  end)

  it("names what is open, and how long a timer has", function()
    local timer = core.timer(60000, function() end)
    assert.truthy(core.handles():find("timer (%d+ ms)"), core.handles())
    timer:cancel()
    assert.truthy(core.handles():find("timer (closing)", 1, true), core.handles())
  end)

  it("stands in the complaint about a loop that is not empty, beside luv's", function()
    local timer = core.timer(60000, function() end)
    assert.truthy(complaint():find("the core's .*timer"))
    local other = uv.new_timer()
    other:start(60000, 0, function() end)
    assert.truthy(complaint():find("luv's uv_timer_t"))
    other:close()
    timer:cancel()
  end)
end)
