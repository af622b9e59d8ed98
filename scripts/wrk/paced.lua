-- Calls `nop` at a constant rate on one connection.
-- Purpose: what a call takes at a rate below capacity, as wrk sees it: from the moment of sending.
-- Needs:   wrk 4 built with LuaJIT; -t1 -c1, and a rate that one connection can reach.
-- Effects: load on the gateway, and one core that spins until each request is due, since wrk's own
--          delays count whole milliseconds; prints one line, see report.lua.
-- Usage:   wrk -t1 -c1 -d5s -s scripts/wrk/paced.lua http://127.0.0.1:8080 -- RATE

package.path = debug.getinfo(1, "S").source:match("^@(.-)[^/]*$") .. "?.lua;" .. package.path
local report = require("report")
report.install()

local ffi = require("ffi")
ffi.cdef [[
   struct paced_time { long seconds; long nanoseconds; };
   int clock_gettime(int clock, struct paced_time *time);
]]
local monotonic = 1
local time = ffi.new("struct paced_time")

local function now_us()
   ffi.C.clock_gettime(monotonic, time)
   return tonumber(time.seconds) * 1e6 + tonumber(time.nanoseconds) / 1e3
end

function init(args)
   local call = report.call("nop", nil)
   local interval_us = 1e6 / tonumber(args[1])
   local due_us = now_us()
   function request()
      due_us = due_us + interval_us
      while now_us() < due_us do end
      return call
   end
end
