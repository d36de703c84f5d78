-- The bench's picture: what it shows of which results.

local chart = require("spec.bench.chart")

local path

before_each(function() path = os.tmpname() end)

after_each(function() os.remove(path) end)

local function result(row, product, rounds, ratio)
  return {
    row = row, product = product, cpu_us = { median = rounds[2], spread = 0, rounds = rounds },
    ratio = ratio and { median = ratio },
  }
end

local function drawn(...)
  chart.write(path, ...)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

-- The widths of bars, in their order.
local function widths(svg)
  local list = {}
  for width in svg:gmatch('<rect class="bar[^>]-width="([%d.]+)"') do list[#list + 1] = tonumber(width) end
  return list
end

local function count(text, what) return select(2, text:gsub(what, "")) end

describe("the bench's chart", function()
  local RESULTS = {
    result("a > b", "Nest 12", { 90, 100, 110 }), result("send", "Nest 12", { 4, 4, 4 }),
    result("a > b", "perigee", { 10, 11, 12 }, 9.1), { row = "idle", product = "perigee", rss_mb = { median = 7 } },
  }

  it("has a bar for each CPU time, under its row's name and on its row's scale", function()
    local svg = drawn(RESULTS)
    local bars = widths(svg)
    assert.equal(3, #bars)
    assert.near(11 / 100, bars[2] / bars[1], 0.001)
    assert.is_true(bars[3] > bars[1]) -- the longest of its row: the row's scale ends there
    assert.equal(1, count(svg, ">a &gt; b<"))
    assert.is_nil(svg:find("idle", 1, true))
  end)

  it("tells medians, ratios and spans of rounds, and has perigee's bars in a colour of their own", function()
    local svg = drawn(RESULTS)
    for _, text in ipairs({ ">100 us<", ">11.0 us<", ">4.00 us<", ">1/9.1<" }) do
      assert.equal(1, count(svg, text), text)
    end
    assert.equal(2, count(svg, '<path class="whisker"')) -- rounds that are all the same have none
    assert.equal(1, count(svg, '<rect class="bar own"'))
  end)

  it("says where and when, and which goals were met", function()
    local svg = drawn(RESULTS, {
      { text = "CPU <= half", seen = 0.4, limit = 0.5, met = true },
      { text = "copies", seen = 3, limit = "2", met = false }, { text = "start-up", limit = "10 ms" },
    }, { machine = { cpu = "A & B", cores = 2, system = "Linux" }, at = "2026-01-02" })
    for _, text in ipairs({
      ">A &amp; B, 2 cores · Linux · 2026%-01%-02<", ">CPU &lt;= half<", ">0.40<", ">met<", ">missed<",
      ">not measured<",
    }) do assert.equal(1, count(svg, text), text) end
  end)

  it("draws no results as a page without bars", function()
    assert.same({}, widths(drawn({})))
  end)
end)
