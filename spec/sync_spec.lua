-- sync_spec.lua - training on a device waits for it only where a script reads a value.
local dlua = require "dlua"
local nn, optim, train, metrics = dlua.nn, dlua.optim, dlua.train, dlua.metrics
local helpers = require "spec.helpers"
local loader, sorted = helpers.loader, helpers.sorted

local function waits(fn)
  local before = dlua.test.waits "mock"
  fn()
  return dlua.test.waits "mock" - before
end

local function mlp() return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)) end

local function cnn()
  return nn.Sequential(nn.Conv2d(2, 4, 3, {padding = 1}), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    nn.Linear(16, 3))
end

local function batch(...) return dlua.randn(4, ...), dlua.tensor({1, 2, 3, 1}, {dtype = "i64"}) end

local cases = {mlp = {mlp, 6}, cnn = {cnn, 2, 4, 4}}
local optimizers = {
  SGD = {lr = 0.01, momentum = 0.9, weight_decay = 0.001}, Adam = {lr = 0.001}, AdamW = {lr = 0.001},
  RMSprop = {lr = 0.001}, Adagrad = {lr = 0.01},
}

describe("a step on a device waits for nothing", function()
  for name, case in sorted(cases) do
    for kind, given in sorted(optimizers) do
      it(("for %s with %s"):format(name, kind), function()
        local net = case[1]():to "mock"
        local optimizer = optim[kind](net:parameters(), given)
        local criterion, mean, accuracy = nn.CrossEntropyLoss(), metrics.Mean(), metrics.Accuracy()
        local schedule = optim.StepLR(optimizer, {step_size = 2})
        local progress = train.Progress(5, "")
        local losses = {}
        assert.equal(0, waits(function()
          for k = 1, 5 do
            local x, y = batch(table.unpack(case, 2))
            x, y = x:to "mock", y:to "mock"
            local output = net(x)
            local loss = criterion(output, y)
            optimizer:zero_grad()
            loss:backward()
            nn.clip_grad_norm_(net:parameters(), 0.1)
            optimizer:step()
            schedule:step()
            mean:update(loss, 4)
            accuracy:update(output, y)
            progress:step {loss = loss}
            losses[k] = loss:detach()
          end
        end))
        local sum = 0
        assert.equal(5, waits(function()
          for k = 1, 5 do sum = sum + losses[k]:item() end
        end))
        assert.near(sum / 5, mean:value(), 1e-6)
        assert.is_true(accuracy:value() >= 0 and accuracy:value() <= 1)
      end)
    end
  end

  for kind, given in sorted(optimizers) do
    it("in f16 with a scaler and " .. kind, function()
      local net = cnn():to "mock"
      local optimizer = optim[kind](net:parameters(), given)
      local scaler = dlua.GradScaler {init_scale = 1024, growth_interval = 2}
      local criterion = nn.CrossEntropyLoss()
      assert.equal(0, waits(function()
        for k = 1, 5 do
          local x, y = batch(2, 4, 4)
          x, y = x:to "mock", y:to "mock"
          local loss = dlua.autocast("f16", function() return criterion(net(x), y) end)
          optimizer:zero_grad()
          scaler:scale(k == 3 and loss * math.huge or loss):backward()
          if k % 2 == 0 then
            scaler:unscale_(optimizer)
            nn.clip_grad_norm_(net:parameters(), 0.1)
          end
          scaler:step(optimizer)
          scaler:update()
        end
      end))
      assert.equal(1, waits(function() assert.equal(1024 * 2 / 2 * 2, scaler:get_scale()) end))
    end)
  end

  it("in train.fit, but once per figure and epoch", function()
    local net = cnn():to "mock"
    local x, y = batch(2, 4, 4)
    local function waits_of(batches)
      local list = {}
      for k = 1, batches do list[k] = {x:to "mock", y:to "mock"} end
      return waits(function()
        train.fit {net = net, optimizer = optim.Adam(net:parameters(), {lr = 0.001}), loss = nn.CrossEntropyLoss(),
          train = loader(list), epochs = 2, metrics = {accuracy = metrics.Accuracy(), top2 = metrics.TopK(2)},
          clip_norm = 1, progress = false}
      end)
    end
    local few = waits_of(2)
    assert.equal(few, waits_of(9))
    assert.is_true(few <= 2 * 3)
  end)

  it("in train.evaluate, but once per figure", function()
    local net = cnn():to "mock"
    local x, y = batch(2, 4, 4)
    local list = {}
    for k = 1, 7 do list[k] = {x:to "mock", y:to "mock"} end
    assert.equal(2, waits(function()
      train.evaluate(net, loader(list), {loss = nn.CrossEntropyLoss(), accuracy = metrics.Accuracy()})
    end))
  end)

  it("for a DataLoader's batches", function()
    local set = dlua.data.TensorDataset(dlua.rand(20, 3), dlua.range(1, 20))
    local batches = dlua.data.DataLoader(set, {batch_size = 5, shuffle = true, device = "mock"})
    assert.equal(0, waits(function()
      for x in batches:iter() do assert.equal("mock", x.device) end
    end))
  end)
end)

