-- What the load scripts share: where they find this file, what they print at the end.
-- Purpose: one line that people read and scripts parse, the same for every load.
-- Needs:   wrk 4. Loaded by the scripts beside it, not by wrk itself.
-- Effects: none but the printed line:
--          report p50_us=61 p99_us=95 p999_us=140 rps=15000 requests=45000 errors=0
--
-- wrk waits for an answer before it sends again, so a stall shows in one sample a connection:
-- these are latencies at the pace the server allows, not at an offered rate.

local report = {}

-- Makes `done`, which wrk calls once when the load is over.
function report.install()
   function done(summary, latency)
      local errors = summary.errors
      local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
      io.write(string.format(
         "report p50_us=%d p99_us=%d p999_us=%d rps=%d requests=%d errors=%d\n",
         latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
         summary.requests / (summary.duration / 1e6), summary.requests, failed))
   end
end

-- A call of the function `name` with `body`, as text for the socket.
function report.call(name, body)
   return wrk.format("POST", "/function/" .. name, nil, body)
end

-- The n-th argument behind "--" as a whole number, or `default`.
function report.number(args, n, default)
   local text = args[n]
   if text == nil then return default end
   local number = tonumber(text)
   if number == nil or number < 0 or number ~= math.floor(number) then
      error("expected a whole number, got " .. text, 0)
   end
   return number
end

return report
