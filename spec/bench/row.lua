-- row.lua - one measurement, in a process of its own: dlua row.lua NAME THREADS BATCH SECONDS DEVICE DTYPE [guard]
--
-- Prints one line: median, p10 and p90 in milliseconds of a step, the processor time of one, and how many steps were
-- timed. With 0 seconds it makes one step and prints nothing. peer.py does the same with PyTorch; run.lua starts both.
-- With "guard" it prints a second line, for steps without the optimiser's guard: 400 blocks of 50 steps each way, in
-- turn, by processor time.
local dlua = require "dlua"

local name, threads, batch, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3]), tonumber(arg[4])
local device, dtype = arg[5], arg[6]
local here = arg[0]:match "^(.*)/[^/]*$" or "."

-- What a row is measured on: where its tensors and modules go, and the precision of its forward pass.
local on = {}
function on.place(x) return x:to(device) end
function on.forward(f, ...)
  if dtype == "f32" then return f(...) end
  return dlua.autocast(dtype, f, ...)
end

local function find(row)
  for _, family in ipairs {"networks", "single", "files"} do
    local found = dofile(here .. "/" .. family .. ".lua")[row]
    if found then return found end
  end
  error(("row.lua: no row %s"):format(row))
end

dlua.threads(threads)
dlua.seed(1)
local step, calls, set_guard = find(name)(batch, on)
step()

-- A device works behind the script: blocks of ten steps, then the wait for it.
if device ~= "cpu" then
  local one, block = step, 10
  calls = (calls or 1) * block
  function step()
    for _ = 1, block do one() end
    dlua.synchronize(device)
  end
end
if seconds == 0 then return end

local function print_line(times, cpu)
  table.sort(times)
  local function quantile(q) return times[math.max(1, math.ceil(q * #times))] end
  print(("%.6g %.6g %.6g %.6g %d"):format(quantile(0.5), quantile(0.1), quantile(0.9), cpu, #times))
end

if arg[7] == "guard" then
  local blocks, steps = 400, 50
  local times, sums = {{}, {}}, {0, 0}
  for _ = 1, 1000 do step() end
  for k = 1, 2 * blocks do
    local way = k % 2 + 1
    set_guard(way == 1)
    local start = os.clock()
    for _ = 1, steps do step() end
    local spent = 1e3 * (os.clock() - start) / steps
    table.insert(times[way], spent)
    sums[way] = sums[way] + spent
  end
  for way = 1, 2 do print_line(times[way], sums[way] / blocks) end
  return
end

-- At least 50 steps or so many seconds; short steps go on for a tenth of that, long ones are made 3 times at least.
for _ = 1, 2 do step() end
local times, began, cpu = {}, dlua.time(), os.clock()
repeat
  local start = dlua.time()
  step()
  local now = dlua.time()
  times[#times + 1] = 1e3 * (now - start) / (calls or 1)
  local spent = now - began
until #times >= 3 and (spent > seconds or #times >= 50 and spent > seconds / 10)
cpu = 1e3 * (os.clock() - cpu) / #times / (calls or 1)
print_line(times, cpu)
