-- core_spec.lua - places where the dispatch and the tape could go wrong without a word.
local dlua = require "dlua"
local nn = dlua.nn

local function leaf(values) return dlua.tensor(values, {requires_grad = true}) end

local function fails(pattern, fn)
  local ok, message = pcall(fn)
  assert.is_false(ok)
  assert.matches(pattern, message)
end

-- A tensor in a blocked layout, where the CPU has one: what a convolution to 16 channels gives.
local function activation() return dlua.randn(2, 16, 5, 5):conv2d(dlua.randn(16, 16, 3, 3), {padding = 1}) end

describe("a blocked activation", function()
  before_each(function() dlua.seed(3) end)

  it("equals its contiguous copy in every elementwise op, whatever the result's dtype", function()
    local x = activation()
    local plain = dlua.tensor(x:totable())
    assert.equal(plain:gt(0):sum():item(), activation():mul(0):add(x):gt(0):sum():item())
    assert.close(plain:to("f64"):square():sum(), x:to("f64"):square():sum(), {rtol = 1e-12})
    assert.is_true(x:isfinite():all():item())
    assert.is_true(x:allclose(plain))
  end)

  it("is taken from a number", function()
    local x = activation()
    local y = 1 - x
    assert.close(1 - dlua.tensor(x:totable()), y)
  end)

  it("travels to another device and back", function()
    local x = activation()
    assert.equal(0, (x:to("mock"):to("cpu") - x):abs():max():item())
  end)

  it("serves as the weight of a convolution", function()
    local x, w = activation(), dlua.randn(16, 16, 5, 5):conv2d(dlua.randn(16, 16, 3, 3))
    local expected = x:conv2d(dlua.tensor(w:totable()))
    assert.close(expected, x:conv2d(w), {rtol = 1e-5, atol = 1e-4})
  end)

  it("shares its memory with what was detached from it", function()
    local x = activation()
    local other = x:detach()
    x:fill_(1)
    assert.equal(1, other:min():item())
    x[1] = 7
    assert.equal(7, other:max():item())
  end)

  it("keeps its history when a view of it is taken before the second derivative", function()
    local x = activation():detach()
    x.requires_grad = true
    local y = (x * x * x):sum()
    local _ = x[1]
    local first = dlua.grad(y, x, {create_graph = true})
    assert.close(6 * x:detach(), dlua.grad(first:sum(), x), {rtol = 1e-5, atol = 1e-5})
  end)
end)

describe("a call in place", function()
  it("never keeps what it overwrites for the gradient", function()
    local w = leaf {2, 3}
    for _, name in ipairs {"mul_", "div_"} do
      fails("in place", function()
        local x = w * 1
        x[name](x, x:detach())
        x:sum():backward()
      end)
    end
  end)

  it("is applied once, whichever allocation fails", function()
    for n = 1, 12 do
      local x, factor = dlua.zeros(3) + 1, dlua.ones({3}, {requires_grad = true})
      dlua.test.fail_allocation(n)
      pcall(function()
        x:add_(10)
        x:mul_(factor)
      end)
      dlua.test.fail_allocation(0)
      assert.equal(11, x[1]:item())
    end
  end)

  it("moves running averages of every float dtype", function()
    for _, dtype in ipairs {"f32", "f64", "bf16", "f16"} do
      local layer = nn.BatchNorm1d(2):to(dtype)
      layer(dlua.randn(64, 2):to(dtype) + 3)
      assert.is_true(layer.running_mean[1]:item() > 0.2)
    end
  end)
end)

describe("a walk over the tape", function()
  it("works again after an allocation failed in it", function()
    for n = 1, 40 do
      local x = leaf {1, 2}
      local y = (x * x):sum()
      dlua.test.fail_allocation(n)
      local ok = pcall(y.backward, y, {retain_graph = true})
      dlua.test.fail_allocation(0)
      if not ok then
        x.grad = nil
        y:backward()
      end
      assert.same({2, 4}, x.grad:totable())
    end
  end)

  it("refuses to start over nodes that an outer walk is on", function()
    local z = leaf {1, 1}
    local h = z * 3
    local inner = dlua.Function {
      forward = function(_, a) return a * 1 end,
      backward = function(_, g)
        dlua.enable_grad(function() return dlua.grad((h * 2):sum(), {z}) end)
        return g
      end,
    }
    fails("outer backward", function() inner(h):sum():backward() end)
  end)

  it("gives every leaf a gradient of its own", function()
    local a, b = leaf {1, 1}, leaf {1, 1}
    local y = ((a + b) * 4):sum()
    y:backward {create_graph = true}
    nn.clip_grad_norm_({a, b}, 1)
    assert.close(dlua.tensor {0.5, 0.5}, a.grad)
    assert.close(dlua.tensor {0.5, 0.5}, b.grad)
    local ga, gb = dlua.grad((a + b):sum(), {a, b})
    ga:mul_(10)
    assert.same({1, 1}, gb:totable())
  end)

  it("takes only a gradient of the tensor's own dtype and device", function()
    local x = leaf {1, 2}
    fails("x is f32 but the gradient is f64", function() x:backward(dlua.ones({2}, {dtype = "f64"})) end)
    fails("x is on cpu but the gradient is on mock", function() x:backward(dlua.ones(2):to("mock")) end)
  end)

  it("computes with numbers in the precision of the tensor", function()
    local x = dlua.tensor({1.5}, {dtype = "f64", requires_grad = true})
    local y = 2 ^ x
    y:sum():backward()
    assert.is_true(math.abs(x.grad:item() - 2 ^ 1.5 * math.log(2)) < 1e-14)
    x.grad = nil
    dlua.atan2(0.1, x):sum():backward()
    assert.is_true(math.abs(x.grad:item() + 0.1 / (0.01 + 2.25)) < 1e-14)
  end)
end)
