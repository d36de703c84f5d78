-- Crawls a paged list and asks for the details of all it finds, so many at once and no more.
--
--   perigee run scripts/crawl.lua
--     page 1: 10 items
--     page 2: 10 items
--     page 3: 5 items
--     25 items worth 325, 4 requests at once at most
--
-- A number as argument is how many at once. The catalogue runs in the script itself; any URL would do.

local perigee = require("perigee")

local at_once = tonumber((...)) or 4

local catalogue, active, most = perigee.app(), 0, 0
catalogue:message("page", function(page)
  local ids = perigee.array()
  for id = (page - 1) * 10 + 1, math.min(page * 10, 25) do ids[#ids + 1] = id end
  return { ids = ids, next = page < 3 and page + 1 or nil }
end)
catalogue:message("item", function(id)
  active = active + 1
  most = math.max(most, active)
  perigee.sleep(1):await()
  active = active - 1
  return { id = id, price = id }
end)
catalogue:listen("local:catalogue")
catalogue:start():await()

local client = perigee.client("local:catalogue")

-- An iterator over the pages: each is asked for when the last one has been dealt with.
local function pages()
  local number = 1
  return function()
    if not number then return nil end
    local page = client:send("page", number):retry(2):await()
    number = page.next
    return page
  end
end

local count, worth, n = 0, 0, 0
for page in pages() do
  n = n + 1
  print(("page %d: %d items"):format(n, #page.ids))
  local items = perigee.map(page.ids, function(id)
    return client:send("item", id)
  end, { concurrency = at_once }):await()
  for _, item in ipairs(items) do count, worth = count + 1, worth + item.price end
end
print(("%d items worth %d, %d requests at once at most"):format(count, worth, most))
