--- Reloads under load: nothing is lost, nothing comes twice, no answer is of two generations. `make bench` has the
--- same for a minute.

local http = require("spec.support.http")
local loop = require("spec.support.loop")
local nest = require("spec.support.nest")
local program = require("spec.support.perigee")
local uv = require("luv")

local RELOAD_MS = 50 -- 20 a second
local CONNECTIONS, STREAMS, VALUES = 16, 10, 100

local path

local function write(text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

local function count(text, what)
  return select(2, text:gsub(what, ""))
end

-- Writes what script(n) gives for the next generation, one in five broken, and reloads, until `more` says no.
local function keep_reloading(child, script, more)
  local serving, refused, i = 1, 0, 0
  while more() do
    i = i + 1
    local from = uv.now()
    if i % 5 == 0 then
      refused = refused + 1
      write("x x")
    else
      serving = serving + 1
      write(script(serving))
    end
    child:kill("sighup")
    loop.wait_until(function()
      return count(child.stderr, "generation %d+ serves") == serving - 1
        and count(child.stderr, "the reload is refused") == refused
        and uv.now() - from >= RELOAD_MS
    end, 5000, function() return "reload " .. i .. " of " .. child:describe() end)
  end
  return serving
end

-- A connection that asks again as soon as it is answered; told of each answer.
local function ask_for_ever(port, on_answer)
  local peer = { handle = loop.own(uv.new_tcp()), answers = 0 }
  local seen = ""
  local function on_data(err, data)
    if not data then
      peer.ended = err or "EOF"
      return
    end
    seen = seen .. data
    local head_end = select(2, seen:find("\r\n\r\n", 1, true))
    if not head_end then return end
    local length = tonumber(seen:lower():match("content%-length: (%d+)"))
    if #seen < head_end + length then return end
    peer.answers = peer.answers + 1
    on_answer(seen:match("^HTTP/1.1 (%d+)"), seen:lower():match("perigee%-generation: (%d+)"), seen:sub(head_end + 1))
    seen = ""
    if not peer.is_over then peer.handle:write(http.bytes("GET", "/")) end
  end
  peer.handle:connect("127.0.0.1", port, function(err)
    assert(not err, err)
    peer.handle:read_start(on_data)
    peer.handle:write(http.bytes("GET", "/"))
  end)
  return peer
end

describe("reloads twenty times a second, one in five broken,", function()
  before_each(function() path = os.tmpname() end)

  after_each(function()
    program.clean()
    loop.finish()
    os.remove(path)
  end)

  it("fail no request, and each answer is of one generation", function()
    local function script(n)
      return ([[
        local perigee = require("perigee")
        local app = perigee.app()
        app:get("/", function()
          perigee.sleep(math.random(0, 20)):await()
          return "%d"
        end)
        app:listen("http://127.0.0.1:0")
        return app
      ]]):format(n)
    end
    write(script(1))
    local child = program.start({ "serve", path, "--stamp" })
    local port = tonumber(program.urls(child)[1]:match(":(%d+)$"))
    local seen, wrong = {}, {}
    local peers = {}
    for i = 1, CONNECTIONS do
      peers[i] = ask_for_ever(port, function(status, stamp, body)
        seen[body] = true
        if status ~= "200" or stamp ~= body then wrong[#wrong + 1] = status .. " " .. tostring(stamp) .. " " .. body end
      end)
    end
    local stop_at = uv.now() + 3000
    local last = keep_reloading(child, script, function() return uv.now() < stop_at end)
    loop.wait_until(function() return seen[tostring(last)] end, 5000, "an answer of the last generation")
    for i, peer in ipairs(peers) do
      peer.is_over = true
      assert.is_nil(peer.ended)
      assert.is_true(peer.answers > 20, "connection " .. i .. " was answered " .. peer.answers .. " times")
    end
    assert.are.same({}, wrong)
    assert.is_true(last > 20, "there were only " .. last .. " generations")
  end)

  it("lose no value of a Nest client's streams, and repeat none", function()
    local function script(n)
      return ([[
        local perigee = require("perigee")
        local app = perigee.app()
        app:message("count", function(upto)
          return perigee.reply(function(sink)
            perigee.async(function()
              for i = 1, upto do
                sink:next({ generation = %d, i = i })
                perigee.sleep(2):await()
              end
              sink:complete()
            end)
          end)
        end)
        app:listen("tcp://127.0.0.1:0")
        return app
      ]]):format(n)
    end
    write(script(1))
    local child = program.start({ "serve", path })
    local port = tonumber(program.urls(child)[1]:match(":(%d+)$"))
    local client = nest.client({ port = port })
    local open, ended, generations = {}, 0, {}
    local stop_at = uv.now() + 3000
    local function check(id)
      local values, err = client:outcome(id)
      assert.is_nil(err)
      assert.are.equal(VALUES, #values)
      generations[values[1].generation] = true
      for i, value in ipairs(values) do
        assert.are.same({ generation = values[1].generation, i = i }, value)
      end
      ended = ended + 1
    end
    local function turn()
      for id in pairs(open) do
        if client:is_over(id) then
          open[id] = nil
          check(id)
        end
      end
      local n = 0
      for _ in pairs(open) do n = n + 1 end
      for _ = n + 1, STREAMS do
        open[client:start({ op = "send", pattern = "count", data = VALUES })] = true
      end
      return uv.now() < stop_at
    end
    keep_reloading(child, script, turn)
    for id in pairs(open) do check(id) end
    assert.is_true(ended >= 2 * STREAMS, "only " .. ended .. " streams ended")
    local n = 0
    for _ in pairs(generations) do n = n + 1 end
    assert.is_true(n > 3, "streams were of only " .. n .. " generations")
    client:stop()
  end)
end)
