-- Calls several functions at random, each as often as its weight says.
-- Purpose: load nearer to that of a service than one function alone.
-- Needs:   wrk 4, a gateway that serves the functions named.
-- Effects: load on the gateway; prints one line, see report.lua.
-- Usage:   wrk -t1 -c64 -d5s -s scripts/wrk/mix.lua http://127.0.0.1:8080 -- nop=60 echo=30 chain=10
--          (these weights by default)

package.path = debug.getinfo(1, "S").source:match("^@(.-)[^/]*$") .. "?.lua;" .. package.path
local report = require("report")
report.install()

local weights_default = { "nop=60", "echo=30", "chain=10" }

-- What is sent to each function; to others, nothing.
local bodies = {
   chain = '{"n": 4, "size": 256}',
   echo = string.rep("x", 1024),
   fanout = '{"n": 4, "size": 256}',
   hello = "world",
   markdown = "# Title\n\nSome *text* with `code`.\n\n```rust\nfn main() {}\n```\n",
   sleep = '{"ms": 1}',
   spin = '{"us": 100}',
}

-- Each thread draws its own numbers, the same ones in every run.
local threads = 0
function setup(thread)
   threads = threads + 1
   thread:set("seed", threads)
end

function init(args)
   math.randomseed(seed)
   local choices, total = {}, 0
   for _, argument in ipairs(#args > 0 and args or weights_default) do
      local name, weight = argument:match("^([%w_.-]+)=(%d+)$")
      if name == nil then error("expected NAME=WEIGHT, got " .. argument, 0) end
      total = total + tonumber(weight)
      choices[#choices + 1] = { upto = total, call = report.call(name, bodies[name]) }
   end
   if total == 0 then error("expected a weight above 0", 0) end

   function request()
      local drawn = math.random(total)
      for _, choice in ipairs(choices) do
         if drawn <= choice.upto then return choice.call end
      end
   end
end