describe("figures gathered on a device", function()
  it("are those of the CPU", function()
    local output, target = dlua.randn(40, 3), (dlua.rand(40) * 3):floor():to "i64" + 1
    for _, make in ipairs {metrics.Accuracy, function() return metrics.TopK(2) end} do
      local here, there = make(), make()
      for _ = 1, 3 do
        here:update(output, target)
        there:update(output:to "mock", target:to "mock")
      end
      assert.equal(here:value(), there:value())
      there:update(output:to "mock", target:to "mock") -- goes on after a value was read
      assert.equal(here:value(), there:value())
    end
    local here, there = metrics.ConfusionMatrix(3), metrics.ConfusionMatrix(3)
    here:update(output, target)
    assert.equal(0, waits(function() there:update(output:to "mock", target:to "mock") end))
    assert.same(here:value():totable(), there:value():totable())
    assert.same(here:recall(), there:recall())
  end)
end)

describe("clipping on a device", function()
  local function clipped(device, values, limit, p)
    local parameters = {}
    for k, list in ipairs(values) do
      parameters[k] = dlua.zeros(#list):to(device):requires_grad_()
      parameters[k].grad = dlua.tensor(list):to(device)
    end
    local norm = nn.clip_grad_norm_(parameters, limit, {norm_type = p})
    if dlua.is_tensor(norm) then norm = norm:item() end
    local left = {}
    for k, parameter in ipairs(parameters) do left[k] = parameter.grad:totable() end
    return norm, left
  end

  it("is that of the CPU", function()
    for _, p in ipairs {1, 2, math.huge} do
      for _, limit in ipairs {0.5, 100} do
        local norm, left = clipped("cpu", {{3, -4}, {12}}, limit, p)
        local far_norm, far_left = clipped("mock", {{3, -4}, {12}}, limit, p)
        assert.near(norm, far_norm, 1e-4)
        for k, list in ipairs(left) do
          for j, value in ipairs(list) do assert.near(value, far_left[k][j], 1e-5) end
        end
      end
    end
  end)

  it("leaves gradients that are not finite", function()
    local _, left = clipped("mock", {{3, math.huge}, {12}}, 1, 2)
    assert.same({{3, math.huge}, {12}}, left)
  end)
end)

describe("the guard on a device", function()
  it("names the parameter a step later and lets nothing bad through", function()
    local net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)):to "mock"
    local optimizer = optim.Adam(net:parameters(), {lr = 0.1})
    local function step(poison)
      optimizer:zero_grad()
      net(dlua.ones({3, 2}, {device = "mock"})):sum():backward()
      if poison then net:parameters()[3].grad:mul_(0 / 0) end
      optimizer:step()
    end
    for _ = 1, 3 do step() end
    step(true)
    local message
    for _ = 1, 4 do
      local ok, problem = pcall(step)
      if not ok then
        message = problem
        break
      end
    end
    assert.matches("^Adam: the gradient of 2.weight was not finite in an earlier step, nothing was written", message)
    for _, p in ipairs(net:parameters()) do assert.is_true(p:isfinite():all():item()) end
    for _ = 1, 5 do step() end -- and training can go on
  end)

  local function fitted(list, loss)
    local net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)):to "mock"
    local ok, message = pcall(train.fit, {net = net, optimizer = optim.SGD(net:parameters(), {lr = 0.1}),
      loss = loss or nn.CrossEntropyLoss(), train = loader(list), epochs = 1, progress = false})
    assert.is_false(ok)
    return message
  end
  local y = dlua.tensor({1, 2, 3, 1}, {dtype = "i64"})

  it("of train.fit names epoch, batch and layer", function()
    local x, bad = dlua.ones(4, 2), dlua.full({4, 2}, 1e38):mul_(1e5)
    for position = 1, 8 do
      local list = {}
      for k = 1, 8 do list[k] = {(k == position and bad or x):to "mock", y:to "mock"} end
      assert.matches(("^train.fit: the loss is %%-?nan in epoch 1, batch %d; first not finite: the output of 1 ")
        :format(position), fitted(list))
    end
  end)

  it("of train.fit leaves it to the optimiser where the loss is finite", function()
    local list = {}
    for k = 1, 8 do list[k] = {dlua.zeros({4, 2}, {device = "mock"}), y:to "mock"} end
    local message = fitted(list, function(output) return (output * 0):abs():sqrt():sum() end)
    assert.matches("^SGD: the gradient of 1.weight was not finite in an earlier step", message)
  end)
end)
