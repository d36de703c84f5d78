-- Asks several services at once, and goes on with the answers that came in time.
--
--   perigee run scripts/fanout.lua
--     local:acorn   1250
--     local:birch   no answer: TIMEOUT
--     local:cedar   1199
--     local:dogwood no answer: REMOTE
--     best of 2: local:cedar, 1199
--
-- URLs given as arguments are asked instead of these four, which run in the script itself.

local perigee = require("perigee")

local urls = { ... }

local function serve(name, quote)
  local app = perigee.app()
  app:message("quote", quote)
  app:listen("local:" .. name)
  app:start():await()
  urls[#urls + 1] = "local:" .. name
end

if #urls == 0 then
  serve("acorn", function() return { price = 1250 } end)
  serve("birch", function() return perigee.sleep(10000) end)
  serve("cedar", function() return { price = 1199 } end)
  serve("dogwood", function() error({ message = "closed on Sundays" }) end)
end

local calls = {}
for i, url in ipairs(urls) do
  calls[i] = perigee.client(url):send("quote", { parcel = "2 kg" }):timeout(500)
end

local best, answered = nil, 0
for i, outcome in ipairs(perigee.settled(calls):await()) do
  if outcome.status == "rejected" then
    print(("%-13s no answer: %s"):format(urls[i], outcome.reason.code))
  else
    print(("%-13s %d"):format(urls[i], outcome.value.price))
    answered = answered + 1
    if not best or outcome.value.price < best.price then best = { url = urls[i], price = outcome.value.price } end
  end
end

if not best then
  print("nobody answered")
  return 1 -- the exit status
end
print(("best of %d: %s, %d"):format(answered, best.url, best.price))
