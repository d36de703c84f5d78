-- perigee's side of the emit rows: events, each waited for until it is handed on, by so many at a time. After a hundred
-- of them each asks the service how many came, so that it is not left behind; in the end none may be missing.
--
--   perigee run spec/bench/emit.lua URL IN_FLIGHT     what it reads and says: told.lua

local perigee = require("perigee")
local told = require("told")

local BATCH = 100

local url, in_flight = ...
local client = perigee.client(url)
local events = 0

local function count() return client:send({ cmd = "count" }, {}):await() end

client:connect():await()
told(client, tonumber(in_flight), function()
  for _ = 1, BATCH do
    events = events + 1
    client:emit({ cmd = "charged" },
      { orderId = "ord_42", amount = events, currency = "EUR", customer = "cus_9f3b21", paid = false }):await()
  end
  count()
  return BATCH
end, count)
