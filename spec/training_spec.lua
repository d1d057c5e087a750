-- Whole training runs against PyTorch's: model, loss, clipping, optimiser and schedule together, step by step in f64.
local dlua = require "dlua"
local nn, optim = dlua.nn, dlua.optim
local golden = dofile "spec/golden/training.lua"
local near = require "spec.helpers".near_relative

local function wave(shape, phase)
  local values, count = {}, 1
  for _, size in ipairs(shape) do count = count * size end
  for k = 1, count do values[k] = math.sin(phase + k - 1) / 2 end
  return dlua.tensor(values, {dtype = "f64"}):reshape(shape)
end

local function prepare(net)
  net:to "f64"
  dlua.no_grad(function()
    for k, p in ipairs(net:parameters()) do p:copy_(wave(p.shape, k)) end
  end)
  return net
end

local models = {
  mlp = function()
    return prepare(nn.Sequential {nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)}), wave({6, 4}, 0.5)
  end,
  cnn = function()
    return prepare(nn.Sequential {
      nn.Conv2d(2, 4, 3, {padding = 1}), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
      nn.Conv2d(4, 4, 3, {stride = 2, padding = 1, groups = 2, bias = false}), nn.BatchNorm2d(4), nn.LeakyReLU(0.1),
      nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    }), wave({6, 2, 8, 8}, 0.5)
  end,
}

local rules = {
  SGD = function(net) return optim.SGD(net:parameters(), {lr = 0.05, momentum = 0.9}) end,
  AdamW = function(net) return optim.AdamW(net:parameters(), {lr = 0.05, weight_decay = 0.01}) end,
}

describe("training", function()
  for _, case in ipairs(golden) do
    it(("%s with %s goes PyTorch's way"):format(case.model, case.rule), function()
      local net, x = models[case.model]()
      local y = dlua.tensor({1, 2, 3, 1, 2, 3}, {dtype = "i64"})
      local opt = rules[case.rule](net)
      local clock = optim.OneCycleLR(opt, {max_lr = 0.05, total_steps = #case.losses})
      local criterion = nn.CrossEntropyLoss {label_smoothing = 0.1}
      for step, expected in ipairs(case.losses) do
        local loss = criterion(net(x), y)
        opt:zero_grad()
        loss:backward()
        near(case.norms[step], nn.clip_grad_norm_(net:parameters(), 0.5), 1e-9, "norm at step " .. step)
        opt:step()
        clock:step()
        near(expected, loss:item(), 1e-9, "loss at step " .. step)
      end
      local final = net:eval()(x):flatten():totable()
      for k, expected in ipairs(case.final) do near(expected, final[k], 1e-9, "final output " .. k) end
    end)
  end
end)
