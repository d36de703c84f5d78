--- What a spec is told that leaves something open: luv's handles and the core's.

local core = require("perigee.core")
local loop = require("spec.support.loop")
local uv = require("luv")

local function complaint()
  local ok, message = pcall(loop.assert_empty, 0)
  assert.is_false(ok)
  return message
end

describe("a loop that is not empty", function()
  after_each(loop.finish)

  it("names the core's handles, and how long a timer has", function()
    local timer = core.timer(60000, function() end)
    local text = complaint()
    assert.truthy(text:find("perigee: .*timer %(%d+ ms%)"), text)
    timer:cancel()
    text = complaint()
    assert.truthy(text:find("timer (closing)", 1, true), text)
  end)

  it("names luv's beside them", function()
    local timer = core.timer(60000, function() end)
    local other = uv.new_timer()
    other:start(60000, 0, function() end)
    local text = complaint()
    assert.truthy(text:find("uv_timer_t", 1, true), text)
    assert.truthy(text:find("perigee: ", 1, true), text)
    other:close()
    timer:cancel()
  end)
end)
