-- determinism_spec.lua - the same calls on a GPU give the same bits, in whatever order its blocks run, and training
-- there follows training on the CPU. DLUA_MODULES=build/emulated runs it without a GPU.
local dlua = require "dlua"
local nn, optim, ops, T = dlua.nn, dlua.optim, dlua.ops, dlua.transforms

local available, reason = dlua.cuda.available()
if not available then
  describe("determinism on the GPU", function() pending(reason) end)
  return
end

local TIMES = 20

-- How far the losses of 20 steps may be from the CPU's, as a part of them: sums are added up in another order, and
-- each step carries the difference on.
local CURVE = 1e-3

local function cnn()
  return nn.Sequential {
    nn.Conv2d(3, 8, 3, {padding = 1}), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(8, 8, 3, {padding = 1}), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(8 * 4 * 4, 4),
  }
end

-- A fresh network and always the same examples, which four kinds of brightness tell apart: loss_of computes the loss,
-- step trains once and gives it. With dtype the forward pass is in mixed precision.
local function training(device, dtype)
  dlua.seed(11)
  local t = {net = cnn():to(device)}
  t.opt = optim.SGD(t.net:parameters(), {lr = 0.05, momentum = 0.9})
  local x = dlua.randn(12, 3, 8, 8)
  local bright, red = x:mean({2, 3, 4}):gt(0):to "i64", x:select(2, 1):mean({2, 3}):gt(0):to "i64"
  local y = (bright * 2 + red + 1):to(device)
  x = x:to(device)
  function t.loss_of()
    return dlua.autocast(dtype or "f32", function() return t.net(x):cross_entropy(y) end)
  end
  function t.step()
    local loss = t.loss_of()
    t.opt:zero_grad()
    loss:backward()
    t.opt:step()
    return loss
  end
  return t
end

local function losses(device, steps, dtype)
  local t, list = training(device, dtype), {}
  for k = 1, steps do list[k] = t.step():detach() end
  for k, loss in ipairs(list) do list[k] = loss:item() end
  return list
end

local function same_bits(a, b) return a.dtype == b.dtype and a:eq(b):all():item() end

-- Calls f TIMES times: each of its results must be the first call's, bit by bit.
local function check(f)
  local first = table.pack(f())
  for k = 1, first.n do assert.finite(first[k]) end
  for time = 2, TIMES do
    local again = table.pack(f())
    for k = 1, first.n do
      assert.is_true(same_bits(first[k], again[k]), ("call %d differs from the first in result %d"):format(time, k))
    end
  end
end

-- Sums of these depend on the order of adding.
local function numbers(...) return dlua.randn(...):mul(1e3):to "cuda" end

describe("the same bits on the GPU come", function()
  local tf32
  setup(function() tf32 = dlua.cuda.tf32(false) end)
  teardown(function() dlua.cuda.tf32(tf32) end)

  for _, dtype in ipairs {"f32", "bf16"} do
    it("from a step of training a convolutional network in " .. dtype, function()
      check(function()
        local t = training("cuda", dtype)
        t.step()
        local results = {t.step():detach()}
        for _, p in ipairs(t.net:parameters()) do
          results[#results + 1] = p:detach()
          results[#results + 1] = p.grad
        end
        return table.unpack(results)
      end)
    end)
  end

  it("from many writers of one place", function()
    dlua.seed(3)
    local writers, places = 6000, 7
    local index = dlua.randint(1, places, {writers}):to "cuda"
    local values, wide = numbers(writers), numbers(writers, 5)
    check(function()
      local zeros = dlua.zeros({places}, {device = "cuda"})
      return ops.scatter_add(zeros, 1, index, values),
        ops.index_add(dlua.zeros({places, 5}, {device = "cuda"}), 1, index, wide)
    end)
  end)

  it("from the gradients of an embedding and of repeated indices", function()
    dlua.seed(4)
    local index = dlua.randint(1, 9, {3000}):to "cuda"
    local weights = numbers(3000, 6)
    check(function()
      local table_of = dlua.ones({9, 6}, {device = "cuda"}):requires_grad_()
      return dlua.grad((table_of:index_select(1, index) * weights):sum(), table_of)
    end)
  end)

  for _, dtype in ipairs {"f32", "bf16"} do
    it("from the gradients of linear layers in " .. dtype, function()
      dlua.seed(7)
      local gelu = nn.GELU {approximate = "tanh"}
      local net = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 40), gelu, nn.Linear(40, 8))
      net:to(dtype):to "cuda"
      local x = dlua.randn(500, 24):to(dtype):to "cuda"
      check(function() return dlua.grad(net(x):square():sum(), net:parameters()) end)
    end)
  end

  it("from reductions", function()
    dlua.seed(5)
    local x, tall = numbers(100003), numbers(3001, 37)
    check(function()
      return x:sum(), x:mean(), x:var(), x:norm(), tall:sum(1), tall:sum(2), tall:logsumexp(2), tall:cumsum(1)
    end)
  end)

  it("from dropout with the same seed, and the CPU's places are dropped", function()
    local x = dlua.ones(5000)
    local function dropped(v)
      dlua.seed(6)
      return ops.dropout(v, 0.3)
    end
    local on_gpu = x:to "cuda"
    check(function() return dropped(on_gpu) end)
    assert.is_true(same_bits(dropped(x), dropped(on_gpu):to "cpu"))
    assert.is_false(same_bits(dropped(on_gpu), ops.dropout(on_gpu, 0.3)))
  end)
end)

