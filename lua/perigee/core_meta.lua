---@meta perigee.core
-- What the C half offers the Lua half. Internal: users require "perigee". Everything here is a classic
-- C function (never FFI: it may call back into Lua). Callbacks run in the main state, not a coroutine,
-- each inside one protected call; what they raise is logged with a traceback.
-- A request in flight is a number (slot and generation); a stale one is harmless: the call returns nil, "CLOSED".

---@class perigee.core
local core = {}

---@return number ms monotonic, with a fraction
function core.now() end

---Time stands from now on and moves to the next timer when timers are all that the loop waits for; false: it passes
---again, from where it stood.
---@param on boolean
function core.virtual_clock(on) end

---@param ms number
---@param fn fun()
---@return perigee.core.timer
function core.timer(ms, fn) end

---@class perigee.core.timer
local timer = {}
function timer:cancel() end

---The innermost frames without a table: debug.getinfo(level, "fl").
---@param level integer
---@return function? func nil: no such level
---@return integer? line
function core.caller(level) end

---Called around each entry from C, with what a callback raised (with its traceback), and with packets for tasks that
---ask (client:asker). What is not given stays as it is.
---@param hooks { enter: fun()?, leave: fun()?, fault: fun(message: string)?, awaited: fun(task, kind, value, message)? }
function core.hooks(hooks) end

---For the program: ends what runs longer without yielding, or holds more, than it may, and the process when that
---cannot be done. It takes SIGPROF, LuaJIT's profiler and luv's cb_pcall; once in a process. See core/bind/budget.h.
---@param options { slice: integer?, load: integer?, max_memory: integer?, ends: boolean?, slices: number[], own: string,
---on_over: (fun(message: string): any), trim: fun() }
---ms and bytes, 0 or nil: no limit; ends: the process ends when that much cannot be collected; slices[1] counts the
---scheduler's slices; own begins the chunk names of code that is never interrupted; on_over makes what is raised;
---trim lets go of what is kept for later
function core.budget(options) end

---A script is being loaded: until the matching `false` the load budget counts.
---@param is_loading boolean
function core.loading(is_loading) end

---Runs the end of a turn now.
---@return boolean open whether anything of ours is still open
function core.turn() end

-- JSON ----------------------------------------------------------------------

core.null = nil ---@type lightuserdata cjson.null
core.array_mt = {} ---@type table metatable of lists (marks even an empty one as an array)
core.slice_mt = {} ---@type table metatable of slices: { text }, validated JSON text at index 1

---@param value any
---@return string? json
---@return string? message why it cannot be encoded
function core.json_encode(value) end

---@param text string
---@return any value
---@return string? message with the offset; then value is nil
function core.json_decode(text) end

---Whether text is one valid JSON value (RFC 8259, UTF-8), at any depth.
---@param text string
---@return boolean ok
---@return string? message
function core.json_check(text) end

---Wraps text that is valid JSON.
---@param text string
---@return table? slice
---@return string? message
function core.slice(text) end

---Nest's route of a pattern (nest-wire 1.3).
---@param json string JSON text of the pattern
---@return string|boolean|lightuserdata|nil route booleans and null stay themselves; nil: not JSON
function core.route(json) end

---The key under which an inbound packet's handler is looked up (nest-wire 1.4).
---@param json string JSON text of the packet's `pattern`
---@return string|boolean|lightuserdata|nil
function core.lookup_key(json) end

-- Clients -------------------------------------------------------------------

core.VALUE, core.LAST, core.END, core.ERROR, core.FAIL = 1, 2, 3, 4, 5

---@class perigee.core.client_options
---@field transport string "tcp", "local"
---@field hosts {host: string?, port: integer?, path: string?}[]
---@field connections integer per host
---@field name string? local: the server's name
---@field tls perigee.core.tls?
---@field connect_timeout integer ms
---@field max_buffer_size integer UTF-16 units of one inbound frame
---@field max_send_buffer_size integer bytes queued for one peer
---@field incomplete_message_timeout integer ms
---@field max_pending integer calls in flight
---@field max_waiting integer calls waiting for a connection

---@class perigee.core.tls
---@field ca string?
---@field cert string?
---@field key string?
---@field server_name string?
---@field verify boolean

---Dials nothing yet. on_event(name, detail): "status" with "connected" | "disconnected", "error" with a message.
---@param options perigee.core.client_options
---@param on_event fun(name: string, detail: any)
---@return perigee.core.client?
---@return string? code
---@return string? message
function core.client(options, on_event) end

