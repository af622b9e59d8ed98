-- Calls `echo` with a payload of the size asked for, 1 KiB by default.
-- Purpose: what a call costs as its payload grows.
-- Needs:   wrk 4, a gateway that serves `echo`.
-- Effects: load on the gateway; prints one line, see report.lua.
-- Usage:   wrk -t1 -c64 -d5s -s scripts/wrk/echo.lua http://127.0.0.1:8080 -- 65536

package.path = debug.getinfo(1, "S").source:match("^@(.-)[^/]*$") .. "?.lua;" .. package.path
local report = require("report")
report.install()

function init(args)
   local call = report.call("echo", string.rep("x", report.number(args, 1, 1024)))
   function request() return call end
end
