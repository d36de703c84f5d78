---@meta perigee
-- perigee for editors: what scripts see, checked against the real thing by spec/types_spec.lua. Point the library
-- setting of your language server (LuaLS: workspace.library) at this folder.

---@class perigee
---@field _VERSION string
---@field any_pattern perigee.AnyPattern for `app:forward`: what no other handler takes
---@field json perigee.json
---@field null perigee.Null JSON's null; it is truthy: compare with it
local perigee = {}

---@class perigee.Null
---@class perigee.AnyPattern
---@class perigee.Slice JSON as it came, undecoded: pass it on as data, return it, or turn it into text with tostring

---@alias perigee.Pattern string|table<string, any>|number|boolean as in Nest: a text, or an object

--- Making clients and apps --------------------------------------------------------------------------------------

---A client of one service. Dials nothing before the first call.
---@param spec string|perigee.ClientOptions a URL, or Nest's options in snake_case
---@return perigee.Client
function perigee.client(spec) end

---@return perigee.App
function perigee.app() end

---An HTTP handler: the body goes to the service untouched, its answer comes back untouched.
---@param client perigee.Client|perigee.Handle
---@param pattern perigee.Pattern
---@return perigee.HttpHandler
function perigee.to(client, pattern) end

---A reply with a status and headers, for an HTTP handler to return.
---@param fields perigee.Response
---@return perigee.Response
function perigee.response(fields) end

--- Waiting ------------------------------------------------------------------------------------------------------

---All values, in order. The first failure rejects and cancels the rest.
---@param list any[] Promises, Replies (asked at once, last value), plain values
---@return perigee.Promise
function perigee.all(list) end

---The first value; the rest is cancelled. When all fail: the last failure's code, and `errors` in the list's order.
---@param list any[]
---@return perigee.Promise
function perigee.any(list) end

---The first outcome, good or bad; the rest is cancelled.
---@param list any[]
---@return perigee.Promise
function perigee.race(list) end

---All outcomes, in order; never rejects: a list of { status = "fulfilled", value = } or { status = "rejected", reason = }.
---@param list any[]
---@return perigee.Promise
function perigee.settled(list) end

---fn(value, index) for each item, in coroutines; the results in order. The first failure rejects and cancels the rest.
---@param list any[]
---@param fn fun(value: any, index: integer): any
---@param options? { concurrency?: integer } 64
---@return perigee.Promise
function perigee.map(list, fn, options) end

---Starts fn(...) in a coroutine now; the Promise of its first result. Cancelling it raises CANCELLED in fn. A child of
---the coroutine that starts it: inherits its deadline, is cancelled with it, may outlive its end.
---@param fn fun(...: any): any
---@param ... any
---@return perigee.Promise
function perigee.async(fn, ...) end

---As async, but nobody's child, and a failure nobody looks at is logged at once.
---@param fn fun(...: any): any
---@param ... any
---@return perigee.Promise
function perigee.spawn(fn, ...) end

---Runs fn(...) as async does, for so long at most: then it rejects with TIMEOUT, and what runs is cancelled. No send
---inside, whatever its own limits, lasts longer.
---@param ms number
---@param fn fun(...: any): any
---@param ... any
---@return perigee.Promise
function perigee.deadline(ms, fn, ...) end

---Runs fn(saga) as async does. When it raises, or is cancelled, what its steps have done is undone, the last one first.
---@param fn fun(saga: perigee.Saga): any
---@param options? { undo_timeout?: number } ms for each undo, 5000
---@return perigee.Promise of what fn returns
function perigee.saga(fn, options) end

---@class perigee.Saga
local Saga = {}

---Does something and returns what it comes to, or raises. When the saga fails later, undo_step(value) takes it back.
---@param name string for errors and logs
---@param action fun(): any a Promise or Reply is waited for
---@param undo_step? fun(value: any): any the same
---@return any value
function Saga:step(name, action, undo_step) end

---Says how to take back what is not done yet: for a request that may have had its effect although it failed.
---@param name string
---@param undo_step fun(): any
function Saga:undo(name, undo_step) end

---@param ms number
---@return perigee.Promise
function perigee.sleep(ms) end

--- Making Promises, Replies, errors, values ---------------------------------------------------------------------

---Runs the executor now. A raise in it rejects; a function it returns is called on cancel.
---@param executor fun(resolve: fun(value: any), reject: fun(err: any)): fun()?
---@return perigee.Promise
function perigee.promise(executor) end

---A Reply of these values.
---@param ... any
---@return perigee.Reply
function perigee.of(...) end

---A Reply of a list's values, an iterator's (which may await), or a Promise's.
---@param source any[]|function|perigee.Promise|perigee.Reply
---@return perigee.Reply
function perigee.from(source) end

---A Reply made by hand: the producer runs for each request. What it returns is called when the rest is not wanted.
---@param producer fun(sink: perigee.Sink): fun()?
---@return perigee.Reply
function perigee.reply(producer) end

---An error to raise: with `status` out of an HTTP handler, with `message` or `code` out of a message handler.
---@param fields perigee.ErrorFields
---@return perigee.Error
function perigee.error(fields) end

---Marks the table as a list, so that an empty one is written as [].
---@generic T: table
---@param list? T
---@return T
function perigee.array(list) end

---@class perigee.json
---@field null perigee.Null
local json = {}

---Raises INVALID_MESSAGE for what JSON cannot say.
---@param value any
---@return string
function json.encode(value) end

---Raises INVALID_MESSAGE with the position of the fault.
---@param text string|perigee.Slice
---@return any
function json.decode(text) end

---@generic T: table
---@param list? T
---@return T
function json.array(list) end

--- Errors -------------------------------------------------------------------------------------------------------

---@alias perigee.ErrorCode
---| "TIMEOUT" no answer in time
---| "CONNECT_FAILED" the peer cannot be reached
---| "CONNECTION_CLOSED" lost, or closed by us, with the call in flight
---| "REMOTE" the peer answered with an error: `err`
---| "NO_HANDLER" nobody answers that pattern
---| "INVALID_MESSAGE" nothing to send, or what JSON cannot say
---| "CANCELLED" by cancel, unsubscribe, a lost race
---| "BAD_FRAME" the peer breaks the protocol
---| "FRAME_TOO_LARGE" above the limits
---| "OVERLOADED" above the bounds of calls or bytes
---| "UNSUPPORTED" not possible here
---| "INVALID_OPTION" a mistake of the caller
---| "LISTEN_FAILED" a port in use
---| "SCRIPT" a text or a fault raised in Lua: `traceback`

---@class perigee.ErrorFields
---@field code? perigee.ErrorCode|string
---@field message? string
---@field status? integer of the HTTP reply
---@field cause? any what made it happen

---@class perigee.Error: perigee.ErrorFields
---@field err? any what the peer sent, for REMOTE
---@field traceback? string where it was raised, for SCRIPT
---@field errors? any[] all failures, from `any`
---@field failures? { step: string, error: any }[] what a saga could not undo

return perigee
