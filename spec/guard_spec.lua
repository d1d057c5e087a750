-- The guard of train.fit and opt:step (R25): 25 numeric faults, one at a time, each in the third of four steps. It
-- must be caught in that step, before the parameters change, and the layer where it began must be named.
local dlua = require "dlua"
local nn, optim, train = dlua.nn, dlua.optim, dlua.train

local FAULT_AT = 3

-- A layer that computes what it is told.
local Apply = nn.class "Apply"
function Apply:init(fn) self.fn = fn end
function Apply:forward(x) return self.fn(x) end

local function mlp(middle)
  return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), middle or nn.Identity(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
end

local function cnn()
  return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
end

local function rows() return {dlua.randn(5, 6), dlua.randint(1, 3, {5})} end
local function pictures() return {dlua.randn(5, 2, 8, 8), dlua.randint(1, 3, {5})} end
local function regression() return {dlua.randn(5, 6), dlua.randn(5, 3)} end

local function put(tensor, value)
  dlua.no_grad(function() tensor:reshape(-1)[math.random(tensor:numel())] = value end)
end

local nan, inf = 0 / 0, 1 / 0

-- A fault in a parameter of the net: {kind of net, name of the layer, name of the parameter, value}.
local function in_parameter(net, batch, layer, name, value)
  return {net = net, batch = batch, layer = layer, fault = function(o) put(o.net[tonumber(layer)][name], value) end,
    name = ("%s in %s.%s"):format(value, layer, name)}
end

local function in_input(net, batch, value, layer)
  return {net = net, batch = batch, layer = layer or "1", fault = function(_, b) put(b[1], value) end,
    name = ("%s in the input of %s"):format(value, net == cnn and "a CNN" or "an MLP")}
end

-- A layer in the middle whose function goes bad in the step of the fault.
local function in_layer(name, bad, layer)
  local case = {name = name, layer = layer or "3", batch = rows}
  function case.net()
    case.broken = false
    return mlp(Apply(function(x) return case.broken and bad(x) or x end))
  end
  function case.fault() case.broken = true end
  return case
end

local function in_gradient(name, layer, change)
  return {name = name, net = mlp, batch = rows, layer = layer, gradient = change}
end

local cases = {
  in_parameter(mlp, rows, "1", "weight", nan), in_parameter(mlp, rows, "4", "weight", inf),
  in_parameter(mlp, rows, "6", "weight", nan), in_parameter(mlp, rows, "4", "bias", nan),
  in_parameter(mlp, rows, "6", "bias", inf), in_parameter(cnn, pictures, "1", "weight", nan),
  in_parameter(cnn, pictures, "5", "weight", inf), in_parameter(cnn, pictures, "5", "bias", nan),
  in_parameter(cnn, pictures, "2", "weight", nan), in_parameter(cnn, pictures, "2", "bias", inf),
  in_input(mlp, rows, nan), in_input(mlp, rows, inf), in_input(cnn, pictures, nan), in_input(cnn, pictures, -inf),
  in_layer("log of 0", function(x) return (x * 0):log() end),
  in_layer("0 / 0", function(x) return (x * 0) / (x * 0) end),
  in_layer("the root of negative numbers", function(x) return (-(x * x) - 1):sqrt() end),
  in_layer("exp beyond f32", function(x) return (x * 0 + 100):exp() end),
  -- The value is fine and only the way back is not: the layer before it is where it shows.
  in_layer("the gradient of a root at 0", function(x) return (x * 0):sqrt() + x end, "1"),
  in_layer("the gradient of a power at 0", function(x) return (x * 0) ^ 0.5 + x end, "1"),
  in_gradient("NaN in a gradient", "4", function(net) put(net[4].weight.grad, nan) end),
  in_gradient("Inf in a gradient", "6", function(net) put(net[6].bias.grad, inf) end),
  in_gradient("a gradient scaled beyond f32", "1", function(net) net[1].weight.grad:mul_(1e30):mul_(1e30) end),
  {name = "a learning rate that is much too high", net = mlp, batch = regression, loss = nn.MSELoss(), layer = "6",
    before = function(o) o.optimizer.lr = 1e38 end},
  {name = "NaN in the target", net = mlp, batch = regression, loss = nn.MSELoss(),
    fault = function(_, b) put(b[2], nan) end},
}

-- What train.fit needs for a case, with the fault in the third batch; seen.step counts steps begun.
local function experiment(case, seed)
  dlua.seed(seed)
  math.randomseed(seed)
  local seen, net = {step = 0}, case.net()
  local o = {net = net, optimizer = optim.SGD(net:parameters(), {lr = 0.01}), loss = case.loss or nn.CrossEntropyLoss(),
    epochs = 1, progress = false}
  function o.train()
    if seen.step == 4 then return nil end
    seen.step = seen.step + 1
    local batch = case.batch()
    if seen.step == FAULT_AT and case.fault then case.fault(o, batch) end
    if seen.step == FAULT_AT then seen.before = net[1].bias:clone() end
    return batch
  end
  return o, seen
end

-- The loop by hand, for gradients that go wrong between backward and step.
local function by_hand(case, o)
  for step = 1, 4 do
    local x, y = table.unpack(o.train())
    o.optimizer:zero_grad()
    o.loss(o.net(x), y):backward()
    if step == FAULT_AT then case.gradient(o.net) end
    o.optimizer:step()
  end
end

local function run(case, seed)
  local o, seen = experiment(case, seed)
  local batches = o.train
  local function next_batch()
    local batch = batches()
    if batch then return table.unpack(batch) end
  end
  o.train = setmetatable({iter = function() return next_batch end}, {__len = function() return 4 end})
  if case.before then
    o.callbacks = {function(event) if event == "batch_end" and seen.step == FAULT_AT - 2 then case.before(o) end end}
  end
  local ok, message
  if case.gradient then
    o.train = batches
    ok, message = pcall(by_hand, case, o)
  else
    ok, message = pcall(train.fit, o)
  end
  return ok, tostring(message), seen, o.net
end

describe("the guard", function()
  for k, case in ipairs(cases) do
    it("catches " .. case.name, function()
      local ok, message, seen, net = run(case, k)
      assert.is_false(ok)
      -- A step that is much too long is still finite; what it leads to is caught in the next.
      assert.equal(FAULT_AT, seen.step, message)
      assert.is_truthy(message:find("finite", 1, true), message)
      if not case.before then assert.is_true(dlua.allclose(seen.before, net[1].bias, {equal_nan = true})) end
    end)
  end

  it("looks at the validation loss too", function()
    local net = cnn()
    put(net[2].running_mean, nan)
    local loader = dlua.data.DataLoader(dlua.data.TensorDataset(table.unpack(pictures())), {batch_size = 5})
    local ok, message = pcall(train.fit, {net = net, optimizer = optim.SGD(net:parameters(), {lr = 0.01}),
      loss = nn.CrossEntropyLoss(), train = loader, val = loader, epochs = 2, progress = false})
    assert.is_false(ok)
    assert.is_truthy(tostring(message):find("val_loss is .*nan in epoch 1"), message)
  end)

  it("names the layer of 23 or more of 25", function()
    local named = 0
    for k, case in ipairs(cases) do
      local _, message = run(case, k)
      if case.layer and message:find("%f[%d]" .. case.layer .. "%f[%D]") then
        named = named + 1
      elseif case.layer then
        print(("not named: layer %s in %q"):format(case.layer, message))
      end
    end
    assert.equal(25, #cases)
    assert.is_true(named >= 23, ("%d named"):format(named))
  end)
end)
