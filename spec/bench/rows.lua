-- rows.lua - one benchmark row, in a process of its own: dlua spec/bench/rows.lua NAME THREADS BATCH SECONDS
--
-- Prints one line: median, p10 and p90 in milliseconds, and how many steps were timed. A step of a network is forward,
-- loss, backward and optimiser. peer.py has the twin of each row; run.lua runs both in turn.
local dlua = require "dlua"
local nn, optim = dlua.nn, dlua.optim

local rows = {}

-- ---------------------------------------------------------------- networks

local function trained(net, input, classes, optimizer)
  return function(batch)
    local opt = optimizer(net:parameters())
    local x = dlua.randn(batch, table.unpack(input))
    local y = dlua.randint(1, classes, {batch})
    net:train()
    return function()
      local loss = net(x):cross_entropy(y)
      opt:zero_grad()
      loss:backward()
      opt:step()
    end
  end
end
local function adam(p) return optim.Adam(p, {lr = 1e-3}) end
local function sgd(p) return optim.SGD(p, {lr = 1e-2}) end

rows["mlp-tiny"] = function(batch)
  local net = nn.Sequential {nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)}
  return trained(net, {4}, 2, adam)(batch)
end
rows["mlp-mnist"] = function(batch)
  local net = nn.Sequential {nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)}
  return trained(net, {784}, 10, sgd)(batch)
end
rows["cifar-1"] = function(batch)
  local net = nn.Sequential {
    nn.Flatten(), nn.Linear(3072, 1024), nn.ReLU(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, 10),
  }
  return trained(net, {3, 32, 32}, 10, adam)(batch)
end
rows["cifar-2"] = function(batch)
  local net = nn.Sequential {
    nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
  }
  return trained(net, {3, 32, 32}, 10, adam)(batch)
end
local function pair(cin, middle, cout)
  return nn.Sequential {
    nn.Conv2d(cin, middle, 3, {padding = 1}), nn.BatchNorm2d(middle), nn.ReLU(),
    nn.Conv2d(middle, cout, 3, {padding = 1}), nn.ReLU(), nn.MaxPool2d(2),
  }
end
rows["cifar-3"] = function(batch)
  local net = nn.Sequential {
    pair(3, 32, 64), pair(64, 128, 128), nn.Dropout(0.05), pair(128, 256, 256), nn.Flatten(), nn.Dropout(0.1),
    nn.Linear(4096, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(), nn.Dropout(0.1), nn.Linear(512, 10),
  }
  return trained(net, {3, 32, 32}, 10, adam)(batch)
end

-- ---------------------------------------------------------------- single ops; the second result: calls per step

rows["add-4"] = function()
  local x, y = dlua.randn(4), dlua.randn(4)
  return function() for _ = 1, 1000 do local _ = x + y end end, 1000
end
rows["add-4-grad"] = function()
  local x, y = dlua.randn({4}, {requires_grad = true}), dlua.randn(4)
  return function() for _ = 1, 1000 do local _ = x + y end end, 1000
end
rows["chain-10"] = function()
  local x, y = dlua.randn(4), dlua.randn(4)
  return function()
    for _ = 1, 100 do
      local z = x
      for _ = 1, 5 do z = (z + y) * y end
    end
  end, 1000
end
rows["gemm-1024"] = function()
  local x, y = dlua.randn(1024, 1024), dlua.randn(1024, 1024)
  return function() x:matmul(y) end
end
local function convolution(batch)
  local x = dlua.randn({batch, 64, 32, 32}, {requires_grad = true})
  local w = dlua.randn({64, 64, 3, 3}, {requires_grad = true})
  return x, w
end
rows["conv-forward"] = function(batch)
  local x, w = convolution(batch)
  return function() dlua.no_grad(function() return x:conv2d(w, {padding = 1}) end) end
end
rows["conv-both"] = function(batch)
  local x, w = convolution(batch)
  local g = dlua.randn(batch, 64, 32, 32)
  return function() dlua.grad(x:conv2d(w, {padding = 1}), {x, w}, {grad_outputs = {g}}) end
end
rows["softmax"] = function()
  local x = dlua.randn(1024, 1024)
  return function() x:softmax(2) end
end
rows["batch-norm"] = function(batch)
  local norm, x = nn.BatchNorm2d(64), dlua.randn(batch, 64, 32, 32)
  return function() dlua.no_grad(norm, x) end
end
rows["adam-10M"] = function()
  local p = nn.Parameter(dlua.randn(10, 1000, 1000))
  local opt = adam {p}
  p:sum():backward()
  return function() opt:step() end
end

-- ---------------------------------------------------------------- files

-- A folder of 2 000 pictures in the system's temporary place, made once per run of the row.
rows["png-decode"] = function()
  local folder = os.getenv "DLUA_BENCH_PNG" or error "DLUA_BENCH_PNG names no folder of pictures"
  return function()
    local set = dlua.data.ImageFolder(folder)
    local loader = dlua.data.DataLoader(set, {batch_size = 500, num_workers = dlua.threads()})
    for _ in loader:iter() do end
  end
end

-- ---------------------------------------------------------------- timing

local name, threads, batch, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3]), tonumber(arg[4])
dlua.threads(threads)
dlua.seed(1)
local step, calls = rows[name](batch)
for _ = 1, 3 do step() end
local times, began = {}, dlua.time()
repeat
  local start = dlua.time()
  step()
  times[#times + 1] = 1e3 * (dlua.time() - start) / (calls or 1)
until (#times >= 50 or dlua.time() - began > seconds) and #times >= 5
table.sort(times)
local function quantile(q) return times[math.max(1, math.ceil(q * #times))] end
print(("%.6g %.6g %.6g %d"):format(quantile(0.5), quantile(0.1), quantile(0.9), #times))
