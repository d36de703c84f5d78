-- The same calls without encoding and decoding: what is sent is a slice, and so is what is answered.
--
--   perigee run spec/bench/send_raw.lua URL IN_FLIGHT

local perigee = require("perigee")
local told = require("told")

local url, in_flight = ...
local client = perigee.client(url)
local order = { orderId = "ord_42", amount = 1999, currency = "EUR", customer = "cus_9f3b21", paid = false }

client:connect():await()
local slice = client:send({ cmd = "charge" }, order):raw():await() -- the service answers with what it gets
local text = tostring(slice)
local calls = 0

told(client, tonumber(in_flight), function()
  calls = calls + 1
  local answer = client:send({ cmd = "charge" }, slice):raw():await()
  if calls % 1000 == 0 and tostring(answer) ~= text then error("another answer: " .. tostring(answer)) end
end)
