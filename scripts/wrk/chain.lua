-- Calls `chain`, which makes internal calls one after the other: 10 of 1 KiB by default.
-- Purpose: what internal calls cost when they ride on calls over HTTP.
-- Needs:   wrk 4, a gateway that serves `chain` and `echo`.
-- Effects: load on the gateway; prints one line, see report.lua.
-- Usage:   wrk -t1 -c64 -d5s -s scripts/wrk/chain.lua http://127.0.0.1:8080 -- 10 1024

package.path = debug.getinfo(1, "S").source:match("^@(.-)[^/]*$") .. "?.lua;" .. package.path
local report = require("report")
report.install()

function init(args)
   local n, size = report.number(args, 1, 10), report.number(args, 2, 1024)
   local call = report.call("chain", string.format('{"n": %d, "size": %d}', n, size))
   function request() return call end
end
