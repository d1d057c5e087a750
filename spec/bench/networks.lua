-- networks.lua - training steps: forward, loss, backward, optimiser. peer.py has the twins.
local dlua = require "dlua"
local nn, optim = dlua.nn, dlua.optim

local function adam(p) return optim.Adam(p, {lr = 1e-3}) end
local function sgd(p) return optim.SGD(p, {lr = 1e-2}) end

-- A row: a step of the network on random examples; the third result switches the optimiser's guard.
local function trained(make, input, classes, optimizer)
  return function(batch, on)
    local net = on.place(make())
    local opt = optimizer(net:parameters())
    local x = on.place(dlua.randn(batch, table.unpack(input)))
    local y = on.place(dlua.randint(1, classes, {batch}))
    local function loss_of() return net(x):cross_entropy(y) end
    return function()
      local loss = on.forward(loss_of)
      opt:zero_grad()
      loss:backward()
      opt:step()
    end, 1, function(guard) opt.guard = guard end
  end
end

-- Two convolutions and a pooling, of cifar-3.
local function pair(cin, middle, cout)
  return nn.Sequential {
    nn.Conv2d(cin, middle, 3, {padding = 1}), nn.BatchNorm2d(middle), nn.ReLU(),
    nn.Conv2d(middle, cout, 3, {padding = 1}), nn.ReLU(), nn.MaxPool2d(2),
  }
end

return {
  ["mlp-tiny"] = trained(function()
    return nn.Sequential {nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)}
  end, {4}, 2, adam),

  ["mlp-mnist"] = trained(function()
    return nn.Sequential {nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)}
  end, {784}, 10, sgd),

  ["cifar-1"] = trained(function()
    return nn.Sequential {
      nn.Flatten(), nn.Linear(3072, 1024), nn.ReLU(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, 10),
    }
  end, {3, 32, 32}, 10, adam),

  ["cifar-2"] = trained(function()
    return nn.Sequential {
      nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
      nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    }
  end, {3, 32, 32}, 10, adam),

  ["cifar-3"] = trained(function()
    return nn.Sequential {
      pair(3, 32, 64), pair(64, 128, 128), nn.Dropout(0.05), pair(128, 256, 256), nn.Flatten(), nn.Dropout(0.1),
      nn.Linear(4096, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(), nn.Dropout(0.1), nn.Linear(512, 10),
    }
  end, {3, 32, 32}, 10, adam),
}
