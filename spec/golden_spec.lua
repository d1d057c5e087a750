-- golden_spec.lua - the numbers that PyTorch computes (golden/make.py) are the numbers that dlua computes.
local dlua = require "dlua"
local derived = require "spec.derived"
local nn, optim = dlua.nn, dlua.optim

-- |a - b| <= rtol |b| + atol + scaled * max|b|, by dtype and kind of op.
local function tolerances(op, dtype)
  if dtype == "f64" then return 1e-10, 1e-12, 1e-11 end
  if op.elementwise then return 1.3e-6, 1e-5 end
  return 1e-5, 1e-6, 1e-5
end

local function T(dtype, size, data) return {size = size, data = data, dtype = dtype, is_array = true} end
local function is_array(v) return type(v) == "table" and v.is_array end

-- The loss whose gradients make.py stored: sum(result * cos(1..n)).
local function loss_of(results)
  local loss
  for k = 1, results.n do
    if results[k].requires_grad then
      local weights = {}
      for i = 1, results[k]:numel() do weights[i] = math.cos(i) end
      local flat = results[k]:flatten()
      local term = (flat * dlua.tensor(weights, {dtype = flat.dtype})):sum()
      loss = loss and loss + term or term
    end
  end
  return loss
end

local function run(case, dtype)
  local op, arguments, inputs = dlua.op_info(case.op), {}, {}
  for k, v in ipairs(case.args) do
    if is_array(v) then
      local x = derived.tensor(v, {dtype = dtype})
      if v.dtype == "f64" then
        x:requires_grad_(#case[dtype].gradients > 0)
        inputs[#inputs + 1] = x
      end
      arguments[k] = x
    else
      arguments[k] = v
    end
  end
  local results = table.pack(dlua.ops[case.op](table.unpack(arguments)))
  local loss = #case[dtype].gradients > 0 and loss_of(results)
  return op, results, loss and table.pack(dlua.grad(loss, inputs, {allow_unused = true})) or {}
end

-- A slope at infinity or at NaN has no right value: both sides are set to 0 there.
local function forget_where_input_is_not_finite(case, k, got, wanted)
  for _, v in ipairs(case.args) do
    if is_array(v) and v.dtype == "f64" then
      k = k - 1
      if k == 0 then
        for i, x in ipairs(v.data) do
          if x - x ~= 0 then got.data[i], wanted.data[i] = 0, 0 end
        end
      end
    end
  end
end

local function check(case, dtype)
  local op, results, gradients = run(case, dtype)
  local wanted = case[dtype]
  assert.equal(#wanted.results, results.n, case.op .. ": number of results")
  for k, array in ipairs(wanted.results) do
    local why = derived.difference(derived.read(results[k]), array, tolerances(op, dtype))
    assert.is_nil(why, ("%s %s result %d: %s"):format(dtype, case.op, k, why))
  end
  for k, array in ipairs(wanted.gradients) do
    if array then
      assert(gradients[k], ("%s %s gradient %d: there is none"):format(dtype, case.op, k))
      local got = derived.read(gradients[k])
      forget_where_input_is_not_finite(case, k, got, array)
      local why = derived.difference(got, array, tolerances(op, dtype))
      assert.is_nil(why, ("%s %s gradient %d: %s"):format(dtype, case.op, k, why))
    end
  end
end

-- Ops without numbers from PyTorch, besides random and hidden ones: they copy elements or write constants, and
-- reference.lua says which.
local without_golden = {}
for name in ([[cast cat clone contiguous empty eye fill flatten full full_like index_add index_copy linspace ones
  ones_like range reshape scatter scatter_add squeeze stack t unsqueeze zero zeros zeros_like]]):gmatch "%S+" do
  without_golden[name] = true
end

describe("values from PyTorch:", function()
  local count = {}
  for _, case in ipairs(require "spec.golden.ops"(T)) do
    count[case.op] = (count[case.op] or 0) + 1
    for _, dtype in ipairs {"f64", "f32"} do
      it(("%s %d in %s"):format(case.op, count[case.op], dtype), function() check(case, dtype) end)
    end
  end

  it("cover the ops that have a counterpart", function()
    for _, name in ipairs(dlua.op_info()) do
      local op = dlua.op_info(name)
      local has_case = count[name] ~= nil
      if not op.hidden and not op.random then assert.equal(not without_golden[name], has_case, name) end
    end
  end)
end)

-- ---------------------------------------------------------------- training

-- Numbers that make.py computes to the same bits.
local function scrambled(size, salt, scale)
  local n, values = 1, {}
  for _, s in ipairs(size) do n = n * s end
  for k = 1, n do values[k] = ((k * 7919 + salt * 104729) % 2003 / 2003 - 0.5) * scale end
  return dlua.tensor(values, {dtype = "f64"}):reshape(size)
end

local function mlp() return nn.Sequential {nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)} end
local function cnn()
  return nn.Sequential {
    nn.Conv2d(1, 4, 3, {padding = 1}), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(),
    nn.Flatten(), nn.Linear(24, 3),
  }
end

local models = {
  mlp_sgd = {mlp, {12, 4}, function(p) return optim.SGD(p, {lr = 0.1}) end},
  mlp_momentum = {mlp, {12, 4}, function(p) return optim.SGD(p, {lr = 0.05, momentum = 0.9}) end},
  mlp_adamw = {mlp, {12, 4}, function(p) return optim.AdamW(p, {lr = 0.01, weight_decay = 0.1}) end},
  cnn_adam = {cnn, {6, 1, 8, 8}, function(p) return optim.Adam(p, {lr = 0.002}) end},
  cnn_rmsprop = {cnn, {6, 1, 8, 8}, function(p) return optim.RMSprop(p, {lr = 0.001}) end},
}

local function train(build, size, optimizer)
  local net, classes, losses = build():to("f64"), {}, {}
  dlua.no_grad(function()
    for salt, p in ipairs(net:parameters()) do p:zero_():add_(scrambled(p.shape, salt, 0.5)) end
  end)
  for k = 1, size[1] do classes[k] = (k - 1) % 3 + 1 end
  local x, y = scrambled(size, 99, 4.0), dlua.tensor(classes, {dtype = "i64"})
  local opt = optimizer(net:parameters())
  for step = 1, 100 do
    local loss = net(x):cross_entropy(y)
    opt:zero_grad()
    loss:backward()
    opt:step()
    losses[step] = loss:item()
  end
  return losses
end

describe("the first hundred losses", function()
  for name, wanted in pairs(require "spec.golden.losses") do
    it("of " .. name, function()
      local losses = train(table.unpack(models[name]))
      for step, value in ipairs(wanted) do
        assert.is_true(math.abs(losses[step] - value) <= 1e-9,
          ("%s, step %d: %.15g, PyTorch has %.15g"):format(name, step, losses[step], value))
      end
    end)
  end
end)
