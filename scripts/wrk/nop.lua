-- Calls `nop`, which answers nothing.
-- Purpose: what one call over HTTP costs.
-- Needs:   wrk 4, a gateway that serves `nop`.
-- Effects: load on the gateway; prints one line, see report.lua.
-- Usage:   wrk -t1 -c64 -d5s -s scripts/wrk/nop.lua http://127.0.0.1:8080

package.path = debug.getinfo(1, "S").source:match("^@(.-)[^/]*$") .. "?.lua;" .. package.path
local report = require("report")
report.install()

function init()
   local call = report.call("nop", nil)
   function request() return call end
end
