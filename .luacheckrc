std = "luajit"
max_line_length = 120
exclude_files = { "lua/perigee/*_meta.lua", "lua/perigee/types", "build" }
files["**/*_spec.lua"] = { std = "+busted" }
files["scripts"] = { read_globals = { "arg" } }
