local url = require("perigee.url")

local function parsed(text)
  local result, message = url.parse(text)
  assert.is_nil(message)
  result.text = nil
  return result
end

describe("url", function()
  it("takes host and port apart", function()
    assert.are.same({ scheme = "tcp", host = "billing", port = "3001", path = "", query = {} },
      parsed("tcp://billing:3001"))
    assert.are.same({ scheme = "tcp", host = "billing", path = "", query = {} }, parsed("TCP://billing"))
  end)

  it("knows IPv6 addresses by their brackets", function()
    local got = parsed("tcp://[::1]:3001")
    assert.are.same({ "::1", "3001" }, { got.host, got.port })
    assert.are.equal("fe80::1%eth0", parsed("tcp://[fe80::1%eth0]").host)
    assert.are.equal("[::1]:80", url.authority("::1", 80))
  end)

  it("reads the query, percent-decoded", function()
    assert.are.same({ ca = "/etc/my ca.pem", verify = "false", empty = "" },
      parsed("tls://h:1?ca=%2Fetc%2Fmy%20ca.pem&verify=false&empty=").query)
  end)

  it("keeps what follows the scheme when there is no host", function()
    assert.are.equal("/run/x.sock", parsed("unix:/run/x.sock").opaque)
    assert.are.equal("/run/x.sock", parsed("unix:///run/x.sock").path)
    assert.are.equal("billing", parsed("local:billing").opaque)
  end)

  for name, text in pairs({
    ["no scheme"] = "localhost", ["a space"] = "tcp://a b", ["a fragment"] = "tcp://a#b",
    ["IPv6 without brackets"] = "tcp://::1:80", ["a port that is no number"] = "tcp://a:http",
    ["an empty host among several"] = "nats://a,,b", ["a broken query"] = "tcp://a?x", ["nothing"] = "",
    ["a control character"] = "tcp://a\n:1", ["too much"] = "tcp://" .. ("a"):rep(9000),
  }) do
    it("refuses " .. name, function()
      local result, message = url.parse(text)
      assert.is_nil(result)
      assert.is_string(message)
    end)
  end

  it("takes a user, a password, a token and several hosts apart", function()
    local one = url.parse("nats://u%40x:p:q@h:1")
    assert.are.same({ "u@x", "p:q", "h", "1" }, { one.user, one.pass, one.host, one.port })
    local two = url.parse("nats://secret@a:1,[::1]:2,c")
    assert.are.same({ "secret", nil, "a", "1" }, { two.user, two.pass, two.host, two.port })
    assert.are.same({ { host = "a", port = "1" }, { host = "::1", port = "2" }, { host = "c" } }, two.hosts)
  end)

  it("hides what must not be read in a log", function()
    assert.are.equal("nats://***@a:1,b/x@y", url.redact("nats://u:p@a:1,b/x@y"))
    assert.are.equal("tcp://a:1", url.redact("tcp://a:1"))
  end)
end)
