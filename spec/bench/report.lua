-- report.lua - results as a Markdown table, line by line, and as JSON.
local report = {}

function report.head()
  print "| row | batch | threads | dtype | dlua ms | p10..p90 | peer ms (best) | p10..p90 | ratio | CPU ratio | rate |"
  print "|---|---|---|---|---|---|---|---|---|---|---|"
end

local function between(f) return ("%.3g..%.3g"):format(f.p10, f.p90) end

-- "412 GFLOP/s, 89 %" of the machine's peak; images per second have none.
local function rate(r)
  if not r.rate then return "" end
  local share = r.share and (", %.0f %%"):format(100 * r.share) or ""
  return ("%.0f %s%s"):format(r.rate, r.unit, share)
end

function report.row(r)
  local peer, spread, ratio, cpu = "", "", "", ""
  if r.peer then
    peer, spread = ("%.4g (%s)"):format(r.peer.p50, r.peer.name), between(r.peer)
    ratio = ("**%.2f**"):format(r.dlua.p50 / r.peer.p50)
    cpu = r.dlua.cpu and ("%.2f"):format(r.dlua.cpu / r.peer.cpu) or ""
  end
  print(("| %s | %d | %d | %s | %.4g | %s | %s | %s | %s | %s | %s |"):format(r.name, r.batch, r.threads, r.dtype,
    r.dlua.p50, between(r.dlua), peer, spread, ratio, cpu, rate(r)))
  io.stdout:flush()
end

function report.failure(name, batch, threads, why)
  print(("| %s | %d | %d | failed: %s |"):format(name, batch, threads, why:gsub("%s+", " "):sub(-200)))
end

local function times(f)
  local cpu = f.cpu and (', "cpu": %.6g'):format(f.cpu) or ""
  return ('{"p50": %.6g, "p10": %.6g, "p90": %.6g%s}'):format(f.p50, f.p10, f.p90, cpu)
end

local function object(r)
  local parts = {('"name": "%s", "batch": %d, "threads": %d, "device": "%s", "dtype": "%s", "dlua_ms": %s')
    :format(r.name, r.batch, r.threads, r.device, r.dtype, times(r.dlua))}
  for _, c in ipairs(r.peers) do parts[#parts + 1] = ('"%s_ms": %s'):format(c.name, times(c)) end
  if r.peer then parts[#parts + 1] = ('"ratio": %.4g'):format(r.dlua.p50 / r.peer.p50) end
  if r.rate then parts[#parts + 1] = ('"rate": %.6g, "unit": "%s"'):format(r.rate, r.unit) end
  if r.share then parts[#parts + 1] = ('"share_of_peak": %.4g'):format(r.share) end
  return "  {" .. table.concat(parts, ", ") .. "}"
end

function report.json(path, results)
  local lines = {}
  for k, r in ipairs(results) do lines[k] = object(r) end
  local file = assert(io.open(path, "w"))
  file:write("[\n", table.concat(lines, ",\n"), "\n]\n")
  file:close()
end

return report
