-- rows.lua - the list of rows.
--
-- batch: the size measured unless others are asked for. threads: how many. modes: those of the peer beside contiguous.
-- work(batch): floating point operations ("GFLOP/s") or bytes ("GB/s") of a step;
-- images: the step goes over all pictures. whole: the process is timed as a whole, from its start to its end.
-- cuda: too large for a CPU; all but images and guard run on a GPU (--device cuda), on one thread.
-- runs: the step of another row. guard: with and without the optimiser's guard in turn, in one process, and no peer.
local both = {1, 2}
local layouts = {"channels_last"}

local function product(n) return function() return 2 * n ^ 3 end end
local function convolution(batch) return 2 * batch * 64 * 64 * 9 * 32 * 32 end
local function moments(millions) return function() return 28e6 * millions end end -- reads 4 numbers, writes 3

return {
  {"start", whole = true},
  {"first-step", whole = true, batch = 64, threads = {2}, runs = "mlp-mnist"},
  {"add-4"}, {"add-4-grad"}, {"chain-10"},
  {"mlp-tiny", batch = 64, threads = both, network = true},
  {"mlp-mnist", batch = 64, threads = both, network = true},
  {"cifar-1", batch = 128, threads = both, network = true},
  {"cifar-2", batch = 128, threads = both, modes = layouts, network = true},
  {"cifar-3", batch = 128, threads = {2}, modes = layouts, network = true},
  {"guard-tiny", batch = 64, runs = "mlp-tiny", guard = true},
  {"guard-mnist", batch = 64, runs = "mlp-mnist", guard = true},
  {"gemm-256", threads = both, unit = "GFLOP/s", work = product(256)},
  {"gemm-1024", threads = both, unit = "GFLOP/s", work = product(1024)},
  {"gemm-2048", threads = both, unit = "GFLOP/s", work = product(2048)},
  {"gemm-8192", cuda = true, unit = "GFLOP/s", work = product(8192)},
  {"conv-forward", batch = 32, threads = {2}, modes = layouts, unit = "GFLOP/s", work = convolution},
  {"conv-input-grad", batch = 32, threads = {2}, modes = layouts, unit = "GFLOP/s", work = convolution},
  {"conv-weight-grad", batch = 32, threads = {2}, modes = layouts, unit = "GFLOP/s", work = convolution},
  {"softmax", threads = both, unit = "GB/s", work = function() return 8 * 1024 ^ 2 end},
  {"batch-norm", batch = 128, threads = both, modes = layouts, unit = "GB/s",
    work = function(batch) return 12 * batch * 64 * 32 * 32 end},
  {"adam-1M", threads = both, unit = "GB/s", work = moments(1)},
  {"adam-3M", threads = both, unit = "GB/s", work = moments(3)},
  {"adam-10M", threads = both, unit = "GB/s", work = moments(10)},
  {"png-decode", threads = both, images = true},
  {"warm-epoch", threads = both, images = true},
}
