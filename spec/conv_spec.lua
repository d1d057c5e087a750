-- Convolution, pooling and products: fast kernels against f64, what they refuse, layouts in a chain.
local dlua = require "dlua"
local fails = require "spec.helpers".fails

-- The largest difference between x and an f64 oracle, as a part of the oracle's largest element.
local function error_of(x, oracle)
  return (x:double() - oracle):abs():max():item() / oracle:abs():max():item()
end

local function run(x, w, b, g, options)
  x, w = x:detach():requires_grad_(), w:detach():requires_grad_()
  local y = dlua.conv2d(x, w, b, options)
  ;(y * g):sum():backward()
  return {y:detach(), x.grad, w.grad}
end

local function compare(channels, results, size, options, limit)
  local x, w = dlua.randn(5, channels, size, size), dlua.randn(results, channels, 3, 3)
  local b = dlua.randn(results)
  local g = dlua.randn(dlua.conv2d(x, w, b, options).shape)
  local oracle = run(x:double(), w:double(), b:double(), g:double(), options)
  for k, y in ipairs(run(x, w, b, g, options)) do
    assert.is_true(error_of(y, oracle[k]) < limit, ("result %d of %d -> %d channels"):format(k, channels, results))
  end
end

describe("conv2d", function()
  it("agrees with f64 in every kernel", function()
    compare(3, 6, 12, {padding = 1}, 1e-5)
    compare(3, 32, 12, {padding = 1}, 1e-5)
    compare(16, 32, 9, {stride = 2, padding = 1}, 1e-5)
    compare(20, 24, 9, {dilation = 2}, 1e-5)
  end)

  it("keeps Winograd within 5e-5, and can do without", function()
    compare(32, 64, 13, {padding = 1}, 5e-5)
    local was = dlua.winograd(false)
    compare(32, 64, 13, {padding = 1}, 1e-5)
    dlua.winograd(was)
  end)

  it("chooses by timing when asked to", function()
    local was = dlua.autotune(true)
    compare(32, 32, 8, {padding = 1}, 5e-5)
    dlua.autotune(was)
  end)

  it("rounds what it computes in blocks of f32 to a bf16 result", function()
    local x, w = dlua.randn(2, 16, 7, 7):to("bf16"), dlua.randn(32, 16, 3, 3):to("bf16")
    local y = dlua.conv2d(x, w, nil, {padding = 1})
    local exact = dlua.conv2d(x:float(), w:float(), nil, {padding = 1})
    assert.equal("bf16", y.dtype)
    -- half a step of bf16, and what two orders of summation differ by
    local allowed = exact:abs() * 2 ^ -8 + exact:abs():max() * 1e-6
    assert.is_true(((y:float() - exact):abs() - allowed):max():item() <= 0)
  end)

  it("sees changed weights", function()
    local x, w = dlua.ones(1, 16, 4, 4), dlua.ones(16, 16, 1, 1)
    assert.equal(16, dlua.conv2d(x, w)[{1, 1, 1, 1}]:item())
    w:mul_(2)
    assert.equal(32, dlua.conv2d(x, w)[{1, 1, 1, 1}]:item())
  end)

  it("names both channel counts", function()
    assert.has_error(function() dlua.conv2d(dlua.ones(8, 3, 32, 32), dlua.ones(16, 1, 5, 5)) end)
    local _, message = pcall(dlua.conv2d, dlua.ones(8, 3, 32, 32), dlua.ones(16, 1, 5, 5))
    assert.truthy(tostring(message):find(
      "conv2d: x has 3 channels but w expects 1 (x {8,3,32,32}, w {16,1,5,5})", 1, true))
  end)
end)

