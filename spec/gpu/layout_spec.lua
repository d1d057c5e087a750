-- layout_spec.lua - 16-bit activations that lie channels-last on the GPU: which ops take and give them so, that all
-- ops give what they give on the CPU, and that a training step moves nothing from one layout to another.
-- DLUA_MODULES=build/emulated runs it without a GPU.
local dlua = require "dlua"
local sorted = require "spec.helpers".sorted
local nn = dlua.nn
local hooks = dlua.test
local cases = require "spec.layout_cases"
local activation, weights, norm = cases.activation, cases.weights, cases.norm

local available, reason = dlua.cuda.available()
if not available then
  describe("channels-last on the GPU", function() pending(reason) end)
  return
end

local limits = {bf16 = 2 ^ -7, f16 = 2 ^ -10}

local function assert_close(wanted, got, limit, what)
  assert.same(wanted.shape, got.shape, what)
  assert.equal(wanted.dtype, got.dtype, what)
  wanted, got = wanted:double(), got:to("cpu"):double()
  if wanted:numel() == 0 then return end
  local difference = (got - wanted):abs():max():item()
  local allowed = limit * math.max(wanted:abs():max():item(), 1e-3)
  assert.is_true(difference <= allowed, ("%s: %g of %g"):format(what, difference, allowed))
end

-- What f gives for activations on a device, and the gradients of what it read; g is drawn alike on both.
local function run(f, device, x, y)
  x, y = x:to(device):detach():requires_grad_(), y:to(device):detach():requires_grad_()
  local h = activation(x)
  if device == "cuda" then assert.equal("nhwc", hooks.layout(h)) end
  dlua.seed(11)
  local result = f(h, y)
  local layout = hooks.layout(result)
  local all = {result:detach()}
  if result.requires_grad then
    result:backward(dlua.randint(-3, 4, result.shape, {dtype = "f32"}):to(result.dtype):to(device))
    all[2], all[3] = x.grad, y.grad
  end
  return all, layout
end

