-- layout_spec.lua - bf16 activations that lie channels-last on CPUs that multiply bf16: all ops give what they give for
-- strided ones, whatever the number of threads, and a training step moves nothing from one layout to another.
local dlua = require "dlua"
local sorted = require "spec.helpers".sorted
local nn = dlua.nn
local hooks = dlua.test
local cases = require "spec.layout_cases"
local activation = cases.activation

local function bf16(...) return dlua.randn(...):to "bf16" end

if hooks.layout(activation(bf16(2, 8, 5, 4))) ~= "nhwc" then
  describe("channels-last on the CPU", function() pending "this CPU does not multiply bf16" end)
  return
end

local function assert_close(wanted, got, limit, what)
  assert.same(wanted.shape, got.shape, what)
  assert.equal(wanted.dtype, got.dtype, what)
  wanted, got = wanted:double(), got:double()
  if wanted:numel() == 0 then return end
  local difference = (got - wanted):abs():max():item()
  local allowed = limit * math.max(wanted:abs():max():item(), 1e-3)
  assert.is_true(difference <= allowed, ("%s: %g of %g"):format(what, difference, allowed))
end

-- What f gives for x, channels-last or not, and the gradients of what it read.
local function run(f, x, y, as_activation)
  x, y = x:detach():requires_grad_(), y:detach():requires_grad_()
  dlua.seed(11)
  local result = f(as_activation and activation(x) or x, y)
  local layout = hooks.layout(result)
  local all = {result:detach()}
  if result.requires_grad then
    result:backward(dlua.randint(-3, 4, result.shape, {dtype = "f32"}):to(result.dtype))
    all[2], all[3] = x.grad, y.grad
  end
  return all, layout
end