describe("pictures made on the GPU", function()
  it("are the CPU's, bit by bit", function()
    local set = dlua.data.TensorDataset(dlua.randint(0, 255, {64, 3, 32, 29}):to "u8")
    local normalize = T.Normalize({0.49, 0.48, 0.45}, {0.25, 0.24, 0.26})
    local jitter = T.ColorJitter(0.4, {contrast = 0.4, saturation = 0.4, hue = 0.5})
    local affine = {translate = 0.2, scale = {0.6, 1.4}, shear = 20, interpolation = "bilinear"}
    for _, list in ipairs {
      {T.RandomCrop(32, {padding = 4}), T.RandomHorizontalFlip(), T.ToFloat(), normalize, T.RandomErasing(0.8)},
      {T.RandomErasing {p = 0.8, value = "random"}, T.RandomVerticalFlip(), jitter, T.ToFloat(), normalize},
      {T.ToFloat(), jitter, T.RandomErasing {value = "random"}, normalize, jitter, T.RandomRotation(30)},
      {jitter, T.RandomAffine(180, affine), T.ToFloat(), T.RandomAffine(40, {shear = 10})},
      {T.ToFloat(), jitter, T.RandomAffine(180, affine), jitter, normalize},
      {T.RandomRotation(20), T.Resize(20), T.RandomCrop(18), jitter, T.ToFloat()},
      {T.ToFloat(), normalize, T.Resize {50, 70}, T.RandomVerticalFlip()},
    } do
      local function made(device)
        dlua.seed(91)
        local loader = dlua.data.DataLoader(set, {batch_size = 64, transform = T.Compose(list), device = device})
        local x = loader:iter()()
        assert.equal(device == "cuda", loader.home ~= nil)
        return x:to "cpu"
      end
      assert.is_true(same_bits(made "cpu", made "cuda"), tostring(T.Compose(list)))
    end
  end)
end)

describe("training on the GPU", function()
  it("follows the CPU in f32", function()
    local tf32 = dlua.cuda.tf32(false)
    local wanted, got = losses("cpu", 20), losses("cuda", 20)
    dlua.cuda.tf32(tf32)
    for k, loss in ipairs(wanted) do
      assert.is_true(math.abs(got[k] - loss) <= CURVE * loss, ("step %d: loss %.7g, not %.7g"):format(k, got[k], loss))
    end
    assert.is_true(wanted[20] < wanted[1] / 2)
  end)

  it("learns in bf16, with f32 parameters", function()
    local curve = losses("cuda", 20, "bf16")
    assert.is_true(curve[20] < curve[1] / 2, ("loss %.4g after %.4g"):format(curve[20], curve[1]))
    for _, p in ipairs(training("cuda", "bf16").net:parameters()) do assert.equal("f32", p.dtype) end
  end)

  it("in f16 scales the loss, and leaves out a step whose gradients overflow", function()
    local t, scaler = training("cuda", "f16"), dlua.GradScaler {init_scale = 1024}
    local function step(factor)
      local loss = t.loss_of()
      t.opt:zero_grad()
      scaler:scale(loss * factor):backward()
      scaler:step(t.opt)
      scaler:update()
      return loss
    end
    local waits = dlua.test.waits "cuda"
    local first = step(1)
    local before = {}
    for k, p in ipairs(t.net:parameters()) do before[k] = p:detach():clone() end
    step(1e30)
    assert.equal(waits, dlua.test.waits "cuda")
    assert.equal(512, scaler:get_scale())
    for k, p in ipairs(t.net:parameters()) do assert.is_true(same_bits(before[k], p:detach())) end
    local last
    for _ = 1, 20 do last = step(1) end
    assert.equal(512, scaler:get_scale())
    first, last = first:item(), last:item()
    assert.is_true(last < first / 2, ("loss %.4g after %.4g"):format(last, first))
  end)
end)
