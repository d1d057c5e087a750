-- run.lua - dlua beside PyTorch: dlua spec/bench/run.lua [--peer python3] [--rounds 3] [--seconds 5] [--rows a,b]
--
-- Every measurement is a process of its own, started from this one, which computes nothing and so binds no thread:
-- dlua, peer, dlua, peer, … A row's figure is the median of its rounds. Prints a Markdown table; --json writes the
-- same as JSON. Without --peer only dlua runs.
local dlua = require "dlua"

local args = dlua.args {
  description = "Time dlua and PyTorch side by side.",
  {"peer",    default = "", help = "Python that has torch; none: dlua alone"},
  {"rounds",  default = 3,  help = "how often each side runs, in turn"},
  {"seconds", default = 5,  help = "at most this long per measurement"},
  {"threads", default = 0,  help = "1 or 2; 0: what each row asks for"},
  {"rows",    default = "", help = "names of rows with commas between; none: all"},
  {"json",    default = "", help = "file for the figures"},
  {"compile", default = false, help = "let torch.compile compete too (slow to start)"},
}
local here = arg[0]:match "^(.*)/[^/]*$" or "."
local program = arg[-1] or "dlua"
local pictures = "" -- folder of the row that decodes

-- name, batch sizes, threads, modes of the peer beside eager
local rows = {
  {"start"},
  {"add-4", {1}, {1}}, {"add-4-grad", {1}, {1}}, {"chain-10", {1}, {1}},
  {"mlp-tiny", {64}, {1, 2}}, {"mlp-mnist", {64}, {1, 2}}, {"cifar-1", {128}, {2}},
  {"cifar-2", {128}, {2}, "channels_last"}, {"cifar-3", {128}, {2}, "channels_last"},
  {"gemm-1024", {1}, {1, 2}}, {"conv-forward", {32}, {2}, "channels_last"}, {"conv-both", {32}, {2}, "channels_last"},
  {"softmax", {1}, {2}}, {"batch-norm", {128}, {2}}, {"adam-10M", {1}, {2}}, {"png-decode", {1}, {2}},
}

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- Median, p10 and p90 that a row's process printed; nil and its output when it failed.
local function measure(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "a"
  local p50, p10, p90 = text:match "([%d.e+-]+) ([%d.e+-]+) ([%d.e+-]+) %d+%s*$"
  if not pipe:close() or not p50 then return nil, text end
  return tonumber(p50), tonumber(p10), tonumber(p90)
end

local function started(command)
  local begin = dlua.time()
  assert(os.execute(command))
  local ms = 1e3 * (dlua.time() - begin)
  return ms, ms, ms
end

-- The commands to compare: dlua's first, then one per mode of the peer.
local function contestants(row, batch, threads)
  if row[1] == "start" then
    local list = {{"dlua", quoted(program) .. " -e ''"}}
    if args.peer ~= "" then list[2] = {"import torch", quoted(args.peer) .. " -c 'import torch'"} end
    return list, started
  end
  local call = ("%s %d %d %g"):format(row[1], threads, batch, args.seconds)
  local setting = "DLUA_BENCH_PNG=" .. pictures
  local list = {{"dlua", ("%s %s %s/rows.lua %s"):format(setting, quoted(program), quoted(here), call)}}
  local function add(mode)
    list[#list + 1] = {mode, ("%s OMP_PROC_BIND=%s OMP_NUM_THREADS=%d %s %s/peer.py %s %s"):format(setting,
      threads > 1 and "true" or "false", threads, quoted(args.peer), quoted(here), call, mode)}
  end
  if args.peer ~= "" then
    add "eager"
    if row[4] then add(row[4]) end
    if args.compile and batch > 1 then add "compile" end
  end
  return list, measure
end

-- Runs all contestants in turn, several times over.
local function compare(row, batch, threads)
  local list, run = contestants(row, batch, threads)
  local figures = {}
  for _ = 1, args.rounds do
    for k, contestant in ipairs(list) do
      local p50, p10, p90 = run(contestant[2])
      if not p50 then return nil, ("%s: %s"):format(contestant[1], p10) end
      local f = figures[k] or {name = contestant[1], p50 = {}, p10 = {}, p90 = {}}
      figures[k] = f
      table.insert(f.p50, p50)
      table.insert(f.p10, p10)
      table.insert(f.p90, p90)
    end
  end
  for _, f in ipairs(figures) do f.p50, f.p10, f.p90 = median(f.p50), median(f.p10), median(f.p90) end
  return figures
end

-- 2 000 copies of the shipped pictures, for the row that decodes them.
local function make_pictures()
  local folder = os.tmpname()
  os.remove(folder)
  local script = [[mkdir -p %s/all && k=0; for n in 1 2 3; do for f in $(find %s -name '*.png'); do
    k=$((k+1)); cp "$f" %s/all/$k.png; [ $k -ge 2000 ] && exit 0; done; done; true]]
  os.execute(script:format(folder, quoted(here .. "/../../examples/data/cifar10-small"), folder))
  return folder
end

local results = {}

local function print_row(r)
  local peer, ratio = "", ""
  if r.peer then
    peer = ("%.4g (%s)"):format(r.peer, r.peer_mode)
    ratio = ("**%.2f**"):format(r.dlua / r.peer)
  end
  print(("| %s | %d | %d | f32 | %.4g | %.4g..%.4g | %s | %s |"):format(
    r.name, r.batch, r.threads, r.dlua, r.p10, r.p90, peer, ratio))
  io.stdout:flush()
end

local function run_row(row, batch, threads)
  local figures, why = compare(row, batch, threads)
  if not figures then
    print(("| %s | %d | %d | failed: %s |"):format(row[1], batch, threads, why:gsub("%s+", " "):sub(-120)))
    return
  end
  local r = {name = row[1], batch = batch, threads = threads, dlua = figures[1].p50, p10 = figures[1].p10,
    p90 = figures[1].p90}
  for k = 2, #figures do
    if not r.peer or figures[k].p50 < r.peer then r.peer, r.peer_mode = figures[k].p50, figures[k].name end
  end
  results[#results + 1] = r
  print_row(r)
end

local function wanted(name)
  return args.rows == "" or ("," .. args.rows .. ","):find("," .. name .. ",", 1, true) ~= nil
end

local function write_json(path)
  local file = assert(io.open(path, "w"))
  local lines = {}
  for k, r in ipairs(results) do
    local peer = r.peer and (', "peer": "%s", "peer_ms": %.6g, "ratio": %.4g'):format(
      r.peer_mode, r.peer, r.dlua / r.peer)
    lines[k] = ('  {"name": "%s", "batch": %d, "threads": %d, "dtype": "f32", "dlua_ms": %.6g%s}'):format(
      r.name, r.batch, r.threads, r.dlua, peer or "")
  end
  file:write("[\n", table.concat(lines, ",\n"), "\n]\n")
  file:close()
end

print "| row | batch | threads | dtype | dlua ms | p10..p90 | best peer ms | ratio |"
print "|---|---|---|---|---|---|---|---|"
for _, row in ipairs(rows) do
  if wanted(row[1]) then
    if row[1] == "png-decode" then pictures = make_pictures() end
    for _, batch in ipairs(row[2] or {1}) do
      for _, threads in ipairs(row[3] or {1}) do
        if args.threads == 0 or args.threads == threads then run_row(row, batch, threads) end
      end
    end
    if row[1] == "png-decode" then os.execute("rm -rf " .. pictures) end
  end
end
if args.json ~= "" then write_json(args.json) end
