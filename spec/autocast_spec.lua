-- autocast_spec.lua - mixed precision: which dtype each op runs in, where gradients arrive, and the scaler of f16.
local dlua = require "dlua"
local helpers = require "spec.helpers"
local nn, optim = dlua.nn, dlua.optim
local fails, near = helpers.fails, helpers.near

describe("autocast", function()
  local x, w = dlua.randn(4, 3), dlua.randn(3, 5)

  it("runs products in the lower dtype, sums in f32 and the rest as it comes", function()
    dlua.autocast("bf16", function()
      local y = x:matmul(w)
      assert.equal("bf16", y.dtype)
      assert.equal("bf16", y:relu().dtype)
      assert.equal("f32", (y + 1.5 * x:sum()).dtype)
      assert.equal("f32", y:sum().dtype)
      assert.equal("f32", y:exp().dtype)
      assert.equal("f32", dlua.ops.cat({y, x:matmul(w):to("f32")}, 1).dtype)
      assert.equal("f64", x:to("f64"):matmul(w:to("f64")).dtype)
    end)
    assert.equal("f16", dlua.autocast("f16", function() return x:matmul(w).dtype end))
    assert.equal("f32", x:matmul(w).dtype)
  end)

  it("says for every op what it runs in", function()
    local count = {widest = 0, lower = 0, f32 = 0, nothing = 0}
    for _, name in ipairs(dlua.op_info()) do
      local rule = dlua.op_info(name).autocast
      count[rule] = count[rule] + 1
    end
    assert.equal("lower", dlua.op_info("conv2d").autocast)
    assert.equal("f32", dlua.op_info("cross_entropy").autocast)
    assert.equal("widest", dlua.op_info("relu").autocast)
    assert.equal("nothing", dlua.op_info("batch_norm").autocast)
    assert.is_true(count.lower >= 5 and count.f32 >= 30 and count.widest >= 50)
  end)

  it("gives results and errors, passes arguments and ends with the function", function()
    local dtype, second = dlua.autocast("bf16", function(a) return dlua.autocast_dtype(), a end, 7)
    assert.equal("bf16", dtype)
    assert.equal(7, second)
    fails(function() dlua.autocast("bf16", function() error("stop", 0) end) end, "stop")
    assert.is_nil(dlua.autocast_dtype())
    dlua.autocast("bf16", function()
      assert.is_nil(dlua.autocast("f32", dlua.autocast_dtype))
      assert.equal("bf16", dlua.autocast_dtype())
    end)
    fails(function() dlua.autocast("i64", print) end, "autocast: dtype must be bf16, f16 or f32, got i64")
    fails(function() dlua.autocast("bf16", 3) end, "autocast: fn must be a function, got number")
  end)

  it("brings gradients to parameters in f32, first and second order", function()
    local v = dlua.randn(3, 5):requires_grad_()
    local loss = dlua.autocast("bf16", function() return (x:matmul(v) ^ 2):sum() end)
    local exact = (x:matmul(v) ^ 2):sum()
    local g = dlua.grad(loss, v, {create_graph = true})
    local wanted = dlua.grad(exact, v, {create_graph = true})
    assert.equal("f32", g.dtype)
    assert.is_true(((g - wanted):norm() / wanted:norm()):item() < 0.02)
    local second, second_wanted = dlua.grad(g:sum(), v), dlua.grad(wanted:sum(), v)
    assert.is_true(((second - second_wanted):norm() / second_wanted:norm()):item() < 0.02)
  end)

  it("casts a parameter once, until it changes", function()
    local v = dlua.randn(64, 64):requires_grad_()
    local a = dlua.randn(2, 64)
    dlua.autocast("bf16", function()
      local first = a:matmul(v)
      local before = dlua.memory().allocations
      a:matmul(v)
      local again = dlua.memory().allocations - before
      dlua.no_grad(function() v:mul_(2) end)
      near(2, (a:matmul(v):to("f32"):norm() / first:to("f32"):norm()):item(), 1e-2)
      before = dlua.memory().allocations
      a:matmul(v:clone())
      assert.is_true(dlua.memory().allocations - before > again)
    end)
  end)

  it("leaves activations in the lower dtype beside f32 statistics", function()
    local norm = nn.BatchNorm2d(3)
    local images = dlua.randn(8, 3, 4, 4)
    local y = dlua.autocast("bf16", function() return norm(images:to "bf16") end)
    assert.equal("bf16", y.dtype)
    y:to("f32"):square():sum():backward()
    assert.equal("f32", norm.weight.grad.dtype)
    assert.equal("f32", norm.running_mean.dtype)
    near(0, (y:to "f32" - nn.BatchNorm2d(3)(images)):abs():max():item(), 0.03)
  end)

  it("records a cast that was first made without recording", function()
    local v = dlua.randn(3, 5):requires_grad_()
    dlua.autocast("bf16", function()
      dlua.no_grad(function() return x:matmul(v) end)
      x:matmul(v):sum():backward()
    end)
    assert.is_true(v.grad:abs():sum():item() > 0)
  end)

  it("trains a network with normalisation and convolutions like f32", function()
    local function losses(dtype)
      dlua.seed(3)
      local net = nn.Sequential {
        nn.Conv2d(1, 8, 3, {padding = 1}), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(128, 4),
      }
      local images, labels = dlua.randn(16, 1, 8, 8), dlua.randint(1, 4, {16})
      local opt, list = optim.SGD(net:parameters(), {lr = 0.05}), {}
      for k = 1, 12 do
        local loss = dlua.autocast(dtype, function() return nn.CrossEntropyLoss()(net(images), labels) end)
        opt:zero_grad()
        loss:backward()
        opt:step()
        list[k] = loss:item()
      end
      return list
    end
    local exact, mixed = losses("f32"), losses("bf16")
    assert.is_true(exact[12] < 0.7 * exact[1])
    for k = 1, 12 do near(exact[k], mixed[k], 0.05 * exact[1]) end
  end)
end)