-- Compares f with itself on strided activations, for numbers of channels that fill vectors and for some that do not.
local function check(name, f, layout, shape)
  for _, c in ipairs {32, 6, 56} do
    dlua.seed(5)
    local n, h, w = table.unpack(shape or {2, 9, 7})
    local x, y = bf16(n, c, h, w), bf16(n, c, h, w)
    local wanted, got, lies = run(f, x, y, false), run(f, x, y, true)
    local what = ("%s, %d channels"):format(name, c)
    assert.equal(layout, lies, what)
    assert.equal(#wanted, #got, what)
    for k in pairs(wanted) do assert_close(wanted[k], got[k], 2 ^ -5, what .. ", result " .. k) end
  end
end

describe("channels-last activations on the CPU", function()
  -- Its adaptive maxima are those of planes.
  local planes = {adaptive_max_pool2d = true}
  for name, f in sorted(cases.kept) do
    it("stay so through " .. name, function() check(name, f, planes[name] and "strided" or "nhwc") end)
  end
  for name, f in sorted(cases.strided) do
    it("are what strided ones are to " .. name, function() check(name, f, "strided") end)
  end

  it("are pooled in pictures of every size", function()
    local function pools(x) return dlua.max_pool2d(x, 2) end
    for _, size in ipairs {2, 15, 33} do check("max_pool2d of " .. size, pools, "nhwc", {2, size, size + 1}) end
    check("overlapping windows", function(x) return dlua.max_pool2d(x, 3, {stride = 1}) end, "nhwc", {1, 100, 90})
    check("wide steps", function(x) return dlua.max_pool2d(x, 1, {stride = 3}) end, "nhwc", {1, 8, 7})
  end)

  it("give nan and the first of equals as strided ones do", function()
    local x = dlua.zeros(1, 8, 4, 4, {dtype = "bf16"})
    x[{1, 1, 2, 2}], x[{1, 2, 1, 1}], x[{1, 3, 4, 3}] = 0 / 0, -math.huge, math.huge
    local function same(a, b) return a:eq(b):logical_or(a:isnan():logical_and(b:isnan())):all():item() end
    local h = activation(dlua.zeros(1, 8, 4, 4, {dtype = "bf16"})):add_(x)
    assert.equal("nhwc", hooks.layout(h))
    assert.is_true(same(dlua.max_pool2d(x, 2), dlua.max_pool2d(h, 2)))
    assert.is_true(same(dlua.max_pool2d(x, 3, {padding = 1, stride = 1}),
      dlua.max_pool2d(h, 3, {padding = 1, stride = 1})))
  end)

  it("give the sum of every channel", function()
    for _, c in ipairs {6, 16, 70} do
      local x = bf16(3, c, 15, 17)
      local h = activation(x)
      assert_close(dlua.ops.channel_sum(x), dlua.ops.channel_sum(h), 2 ^ -7, "channel_sum")
      assert.equal("nhwc", hooks.layout(h))
    end
  end)

  it("move running averages as strided ones do, in f32 and bf16", function()
    local x = bf16(4, 8, 5, 5)
    for _, dtype in ipairs {"f32", "bf16"} do
      local function averages(h)
        local mean, var = dlua.zeros(8, {dtype = dtype}), dlua.ones(8, {dtype = dtype})
        local weight = dlua.full({8}, 0.5, {dtype = dtype})
        local y = dlua.batch_norm(h, weight, nil, mean, var, {training = true})
        return mean, var, y
      end
      local mean, var, y = averages(x)
      local mean2, var2, y2 = averages(activation(x))
      assert_close(mean, mean2, 2 ^ -7, dtype)
      assert_close(var, var2, 2 ^ -7, dtype)
      assert_close(y, y2, 2 ^ -6, dtype)
      assert.is_true(mean:abs():max():item() > 0)
    end
  end)

  it("have the same bits for every number of threads", function()
    local x, g = bf16(8, 48, 33, 32), bf16(8, 48, 16, 16)
    local was, results = dlua.threads(), {}
    for _, threads in ipairs {1, 2} do
      dlua.threads(threads)
      local h = x:detach():requires_grad_()
      local weight = dlua.ones(48):requires_grad_()
      local z = activation(h)
      local y = dlua.max_pool2d(dlua.batch_norm(z, weight, nil, nil, nil, {training = true}):relu() + z, 2)
      y:backward(g)
      results[threads] = {y:detach(), h.grad, weight.grad, dlua.ops.channel_sum(z:detach())}
    end
    dlua.threads(was)
    for k = 1, 4 do assert.is_true(results[1][k]:eq(results[2][k]):all():item(), "result " .. k) end
  end)

  it("meet blocks of f32, and other dtypes", function()
    local x = bf16(2, 16, 5, 4)
    local wide = dlua.conv2d(dlua.ones(2, 16, 5, 4), dlua.eye(16):reshape(16, 16, 1, 1))
    for _, pair in ipairs {{activation(x):float(), wide}, {wide, activation(x):float()}, {activation(x), wide}} do
      assert_close(x:float() + 1, pair[1] + pair[2], 1e-6, "a sum")
    end
    for _, dtype in ipairs {"f64", "f16", "f32"} do
      local h, y = activation(x):to(dtype), x:to(dtype)
      assert_close(dlua.max_pool2d(y, 2), dlua.max_pool2d(h, 2), 1e-3, "max_pool2d of " .. dtype)
      assert_close(dlua.avg_pool2d(y, 2), dlua.avg_pool2d(h, 2), 1e-3, "avg_pool2d of " .. dtype)
      local mean, var = dlua.zeros(16, {dtype = dtype}), dlua.ones(16, {dtype = dtype})
      assert_close(dlua.batch_norm(y, nil, nil, mean, var), dlua.batch_norm(h, nil, nil, mean, var), 1e-3, dtype)
      assert_close(dlua.ops.channel_sum(y), dlua.ops.channel_sum(h), 2e-3, "channel_sum of " .. dtype)
    end
  end)

  it("are changed in place, and are the same tensor to all that share them", function()
    local x, y = bf16(2, 8, 5, 4), bf16(2, 8, 5, 4)
    local h = activation(x)
    assert_close(x + y, h:add_(y), 2 ^ -7, "a strided tensor added")
    assert.equal("nhwc", hooks.layout(h))
    local z = y:clone()
    z:add_(activation(x))
    assert.equal("strided", hooks.layout(z))
    assert_close(x + y, z, 2 ^ -7, "added to a strided tensor")
    h = activation(x)
    local other = h:detach()
    h[{2, 3, 4, 1}] = 100
    assert.equal(100, other[{2, 3, 4, 1}]:item())
    assert.equal(100, other:max():item())
  end)

  it("are no others in reference mode", function()
    local x = bf16(2, 8, 5, 4)
    local h = activation(x)
    local was = hooks.reference(true)
    local pooled, again = dlua.max_pool2d(h, 2), activation(x)
    hooks.reference(was)
    assert.equal("strided", hooks.layout(again))
    assert_close(dlua.max_pool2d(x, 2), pooled, 0, "pooled")
  end)

  it("are moved once by a training step of a network that ends in planes", function()
    dlua.seed(4)
    local body = nn.Sequential(nn.Conv2d(3, 8, 3, {padding = 1}), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
      nn.Conv2d(8, 16, 3, {padding = 1}), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 4))
    local x, target = dlua.randn(4, 3, 12, 12), dlua.tensor({1, 3, 2, 4}, {dtype = "i64"})
    for _ = 1, 2 do
      local before = hooks.reorders()
      dlua.autocast("bf16", function() return dlua.cross_entropy(body(x), target) end):backward()
      assert.equal(1, hooks.reorders() - before)
    end
  end)
end)
