-- measure.lua - the processes of a row, run in turn: dlua, peer, dlua, peer, …
--
-- Nothing is computed in the process that starts them, so it binds no thread and all begin alike. PyTorch's threads are
-- bound like ours, which is its best.
local dlua = require "dlua"
local measure = {}

function measure.quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end
local quoted = measure.quoted

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

-- What a command printed, nil where it failed.
function measure.output(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "a"
  if pipe:close() then return text end
  return nil, text
end

-- Median, p10, p90 and processor time of the lines that a row's process ended with: its own, without the guard.
local function inside(command, lines)
  local text, why = measure.output(command)
  local found = {}
  for p50, p10, p90, cpu in (text or ""):gmatch "([%d.e+-]+) ([%d.e+-]+) ([%d.e+-]+) ([%d.e+-]+) %d+\n" do
    found[#found + 1] = {p50 = tonumber(p50), p10 = tonumber(p10), p90 = tonumber(p90), cpu = tonumber(cpu)}
  end
  if #found < lines then return nil, why or text end
  return table.unpack(found, #found - lines + 1)
end

-- The whole life of a process, over and over for a second; its processor time is not known.
local function whole(command)
  local times, began = {}, dlua.time()
  repeat
    local start = dlua.time()
    local text, why = measure.output(command)
    if not text then return nil, why end
    times[#times + 1] = 1e3 * (dlua.time() - start)
  until dlua.time() - began > 1
  table.sort(times)
  local function quantile(q) return times[math.max(1, math.ceil(q * #times))] end
  return {p50 = quantile(0.5), p10 = quantile(0.1), p90 = quantile(0.9), cpu = 0 / 0}
end

-- The programs to compare, dlua first: {name =, command =}.
local function contestants(row, batch, threads, o)
  local list = {}
  local call = ("%s %d %d %g %s %s"):format(row.runs or row[1], threads, batch, row.whole and 0 or o.seconds, o.device,
    o.dtype)
  local pictures = "DLUA_BENCH_PNG=" .. quoted(o.pictures or "")
  local function add(name, ...) list[#list + 1] = {name = name, command = table.concat({...}, " ")} end
  if row[1] == "start" then
    add("dlua", quoted(o.program), "-e ''")
    if o.peer ~= "" then add("import torch", quoted(o.peer), "-c 'import torch'") end
    return list
  end
  add("dlua", pictures, quoted(o.program), quoted(o.here .. "/row.lua"), row.guard and call .. " guard" or call)
  if row.guard then list[2] = {name = "no guard"} end
  if o.peer == "" or row.guard then return list end
  local bound = ("OMP_PROC_BIND=%s OMP_NUM_THREADS=%d"):format(threads > 1 and "true" or "false", threads)
  local modes = {"contiguous", table.unpack(row.modes or {})}
  if o.compile and row.network then modes[#modes + 1] = "compile" end
  local peer = quoted(o.peer) .. " " .. quoted(o.here .. "/peer.py")
  for _, mode in ipairs(modes) do add(mode, pictures, bound, peer, call, mode) end
  return list
end

-- The figures of all contestants, dlua's first, each the median of its rounds; nil and a reason when one failed.
-- o: program, here (this folder), peer, seconds, rounds, compile, pictures, device, dtype.
function measure.compare(row, batch, threads, o)
  local list = contestants(row, batch, threads, o)
  local run = row.whole and whole or inside
  for _ = 1, o.rounds do
    local second
    for _, c in ipairs(list) do
      local figures, more = second, nil
      if c.command then figures, more = run(c.command, row.guard and 2 or 1) end
      if not figures then return nil, ("%s: %s"):format(c.name, more) end
      second = more
      for key, value in pairs(figures) do
        c[key] = c[key] or {}
        table.insert(c[key], value)
      end
    end
  end
  for _, c in ipairs(list) do
    for _, key in ipairs {"p50", "p10", "p90"} do c[key] = median(c[key]) end
    c.cpu = c.cpu[1] == c.cpu[1] and median(c.cpu) or nil
  end
  return list
end

return measure
