local router = require("perigee.router")

local function with(...)
  local routes = router.new()
  for i, line in ipairs({ ... }) do
    local method, path = line:match("^(%S+) (%S+)$")
    routes:add(method, path, line, "app.lua:" .. i)
  end
  return routes
end

local function handler(routes, method, path)
  local route, params = routes:find(method, path)
  return route and route.handler, params
end

describe("router", function()
  it("finds static routes, and a trailing slash is significant", function()
    local routes = with("GET /", "GET /a", "GET /a/", "GET /a/b")
    for _, path in ipairs({ "/", "/a", "/a/", "/a/b" }) do
      assert.are.equal("GET " .. path, (handler(routes, "GET", path)))
    end
    for _, path in ipairs({ "/b", "/a/b/", "//", "/A", "*", "" }) do
      assert.are.same({ nil, 404 }, { handler(routes, "GET", path) })
    end
  end)

  it("gives parameters percent-decoded", function()
    local routes = with("GET /orders/:id/items/:item")
    local found, params = handler(routes, "GET", "/orders/a%2Fb%20c/items/%C3%A9")
    assert.are.equal("GET /orders/:id/items/:item", found)
    assert.are.same({ id = "a/b c", item = "é" }, params)
    assert.are.same({ nil, 404 }, { handler(routes, "GET", "/orders//items/1") })
  end)

  it("gives the rest of the path to a wildcard", function()
    local routes = with("GET /files/*rest")
    for path, rest in pairs({ ["/files/a"] = "a", ["/files/a/b%20c/"] = "a/b c/", ["/files/"] = "" }) do
      assert.are.same({ rest = rest }, select(2, handler(routes, "GET", path)))
    end
    assert.are.same({ nil, 404 }, { handler(routes, "GET", "/files") })
  end)

  it("decodes each segment once, and an escaped slash divides nothing", function()
    local routes = with("GET /a/:x", "GET /a/b/c", "GET /f/*rest", "GET /100%/:x")
    assert.are.same({ x = "b/c" }, select(2, handler(routes, "GET", "/a/b%2Fc")))
    assert.are.same({ x = "%41" }, select(2, handler(routes, "GET", "/a/%2541")))
    assert.are.same({ x = "a\0b" }, select(2, handler(routes, "GET", "/a/a%00b")))
    assert.are.same({ rest = "a/b/%2F/c d" }, select(2, handler(routes, "GET", "/f/a%2fb/%252F/c%20d")))
    assert.are.same({ x = "y" }, select(2, handler(routes, "GET", "/100%25/y")))
  end)

  it("takes an empty segment for a literal or a wildcard, never for a parameter", function()
    local routes = with("GET /a//b", "GET /a/:x/b", "GET /a/:x/", "GET /c/*rest")
    assert.are.equal("GET /a//b", (handler(routes, "GET", "/a//b")))
    assert.are.same({ "GET /a/:x/", { x = "z" } }, { handler(routes, "GET", "/a/z/") })
    assert.are.same({ nil, 404 }, { handler(routes, "GET", "/a//") })
    assert.are.same({ rest = "//d/" }, select(2, handler(routes, "GET", "/c///d/")))
  end)

  it("gives the parameters of the route found, none of those tried before", function()
    local routes = with("GET /:a/:b/c/:d/e", "GET /:a/*tail", "POST /:u/:v/:w", "GET /x/:y/z")
    assert.are.same({ a = "1", tail = "2/c/3/f" }, select(2, handler(routes, "GET", "/1/2/c/3/f")))
    assert.are.same({ a = "1", b = "2", d = "3" }, select(2, handler(routes, "GET", "/1/2/c/3/e")))
    assert.are.same({ u = "x", v = "2", w = "z" }, select(2, handler(routes, "POST", "/x/2/z")))
    assert.are.same({ a = "x", tail = "2/y" }, select(2, handler(routes, "GET", "/x/2/y")))
  end)

  it("prefers a literal over a parameter over a wildcard, per segment", function()
    local routes = with("GET /a/*rest", "GET /a/:x", "GET /a/b", "GET /a/:x/c", "GET /a/b/d")
    for path, expected in pairs({
      ["/a/b"] = "GET /a/b", ["/a/z"] = "GET /a/:x", ["/a/z/c"] = "GET /a/:x/c", ["/a/b/c"] = "GET /a/:x/c",
      ["/a/b/d"] = "GET /a/b/d", ["/a/b/e"] = "GET /a/*rest", ["/a/%62"] = "GET /a/b",
    }) do
      assert.are.equal(expected, (handler(routes, "GET", path)))
    end
    assert.are.same({ x = "b" }, select(2, handler(routes, "GET", "/a/b/c")))
  end)

  it("refuses bad escapes with 400", function()
    local routes = with("GET /a/:x")
    for _, path in ipairs({ "/a/%", "/a/%2", "/a/%zz", "/a/b%%20" }) do
      assert.are.same({ nil, 400 }, { handler(routes, "GET", path) })
    end
  end)

  it("refuses a bad escape wherever it stands, also where no route goes", function()
    local routes = with("GET /a/:x", "GET /a/:x/c", "GET /f/*rest")
    for _, path in ipairs({ "/a/b/%", "/%/b", "/a/%2/0", "/a/%2%410", "/z/z/z/%4", "/f/a/%C3%A", "/f/%41/%4g" }) do
      assert.are.same({ nil, 400 }, { handler(routes, "GET", path) })
    end
    assert.are.same({ nil, 400 }, { handler(routes, "PUT", "/a/%") })
    assert.are.same({ nil, 404 }, { handler(routes, "GET", "a/%") })
  end)

  it("answers 405 with the sorted methods, HEAD where there is GET", function()
    local routes = with("PUT /a", "GET /a", "DELETE /:x")
    local route, status, allow = routes:find("POST", "/a")
    assert.are.same({ nil, 405, "DELETE, GET, HEAD, PUT" }, { route, status, allow })
  end)

  it("allows what any route of the path does, each once", function()
    local routes = with("PUT /a/b", "DELETE /a/:x", "PUT /a/*rest", "GET /:y/b", "PATCH /a/b/c", "POST /z/b")
    local function refusal(path) return { routes:find("OPTIONS", path) } end
    assert.are.same({ nil, 405, "DELETE, GET, HEAD, PUT" }, refusal("/a/b"))
    assert.are.same({ nil, 405, "DELETE, GET, HEAD, PUT" }, refusal("/%61/%62"))
    assert.are.same({ nil, 405, "PATCH, PUT" }, refusal("/a/b/c"))
    assert.are.same({ nil, 405, "DELETE, PUT" }, refusal("/a/d"))
    assert.are.same({ nil, 404 }, refusal("/a"))
    assert.are.equal("GET /:y/b", (handler(routes, "GET", "/a/b")))
  end)

  it("goes on to a less exact route when the exact one lacks the method", function()
    local routes = with("GET /a/new", "POST /a/:id")
    assert.are.equal("POST /a/:id", (handler(routes, "POST", "/a/new")))
  end)

  it("lets HEAD follow GET, and any come last", function()
    local routes = with("GET /a", "ANY /a", "HEAD /b", "GET /b", "ANY /c")
    assert.are.equal("GET /a", (handler(routes, "HEAD", "/a")))
    assert.are.equal("ANY /a", (handler(routes, "POST", "/a")))
    assert.are.equal("HEAD /b", (handler(routes, "HEAD", "/b")))
    assert.are.equal("ANY /c", (handler(routes, "OPTIONS", "/c")))
  end)

  it("refuses a second route for the same thing and names both places", function()
    local ok, err = pcall(with, "GET /a/:id", "POST /a/:id", "GET /a/:name")
    assert.is_false(ok)
    assert.are.equal("INVALID_OPTION: GET /a/:name at app.lua:3 is already routed at app.lua:1 as /a/:id",
      tostring(err))
  end)

  for path, why in pairs({
    ["a"] = "without a slash", ["/:"] = "with a parameter without a name",
    ["/*rest/a"] = "with a wildcard before the end",
    ["/:a/:a"] = "with two parameters of one name", ["/*"] = "with a wildcard without a name",
  }) do
    it("refuses a path " .. why, function()
      local ok, err = pcall(with, "GET " .. path)
      assert.is_false(ok)
      assert.are.equal("INVALID_OPTION", err.code)
    end)
  end
end)