-- Compares f with the CPU for numbers of channels that fill 16 bytes, and for some that do not.
local function check(name, f, layout, size)
  for _, dtype in ipairs {"bf16", "f16"} do
    for _, c in ipairs {16, 6} do
      dlua.seed(5)
      local shape = size and {2, c, size, size + 1} or {2, c, 9, 7}
      local x, y = dlua.randn(shape):to(dtype), dlua.randn(shape):to(dtype)
      local wanted = run(f, "cpu", x, y)
      local got, lies = run(f, "cuda", x, y)
      local what = ("%s, %d channels in %s"):format(name, c, dtype)
      assert.equal(layout, lies, what)
      assert.equal(#wanted, #got, what)
      for k in pairs(wanted) do assert_close(wanted[k], got[k], 4 * limits[dtype], what .. ", result " .. k) end
    end
  end
end

describe("channels-last activations", function()
  before_each(function() dlua.winograd(false) end)
  after_each(function() dlua.winograd(true) end)

  for name, f in sorted(cases.kept) do
    it("stay so through " .. name, function() check(name, f, "nhwc") end)
  end

  it("are pooled in pictures of every size", function()
    local function pools(x) return dlua.max_pool2d(x, 2) end
    for _, size in ipairs {2, 15, 20, 33} do check("max_pool2d of " .. size, pools, "nhwc", size) end
    check("overlapping windows", function(x) return dlua.max_pool2d(x, 3, {stride = 1}) end, "nhwc", 34)
  end)

  for name, f in sorted(cases.strided) do
    it("are what strided ones are to " .. name, function() check(name, f, "strided") end)
  end

  it("give the sum of every channel", function()
    for _, c in ipairs {6, 16} do
      local x = dlua.randn(3, c, 5, 7):to "bf16"
      local h = activation(x:to "cuda")
      assert_close(dlua.ops.channel_sum(x), dlua.ops.channel_sum(h), limits.bf16, "channel_sum")
      assert.equal("nhwc", hooks.layout(h))
    end
  end)

  it("are normalised however many channels there are", function()
    for _, shape in ipairs {{2, 2, 3, 5}, {2, 264, 3, 2}, {3, 531, 2, 2}, {70, 8, 6, 6}} do
      local x = dlua.randn(shape):to "bf16"
      for _, training in ipairs {true, false} do
        local wanted, got = {}, {}
        for device, results in pairs {cpu = wanted, cuda = got} do
          local h = x:to(device):detach():requires_grad_()
          local y = norm(activation(h), training)
          dlua.seed(2)
          y:backward(dlua.randn(shape):to("bf16"):to(device))
          results[1], results[2] = y:detach(), h.grad
        end
        for k = 1, 2 do assert_close(wanted[k], got[k], 2 * limits.bf16, shape[2] .. " channels") end
      end
    end
  end)

  it("have second derivatives", function()
    local function all(device, x, w)
      x, w = x:to(device):detach():requires_grad_(), w:to(device):detach():requires_grad_()
      local y = dlua.max_pool2d(dlua.conv2d(x, w, nil, {padding = 1}):tanh(), 2)
      local first = dlua.grad(y:square():sum(), {x, w}, {create_graph = true})
      return {first[1], first[2], dlua.grad(first[1]:square():sum() + first[2]:float():sum(), w)}
    end
    local x, w = dlua.randn(2, 8, 6, 6):to "bf16", (dlua.randn(8, 8, 3, 3) / 8):to "bf16"
    local wanted, got = all("cpu", x, w), all("cuda", x, w)
    for k = 1, 3 do assert_close(wanted[k], got[k], 4 * limits.bf16, "derivative " .. k) end
  end)

  it("turn a strided gradient once", function()
    local x = dlua.randn(2, 8, 6, 6):to("bf16"):to("cuda"):requires_grad_()
    local h = norm(dlua.conv2d(x, weights(x, {8, 8, 3, 3})):relu(), true):relu()
    local g = dlua.ones(h.shape):to("bf16"):to "cuda"
    local before = hooks.reorders()
    h:backward(g)
    assert.equal(1, hooks.reorders() - before)
  end)

  it("move running averages as strided ones do", function()
    local x = dlua.randn(4, 8, 5, 5):to "bf16"
    local mean, var = dlua.zeros(8), dlua.ones(8)
    local there, far = mean:to "cuda", var:to "cuda"
    dlua.batch_norm(x, nil, nil, mean, var, {training = true})
    dlua.batch_norm(activation(x:to "cuda"), nil, nil, there, far, {training = true})
    assert_close(mean, there, 1e-5, "mean")
    assert_close(var, far, 1e-5, "variance")
  end)

  it("are changed in place, or added to strided tensors in place", function()
    local x, y = dlua.randn(2, 8, 5, 4):to "bf16", dlua.randn(2, 8, 5, 4):to "bf16"
    local h = activation(x:to "cuda")
    assert_close(x + y, h:add_(y:to "cuda"), limits.bf16, "a strided tensor added")
    assert.equal("nhwc", hooks.layout(h))
    h:fill_(1)
    assert.equal(160 * 2, h:float():sum():item())
    local z = y:to "cuda"
    z:add_(activation(x:to "cuda"))
    assert.equal("strided", hooks.layout(z))
    assert_close(x + y, z, limits.bf16, "added to a strided tensor")
  end)

  it("hold nothing back when there is no memory for turning them", function()
    local function step(x, w)
      local h = dlua.max_pool2d(dlua.conv2d(x, w, nil, {padding = 1}):relu() + x, 2)
      return h:flatten(2):sum():backward()
    end
    local x = dlua.randn(2, 8, 6, 6):to("bf16"):to("cuda"):requires_grad_()
    local w = weights(x, {8, 8, 3, 3}):requires_grad_()
    step(x, w)
    local wanted = w.grad:to "cpu"
    x.grad, w.grad = nil, nil
    collectgarbage()
    local live, n, done = dlua.cuda.memory().live, 0, false
    while not done do
      n = n + 1
      hooks.fail_allocation(n)
      done = pcall(step, x, w)
      hooks.fail_allocation(0)
      if done then assert_close(wanted, w.grad, 0, "gradient") end
      x.grad, w.grad = nil, nil
      collectgarbage()
      assert.equal(live, dlua.cuda.memory().live)
    end
    assert.is_true(n > 30)
  end)

  it("are the same tensor to all that share them", function()
    local x = dlua.randn(2, 8, 5, 4):to "bf16"
    local h = activation(x:to "cuda")
    local other = h:detach()
    assert_close(x[{2, 3}], h[{2, 3}], 0, "a view")
    assert_close(x, other, 0, "what was detached before")
    h = activation(x:to "cuda")
    other = h:detach()
    h[{2, 3, 4, 1}] = 100
    assert.equal(100, other[{2, 3, 4, 1}]:item())
    assert.equal(100, other:max():item())
  end)

  it("leave the device as they are seen", function()
    local x = dlua.randn(2, 8, 5, 4):to "f16"
    local h = activation(x:to "cuda")
    assert_close(x, h, 0, "to the CPU")
    assert.equal("nhwc", hooks.layout(h))
    local name = os.tmpname()
    dlua.save(name .. ".safetensors", {h = h})
    assert_close(x, dlua.load(name .. ".safetensors").h, 0, "from a file")
    os.remove(name .. ".safetensors")
    os.remove(name)
    if #dlua.cuda.devices() > 1 then assert_close(x, h:to("cuda:2"), 0, "through another device") end
  end)

  it("are no others in reference mode", function()
    local x = dlua.randn(2, 8, 5, 4):to "bf16"
    local h = activation(x:to "cuda")
    local was = hooks.reference(true)
    local pooled, again = dlua.max_pool2d(h, 2), activation(x:to "cuda")
    hooks.reference(was)
    assert.equal("strided", hooks.layout(again))
    assert_close(dlua.max_pool2d(x, 2), pooled, 0, "pooled")
  end)

  it("are what 16-bit convolutions give, and no others", function()
    for dtype, layout in pairs {f32 = "strided", f64 = "strided", bf16 = "nhwc", f16 = "nhwc"} do
      assert.equal(layout, hooks.layout(activation(dlua.randn(2, 8, 5, 4):to(dtype):to "cuda")))
    end
  end)
end)

-- A network with all that convolutional ones are made of, which ends in single pixels.
local function network()
  local body = nn.Sequential(nn.Conv2d(3, 8, 3, {padding = 1}), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(8, 16, 3, {padding = 1, bias = false}), nn.BatchNorm2d(16), nn.ReLU())
  local branch = nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, {padding = 1}))
  local tail = nn.Sequential(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
  return body, branch, tail
end

describe("a training step in 16 bits", function()
  local function losses(device, dtype)
    dlua.seed(4)
    local body, branch, tail = network()
    local parameters, steps = {}, {}
    for _, part in ipairs {body, branch, tail} do
      part:to(device)
      for _, p in ipairs(part:parameters()) do parameters[#parameters + 1] = p end
    end
    local optimizer = dlua.optim.SGD(parameters, {lr = 0.05, momentum = 0.9})
    local x, target = dlua.randn(4, 3, 12, 12):to(device), dlua.tensor({1, 3, 2, 4}, {dtype = "i64"}):to(device)
    for k = 1, 3 do
      local before = hooks.reorders()
      optimizer:zero_grad()
      local loss = dlua.autocast(dtype, function()
        local h = body(x)
        return dlua.cross_entropy(tail((branch(h) + h):relu()), target)
      end)
      loss:backward()
      optimizer:step()
      steps[k] = {loss = loss:item(), reorders = hooks.reorders() - before}
    end
    return steps
  end

  it("moves no activation from one layout to another", function()
    for _, dtype in ipairs {"bf16", "f16"} do
      for _, step in ipairs(losses("cuda", dtype)) do assert.equal(0, step.reorders) end
    end
  end)

  it("comes to the losses of the CPU", function()
    for _, dtype in ipairs {"bf16", "f16"} do
      local wanted, got = losses("cpu", dtype), losses("cuda", dtype)
      for k = 1, 3 do assert.is_true(math.abs(wanted[k].loss - got[k].loss) < 0.02 * wanted[k].loss) end
    end
  end)
end)

if not pcall(hooks.fault, "cuda", "any", 0) then return end

describe("a convolution of channels-last activations", function()
  local function with_fault(call, n, f)
    hooks.fault("cuda", call, n)
    local ok, message = pcall(f)
    hooks.fault("cuda", call:match "^%S+", 0)
    return ok, tostring(message)
  end
  local function given(c, size, dtype)
    local x = activation(dlua.randn(2, c, size, 5):to(dtype or "bf16"):to "cuda")
    return x, weights(x, {8, c, 1, 1}), weights(x, {8})
  end

  it("launches no kernel beside the library's, for the bias neither", function()
    for _, dtype in ipairs {"bf16", "f16", "f32"} do
      local x, w, b = given(16, 5, dtype)
      assert.is_true((with_fault("cudaLaunchKernel 719", 1, function() dlua.conv2d(x, w, b) end)), dtype)
      local g = dlua.conv2d(x, w, b)
      assert.is_true((with_fault("cudaLaunchKernel 719", 1, function()
        dlua.ops.conv2d_input_grad(g, w, {5, 5})
        dlua.ops.conv2d_weight_grad(g, x, {1, 1})
      end)), dtype)
    end
  end)

  it("adds the bias in a pass of its own where the library does not", function()
    local x, w, b = given(6, 6) -- the emulator fuses whole groups of 8 channels only
    assert.is_false((with_fault("cudaLaunchKernel 719", 1, function() dlua.conv2d(x, w, b) end)))
    assert_close(dlua.conv2d(x:to "cpu", w:to "cpu", b:to "cpu"), dlua.conv2d(x, w, b), 2 * limits.bf16, "6 channels")
  end)

  it("gives the same whatever the library refuses, and fails with its error", function()
    for _, code in ipairs {3000, 5000} do
      for _, call in ipairs {"cudnnBackendFinalize", "cudnnBackendSetAttribute", "cudnnBackendCreateDescriptor"} do
        for n = 1, 60 do
          local x, w, b = given(16, 7 + n) -- a case that there is no plan for, or none with a bias
          local y
          local ok, message = with_fault(call .. " " .. code, n, function() y = dlua.conv2d(x, w, b) end)
          if ok then
            assert_close(dlua.conv2d(x:to "cpu", w:to "cpu", b:to "cpu"), y, 2 * limits.bf16, call)
          else
            assert.equal(5000, code)
            assert.truthy(message:find(call, 1, true), message)
          end
        end
      end
    end
  end)
end)
