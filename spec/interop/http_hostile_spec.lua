-- HTTP that an app must not take: a clear status, the connection closed, no handler run, everybody else served.
-- The exact bytes of each case, one byte at a time too, are in spec/unit/http_*_test.c; here it is the whole way.

local log = require("perigee.log")
local perigee = require("perigee")
local loop = require("spec.support.loop")
local tcp = require("spec.support.tcp")

local BODY = "\r\n\r\n"

local cases = {
  { "two Content-Lengths",
    "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2" .. BODY .. "{}", 400 },
  { "a list of Content-Lengths", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2" .. BODY .. "{}", 400 },
  { "a Content-Length beyond all numbers",
    "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617" .. BODY .. "{}", { 400, 413 } },
  { "Content-Length and Transfer-Encoding",
    "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked" .. BODY
      .. "2\r\n{}\r\n0\r\n\r\n", 400 },
  { "TE: ,chunked", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked" .. BODY .. "0\r\n\r\n", { 400, 501 } },
  { "TE: gzip, chunked",
    "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked" .. BODY .. "0\r\n\r\n", 501 },
  { "TE: chunked twice",
    "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked" .. BODY
      .. "0\r\n\r\n", 400 },
  { "TE: xchunked", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked" .. BODY .. "0\r\n\r\n", { 400, 501 } },
  { "TE on HTTP/1.0", "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked" .. BODY .. "0\r\n\r\n", 400 },
  { "a bare LF", "POST /x HTTP/1.1\nHost: a\r\nContent-Length: 2" .. BODY .. "{}", 400 },
  { "a bare LF in a chunk line",
    "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked" .. BODY .. "2\n{}\r\n0\r\n\r\n", 400 },
  { "a folded header", "POST /x HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n 2\r\nContent-Length: 2" .. BODY .. "{}", 400 },
  { "a space before the colon", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length : 2" .. BODY .. "{}", 400 },
  { "no Host", "POST /x HTTP/1.1\r\nContent-Length: 2" .. BODY .. "{}", 400 },
  { "two Hosts", "POST /x HTTP/1.1\r\nHost: a\r\nHost: a\r\nContent-Length: 2" .. BODY .. "{}", 400 },
  { "a list of hosts", "POST /x HTTP/1.1\r\nHost: a, b\r\nContent-Length: 2" .. BODY .. "{}", 400 },
  { "a target that is not the Host's",
    "POST http://b/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2" .. BODY .. "{}", 400 },
  { "a fragment", "POST /x#y HTTP/1.1\r\nHost: a\r\nContent-Length: 2" .. BODY .. "{}", 400 },
  { "dots that climb out", "POST /../x HTTP/1.1\r\nHost: a\r\nContent-Length: 2" .. BODY .. "{}", 400 },
  { "another version", "POST /x HTTP/2.0\r\nHost: a\r\nContent-Length: 2" .. BODY .. "{}", 505 },
  { "TRACE", "TRACE /x HTTP/1.1\r\nHost: a" .. BODY, { 405, 501 } },
  { "a NUL in a header", "POST /x HTTP/1.1\r\nHost: a\r\nX-A: a\0b\r\nContent-Length: 2" .. BODY .. "{}", 400 },
  { "a giant header", "POST /x HTTP/1.1\r\nHost: a\r\nX-A: " .. ("a"):rep(20000) .. BODY, 431 },
  { "101 headers", "POST /x HTTP/1.1\r\nHost: a\r\n" .. ("X: 1\r\n"):rep(101) .. "\r\n", 431 },
  { "a giant target", "POST /" .. ("a"):rep(9000) .. " HTTP/1.1\r\nHost: a" .. BODY, 414 },
  { "a body over the limit, by its length", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000" .. BODY, 413 },
  { "a body over the limit, in chunks",
    "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked" .. BODY .. "1e8480\r\n" .. ("a"):rep(1100000), 413 },
  { "an expectation it cannot meet",
    "POST /x HTTP/1.1\r\nHost: a\r\nExpect: coffee\r\nContent-Length: 2" .. BODY .. "{}", 417 },
}

describe("an app over HTTP", function()
  local app, ran, port

  setup(function()
    log.set_sink(function() end)
    app = perigee.app()
    app:post("/x", function(req)
      ran = ran + 1
      return { got = req:json() }
    end)
    app:any("/*rest", function() ran = ran + 1 return "other" end)
    app:listen("http://127.0.0.1:0", { header_timeout = 200 })
    app:start():await()
    port = tonumber(app:addresses()[1]:match(":(%d+)$"))
  end)

  teardown(function()
    app:stop({ drain_timeout = 100 }):await()
    loop.finish()
    log.set_sink()
  end)

  before_each(function() ran = 0 end)

  local function serves_others()
    local peer = tcp.connect(port)
    peer:write("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    local answer = peer:read_end()
    assert.truthy(answer:find("^HTTP/1.1 200 "), answer)
    peer:close()
  end

  local function status_of(answer, wanted)
    local status = tonumber(answer:match("^HTTP/1.1 (%d+) "))
    for _, one in ipairs(type(wanted) == "table" and wanted or { wanted }) do
      if status == one then return true end
    end
    return false, ("answered %s instead"):format(answer:sub(1, 200))
  end

  for _, case in ipairs(cases) do
    it("refuses " .. case[1] .. ", and what follows on that connection", function()
      local peer = tcp.connect(port)
      peer:push(case[2] .. "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
      local answer = peer:read_end()
      assert.truthy(status_of(answer, case[3]))
      assert.equal(1, select(2, answer:gsub("HTTP/1.1 %d%d%d ", "")), answer)
      assert.equal(0, ran)
      peer:close()
      serves_others()
    end)
  end

  it("answers 408 to a header that does not end, however it drips", function()
    local peer = tcp.connect(port)
    peer:write("POST /x HTTP/1.1\r\nHost: a\r\nX-Slow: ")
    for _ = 1, 6 do
      loop.run_for(50)
      peer:push("a")
    end
    assert.truthy(status_of(peer:read_end(), 408))
    assert.equal(0, ran)
    peer:close()
    serves_others()
  end)

  it("answers 400 to a body that is not JSON, not UTF-8, or too deep to decode, and keeps the connection", function()
    local peer = tcp.connect(port)
    for _, body in ipairs({ '{"a":', '"\255"', ("["):rep(200000) .. ("]"):rep(200000), "nul" }) do
      peer:write(("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body))
      loop.wait_until(function() return peer:peek():find("\r\n\r\n.*}$") end)
      local answer = peer:read(#peer:peek())
      assert.truthy(answer:find("^HTTP/1.1 400 "), answer)
      assert.truthy(answer:find("application/problem+json", 1, true), answer)
    end
    peer:close()
    serves_others()
  end)
end)
