-- bf16_spec.lua - products and convolutions in bf16, which the CPU's own units compute where it has them, beside the
-- same in f32: sizes beyond one tile of those units, and every way an operand can lie.
local dlua = require "dlua"
local sorted = require "spec.helpers".sorted

local function bf16(...) return dlua.randn(...):to "bf16" end

-- got is in bf16 and at most one of its steps away from wanted, in f32.
local function assert_near(wanted, got, what)
  assert.equal("bf16", got.dtype, what)
  local room = wanted:abs() * 2 ^ -7 + wanted:abs():max() * 1e-5
  assert.is_true((got:to "f32" - wanted):abs():le(room):all():item(), what .. " differs from f32")
end

local function in_f32(op, ...)
  local wide = {...}
  for k, x in ipairs(wide) do wide[k] = type(x) == "userdata" and x:to "f32" or x end
  return dlua[op](table.unpack(wide))
end

local function check(what, op, ...) assert_near(in_f32(op, ...), dlua[op](...), what) end

describe("a product in bf16", function()
  before_each(function() dlua.seed(3) end)

  it("takes rows and columns", function()
    local x, y, xt, yt = bf16(67, 130), bf16(130, 45), bf16(130, 67), bf16(45, 130)
    check("x y", "matmul", x, y)
    check("x' y", "matmul", xt:transpose(1, 2), y)
    check("x y'", "matmul", x, yt:transpose(1, 2))
    check("x' y'", "matmul", xt:transpose(1, 2), yt:transpose(1, 2))
  end)

  it("takes parts, repeated rows and steps", function()
    local x, y = bf16(90, 80), bf16(80, 70)
    check("a part", "matmul", x:narrow(1, 5, 60):narrow(2, 9, 40), y:narrow(1, 3, 40):narrow(2, 2, 33))
    check("a repeated row", "matmul", bf16(1, 80):expand(50, 80), y)
    check("a repeated column", "matmul", bf16(50, 1):expand(50, 80), y)
    check("every second", "matmul", x[{{1, 90, 2}, {1, 80, 2}}], y[{{1, 80, 2}, {1, 70, 2}}])
    check("vectors", "dot", bf16(300), bf16(300))
    check("a matrix and a vector", "matmul", x, bf16(80))
  end)

  it("takes batches, repeated ones too", function()
    check("bmm", "bmm", bf16(5, 33, 40), bf16(5, 40, 21))
    check("a batch and a matrix", "matmul", bf16(2, 3, 33, 40), bf16(40, 21))
    check("a matrix and a batch", "matmul", bf16(33, 40), bf16(2, 3, 40, 21))
    check("two that repeat each other", "matmul", bf16(2, 1, 33, 40), bf16(3, 40, 21))
    check("an expanded batch", "bmm", bf16(1, 33, 40):expand(4, 33, 40), bf16(4, 40, 21))
    local heads = bf16(2, 19, 4, 32):transpose(2, 3)
    check("heads", "matmul", heads, heads:transpose(-2, -1))
  end)

  it("adds a bias and takes no elements", function()
    check("linear", "linear", bf16(31, 100), bf16(50, 100), bf16(50))
    check("a bias with steps", "linear", bf16(31, 100), bf16(50, 100), bf16(50, 2):select(2, 1))
    check("linear of a batch", "linear", bf16(3, 31, 100), bf16(50, 100), bf16(50))
    assert.equal(0, bf16(4, 0):matmul(bf16(0, 3)):abs():sum():item())
    assert.same({0, 3}, bf16(0, 4):matmul(bf16(4, 3)).shape)
  end)
end)