---@class perigee.core.client
local client = {}

---Sends a request. on_packet(observer, kind, value, message) follows, never before send returns:
---VALUE value | LAST value | END | ERROR err (decoded) | FAIL code, message. After LAST, END, ERROR, FAIL nothing more comes.
---An absent `response` arrives as core.null.
---@param pattern string|table JSON text, or a table to encode
---@param data any value to encode, or a slice
---@param observer any handed back; kept alive by the call
---@param on_packet fun(observer: any, kind: integer, value: any, message: string?)
---@param raw boolean values are slices instead of decoded
---@param timeout_ms number|false silence
---@param deadline_ms number|false total
---@param metadata any? encoded when not nil
---@return integer? call
---@return string? code
---@return string? message
---@param _ any what custom wires take the pattern from
---@param headers string[]? flat: name, value, ...
---@param options string[]? of this message, flat likewise
function client:send(pattern, data, observer, on_packet, raw, timeout_ms, deadline_ms, metadata, _, headers, options) end

---Makes what sends a request for the coroutine `co`, which must be the one that runs, and yields `token` until resumed;
---then it returns what with. Packets come to the hook `awaited(task, kind, value, message)`, as those of send; task[1]
---is the call meanwhile. When co is not what runs, or may not yield, nothing is sent and nothing returned; nil, code,
---message when it is refused.
---@param token any
---@return fun(pattern, data, task: table, co: thread, timeout_ms, raw, deadline_ms, metadata, headers, options): any, any, string?
function client:asker(token) end

---Sends an event. done: it was handed to the wire; else on_packet(observer, END) or (observer, FAIL, code, message)
---follows.
---@return boolean? ok
---@return boolean|string done or code
---@return string? message
---@param timeout_ms number|false? of a broker's acknowledgement, where one is waited for
function client:emit(pattern, data, observer, on_packet, metadata, _, headers, options, timeout_ms) end

---For custom serialisers: send and emit of a packet made elsewhere; make(id) returns the value for the wire, id is nil
---for an event. Results and callbacks as those of send and emit.
---@param make fun(id: string?): any
---pattern: JSON text.
---@param make fun(id: string?): any
function client:send_made(make, observer, on_packet, timeout_ms, deadline_ms, pattern, headers, options) end
function client:emit_made(make, observer, on_packet, pattern, headers, options, timeout_ms) end

---For custom deserialisers (option raw_packets: on_event("packet", text)): who waits for that id; last ends the call.
---@param id string
---@param last boolean
---@return function? on_packet nil: nobody
---@return any observer
function client:take(id, last) end

---Forgets the call: nothing is called for it any more.
---@param call integer
function client:cancel(call) end

---Opens one connection unless one is open. Results and callback as those of emit.
---@return boolean? ok
---@return boolean|string done or code
---@return string? message
function client:connect(observer, on_packet) end

---Fails what is pending with CONNECTION_CLOSED; on_done() after the last handle has closed.
function client:close(on_done) end

---@return { state: string, hosts: { address: string, state: string, pending: integer, connections: integer }[], late_replies: integer, waiting: integer, waiting_bytes: integer, dropped_events: integer, reconnects: integer }
function client:status() end

---Requests in flight that were passed on without Lua.
---@return integer
function client:forwards() end

---Seconds until the certificate of a listener's options expires, negative afterwards; nil when it cannot be used.
---@param options { tls: table }
---@return number? seconds
---@return string? code
---@return string? message
function core.tls_left(options) end

---64 hex digits.
---@param text string
---@return string
function core.sha256(text) end

---A request's number is generation * SLOTS + slot.
core.SLOTS = 0 ---@type integer

-- Message servers -----------------------------------------------------------

---@class perigee.core.server_options
---@field transport string "tcp", "local"
---@field host string?
---@field port integer?
---@field path string?
---@field name string?
---@field tls perigee.core.tls?
---@field max_buffer_size integer
---@field max_send_buffer_size integer
---@field incomplete_message_timeout integer
---@field write_timeout integer ms without progress
---@field max_connections integer

---@class perigee.core.server_events
---@field on_message fun(req: integer?, pattern: string?, has_data: boolean, metadata: string?) req nil: an event. pattern, metadata: JSON texts, nil when absent; the data is what server:data() and server:value() give meanwhile
---@field on_gone fun(req: integer) the peer left before the answer was complete
---@field on_close fun() after close or drain: everything is closed
---@field on_fault fun(message: string, peer: string) a peer was cut for breaking the protocol
---@field on_status? fun(status: "ready"|"failed"|"lost"|"reconnected", code: string, message: string) over a broker; on_message then has more: subscription, channel, headers (a table), is_event