describe("GradScaler", function()
  local function problem()
    local v = dlua.ones(3):requires_grad_()
    return v, optim.SGD({v}, {lr = 0.5})
  end

  it("steps as if there were no scale", function()
    local v, opt = problem()
    local scaler = dlua.GradScaler {init_scale = 1024}
    scaler:scale((v * v):sum()):backward()
    near(2048, v.grad[1]:item())
    scaler:step(opt)
    near(2, v.grad[1]:item())
    scaler:update()
    near(0, v:norm():item())
    near(1024, scaler:get_scale())
  end)

  it("skips a step whose gradient is not finite and halves the scale", function()
    local v, opt = problem()
    local scaler = dlua.GradScaler {init_scale = 4}
    scaler:scale((v * math.huge):sum()):backward()
    scaler:step(opt)
    scaler:update()
    assert.are.same({1, 1, 1}, v:detach():totable())
    near(2, scaler:get_scale())
  end)

  it("grows after good steps and travels through state_dict", function()
    local v, opt = problem()
    local scaler = dlua.GradScaler {init_scale = 8, growth_interval = 2}
    for _ = 1, 3 do
      opt:zero_grad()
      scaler:scale(v:sum()):backward()
      scaler:unscale_(opt)
      near(1, v.grad[1]:item())
      scaler:step(opt)
      scaler:update()
    end
    near(16, scaler:get_scale())
    local other = dlua.GradScaler()
    other:load_state_dict(scaler:state_dict())
    assert.are.same({scale = 16, good_steps = 1}, other:state_dict())
  end)

  local devices = {"cpu"}
  for _, name in ipairs {"mock", "cuda"} do
    if pcall(dlua.device, name) then devices[#devices + 1] = name end
  end
  local makers = {
    SGD = {lr = 0.1, momentum = 0.9, dampening = 0.5, weight_decay = 0.01}, Adam = {lr = 0.1, amsgrad = true},
    AdamW = {lr = 0.1, maximize = true}, RMSprop = {lr = 0.1, momentum = 0.5, centered = true},
    Adagrad = {lr = 0.1, lr_decay = 0.5},
  }

  -- Parameters, some without a gradient at times, and their state after steps whose gradients are those of the list;
  -- a bad one is infinite somewhere. scaler: whether they come through one.
  local function trained(device, kind, dtype, gradients, scaled)
    local params = {}
    for k = 1, 4 do params[k] = dlua.nn.Parameter(dlua.linspace(-1, k, 3 * k):to(device, dtype)) end
    local opt = optim[kind]({{params = {params[1], params[2]}}, {params = {params[3], params[4]}}}, makers[kind])
    local scaler = scaled and dlua.GradScaler {init_scale = 8, growth_interval = 2}
    local waits = device ~= "cpu" and dlua.test.waits(device)
    for step, slope in ipairs(gradients) do
      opt:zero_grad()
      local loss = 0
      for k, p in ipairs(params) do
        if (step + k) % 4 ~= 0 then loss = loss + (p * (slope + k)):sum() end
      end
      if slope == math.huge then loss = loss + (params[4] * slope):sum() end
      if scaler then
        scaler:scale(loss):backward()
        scaler:step(opt)
        scaler:update()
      elseif slope ~= math.huge then
        loss:backward()
        opt:step()
      end
    end
    if waits then assert.equal(waits, dlua.test.waits(device)) end
    return params, opt, scaler
  end

  local function assert_same(wanted, got, tolerance, why)
    for k, x in ipairs(wanted) do
      assert.close(x:detach(), got[k]:detach():to "cpu", {rtol = tolerance, atol = tolerance}, why)
    end
  end

  for kind in helpers.sorted(makers) do
    it("leaves out steps on every device, waiting for none and counting none: " .. kind, function()
      local list = {math.huge, 1, math.huge, -2, 0.5, math.huge, 3}
      for dtype, tolerance in pairs {f32 = 2e-6, f64 = 1e-7, bf16 = 0.03} do
        local wanted, plain = trained("cpu", kind, dtype, list, false)
        for _, device in ipairs(devices) do
          local got, opt, scaler = trained(device, kind, dtype, list, true)
          assert_same(wanted, got, tolerance, device)
          assert.are.same({scale = 8 / 2 / 2 * 2 / 2, good_steps = 1}, scaler:state_dict())
          local want, state = plain:state_dict().state, opt:state_dict().state
          for name, entry in pairs(want) do
            for key, value in pairs(entry) do
              if key == "step" then
                assert.equal(value, state[name].step, device)
              else
                assert.close(value, state[name][key]:to "cpu", {rtol = tolerance, atol = tolerance})
              end
            end
          end
        end
      end
    end)

    it("changes no bit in a step that is left out: " .. kind, function()
      for _, device in ipairs(devices) do
        local params, opt = trained(device, kind, "f32", {1, 2}, true)
        local before, state = {}, opt:state_dict()
        for k, p in ipairs(params) do before[k] = p:detach():clone() end
        for k, p in ipairs(params) do p.grad = dlua.full_like(p:detach(), k == 2 and 0 / 0 or 1) end
        local scaler = dlua.GradScaler()
        scaler:step(opt)
        for k, p in ipairs(params) do assert.is_true(before[k]:equal(p:detach())) end
        local after = opt:state_dict()
        for name, entry in pairs(state.state) do
          for key, value in pairs(entry) do
            local now = after.state[name][key]
            assert.is_true(key == "step" and value == now or key ~= "step" and value:equal(now))
          end
        end
        opt:load_state_dict(state)
        opt:zero_grad()
        params[1].grad = dlua.ones_like(params[1]:detach())
        opt:step() -- goes on without a scaler
      end
    end)
  end

  it("goes on from a moved optimiser and from a state", function()
    for _, device in ipairs(devices) do
      local params, opt, scaler = trained(device, "Adam", "f32", {math.huge, 1}, true)
      assert.equal(device, scaler:scale(dlua.ones({}, {device = device})).device)
      for _, p in ipairs(params) do
        p.grad = nil
        dlua.no_grad(dlua.set_data, p, p:detach():to "cpu")
        p.grad = dlua.full_like(p:detach(), 4)
      end
      scaler:scale(dlua.ones {})
      scaler:step(opt)
      scaler:update()
      local state = opt:state_dict().state
      assert.equal(2, state["1"].step)
      assert.equal(scaler:get_scale(), scaler:scale(dlua.ones {}):item())
    end
  end)

  it("steps parameters of several devices together or not at all, and of several optimisers", function()
    local function at(device, value, n)
      local p = dlua.nn.Parameter(dlua.ones(n):to(device))
      p.grad = dlua.full({n}, value):to(device)
      return p
    end
    local first = devices[2]
    local second = pcall(dlua.device, first .. ":2") and first .. ":2" or first
    for _, values in ipairs {{2, 2, 2}, {2, 0 / 0, 2}, {2, 2, -math.huge}} do
      local params = {at(first, values[1], 2), at(second, values[2], 3), at("cpu", values[3], 4), at(first, 2, 1)}
      local opt = optim.SGD({{params = {params[1], params[2]}}, {params = {params[3]}}}, {lr = 1})
      local other = optim.SGD({params[4]}, {lr = 1})
      local scaler = dlua.GradScaler {init_scale = 4}
      scaler:step(opt)
      scaler:step(other)
      scaler:update()
      local good = values[2] == 2 and values[3] == 2
      assert.equal(good and 4 or 2, scaler:get_scale())
      for k = 1, 3 do assert.equal(good and 0.5 or 1, params[k][1]:item()) end
      assert.equal(0.5, params[4][1]:item())
    end
  end)

  it("sums gradients of several backward calls, unscales them for clipping and looks again after that", function()
    for _, device in ipairs(devices) do
      local v = dlua.ones(4, {device = device}):requires_grad_()
      local opt = optim.SGD({v}, {lr = 1})
      local scaler = dlua.GradScaler {init_scale = 64}
      local waits = device ~= "cpu" and dlua.test.waits(device)
      for _ = 1, 2 do scaler:scale(v:sum() * 3):backward() end
      scaler:unscale_(opt)
      local norm = dlua.nn.clip_grad_norm_({v}, 2)
      scaler:step(opt)
      scaler:update()
      if waits then assert.equal(waits, dlua.test.waits(device)) end
      near(12, dlua.is_tensor(norm) and norm:item() or norm, 1e-4)
      near(0, v[1]:item(), 1e-6)
      for guard, scale in pairs {[true] = 32, [false] = 64} do
        local p = dlua.ones(2, {device = device}):requires_grad_()
        opt = optim.SGD({p}, {lr = 1, guard = guard})
        scaler = dlua.GradScaler {init_scale = 64}
        p.grad = dlua.ones(2, {device = device})
        scaler:unscale_(opt)
        p.grad:mul_(0 / 0)
        scaler:step(opt)
        scaler:update()
        assert.equal(scale, scaler:get_scale())
        assert.equal(guard, p:isfinite():all():item())
      end
    end
  end)

  it("can be called again after memory ran out", function()
    local device = devices[2]
    local net = nn.Linear(3, 2):to(device)
    local opt, scaler = optim.SGD(net:parameters(), {lr = 1}), dlua.GradScaler {init_scale = 4}
    for _, p in ipairs(net:parameters()) do p.grad = dlua.full_like(p:detach(), 8) end
    local before, failed = net.bias:detach():clone(), 0
    repeat
      if device == "mock" then dlua.test.fault(device, "launch", failed + 1) end
      local ok = pcall(scaler.step, scaler, opt)
      if device == "mock" then dlua.test.fault(device, "launch", 0) end
      if not ok then failed = failed + 1 end
      for _, p in ipairs(net:parameters()) do
        if not ok then p.grad = dlua.full_like(p:detach(), 8) end
      end
    until ok or failed == 5
    assert.is_true(failed == (device == "mock" and 5 or 0))
    if failed > 0 then scaler:step(opt) end
    scaler:update()
    assert.equal(4, scaler:get_scale())
    assert.close(before - 2, net.bias:detach(), {rtol = 1e-6, atol = 1e-6})
  end)

  it("keeps the scale a normal number", function()
    for _, device in ipairs(devices) do
      local p = dlua.ones(1, {device = device}):requires_grad_()
      local opt = optim.SGD({p}, {lr = 0})
      local function after(init, gradient)
        local scaler = dlua.GradScaler {init_scale = init, growth_interval = 1}
        for _ = 1, 3 do
          p.grad = dlua.full({1}, gradient, {device = device})
          scaler:step(opt)
          scaler:update()
        end
        return scaler:get_scale()
      end
      assert.equal(0x1p-126, after(0x1p-125, 1 / 0))
      assert.equal(0x1p127, after(0x1p126, 1))
    end
  end)

  it("names what is wrong", function()
    local _, opt = problem()
    local scaler = dlua.GradScaler()
    fails(function() dlua.GradScaler {init_scale = 0} end, "init_scale", "0")
    fails(function() dlua.GradScaler {scale = 1} end, "scale")
    fails(function() dlua.GradScaler {init_scale = 1e39} end, "init_scale must lie in", "1e+39")
    fails(function() dlua.GradScaler {growth_interval = 1 << 25} end, "growth_interval must be at most 16777216")
    fails(function() scaler:step(3) end, "step: takes an optimiser, not a number")
    fails(function() scaler:step(opt, print) end, "a closure would not know")
    fails(function() scaler:update() end, "update: no optimiser has stepped")
    scaler:unscale_(opt)
    fails(function() scaler:unscale_(opt) end, "unscaled already")
    scaler:step(opt)
    fails(function() scaler:step(opt) end, "stepped already")
    fails(function() scaler:load_state_dict {scale = -1} end, "above 0, not -1")
  end)
end)
