-- For wrk: posts one order again and again, and tells in the end how it went, as a line of its own.
-- With BENCH_CHECK=1 it looks at every answer, which costs wrk time: the runner does so before it measures.
-- luacheck: globals wrk setup response done refused odd first_body

local BODY = '{"orderId":"ord_42","amount":1999,"currency":"EUR","customer":"cus_9f3b21","paid":false,"lines":[1,2,3]}'

wrk.method = "POST"
wrk.body = BODY
wrk.headers["Content-Type"] = "application/json"

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

if os.getenv("BENCH_CHECK") == "1" then
  refused, odd, first_body = 0, 0, ""

  function response(status, _, body)
    if status ~= 200 and status ~= 201 then refused = refused + 1 end
    if first_body == "" then first_body = body end
    if body ~= first_body then odd = odd + 1 end
  end
end

function done(summary, latency)
  local errors = summary.errors
  local thread = threads[1]
  io.write(("bench requests=%d us=%d bytes=%d failed=%d p50=%d p99=%d refused=%d odd=%d\n"):format(
    summary.requests, summary.duration, summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99), thread:get("refused") or 0, thread:get("odd") or 0))
  io.write("bench sent ", BODY, "\n")
  io.write("bench body ", thread:get("first_body") or "", "\n")
end
