--- Options of Redis, in tables and in URLs.

local options = require("perigee.options")

describe("options of Redis", function()
  local function client(spec) return options.client(spec) end

  local function refused(expected, spec)
    local ok, err = pcall(client, spec)
    assert.is_false(ok)
    assert.equal("INVALID_OPTION", err.code)
    assert.equal(expected, err.message)
  end

  it("are Nest's, in snake_case; the host is localhost:6379", function()
    local got = client({ transport = "redis" })
    assert.same({ { host = "localhost", port = 6379 } }, got.hosts)
    assert.same({ ping_interval = 15000 }, got.settings)
    assert.equal(2000, got.connect_timeout)
    got = client({
      transport = "redis", host = "h", port = "7000", username = "u", password = "p", db = 3, connection_name = "me",
      retry_attempts = 5, retry_delay = 100, tls = { ca = "ca.pem" },
    })
    assert.same({ { host = "h", port = 7000 } }, got.hosts)
    assert.same({ username = "u", password = "p", db = 3, connection_name = "me", ping_interval = 15000 }, got.settings)
    assert.same({ ca = "ca.pem" }, got.tls)
  end)

  it("come from a URL too", function()
    local got = client("redis://u:p%40ss@h:7000/2?connection_name=me")
    assert.same({ { host = "h", port = 7000 } }, got.hosts)
    assert.same({ username = "u", password = "p@ss", db = 2, connection_name = "me", ping_interval = 15000 },
      got.settings)
    assert.is_nil(got.tls)
    got = client("rediss://:secret@h?ca=ca.pem")
    assert.same({ password = "secret", ping_interval = 15000 }, got.settings)
    assert.same({ ca = "ca.pem" }, got.tls)
    assert.same({ { host = "a", port = 1 }, { host = "b", port = 6379 } }, client("redis://a:1,b").hosts)
    assert.same({ { path = "/run/redis.sock" } }, client("redis:/run/redis.sock").hosts)
  end)

  it("turn Sentinels into what is dialled first", function()
    local got = client({
      transport = "redis", name = "m", sentinels = { { host = "a" }, "b:1" }, sentinel_password = "s",
    })
    assert.same({ { host = "a", port = 26379 }, { host = "b", port = 1 } }, got.hosts)
    assert.same({ name = "m", sentinel_password = "s", ping_interval = 15000 }, got.settings)
  end)

  it("are refused with a reason", function()
    local function redis(more)
      more.transport = "redis"
      return more
    end
    refused("option 'username' needs 'password' beside it", redis({ username = "u" }))
    refused("option 'sentinels' needs the master's 'name' beside it", redis({ sentinels = { "a" } }))
    refused("option 'name' is for 'sentinels' only", redis({ name = "m" }))
    refused("options 'host' and 'sentinels' exclude each other", redis({ sentinels = { "a" }, name = "m", host = "h" }))
    refused("option 'sentinels' must be a list of 1 to 64 hosts, not string", redis({ sentinels = "a", name = "m" }))
    refused("option 'connection_name' must be printable, without spaces", redis({ connection_name = "a b" }))
    refused("option 'db' must be a whole number from 0, not -1", redis({ db = -1 }))
    refused("option 'ping_interval' must be milliseconds above 0, not 0", redis({ ping_interval = 0 }))
    refused("unknown option 'wildcard'", redis({ wildcard = true }))
    refused("bad URL 'redis://h/x': '/x' is not the number of a database", "redis://h/x")
    refused("bad URL 'redis://***@h': a user needs a password: user:password@host", "redis://u@h")
    refused("bad URL 'redis:h': '//' is missing after the scheme", "redis:h")
  end)
end)
