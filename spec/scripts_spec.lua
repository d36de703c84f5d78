-- Runs each script of scripts/ as its header says, and expects what its header promises.

local http = require("spec.support.http")
local loop = require("spec.support.loop")
local program = require("spec.support.perigee")
local tcp = require("spec.support.tcp")

after_each(function()
  program.clean()
  loop.finish()
end)

-- The lines a script's header shows after a command: indented deeper than it.
local function promised(path, command)
  local lines, found = {}, false
  for line in io.lines(path) do
    if line:find("--   " .. command, 1, true) == 1 then
      found = true
    elseif found and line:find("^%-%-     ") then
      lines[#lines + 1] = line:sub(8)
    elseif found then
      break
    end
  end
  assert(found, path .. " does not show " .. command)
  return table.concat(lines, "\n")
end

local function port_of(url)
  return url:match(":(%d+)$")
end

local function start_billing()
  local child = program.start({ "serve", "scripts/billing.lua" }, { BILLING_PORT = "0" })
  return port_of(program.urls(child)[1]), child
end

local function send(url, pattern, data)
  local code, out, err = program.run({ "send", url, pattern, data })
  assert.are.same({ 0, "" }, { code, err })
  return (out:gsub("\n$", ""))
end

local CHARGE = [[perigee send tcp://127.0.0.1:%d '{"cmd":"charge"}' '{"orderId":"ord_42","amount":1999}']]
local ORDER = '{"orderId":"ord_42","amount":1999}'

describe("scripts/billing.lua", function()
  it("charges, refuses, and hears of orders", function()
    local port, child = start_billing()
    local url = "tcp://127.0.0.1:" .. port
    assert.are.equal(promised("scripts/billing.lua", CHARGE:format(3001)), send(url, '{"cmd":"charge"}', ORDER))
    local code, _, err = program.run({ "send", url, '{"cmd":"charge"}', '{"amount":0}' })
    assert.are.same({ 1, "perigee: REMOTE: nothing to charge\n" }, { code, err })
    program.run({ "emit", url, "order_placed", '{"orderId":"ord_42"}' })
    assert.are.equal("placed: ord_42", child:line())
  end)
end)

describe("scripts/orders.lua", function()
  it("charges an order that comes over HTTP", function()
    local port, billing = start_billing()
    local child = program.start({ "serve", "scripts/orders.lua" }, { BILLING_PORT = port, ORDERS_PORT = "0" })
    local url = program.urls(child)[1]
    local response = http.request(url, "POST", "/orders/charge", ORDER)
    local command = [[curl -d '{"orderId":"ord_42","amount":1999}' http://127.0.0.1:8080/orders/charge]]
    assert.are.same({ 200, promised("scripts/orders.lua", command) }, { response.status, response.body })
    assert.are.equal("placed: ord_42", billing:line())
    assert.are.equal(response.body, http.request(url, "POST", "/charge", ORDER).body)
    assert.are.equal(402, http.request(url, "POST", "/orders/charge", '{"orderId":"x","amount":0}').status)
    assert.are.equal(400, http.request(url, "POST", "/orders/charge", "{").status)
  end)

  it("answers 502 while billing is away", function()
    local env = { BILLING_PORT = tostring(tcp.free_port()), ORDERS_PORT = "0" }
    local url = program.urls(program.start({ "serve", "scripts/orders.lua" }, env))[1]
    assert.are.equal(502, http.request(url, "POST", "/orders/charge", ORDER).status)
  end)
end)

describe("scripts/orders_spec.lua", function()
  it("prints what its header says, but for the time", function()
    local code, out, err = program.run({ "test", "scripts" })
    assert.are.same({ 0, "" }, { code, err })
    local function timeless(text) return (text:gsub("[%d.]+ seconds", "N seconds")) end
    assert.are.equal(timeless(promised("scripts/orders_spec.lua", "perigee test scripts")) .. "\n", timeless(out))
  end)
end)

describe("scripts/checkout.lua", function()
  it("charges all, or takes back what was charged", function()
    local port = start_billing()
    for _, arguments in ipairs({ { "ord_1:500", "ord_2:1999" }, { "ord_1:500", "ord_2:0" } }) do
      local code, out, err = program.run({ "run", "scripts/checkout.lua", unpack(arguments) },
        { env = { BILLING_PORT = port } })
      assert.are.same({ 0, "" }, { code, err })
      local command = "perigee run scripts/checkout.lua " .. table.concat(arguments, " ")
      assert.are.equal(promised("scripts/checkout.lua", command) .. "\n", out)
    end
  end)

  it("says what an order looks like", function()
    local code, _, err = program.run({ "run", "scripts/checkout.lua", "nonsense" })
    assert.are.equal(1, code)
    assert.is_truthy(err:find("an order looks like ord_1:500, not nonsense", 1, true))
  end)
end)

describe("scripts/proxy.lua", function()
  it("passes everything on, and changes one message", function()
    local port = start_billing()
    local child = program.start({ "serve", "scripts/proxy.lua" },
      { BACKEND = "tcp://127.0.0.1:" .. port, PROXY_PORT = "0" })
    local url = program.urls(child)[1]
    assert.are.equal(promised("scripts/proxy.lua", CHARGE:format(3000)), send(url, '{"cmd":"charge"}', ORDER))
    local command = [[perigee send tcp://127.0.0.1:3000 charge_in_euros '{"orderId":"ord_42","euros":19.99}']]
    assert.are.equal(promised("scripts/proxy.lua", command),
      send(url, "charge_in_euros", '{"orderId":"ord_42","euros":19.99}'))
    local code, _, err = program.run({ "send", url, "nobody" })
    assert.are.equal(1, code)
    assert.is_truthy(err:find("^perigee: NO_HANDLER: "))
  end)
end)

-- Runs it with these arguments; its output is what the header shows.
local function expect_promised(path, code, ...)
  local got, out, err = program.run({ "run", path, ... })
  assert.are.same({ code, "" }, { got, err })
  assert.are.equal(promised(path, table.concat({ "perigee run " .. path, ... }, " ")) .. "\n", out)
end

describe("scripts/fanout.lua", function()
  it("goes on with the answers that came in time", function()
    expect_promised("scripts/fanout.lua", 0)
  end)

  it("asks the URLs it is given, and fails when none answers", function()
    local url = "tcp://127.0.0.1:" .. tcp.free_port()
    local code, out, err = program.run({ "run", "scripts/fanout.lua", url })
    assert.are.same({ 1, url .. " no answer: CONNECT_FAILED\nnobody answered\n", "" }, { code, out, err })
  end)
end)

describe("scripts/saga.lua", function()
  it("places an order, or undoes what it has done", function()
    expect_promised("scripts/saga.lua", 0, "Oslo")
    expect_promised("scripts/saga.lua", 1, "Atlantis")
  end)
end)

describe("scripts/crawl.lua", function()
  it("asks for all there is, so many at once", function()
    expect_promised("scripts/crawl.lua", 0)
    local _, out = program.run({ "run", "scripts/crawl.lua", "7" })
    assert.is_truthy(out:find("25 items worth 325, 7 requests at once at most\n", 1, true), out)
  end)
end)

describe("scripts/bridge.lua", function()
  it("takes orders from one transport and passes them on to another, changed", function()
    local port, billing = start_billing()
    local socket = os.tmpname()
    os.remove(socket)
    local child = program.start({ "serve", "scripts/bridge.lua" },
      { FROM = "unix:" .. socket, TO = "tcp://127.0.0.1:" .. port })
    local url = program.urls(child)[1]
    local order = '{"ref":"ord_42","total":"19.99"}'
    local command = "perigee send tcp://127.0.0.1:3002 order.pay '" .. order .. "'"
    assert.are.equal(promised("scripts/bridge.lua", command), send(url, "order.pay", order))
    program.run({ "emit", url, "order.placed", '{"ref":"ord_42"}' })
    assert.are.equal("placed: ord_42", billing:line())
    for data, told in pairs({
      ['{"total":"0"}'] = "nothing to charge", ['{"total":"much"}'] = "total is no number: much",
    }) do
      local code, _, err = program.run({ "send", url, "order.pay", data })
      assert.are.same({ 1, "perigee: REMOTE: " .. told .. "\n" }, { code, err })
    end
  end)
end)

describe("all scripts", function()
  it("pass the check together where they serve", function()
    assert.are.equal(0, (program.run({ "check", "scripts/billing.lua", "scripts/orders.lua" })))
    assert.are.equal(0, (program.run({ "check", "scripts/proxy.lua", "scripts/bridge.lua" })))
    local names = io.popen("ls scripts/*.lua")
    for path in names:lines() do
      if not path:find("_spec%.lua$") then -- those have busted's globals
        assert.are.same({ 0, path .. ": good\n", "" }, { program.run({ "check", "--static", path }) })
      end
    end
    names:close()
  end)
end)

describe("scripts/demo.lua", function()
  -- Ports differ in each run, and with them the widths of the columns.
  local function plain(text)
    return (text:gsub(":%d+(%s)", ":PORT%1"):gsub(" +", " "):gsub("\n$", ""))
  end

  it("starts billing and the gateway, posts the order, prints the invoice, and ends", function()
    local code, out, err = program.run({ "run", "scripts/demo.lua" })
    assert.are.same({ 0, "" }, { code, err })
    assert.are.equal(plain(promised("scripts/demo.lua", "perigee run scripts/demo.lua")), plain(out))
  end)
end)
