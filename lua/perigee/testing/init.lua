--- Specs of routing scripts, offline: fake peers, requests without sockets, a clock that moves when everything waits.
--- `perigee test` runs them; under plain busted they run as well.

local peer = require("perigee.testing.peer")
local promise = require("perigee.promise")
local session = require("perigee.testing.session")
local subject = require("perigee.testing.subject")
local combinators = require("perigee.combinators")

---@class perigee.testing
local testing = { never = peer.never, limit = session.set_limit }

---@class perigee.testing.Clock
testing.clock = {}

--- ms since the test began. `os.time` and `os.clock` are not concerned.
---@return number
function testing.clock.now()
  return session.get():now()
end

--- Lets that much virtual time pass, and everything run that it brings.
---@param ms number
function testing.clock.advance(ms)
  promise.check_ms("advance", ms)
  combinators.sleep(ms):await()
end

--- Loads a routing script: fresh, no listener opened, no connection made.
---@param path string
---@return perigee.testing.Subject
function testing.load(path)
  return subject.load(path, session.get())
end

session.install()

return testing
