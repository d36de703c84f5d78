---@meta

---@alias perigee.HttpHandler fun(req: perigee.Request, ctx: perigee.Context): any
---@alias perigee.MessageHandler fun(data: any, ctx: perigee.Context): any
---@alias perigee.Middleware fun(input: any, ctx: perigee.Context, next: fun(): any): any

---@class perigee.App
---@field state table the script's own, carried over a reload
local App = {}

---Clients by name; nothing is dialled before the first call.
---@param list perigee.ClientEntry[]|{ clients: perigee.ClientEntry[] }
function App:clients(list) end

---Clients whose options a function gives when the app starts; it may await.
---@param list perigee.AsyncEntry[]|{ clients: perigee.AsyncEntry[] }
function App:clients_async(list) end

---A value by name, or the function that makes it, once.
---@param token any
---@param value any
function App:provide(token, value) end

---A client's handle, or a provided value.
---@param token any
---@return any
function App:inject(token) end

---Puts a fake behind a token, also for handlers that already hold its handle.
---@param token any
---@param fake any pattern -> value or function(data), an object with send and emit, or the other value
function App:override(token, fake) end

---Around every handler, in order; `next()` runs the rest and returns its result.
---@param fn perigee.Middleware
function App:use(fn) end

---@param path string "/orders/:id", "/files/*rest"
---@param handler perigee.HttpHandler
function App:get(path, handler) end

---@param path string
---@param handler perigee.HttpHandler
function App:post(path, handler) end

---@param path string
---@param handler perigee.HttpHandler
function App:put(path, handler) end

---@param path string
---@param handler perigee.HttpHandler
function App:patch(path, handler) end

---@param path string
---@param handler perigee.HttpHandler
function App:delete(path, handler) end

---@param path string
---@param handler perigee.HttpHandler
function App:head(path, handler) end

---@param path string
---@param handler perigee.HttpHandler
function App:options(path, handler) end

---@param path string
---@param handler perigee.HttpHandler
function App:any(path, handler) end

---Answers requests. A second one for the same pattern is refused.
---@param pattern perigee.Pattern
---@param handler perigee.MessageHandler
---@param opts? perigee.HandlerOptions
function App:message(pattern, handler, opts) end

---Hears events. Several for one pattern all run.
---@param pattern perigee.Pattern
---@param handler perigee.MessageHandler
---@param opts? perigee.HandlerOptions
function App:event(pattern, handler, opts) end

---Passes messages and events on, untouched.
---@param pattern perigee.Pattern|perigee.AnyPattern
---@param client perigee.Client|perigee.Handle
---@param opts? { to?: perigee.Pattern, transport?: string, queue?: string } another pattern; the rest as for `message`
function App:forward(pattern, client, opts) end

---Adds a listener; it opens when the app starts. Port 0 takes a free one, see `addresses`.
---@param url string|perigee.Strategy a URL, or a listener written in Lua
---@param opts? perigee.ListenerOptions
function App:listen(url, opts) end

---Runs before the listeners accept, in order; may await. A raise refuses the start.
---@param fn fun(app: perigee.App)
function App:on_start(fn) end

---Runs after the listeners have drained and before the clients close; may await.
---@param fn fun(app: perigee.App)
function App:on_stop(fn) end

---Hands the state of the version before over; what it returns is the new `app.state`.
---@param fn fun(old_state: table): table?
function App:on_reload(fn) end

---Settles when all listeners accept.
---@return perigee.Promise
function App:start() end

---Drains, runs the on_stop hooks, closes the clients.
---@param opts? { drain_timeout: integer? } ms, 30000 by default
---@return perigee.Promise
function App:stop(opts) end

---URLs of the open listeners, with the ports they were given.
---@return string[]
function App:addresses() end

---A client's options, with the token as `name`; the local transport's server may then be `server`.
---@alias perigee.ClientEntry perigee.ClientOptions|{ name: any, server: string? }

---@class perigee.AsyncEntry
---@field name any the token
---@field inject? any[] tokens, handed to the factory
---@field use_factory fun(...: any): perigee.ClientOptions|string|perigee.Promise

---@class perigee.HandlerOptions
---@field transport? string only on listeners of that transport
---@field queue? string NATS: of the instances in one queue one gets a message

---What an HTTP handler gets.
---@class perigee.Request
---@field method string
---@field path string as sent, undecoded
---@field params table<string, string> percent-decoded
---@field query table<string, string|string[]> a repeated key makes a list
---@field headers table<string, string> lower-case names
---@field peer string address
---@field raw perigee.Slice the body, known to be JSON; reading it raises a 400 when it is not
local Request = {}

---@return string "" when there is none
function Request:body() end

---The body decoded, whatever its content type. Raises a 400 when it is empty or broken.
---@return any
function Request:json() end

---What is known of a message or a request besides its data.
---@class perigee.Context
---@field pattern string as received: a text, or the JSON of anything else; of a request its method and route
---@field transport string
---@field metadata table
---@field headers table<string, string|string[]> names as they came; a list where one repeats
---@field raw perigee.Slice? the data
---@field peer string address
---@field deadline? number
---@field cancelled boolean the peer has gone
local Context = {}

---Where a broker has acknowledgements, as JetStream; else it raises UNSUPPORTED. What the handler does later changes
---nothing.
function Context:ack() end

---Again, later.
function Context:nack() end

---@class perigee.Response
---@field status? integer 200, or 204 without a body
---@field headers? table<string, string|number|(string|number)[]> a list sends the header several times
---@field body? any a text as it is, else JSON; a Reply or Promise is waited for

---A listener written in Lua.
---@class perigee.Strategy
---@field name? string as handlers name it in `transport`
---@field add_handler fun(self: perigee.Strategy, pattern: any, fn: fun(data: any, fields: table?): perigee.Reply, is_event: boolean, extras: table)
---@field listen fun(self: perigee.Strategy): perigee.Promise?
---@field close? fun(self: perigee.Strategy): perigee.Promise?

---A transport written in Lua.
---@class perigee.LuaTransport
---@field connect fun(): any may return a Promise; called once, before the first message
---@field publish fun(packet: table, callback: fun(packet: any)): fun()? returns what cancels it
---@field emit? fun(packet: table): any may return a Promise; without it events fail
---@field close? fun(): any may return a Promise
