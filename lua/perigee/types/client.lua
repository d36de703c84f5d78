---@meta

---@class perigee.CallOptions
---@field timeout? number|false ms of silence: until the first value, then between values
---@field deadline? number|false ms in all
---@field metadata? table<string, any>
---@field headers? table<string, string|string[]> where the transport carries them
---@field jetstream? boolean NATS: the event waits for the stream that stores it

---@class perigee.Client
local Client = {}

---Asks: nothing is sent until somebody waits for the Reply, and then once for each who does.
---@param pattern perigee.Pattern
---@param data any not nil, not null
---@param opts? perigee.CallOptions
---@return perigee.Reply
function Client:send(pattern, data, opts) end

---Tells: leaves now. The Promise settles when the event is handed to the wire, or acknowledged where a broker does.
---@param pattern perigee.Pattern
---@param data any not nil, not null
---@param opts? perigee.CallOptions
---@return perigee.Promise
function Client:emit(pattern, data, opts) end

---Opens a connection now instead of with the first call.
---@return perigee.Promise
function Client:connect() end

---Fails what is pending with CONNECTION_CLOSED. Settles when the last handle has closed; a later call opens anew.
---@return perigee.Promise
function Client:close() end

---@param event "status"|"connect"|"disconnect"|"error"
---@param fn fun(detail: any)
---@return perigee.Client self
function Client:on(event, fn) end

---@return perigee.Status
function Client:status() end

---What is underneath. Raises before the first connection, as Nest does.
---@return any
function Client:unwrap() end

---fn(packet) before each message; it may set packet.metadata. What it raises fails that call.
---@param fn fun(packet: { pattern: any, data: any, metadata: table? })
---@return perigee.Client self
function Client:on_dispatch(fn) end

---@class perigee.Status
---@field state "connected"|"disconnected"|string
---@field hosts { address: string, state: string, pending: integer }[]

---A client by its name in the app: which one is looked up at each call.
---@class perigee.Handle: perigee.Client

--- Replies ------------------------------------------------------------------------------------------------------

---Cold: sends nothing until someone waits, and asks anew for each who does.
---@class perigee.Reply
local Reply = {}

---Asks, and returns the last value (nil when there was none), or raises the error.
---@return any
function Reply:await() end

---Asks; the callbacks see the last value or the error.
---@param on_value? fun(value: any): any
---@param on_error? fun(err: perigee.Error): any
---@return perigee.Promise
function Reply:next(on_value, on_error) end

---Asks.
---@param fn fun(err: perigee.Error): any
---@return perigee.Promise
function Reply:catch(fn) end

---Asks.
---@param fn fun(): any
---@return perigee.Promise
function Reply:finally(fn) end

---Asks; the first value, then the call is cancelled. nil when there is none.
---@return perigee.Promise
function Reply:first() end

---Asks; the last value, nil when there is none.
---@return perigee.Promise
function Reply:last() end

---Asks; the list of all values.
---@return perigee.Promise
function Reply:collect() end

---Asks, and calls back for each value and the end. A raise in a callback is logged and the stream goes on.
---@param callbacks perigee.Callbacks|fun(value: any)
---@return perigee.Subscription
function Reply:subscribe(callbacks) end

---An iterator: `for value in reply:values() do`. Asks at its first step; raises the error.
---@return perigee.Iterator
function Reply:values() end

---@param f fun(value: any): any
---@return perigee.Reply
function Reply:map(f) end

---@param f fun(value: any): any
---@return perigee.Reply
function Reply:filter(f) end

---@param f fun(value: any)
---@return perigee.Reply
function Reply:tap(f) end

---Without a seed it starts with the first value.
---@param f fun(total: any, value: any): any
---@param seed? any
---@return perigee.Reply
function Reply:scan(f, seed) end

---@param f fun(total: any, value: any): any
---@param seed? any
---@return perigee.Reply
function Reply:reduce(f, seed) end

---@param n integer 0 or more
---@return perigee.Reply
function Reply:take(n) end

---Fails with TIMEOUT after that much silence; replaces the client's own limit.
---@param ms number|false false: no limit
---@return perigee.Reply
function Reply:timeout(ms) end

---For when there is no value.
---@param value any
---@return perigee.Reply
function Reply:default(value) end

---What f returns ends the stream with it, a Reply or Promise goes on with it, a raise replaces the error.
---@param f fun(err: perigee.Error): any
---@return perigee.Reply
function Reply:catch_error(f) end

---Asks again when the request fails. A number: so many times, at once.
---@param options integer|perigee.RetryOptions
---@return perigee.Reply
function Reply:retry(options) end

---The values undecoded.
---@return perigee.Reply
function Reply:raw() end

---@class perigee.RetryOptions
---@field attempts? integer retries after the first request; 3
---@field backoff? number ms before the first retry; 0
---@field factor? number each further wait is longer by this; 2
---@field jitter? number 0 to 1: waits vary by up to this part of themselves, both ways; 0
---@field on? perigee.ErrorCode[]|string[]|fun(err: perigee.Error): boolean which errors; any

---@class perigee.Callbacks
---@field next? fun(value: any)
---@field error? fun(err: perigee.Error)
---@field complete? fun()

---@class perigee.Subscription
---@field closed boolean
local Subscription = {}

---Cancels the call. No callback follows.
function Subscription:unsubscribe() end

---@class perigee.Iterator
---@overload fun(): any
local Iterator = {}

---Cancels the call; the iteration is over.
function Iterator:close() end

---What a producer of `perigee.reply` holds.
---@class perigee.Sink
---@field closed boolean nobody listens any more
local Sink = {}

---@param value any
function Sink:next(value) end

---@param err any
function Sink:error(err) end

function Sink:complete() end

--- Promises -----------------------------------------------------------------------------------------------------

---@class perigee.Promise
local Promise = {}

---Waits and returns the value, or raises the error. Outside a coroutine it runs the loop.
---@return any
function Promise:await() end

---@param on_value? fun(value: any): any
---@param on_error? fun(err: perigee.Error): any
---@return perigee.Promise
function Promise:next(on_value, on_error) end

---@param fn fun(err: perigee.Error): any
---@return perigee.Promise
function Promise:catch(fn) end

---@param fn fun(): any
---@return perigee.Promise
function Promise:finally(fn) end

---Rejects with TIMEOUT, and cancels what it waits for, when that takes longer.
---@param ms number|false false: no limit
---@return perigee.Promise
function Promise:timeout(ms) end

---Rejects with CANCELLED now, and cancels the work behind it. Nothing when already settled.
function Promise:cancel() end