---Binds and listens at once; over a broker it dials, and ready is false until on_status says so.
---@param options perigee.core.server_options
---@param events perigee.core.server_events
---@return perigee.core.server?
---@return boolean|string ready or code
---@return string? message "listen EADDRINUSE 127.0.0.1:3000"
function core.server(options, events) end

---@class perigee.core.server
local server = {}

---No new peers while held.
function server:hold(held) end

---kind VALUE, LAST, END, ERROR. VALUE is held until the end of the turn so that END can be merged into it (nest-wire 1.7).
---@return boolean? ok
---@return string? code "CLOSED", "INVALID_MESSAGE"
---@return string? message
function server:reply(req, kind, value) end

---The no-handler packet.
function server:no_handler(req) end

---Relays the request to a client in C: packets pass through untouched, failures become error packets.
---@param req integer
---@param to perigee.core.client
---@param pattern string JSON text
---@param data string JSON text
---@param timeout_ms number|false
---@param metadata string? JSON text
---@param headers string[]? flat: name, value, ...
function server:forward(req, to, pattern, data, timeout_ms, metadata, headers) end

---Over a broker: what is heard from now on, the whole list; on_message tells the place in it.
---@param list { route: string, settings: table<string, any>? }[]
---@param only_check? boolean nothing changes
---@return boolean? ok
---@return string? code
---@return string? message
function server:subscribe(list, only_check) end
---The word about an event whose broker wants one: handled, or not.
---@param ok boolean
function server:settle(req, ok) end

---Inside on_message: the JSON text of the message's data, nil when absent; and its value, or nil and why it cannot be
---decoded.
---@return string?
function server:data() end
---@return any
---@return string? message
function server:value() end

---@param req integer? nil: of the message being delivered, inside on_message
---@return string address
function server:peer(req) end
function server:address() end
---Stops accepting; connections close when their last request is answered; then on_close.
function server:drain() end
function server:close() end

-- HTTP ----------------------------------------------------------------------

---@class perigee.core.http_events
---@field on_request fun(req: integer, method: string, path: string, query: string?, has_body: boolean)
---@field on_abort fun(req: integer) the peer left before the answer
---@field on_close fun()

---options: host, port, path, tls, and limits named as in core/front/http_server.h.
---@param options table
---@param events perigee.core.http_events
---@return perigee.core.http?
---@return string? code
---@return string? message
function core.http(options, events) end

---@class perigee.core.http
local http = {}

---@return table<string, string>? lower-case name to value; repeated ones joined by ", " (cookie by "; "); nil once answered
function http:headers(req) end
---@return string? the bytes of the body; nil: there are none, or the request is answered or forwarded
function http:body(req) end
---@return string address of the peer
function http:peer(req) end
---A header with a number for the replies to all requests to come, or only for that of req. 0: none.
---@param name string
---@param number integer
---@param req integer?
function http:stamp(name, number, req) end
---No new connections while held.
function http:hold(held) end

---headers: flat list { name, value, ... } or nil. body: string, text unless the headers have a type, or nil for none.
---@return boolean? ok
---@return string? message why status or a header is not allowed: nothing was sent
function http:reply(req, status, headers, body) end
---Encodes value (or copies a slice): JSON, also by its type unless the headers have one.
---@return boolean? ok
---@return string? message
function http:reply_json(req, status, headers, value) end
---RFC 9457 problem.
function http:problem(req, status, detail, retry_after, headers) end
function http:begin(req, status, headers) end
function http:chunk(req, text) end
function http:finish(req) end
function http:fail(req) end

---perigee.to in C: raw body in, raw reply out.
---@param timeout_ms number|false
---@param on_error fun(code: string, message: string) for the log, when the answer was a failure
---@return boolean? ok
---@return string? message "CLOSED", or why the body is not JSON: nothing was answered yet
function http:forward(req, to, pattern, timeout_ms, on_error) end

---One connection without a socket, whose peer sends these bytes and reads what comes; on_end(bytes) once it is closed,
---never before inject returns. For tests, with option `memory`: a server that listens nowhere.
---@param bytes string
---@param on_end fun(bytes: string)
---@return boolean? ok
---@return string? code "CLOSED"
function http:inject(bytes, on_end) end

function http:address() end
---@return { connections: integer, requests: integer, refused: integer, open: integer, active: integer }
function http:stats() end
function http:drain() end
function http:close() end

return core
