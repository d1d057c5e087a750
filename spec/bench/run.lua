-- run.lua - dlua beside PyTorch: dlua spec/bench/run.lua [--peer python3] [names…]
--
--   dlua spec/bench/run.lua --peer python3 --json figures.json
--   dlua spec/bench/run.lua --peer python3 --threads 1 --batches 1,32 mlp-tiny cifar-2
--
-- Every measurement is a process of its own (row.lua, peer.py), dlua and peer in turn; a figure is the median of the
-- rounds' medians, and the peer counts in its fastest mode. Without --peer only dlua runs.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/?.lua;" .. package.path

local dlua = require "dlua"
local measure, report, rows = require "measure", require "report", require "rows"

local args = dlua.args {
  description = "Time dlua and PyTorch side by side.",
  {"names",   rest = true,     help = "rows to measure; none: all"},
  {"peer",    default = "",    help = "Python that has torch; none: dlua alone"},
  {"rounds",  default = 3,     help = "how often each side runs, in turn"},
  {"seconds", default = 5.0,   help = "at most about this long per measurement"},
  {"threads", default = 0,     help = "1 or 2; 0: what each row asks for"},
  {"batches", default = "",    help = "batch sizes such as 1,32,128,1024; none: each row's own"},
  {"device",  default = "cpu", help = "cpu or cuda, for both sides"},
  {"dtype",   default = "f32", help = "f32, or bf16 or f16 for autocast, on both sides"},
  {"json",    default = "",    help = "file for the figures"},
  {"compile", default = false, help = "let torch.compile compete too (slow to start)"},
}

local options = {
  program = arg[-1] or "dlua", here = here, peer = args.peer, seconds = args.seconds, rounds = args.rounds,
  compile = args.compile, device = args.device, dtype = args.dtype,
}

-- ---------------------------------------------------------------- the machine

local peaks = {}

-- What peak.c measures with so many threads; empty where it was not built.
local function peak(threads)
  if not peaks[threads] then
    local program = options.program:gsub("[^/]*$", "") .. "bench_peak"
    local text = measure.output(("OMP_PROC_BIND=true %s %d"):format(measure.quoted(program), threads)) or ""
    local flops, bytes = text:match "^(%S+) (%S+)"
    peaks[threads] = {["GFLOP/s"] = tonumber(flops), ["GB/s"] = tonumber(bytes)}
  end
  return peaks[threads]
end

local function first_line(command) return (measure.output(command) or ""):match "[^\n]*" end

local function describe_machine()
  local peer = args.peer ~= "" and "PyTorch " .. first_line(measure.quoted(args.peer)
    .. " -c 'import torch; print(torch.__version__)'") or "no peer"
  print(("%s, %d CPUs, load %s; %s; %s"):format(first_line "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo",
    dlua.threads(), first_line "cut -d' ' -f1-3 /proc/loadavg", first_line(measure.quoted(options.program) .. " -v"),
    peer))
  if args.device ~= "cpu" then
    local gpu = dlua.cuda.devices()[1]
    print(("%s, %.0f GiB, %s"):format(gpu.name, gpu.memory / 2 ^ 30, gpu.libraries))
  end
  print(("    %s %s\n"):format(options.program, table.concat(arg, " ", 0)))
end

-- ---------------------------------------------------------------- rows

local results, pictures = {}, 0

-- Writes the pictures when the first row asks for them.
local function make_pictures()
  if options.pictures then return end
  options.pictures = os.tmpname()
  os.remove(options.pictures)
  local text = assert(measure.output(("%s %s/pictures.lua %s"):format(measure.quoted(options.program),
    measure.quoted(here), options.pictures)))
  pictures = tonumber(text:match "(%d+)%s*$")
end

-- Work per second, and its share of the machine's peak.
local function rate_of(row, batch, threads, ms)
  if row.images then return pictures / ms * 1e3, "images/s" end
  if not row.work then return end
  local rate = row.work(batch) / ms * 1e-6
  local most = args.device == "cpu" and peak(threads)[row.unit]
  return rate, row.unit, most and rate / most or nil
end

local function fastest(peers)
  local best = peers[1]
  for _, c in ipairs(peers) do
    if c.p50 < best.p50 then best = c end
  end
  return best
end

local function run_row(row, batch, threads)
  if row.images then make_pictures() end
  local figures, why = measure.compare(row, batch, threads, options)
  if not figures then return report.failure(row[1], batch, threads, why) end
  local own = table.remove(figures, 1)
  local r = {name = row[1], batch = batch, threads = threads, dtype = args.dtype, device = args.device, dlua = own,
    peers = figures, peer = fastest(figures)}
  r.rate, r.unit, r.share = rate_of(row, batch, threads, own.p50)
  results[#results + 1] = r
  report.row(r)
end

-- The batch sizes asked for that the row can have, or its own.
local function batches_of(row)
  if not row.batch then return {1} end
  if args.batches == "" then return {row.batch} end
  local list = {}
  for size in args.batches:gmatch "%d+" do list[#list + 1] = math.tointeger(tonumber(size)) end
  return list
end

-- What the device can run; a GPU's rows are those without files, on one thread.
local function runs_on_device(row)
  if args.device == "cpu" then return not row.cuda end
  return not (row.images or row.guard or row.whole)
end

local wanted = {}
for _, row in ipairs(rows) do wanted[row[1]] = #args.names == 0 and runs_on_device(row) end
for _, name in ipairs(args.names) do
  if wanted[name] == nil then dlua.fail("run.lua: no row %s", name) end
  wanted[name] = true
end

describe_machine()
report.head()
for _, row in ipairs(rows) do
  for _, batch in ipairs(wanted[row[1]] and batches_of(row) or {}) do
    for _, threads in ipairs(args.device == "cpu" and row.threads or {1}) do
      if args.threads == 0 or args.threads == threads then run_row(row, batch, threads) end
    end
  end
end
print(("\nload at the end %s"):format(first_line "cut -d' ' -f1-3 /proc/loadavg"))
if options.pictures then os.execute("rm -r " .. options.pictures) end
if args.json ~= "" then report.json(args.json, results) end
