-- For `luarocks make` in a checkout. LuaJIT, luv and lua-cjson are the system's: perigee shares luv's loop, and a luv
-- with a libuv of its own inside would have another one. On Debian add LUA_INCDIR=/usr/include/luajit-2.1.
rockspec_format = "1.0"
package = "perigee"
version = "scm-1"
source = { url = "file://." }
description = {
  summary = "A Lua-scriptable proxy engine for message-driven services",
  detailed = "Speaks the wires of NestJS 12 microservices, as client and as server; HTTP in front. Needs LuaJIT.",
  license = "MIT",
}
supported_platforms = { "linux" }
dependencies = { "lua == 5.1" }
build = {
  type = "command",
  build_command = "make all WERROR=0",
  install_command = [[
    mkdir -p "$(LUADIR)" "$(LIBDIR)/perigee" "$(BINDIR)" &&
    cp -r lua/perigee "$(LUADIR)/" &&
    cp build/lib/perigee/core.so "$(LIBDIR)/perigee/" &&
    cp build/bin/perigee "$(BINDIR)/"
  ]],
}
