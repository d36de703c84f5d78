-- An orchestration: charges several orders at once, and takes back what was charged when one fails.
--
--   perigee serve scripts/billing.lua &
--   perigee run scripts/checkout.lua ord_1:500 ord_2:1999
--     ord_1 paid 500
--     ord_2 paid 1999
--   perigee run scripts/checkout.lua ord_1:500 ord_2:0
--     ord_1 to be refunded: 500
--     ord_2 failed: nothing to charge
--
-- BILLING_HOST and BILLING_PORT say where billing is.

local perigee = require("perigee")

local billing = perigee.client({
  host = os.getenv("BILLING_HOST") or "127.0.0.1",
  port = os.getenv("BILLING_PORT") or "3001",
  timeout = 2000,
})

local orders = {}
for i, text in ipairs({ ... }) do
  local id, amount = text:match("^([%w_]+):(%d+)$")
  orders[i] = { orderId = id or error("an order looks like ord_1:500, not " .. text, 0), amount = tonumber(amount) }
end

local calls = {}
for i, order in ipairs(orders) do calls[i] = billing:send({ cmd = "charge" }, order) end
local outcomes = perigee.settled(calls):await()

local failed = false
for _, outcome in ipairs(outcomes) do failed = failed or outcome.status == "rejected" end

for i, outcome in ipairs(outcomes) do
  local id = orders[i].orderId
  if outcome.status == "rejected" then
    print(id .. " failed: " .. outcome.reason.message)
  elseif failed then
    print(id .. " to be refunded: " .. outcome.value.amount)
    billing:emit("order_cancelled", { orderId = id }):await()
  else
    print(id .. " " .. outcome.value.status .. " " .. outcome.value.amount)
  end
end

billing:close():await()
