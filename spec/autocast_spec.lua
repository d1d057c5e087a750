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
    assert.is_true(scaler:step(opt))
    scaler:update()
    near(0, v:norm():item())
    near(1024, scaler:get_scale())
  end)

  it("skips a step whose gradient is not finite and halves the scale", function()
    local v, opt = problem()
    local scaler = dlua.GradScaler {init_scale = 4}
    scaler:scale((v * math.huge):sum()):backward()
    assert.is_false(scaler:step(opt))
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

  it("waits once per step for a device", function()
    local function at(value, n)
      local p = dlua.nn.Parameter(dlua.ones(n):to "mock")
      p.grad = dlua.full({n}, value):to "mock"
      return p
    end
    for _, values in ipairs {{2, 2, 2}, {2, 0 / 0, 2}, {2, 2, -math.huge}} do
      local params = {at(values[1], 2), at(values[2], 3), at(values[3], 4)}
      local opt = dlua.optim.SGD({{params = {params[1]}}, {params = {params[2]}}, {params = {params[3]}}}, {lr = 1})
      local scaler = dlua.GradScaler {init_scale = 4}
      local before = dlua.test.waits "mock"
      local stepped = scaler:step(opt)
      scaler:update()
      assert.equal(1, dlua.test.waits "mock" - before)
      local good = values[2] == 2 and values[3] == 2
      assert.equal(good, stepped)
      assert.equal(good and 4 or 2, scaler:get_scale())
      for _, p in ipairs(params) do assert.equal(good and 0.5 or 1, p[1]:item()) end
    end
  end)

  it("names what is wrong", function()
    local _, opt = problem()
    local scaler = dlua.GradScaler()
    fails(function() dlua.GradScaler {init_scale = 0} end, "init_scale", "0")
    fails(function() dlua.GradScaler {scale = 1} end, "scale")
    fails(function() scaler:update() end, "update: no optimiser has stepped")
    scaler:unscale_(opt)
    fails(function() scaler:unscale_(opt) end, "unscaled already")
    fails(function() scaler:load_state_dict {scale = -1} end, "above 0, not -1")
  end)
end)
