-- perigee's side of the send rows: calls that are encoded and decoded, so many in flight.
--
--   perigee run spec/bench/send.lua URL IN_FLIGHT     what it reads and says: told.lua

local perigee = require("perigee")
local told = require("told")

local url, in_flight = ...
local client = perigee.client(url)
local calls = 0

client:connect():await()
told(client, tonumber(in_flight), function()
  calls = calls + 1
  local order = { orderId = "ord_42", amount = calls, currency = "EUR", customer = "cus_9f3b21", paid = false }
  local amount = order.amount
  local answer = client:send({ cmd = "charge" }, order):await()
  if answer.amount ~= amount then error("an answer to another call: " .. answer.amount .. ", not " .. amount) end
end)