describe("a convolution in bf16", function()
  before_each(function() dlua.seed(4) end)

  -- Forward and both gradients of x {n,c,h,w} and w.
  local function check_all(what, x, w, b, options)
    local y = dlua.conv2d(x, w, b, options)
    assert_near(dlua.conv2d(x:to "f32", w:to "f32", b and b:to "f32", options), y, what)
    local g = bf16(table.unpack(y.shape))
    for _, op in ipairs {"conv2d_input_grad", "conv2d_weight_grad"} do
      local other = op == "conv2d_input_grad" and w or x
      local size = op == "conv2d_input_grad" and x.shape or w.shape
      local given = {size = {size[3], size[4]}}
      for key, value in pairs(options) do given[key] = value end
      local run = dlua.ops[op]
      assert_near(run(g:to "f32", other:to "f32", given), run(g, other, given), what .. ": " .. op)
    end
  end

  it("takes many channels and few", function()
    check_all("64 to 32", bf16(3, 64, 12, 11), bf16(32, 64, 3, 3), bf16(32), {padding = 1})
    check_all("3 to 32", bf16(3, 3, 12, 11), bf16(32, 3, 5, 5), nil, {padding = 2})
    check_all("5 to 7", bf16(3, 5, 12, 11), bf16(7, 5, 3, 3), bf16(7), {padding = 0})
  end)

  it("takes strides, dilations and groups", function()
    check_all("strides", bf16(2, 32, 13, 14), bf16(48, 32, 3, 3), bf16(48), {stride = 2, padding = 1})
    check_all("dilations", bf16(2, 32, 13, 14), bf16(16, 32, 3, 3), nil, {dilation = 2})
    check_all("groups", bf16(2, 32, 9, 9), bf16(64, 16, 3, 3), bf16(64), {groups = 2, padding = 1})
    check_all("depthwise", bf16(2, 32, 9, 9), bf16(32, 1, 3, 3), bf16(32), {groups = 32})
  end)

  it("takes channels last and parts", function()
    local x = bf16(3, 10, 11, 32):permute(1, 4, 2, 3)
    check_all("channels last", x, bf16(32, 32, 3, 3), nil, {padding = 0})
    check_all("a part", bf16(3, 40, 20, 20):narrow(2, 3, 32):narrow(3, 2, 9), bf16(16, 32, 3, 3), nil, {padding = 0})
  end)
end)

describe("arithmetic in 16 bits", function()
  before_each(function() dlua.seed(5) end)

  -- f of x {40,50} in bf16 and f16 gives what it gives for x in f32, rounded once.
  local function check_rounded(what, f)
    for _, dtype in ipairs {"bf16", "f16"} do
      local x, y = dlua.randn(40, 50):to(dtype), dlua.randn(40, 50):to(dtype)
      local wanted, got = f(x:float(), y:float()), f(x:clone(), y)
      if wanted.dtype == "f32" then wanted = wanted:to(dtype) end
      assert.equal(wanted.dtype, got.dtype, what)
      assert.is_true(wanted:eq(got):all():item(), what .. " in " .. dtype)
    end
  end

  local operands = {
    ["a number"] = function() return 0.1 end,
    ["an integer"] = function() return 3 end,
    ["a tensor of its dtype"] = function(_, y) return y end,
    ["a transposed tensor"] = function(_, y) return y:reshape(50, 40):t() end,
    ["a row"] = function(_, y) return y[{{3, 3}}] end,
    ["a column"] = function(_, y) return y[{{}, {2, 2}}] end,
    ["one element of f32"] = function() return dlua.tensor(0.1) end,
    ["one element of f64"] = function() return dlua.tensor(0.1, {dtype = "f64"}) end,
    ["integers"] = function() return dlua.range(1, 2000, {dtype = "i64"}):reshape(40, 50) end,
    ["a mask"] = function() return dlua.range(1, 2000):reshape(40, 50):gt(700) end,
  }
  for name, operand in sorted(operands) do
    it("takes " .. name, function()
      for _, op in ipairs {"add", "mul", "div", "maximum", "gt", "eq"} do
        check_rounded(op .. " of " .. name, function(x, y) return dlua[op](x, operand(x, y)) end)
        if name ~= "a number" and name ~= "an integer" then
          check_rounded(op .. " to " .. name, function(x, y) return dlua[op](operand(x, y), x) end)
        end
      end
      check_rounded("add_ of " .. name, function(x, y) return x:add_(operand(x, y)) end)
      check_rounded("sub_ of " .. name .. " from columns", function(x, y)
        return x:t():sub_(dlua.add(operand(x, y), 0):t())
      end)
    end)
  end

  it("takes functions, limits and tests", function()
    check_rounded("exp", function(x) return x:exp() end)
    check_rounded("clamp", function(x) return x:clamp {min = -0.3, max = 1e6} end)
    check_rounded("isnan", function(x) return (x / 0 * 0):isnan() end)
    check_rounded("neg_", function(x) return x:t():neg_() end)
  end)
end)
