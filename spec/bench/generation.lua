-- For wrk: looks at each answer for its generation, which its stamp and its body must agree on.
-- luacheck: globals setup response done odd

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

odd = 0

function response(status, headers, body)
  local stamp = headers["perigee-generation"]
  if status ~= 200 or not stamp or body ~= '{"generation":' .. stamp .. "}" then odd = odd + 1 end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(("bench requests=%d failed=%d p50=%d p99=%d odd=%d\n"):format(summary.requests,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout, latency:percentile(50),
    latency:percentile(99), threads[1]:get("odd")))
end
