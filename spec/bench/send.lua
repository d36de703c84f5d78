-- perigee's side of the send rows: calls, so many in flight, for as long as it is told to.
--
--   perigee run spec/bench/send.lua URL IN_FLIGHT     prints "ready"; to a line of milliseconds it says the calls made

local perigee = require("perigee")
local uv = require("luv")

local url, in_flight = ...
local client = perigee.client(url)
local calls, stop_at = 0, 0

local function call_on()
  while uv.now() < stop_at do
    calls = calls + 1
    local order = { orderId = "ord_42", amount = calls, currency = "EUR", customer = "cus_9f3b21", paid = false }
    local amount = order.amount
    local answer = client:send({ cmd = "charge" }, order):await()
    if answer.amount ~= amount then error("an answer to another call: " .. answer.amount .. ", not " .. amount) end
  end
end

local function measure(ms)
  calls, stop_at = 0, uv.now() + ms
  local running = {}
  for i = 1, tonumber(in_flight) do running[i] = perigee.async(call_on) end
  perigee.all(running):await()
  return calls
end

client:connect():await()
local stdin = uv.new_pipe(false)
stdin:open(0)
perigee.promise(function(resolve)
  stdin:read_start(function(_, text)
    if not text then return resolve() end
    perigee.spawn(function()
      print(measure(tonumber(text)))
      io.stdout:flush()
    end)
  end)
  print("ready")
  io.stdout:flush()
end):await()
stdin:close()
client:close():await()
