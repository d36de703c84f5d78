---@meta perigee.testing

---@class perigee.testing
---@field clock perigee.testing.Clock
local testing = {}

---Loads a routing script for this test: fresh, no listener opened, no connection made. Its app starts with the first
---request, message or event, and is stopped at the end of the test.
---@param path string
---@return perigee.testing.Subject
function testing.load(path) end

---An answer that never comes: as a fake's value, or returned by its function.
---@return perigee.Promise
function testing.never() end

---How long a test may take in real time: this one, or all that follow in the file. 10000 at first.
---@param ms integer
function testing.limit(ms) end

---The time of sleeps, timeouts and deadlines: it moves when everything waits.
---@class perigee.testing.Clock
local clock = {}

---@return number ms since the test began
function clock.now() end

---Lets that much time pass, and everything run that it brings.
---@param ms number
function clock.advance(ms) end

---A script under test.
---@class perigee.testing.Subject
---@field path string
---@field app perigee.App
local Subject = {}

---Answers for a client, by its name in the app, or by its URL when the script made it itself: pattern -> a value, a
---Reply, `testing.never`, or a function(data, opts) that returns or raises. Replaces what was said before.
---@param name any
---@param answers table<any, any>
---@return perigee.testing.Subject self
function Subject:fake(name, answers) end

---What that client was asked and told, in order.
---@param name any
---@param pattern? perigee.Pattern only these
---@return perigee.testing.Call[]
function Subject:calls(name, pattern) end

---The last call with that pattern, and with that data when it is given. Raises when there is none.
---@param name any
---@param pattern perigee.Pattern
---@param data? any
---@return perigee.testing.Call
function Subject:called(name, pattern, data) end

---Runs the factories and the on_start hooks. Asked again, nothing.
---@return perigee.testing.Subject self
function Subject:start() end

---Drains, runs the on_stop hooks, cancels what the app had started for itself. At the latest at the test's end.
function Subject:stop() end

---An HTTP request, without a socket; waits for the reply.
---@param request perigee.testing.Request
---@return perigee.testing.Response
function Subject:request(request) end

---A request from a peer; waits for the end of its answer.
---@param pattern perigee.Pattern
---@param data any
---@param options? perigee.testing.MessageOptions
---@return perigee.testing.Answer
function Subject:message(pattern, data, options) end

---An event from a peer. Returns when its handlers have done what takes no time.
---@param pattern perigee.Pattern
---@param data any
---@param options? perigee.testing.MessageOptions
function Subject:event(pattern, data, options) end

---What was logged since the script was loaded.
---@return { level: string, text: string }[]
function Subject:logs() end

---@class perigee.testing.Request
---@field method? string GET, or POST with a body
---@field path string with its query
---@field headers? table<string, string|number|(string|number)[]>
---@field body? string as it is
---@field json? any encoded as the body, with its content type

---@class perigee.testing.Response
---@field status integer
---@field headers table<string, string|string[]> lower-case names; of a repeated one the list
---@field body string "" without one
local Response = {}

---The body decoded. Raises INVALID_MESSAGE when it is not JSON.
---@return any
function Response:json() end

---@class perigee.testing.MessageOptions
---@field transport? string which listener it comes to; the first
---@field metadata? table
---@field timeout? number ms of silence; none

---@class perigee.testing.Answer
---@field value any the last value
---@field values any[]
---@field err any what the peer sees as its `err`; nil when all went well

---@class perigee.testing.Call
---@field kind "send"|"emit"
---@field pattern any
---@field data any as the peer decodes it
---@field metadata table? as the peer decodes it
---@field at number ms of the clock since the test began

return testing