describe("adaptive_max_pool2d", function()
  -- The gradient of k times result k shows which places were chosen.
  local function places(x, size)
    x = x:clone():requires_grad_()
    local y = x:adaptive_max_pool2d(size)
    y:backward(dlua.range(1, y:numel()):reshape(y.shape):float())
    return y:detach(), x.grad
  end

  it("chooses the places of the plain kernel among equals, infinities and NaN", function()
    dlua.seed(5)
    for _, size in ipairs {{1, 1}, {2, 3}, {1, 5}, {40, 70}} do
      for _, odd in ipairs {0, -math.huge, math.huge, 0 / 0} do
        local x = dlua.randn(2, 3, 21, 37):round()
        x = dlua.where(dlua.rand(2, 3, 21, 37):gt(odd == -math.huge and 0 or 0.9), dlua.full({1}, odd), x)
        local fast, fast_grad = places(x, size)
        local was = dlua.test.reference(true)
        local plain, plain_grad = places(x, size)
        dlua.test.reference(was)
        assert.is_true(dlua.allclose(plain, fast, {rtol = 0, atol = 0, equal_nan = true}))
        assert.is_true(plain_grad:equal(fast_grad))
      end
    end
  end)
end)

describe("max_pool2d", function()
  it("keeps a nan", function()
    for place = 1, 4 do
      local values = {1, 2, 3, 4}
      values[place] = 0 / 0
      local y = dlua.max_pool2d(dlua.tensor(values):reshape(1, 1, 2, 2), 2):item()
      assert.is_true(y ~= y)
    end
  end)

  it("survives windows without a tap inside", function()
    local x = dlua.randn(1, 1, 2, 2):requires_grad_()
    dlua.max_pool2d(x, 2, {padding = 1, dilation = 3}):sum():backward()
    assert.equal(0, x.grad:abs():sum():item())
  end)

  it("has second derivatives of windows without a tap inside", function()
    local x = dlua.randn({1, 1, 2, 2}, {dtype = "f64"}):requires_grad_()
    local function pooled(v) return dlua.max_pool2d(v, 2, {padding = 1, dilation = 3}) end
    local w = dlua.tensor({3}, {dtype = "f64"}):reshape(1, 1, 1, 1):requires_grad_()
    assert.equal(-math.huge, pooled(x):item())
    local gx = dlua.grad(pooled(x), x, {grad_outputs = w, create_graph = true})
    assert.equal(0, gx:abs():sum():item())
    assert.equal(0, dlua.grad((gx * 5):sum(), w):item())
  end)

  it("refuses planes whose places do not fit 32 bits", function()
    local x = dlua.zeros(0, 1, 1 << 16, 1 << 15)
    fails(function() dlua.max_pool2d(x, 2) end, "max_pool2d", "65536x32768", "2147483647")
    fails(function() dlua.adaptive_max_pool2d(x, 1) end, "adaptive_max_pool2d", "65536x32768")
    local few = dlua.ones(1, 1, 2, 2)
    fails(function() few:adaptive_max_pool2d({1 << 16, 1 << 15}) end, "adaptive_max_pool2d", "65536x32768")
  end)

  it("gives the same in blocked and plain memory", function()
    local x = dlua.randn(2, 16, 9, 9)
    local same = dlua.conv2d(x, dlua.eye(16):reshape(16, 16, 1, 1))
    local plain = dlua.max_pool2d(x, 3, {stride = 2, padding = 1})
    assert.is_true(dlua.max_pool2d(same, 3, {stride = 2, padding = 1}):allclose(plain))
  end)

  it("gives results of another type from blocked memory", function()
    local x = dlua.randn(2, 16, 9, 9)
    local same = dlua.conv2d(x, dlua.eye(16):reshape(16, 16, 1, 1))
    assert.equal(x:gt(0):sum():item(), same:gt(0):sum():item())
    assert.equal(x:numel(), same:isfinite():sum():item())
    same = dlua.conv2d(x, dlua.eye(16):reshape(16, 16, 1, 1))
    assert.is_true(dlua.ops.cast(same, "f64"):allclose(dlua.ops.cast(x, "f64"), {rtol = 1e-5, atol = 1e-6}))
  end)
end)

describe("matmul", function()
  it("takes transposed operands as they lie", function()
    local x, y = dlua.randn(40, 30), dlua.randn(50, 30)
    assert.is_true(x:matmul(y:t()):allclose((y:matmul(x:t())):t(), {rtol = 1e-4, atol = 1e-4}))
  end)

  it("multiplies integers", function()
    local x = dlua.tensor({{1, 2}, {3, 4}}, {dtype = "i64"})
    assert.equal(22, x:matmul(x)[{2, 2}]:item())
  end)
end)
