-- optim_spec.lua - optimisers on the GPU: one launch for all parameters gives what the CPU gives, a gradient that is
-- not finite changes nothing and is told at a later step, clipping waits for nothing.
local dlua = require "dlua"
local helpers = require "spec.helpers"
local nn, optim = dlua.nn, dlua.optim

if not dlua.cuda.available() then return end

-- Parameters of many sizes, more of them than one launch takes, and gradients that change from step to step.
local function problem(device, dtype, count)
  dlua.seed(5)
  local list, targets = {}, {}
  for k = 1, count do
    local size = k == 2 and 9001 or k % 7 + 1
    list[k] = dlua.randn({size}, {dtype = dtype}):to(device):requires_grad_()
    targets[k] = dlua.randn({size}, {dtype = dtype}):to(device)
  end
  local function backward()
    local loss = 0
    for k, p in ipairs(list) do loss = loss + ((p - targets[k]) ^ 2):sum() end
    loss:backward()
  end
  return list, backward
end

-- With a scaler the first and the third of five steps are left out.
local function trained(make, device, dtype, count, scaler)
  local list, backward = problem(device, dtype, count)
  local opt = make(list)
  for k = 1, scaler and 5 or 3 do
    opt:zero_grad()
    backward()
    if scaler and k % 2 == 1 and k < 5 then list[1].grad:mul_(math.huge) end
    if scaler then
      for _, p in ipairs(list) do p.grad:mul_(scaler:get_scale()) end
      scaler:step(opt)
      scaler:update()
    else
      opt:step()
    end
  end
  local all = {}
  for k, p in ipairs(list) do all[k] = p:detach():to "cpu" end
  return dlua.ops.cat(all, 1)
end

local makers = {
  ["SGD"] = function(p) return optim.SGD(p, {lr = 0.1}) end,
  ["SGD with momentum and decay"] = function(p)
    return optim.SGD(p, {lr = 0.1, momentum = 0.9, dampening = 0.1, weight_decay = 0.01})
  end,
  ["Nesterov's SGD"] = function(p) return optim.SGD(p, {lr = 0.1, momentum = 0.9, nesterov = true}) end,
  ["Adam"] = function(p) return optim.Adam(p, {lr = 0.1, weight_decay = 0.01}) end,
  ["AMSGrad"] = function(p) return optim.Adam(p, {lr = 0.1, amsgrad = true, maximize = true}) end,
  ["AdamW"] = function(p) return optim.AdamW(p, {lr = 0.1}) end,
  ["RMSprop"] = function(p) return optim.RMSprop(p, {lr = 0.1}) end,
  ["centred RMSprop"] = function(p) return optim.RMSprop(p, {lr = 0.1, centered = true, momentum = 0.5}) end,
  ["Adagrad"] = function(p) return optim.Adagrad(p, {lr = 0.1, lr_decay = 0.1}) end,
}

describe("on the GPU", function()
  for name, make in helpers.sorted(makers) do
    it(name .. " steps as on the CPU", function()
      assert.close(trained(make, "cpu", "f32", 5), trained(make, "cuda", "f32", 5), {rtol = 1e-5, atol = 1e-6})
      assert.close(trained(make, "cpu", "f64", 3), trained(make, "cuda", "f64", 3), {rtol = 1e-11, atol = 1e-12})
    end)
  end

  for name, make in helpers.sorted(makers) do
    it(name .. " under a scaler takes the steps that it would without the others", function()
      for dtype, close in pairs {f32 = {rtol = 1e-5, atol = 1e-6}, f64 = {rtol = 1e-11, atol = 1e-12}} do
        local scaler = dlua.GradScaler()
        assert.close(trained(make, "cpu", dtype, 3), trained(make, "cuda", dtype, 3, scaler), close)
        assert.equal(65536 / 4, scaler:get_scale())
      end
    end)
  end

  it("more parameters than one launch takes are stepped", function()
    assert.close(trained(makers.Adam, "cpu", "f32", 600), trained(makers.Adam, "cuda", "f32", 600),
      {rtol = 1e-5, atol = 1e-6})
  end)

  it("a strided parameter and gradient are stepped", function()
    local function run(device)
      local whole = dlua.range(1, 12):to("f32"):reshape(3, 4):to(device)
      local p = whole:t():requires_grad_()
      p:square():sum():backward()
      optim.SGD({p}, {lr = 0.1}):step()
      return whole:to "cpu"
    end
    assert.close(run "cpu", run "cuda")
  end)

  it("a gradient that is not finite changes nothing and is told at a later step", function()
    local list, backward = problem("cuda", "f32", 4)
    local opt = optim.Adam(list, {lr = 0.1})
    local before = list[3]:detach():clone()
    backward()
    dlua.no_grad(function() list[2].grad:mul_(math.huge) end)
    opt:step()
    dlua.cuda.synchronize()
    assert.close(before:to "cpu", list[3]:detach():to "cpu", {rtol = 0, atol = 0})
    helpers.fails(function() opt:step() end, "the gradient of 2 was not finite in an earlier step")
    opt:zero_grad()
    backward()
    opt:step()
    assert.is_true((before - list[3]:detach()):abs():sum():item() > 0)
  end)

  it("gradients are clipped to the norm that the CPU finds", function()
    for _, kind in ipairs {2, 1, 3, math.huge} do
      local norms, gradients = {}, {}
      for k, device in ipairs {"cpu", "cuda"} do
        local list, backward = problem(device, "f32", 5)
        backward()
        local norm = nn.clip_grad_norm_(list, 0.5, {norm_type = kind})
        norms[k] = dlua.is_tensor(norm) and norm:item() or norm
        gradients[k] = list[2].grad:to "cpu"
      end
      helpers.near_relative(norms[1], norms[2], 1e-5)
      assert.close(gradients[1], gradients[2], {rtol = 1e-5, atol = 1e-7})
    end
  end)

  it("a norm that is not finite leaves gradients as they are", function()
    local p = dlua.ones(3):to("cuda"):requires_grad_();
    (p * dlua.tensor({1, math.huge, 2}):to "cuda"):sum():backward()
    assert.equal(math.huge, nn.clip_grad_norm_({p}, 1):item())
    assert.are.same({1, math.huge, 2}, p.grad:totable())
  end)
end)
