---@meta
-- Made by spec/support/types.lua of the transports' own tables: do not edit.

---@class perigee.TlsOptions
---@field ca? string PEM, a file or its text
---@field cert? string PEM, a file or its text
---@field key? string PEM, a file or its text
---@field server_name? string what the peer must prove
---@field verify? boolean true by default

---@class perigee.HostOption
---@field host? string
---@field port? integer|string
---@field path? string of a unix socket

---@class perigee.ListenerOptions.http
---@field body_timeout? number 30000 ms by default
---@field header_timeout? number 10000 ms by default
---@field host? string localhost by default
---@field idle_timeout? number 60000 ms by default
---@field max_body_bytes? integer 1048576 by default
---@field max_connections? integer 10000 by default
---@field max_header_bytes? integer 16384 by default
---@field max_headers? integer 100 by default
---@field max_queued_bytes? integer 16777216 by default
---@field max_uri_bytes? integer 8192 by default
---@field path? string
---@field port? integer|string 3000 by default
---@field tls? perigee.TlsOptions|true
---@field write_timeout? number 30000 ms by default

---@class perigee.ClientOptions.local
---@field transport "local"
---@field deserialize? function
---@field max_pending? integer 65536 by default
---@field max_waiting? integer 1024 by default
---@field name string
---@field serialize? function
---@field timeout? number|false 5000 ms by default

---@class perigee.ListenerOptions.local
---@field name? string

---@class perigee.ClientOptions.tcp
---@field transport? "tcp"
---@field connect_timeout? number 2000 ms by default
---@field connections? integer 1 by default
---@field deserialize? function
---@field host? string localhost by default
---@field hosts? (string|perigee.HostOption)[]
---@field incomplete_message_timeout? number|false 30000 ms by default
---@field max_buffer_size? integer 16777216 by default
---@field max_pending? integer 65536 by default
---@field max_send_buffer_size? integer 16777216 by default
---@field max_waiting? integer 1024 by default
---@field path? string
---@field port? integer|string 3000 by default
---@field retry_attempts? integer
---@field retry_delay? integer
---@field serialize? function
---@field timeout? number|false 5000 ms by default
---@field tls? perigee.TlsOptions|true

---@class perigee.ListenerOptions.tcp
---@field host? string localhost by default
---@field incomplete_message_timeout? number|false 30000 ms by default
---@field max_buffer_size? integer 16777216 by default
---@field max_connections? integer 10000 by default
---@field max_send_buffer_size? integer 16777216 by default
---@field path? string
---@field port? integer|string 3000 by default
---@field retry_attempts? integer
---@field retry_delay? integer
---@field tls? perigee.TlsOptions|true
---@field write_timeout? number 30000 ms by default

---@class perigee.ClientOptions.lua
---@field transport perigee.LuaTransport
---@field deserialize? function
---@field serialize? function
---@field timeout? number|false 5000 ms by default

---@alias perigee.ClientOptions perigee.ClientOptions.local|perigee.ClientOptions.tcp|perigee.ClientOptions.lua
---@alias perigee.ListenerOptions perigee.ListenerOptions.http|perigee.ListenerOptions.local|perigee.ListenerOptions.tcp
