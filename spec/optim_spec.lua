-- Optimisers and schedules: values against PyTorch's, groups, state, errors.
local dlua = require "dlua"
local nn, optim = dlua.nn, dlua.optim
local golden = dofile "spec/golden/optim.lua"
local helpers = require "spec.helpers"

local fails, near = helpers.fails, helpers.near_relative

local function parameter(values, dtype)
  return nn.Parameter(dlua.tensor(values, {dtype = dtype or "f32"}))
end

-- Runs the golden gradients through an optimiser over p and returns what p became.
local function run(name, options, p)
  local opt = optim[name]({p}, options)
  for _, gradient in ipairs(golden.gradients) do
    p.grad = dlua.tensor(gradient, {dtype = p.dtype}):reshape(p.shape)
    opt:step()
  end
  return p:flatten():totable(), opt
end

describe("optimisers", function()
  for k, case in ipairs(golden.optimizers) do
    local name, options, expected = table.unpack(case)
    for dtype, tolerance in pairs {f32 = 1e-6, f64 = 1e-12} do
      it(("%s (case %d) gives PyTorch's numbers in %s"):format(name, k, dtype), function()
        local actual = run(name, options, parameter(golden.start, dtype))
        for i, value in ipairs(expected) do near(value, actual[i], tolerance, "element " .. i) end
      end)
    end

    it(("%s (case %d) by formulas equals the fused pass"):format(name, k), function()
      local fused = run(name, options, parameter(golden.start, "f64"))
      local step = dlua.optim_step
      dlua.optim_step = function() return false end
      local plain = run(name, options, parameter(golden.start, "f64"))
      dlua.optim_step = step
      for i, value in ipairs(fused) do near(value, plain[i], 1e-12, "element " .. i) end
    end)
  end

  it("say what a script broke in a group", function()
    local function broken(text, change)
      local p = parameter {1, 2}
      local opt = optim.Adam {p}
      p.grad = dlua.ones(2)
      opt:step()
      change(opt.groups[1])
      fails(function() opt:step() end, text)
    end
    broken("step: betas must be a table, got number", function(group) group.betas = 0.9 end)
    broken("step: betas must be two numbers", function(group) group.betas = {0.9} end)
    broken("step: lr must be a number, got string", function(group) group.lr = "fast" end)
    broken("step: slots must be a table, got nil", function(group) group.slots = nil end)
    broken("step: each of slots must be a table, got nil", function(group) group.slots = {} end)
    broken("step: steps must be a table, got number", function(group) group.steps = 3 end)
    broken("step: state must be a tensor, got string", function(group) group.slots[1][1] = "mean" end)
  end)

  it("move their state with the parameters", function()
    local m = nn.Linear(3, 2)
    local opt = optim.Adam(m:parameters())
    for _, device in ipairs {"cpu", "mock", "cpu"} do
      m:to(device)
      opt:zero_grad()
      m(dlua.ones(4, 3):to(device)):sum():backward()
      opt:step()
      assert.equal(device, opt.groups[1].slots[1][1].device)
    end
  end)

  it("step on other devices and in half precision", function()
    local function weights(device, dtype)
      local m = nn.Linear(3, 2):to(device, dtype)
      nn.init.constant_(m.weight, 0.5)
      nn.init.constant_(m.bias, 0)
      local opt = optim.AdamW(m:parameters(), {lr = 0.1})
      for _ = 1, 3 do
        opt:zero_grad()
        m(dlua.ones(4, 3):to(device, dtype)):square():mean():backward()
        nn.clip_grad_norm_(m:parameters(), 0.5)
        opt:step()
      end
      return m.weight:detach():to("cpu", "f32")
    end
    local expected = weights("cpu", "f32")
    assert.close(expected, weights("mock", "f32"), {rtol = 1e-5})
    assert.close(expected, weights("cpu", "bf16"), {rtol = 2e-2})
  end)

  it("follows parameters that are moved between steps", function()
    local function weights(...)
      local m = nn.Linear(3, 2)
      nn.init.constant_(m.weight, 0.5)
      nn.init.constant_(m.bias, 0)
      local opt = optim.Adam(m:parameters(), {lr = 0.1})
      for _, device in ipairs {...} do
        m:to(device)
        opt:zero_grad()
        m(dlua.ones(4, 3):to(device)):square():mean():backward()
        opt:step()
      end
      return m.weight:detach():to "cpu"
    end
    assert.close(weights("cpu", "cpu", "cpu", "cpu"), weights("cpu", "mock", "mock:2", "cpu"), {rtol = 1e-5})
  end)

  it("steps strided parameters", function()
    local whole = dlua.zeros({5, 2}, {dtype = "f64"})
    local p = nn.Parameter(whole:select(2, 1))
    dlua.no_grad(function() p:copy_(dlua.tensor(golden.start, {dtype = "f64"})) end)
    assert.is_false(p:is_contiguous())
    local actual = run("Adam", golden.optimizers[5][2], p)
    for i, value in ipairs(golden.optimizers[5][3]) do near(value, actual[i], 1e-12, "element " .. i) end
    assert.equal(0, whole:select(2, 2):abs():sum():item())
  end)

  it("steps many slices as it steps one", function()
    local n = 40000
    local big, small = parameter({0}):expand(n):clone(), parameter {0}
    big = nn.Parameter(big:detach())
    local both = optim.Adam({big, small}, {lr = 0.1})
    for _ = 1, 3 do
      big.grad, small.grad = dlua.full({n}, 0.5), dlua.full({1}, 0.5)
      both:step()
    end
    assert.is_true(big:eq(small):all():item())
  end)

  it("skips parameters without a gradient", function()
    local a, b = parameter {1}, parameter {1}
    local opt = optim.Adam({a, b}, {lr = 0.5})
    a.grad = dlua.ones(1)
    opt:step()
    assert.not_equal(1, a:item())
    assert.equal(1, b:item())
    assert.is_nil(opt:state_dict().state["2"])
  end)

  it("sets gradients to nil", function()
    local a = parameter {1}
    a.grad = dlua.ones(1)
    optim.SGD({a}, {lr = 1}):zero_grad()
    assert.is_nil(a.grad)
  end)
end)

describe("groups", function()
  local function net() return nn.Sequential {nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)} end

  it("come from a list", function()
    local m = net()
    local opt = optim.SGD({{params = m[1]:parameters()}, {params = m[3]:parameters(), lr = 0.5}}, {lr = 0.1})
    assert.equal(0.1, opt.groups[1].lr)
    assert.equal(0.5, opt.groups[2].lr)
    assert.equal(0.1, opt.lr)
    opt.lr = 0.2
    assert.equal(0.2, opt.groups[2].lr)
  end)

  it("come from name patterns", function()
    local opt = optim.AdamW(net():parameters(), {lr = 0.1, groups = {{match = "bias$", weight_decay = 0}}})
    assert.same({"1.weight", "3.weight"}, opt.groups[1].names)
    assert.same({"1.bias", "3.bias"}, opt.groups[2].names)
    assert.equal(0, opt.groups[2].weight_decay)
    assert.equal(0.01, opt.groups[1].weight_decay)
  end)

  it("take options by their long names too", function()
    local p = nn.Linear(2, 1):parameters()
    local opt = optim.Adam(p, {lr = 0.1, groups = {{match = "weight", decoupled_weight_decay = true}}})
    assert.is_true(opt.groups[2].decoupled)
    assert.is_false(opt.groups[1].decoupled)
    assert.is_nil(opt.groups[2].decoupled_weight_decay)
    opt.decoupled_weight_decay = true
    assert.is_true(opt.groups[1].decoupled and opt.decoupled_weight_decay)
    local saved = opt:state_dict().groups[1]
    assert.is_true(saved.decoupled)
    assert.is_nil(saved.decoupled_weight_decay)
    fails(function() optim.Adam({{params = p, decoupled = true, decoupled_weight_decay = false}}) end, "twice")
  end)

  it("refuse options written later that do not go together, and keep what was", function()
    local adam = optim.Adam(nn.Linear(1, 1):parameters())
    fails(function() adam.betas = {2, 3} end, "betas", "2")
    assert.same({0.9, 0.999}, adam.betas)
    local sgd = optim.SGD({{params = {parameter {1}}, momentum = 0.9}, {params = {parameter {1}}}})
    fails(function() sgd.nesterov = true end, "nesterov", "momentum")
    assert.is_false(sgd.groups[1].nesterov)
  end)

  it("refuse what is not right", function()
    local p = nn.Linear(1, 1):parameters()
    fails(function() optim.Adam({}, {lr = 1}) end, "Adam", "parameters", "empty")
    fails(function() optim.Adam(p, {lr = -1}) end, "lr", "-1")
    fails(function() optim.Adam(p, {lrr = 1}) end, "lrr", "lr")
    fails(function() optim.Adam(p, {lr = 1}).lrr = 1 end, "optim.Adam: unknown option lrr (did you mean lr?)")
    fails(function() optim.Adam(p).parameters = p end, "optim.Adam: parameters cannot be assigned")
    fails(function() optim.Adam(p, {betas = {0.9, 1}}) end, "betas", "0.9", "1")
    fails(function() optim.Adam(nn.Linear(1, 1)) end, "net:parameters()")
    fails(function() optim.Adam({p[1], p[1]}) end, "twice")
    fails(function() optim.SGD(p, {nesterov = true}) end, "nesterov", "momentum")
    fails(function() optim.SGD(p, {groups = {{match = "^nothing"}}}) end, "^nothing")
    fails(function() return optim.Addam end, "Addam", "Adam")
  end)
end)

describe("the guard", function()
  it("names the parameter and changes nothing", function()
    local m = nn.Sequential {nn.Linear(2, 2), nn.Linear(2, 1)}
    local before = m[1].weight:clone()
    local opt = optim.SGD(m:parameters(), {lr = 1})
    for _, p in ipairs(m:parameters()) do p.grad = dlua.ones(p.shape) end
    m[2].weight.grad = dlua.full(m[2].weight.shape, math.huge)
    fails(function() opt:step() end, "SGD", "2.weight", "not finite")
    assert.is_true(m[1].weight:equal(before))
  end)

  -- Of more than 4096 elements: looked at by the step itself, in blocks of 1024.
  local function large(dtype)
    dlua.seed(3)
    local p = nn.Parameter(dlua.randn({20, 1000}, {dtype = dtype}))
    p.grad = dlua.randn({20, 1000}, {dtype = dtype})
    return p
  end

  it("steps large parameters to the same bits", function()
    for _, rule in ipairs {"SGD", "Adam", "RMSprop", "Adagrad"} do
      for _, dtype in ipairs {"f32", "f64"} do
        local p, q = large(dtype), large(dtype)
        local one, two = optim[rule]({p}, {lr = 0.1}), optim[rule]({q}, {lr = 0.1, guard = false})
        for _ = 1, 2 do one:step() two:step() end
        assert.is_true(p:equal(q), rule .. " " .. dtype)
      end
    end
  end)

  it("writes nothing from a large gradient that is not finite", function()
    for _, rule in ipairs {"SGD", "Adam", "RMSprop", "Adagrad"} do
      for _, value in ipairs {math.huge, -math.huge, 0 / 0} do
        for _, dtype in ipairs {"f32", "f64"} do
          local p = large(dtype)
          local before = p:clone()
          p.grad[{20, 1000}] = value
          fails(function() optim[rule]({p}, {lr = 0.1}):step() end, "gradient of 1 is not finite", "the step had begun")
          assert.is_true(p[{20, {501, 1000}}]:equal(before[{20, {501, 1000}}]))
          assert.is_false(p[1]:equal(before[1]))
          p = large(dtype)
          p.grad[{1, 7}] = value
          fails(function() optim[rule]({p}, {lr = 0.1}):step() end, "gradient of 1 is not finite",
            "nothing was changed")
          assert.is_true(p:equal(before))
        end
      end
    end
  end)

  it("looks at small gradients before it steps large ones", function()
    local p, q = large "f32", parameter {1}
    local before = p:clone()
    q.grad = dlua.full({1}, 0 / 0)
    fails(function() optim.SGD({p, q}, {lr = 1}):step() end, "gradient of 2 is not finite", "nothing was changed")
    assert.is_true(p:equal(before))
  end)

  it("looks at all groups before it steps the first", function()
    local p, q = large "f32", large "f32"
    local before = p:clone()
    q.grad[{20, 1000}] = 0 / 0
    fails(function() optim.SGD({{params = {p}}, {params = {q}}}, {lr = 1}):step() end, "nothing was changed")
    assert.is_true(p:equal(before))
  end)

  it("can be switched off", function()
    local p = parameter {1}
    p.grad = dlua.full({1}, math.huge)
    optim.SGD({p}, {lr = 1, guard = false}):step()
    assert.equal(-math.huge, p:item())
  end)
end)

describe("optimiser state", function()
  it("outlives the scope of the step that made it", function()
    local function run_in_scopes(in_scope)
      local p = parameter(golden.start)
      local opt = optim.Adam({p}, {lr = 0.1})
      for _, gradient in ipairs(golden.gradients) do
        in_scope(function()
          p.grad = dlua.tensor(gradient)
          opt:step()
        end)
      end
      return p:totable()
    end
    assert.same(run_in_scopes(function(fn) fn() end), run_in_scopes(dlua.tidy))
  end)

  it("goes on where it was saved", function()
    local case = golden.optimizers[6]
    local a = parameter(golden.start, "f64")
    local opt = optim.Adam({a}, case[2])
    for step = 1, 2 do
      a.grad = dlua.tensor(golden.gradients[step], {dtype = "f64"})
      opt:step()
    end
    local b = nn.Parameter(a:clone():detach())
    local again = optim.Adam({b}, {lr = 1})
    again:load_state_dict(opt:state_dict())
    for step = 3, 5 do
      b.grad = dlua.tensor(golden.gradients[step], {dtype = "f64"})
      again:step()
    end
    local values = b:totable()
    for i, value in ipairs(case[3]) do near(value, values[i], 1e-12, "element " .. i) end
  end)

  it("is refused, whole, when its values are not what they should be", function()
    local p = parameter {1, 2}
    local opt = optim.Adam({p}, {lr = 0.25})
    p.grad = dlua.ones(2)
    opt:step()
    local function refused(change, ...)
      local saved = opt:state_dict()
      saved.groups[1].lr = 0.5
      change(saved)
      fails(function() opt:load_state_dict(saved) end, ...)
      assert.equal(0.25, opt.lr)
      assert.equal(1, opt.groups[1].steps[1])
    end
    refused(function(saved) saved.groups[1].lr = "fast" end, "lr", "fast")
    refused(function(saved) saved.groups[1].betas = {2, 3} end, "betas")
    refused(function(saved) saved.groups[1].initial_lr = "x" end, "initial_lr")
    refused(function(saved) saved.groups[1].names = nil end, "group 1", "parameters")
    refused(function(saved) saved.groups[1] = 3 end, "group 1", "number")
    refused(function(saved) saved.state = nil end, "state")
    refused(function(saved) saved.state["1"] = 7 end, "state of 1", "number")
    refused(function(saved) saved.state["1"].step = "x" end, "step", "x")
    refused(function(saved) saved.state["1"].exp_avg = 7 end, "exp_avg", "number")
    refused(function(saved) saved.state["1"].exp_avg = dlua.ones(3) end, "exp_avg", "{3}", "{2}")
    refused(function(saved) saved.state["1"].exp_avg = dlua.ones({2}, {dtype = "i64"}) end, "exp_avg", "i64")
    local saved = opt:state_dict()
    saved.groups[1].params = {}
    opt:load_state_dict(saved)
    assert.equal(p, opt.groups[1].params[1])
  end)

  it("is refused for other parameters", function()
    local saved = optim.SGD(nn.Linear(1, 1):parameters(), {lr = 1}):state_dict()
    fails(function() optim.SGD({parameter {1}}, {lr = 1}):load_state_dict(saved) end, "weight, bias", "1")
  end)
end)

-- ---------------------------------------------------------------- schedules

local function schedule_optimizer(name)
  local groups = {{params = {parameter {0}}, lr = 0.1}}
  if name ~= "OneCycleLR" then groups[2] = {params = {parameter {0}}, lr = 0.02} end
  return optim.SGD(groups, {lr = 1, momentum = 0.9})
end

describe("schedules", function()
  for k, case in ipairs(golden.schedules) do
    local name, options, rows = table.unpack(case)
    it(("%s (case %d) gives PyTorch's rates"):format(name, k), function()
      local opt = schedule_optimizer(name)
      local clock = optim[name](opt, options)
      for step, row in ipairs(rows) do
        for g, group in ipairs(opt.groups) do near(row[g], group.lr, 1e-12, ("step %d group %d"):format(step, g)) end
        near(row[#row], opt.momentum, 1e-12, "momentum at step " .. step)
        if step < #rows then clock:step() end
      end
    end)
  end

  it("SequentialLR hands over", function()
    local opt = optim.SGD({parameter {0}}, {lr = 0.1})
    local warm = optim.LinearLR(opt, {start_factor = 0.1, total_iters = 3})
    local cool = optim.CosineAnnealingLR(opt, {T_max = 7})
    local clock = optim.SequentialLR(opt, {schedulers = {warm, cool}, milestones = {3}})
    for step, rate in ipairs(golden.sequence) do
      near(rate, opt.lr, 1e-12, "step " .. step)
      clock:step()
    end
  end)

  it("ReduceLROnPlateau waits for patience and cooldown", function()
    local opt = optim.SGD({parameter {0}}, {lr = 0.1})
    local clock = optim.ReduceLROnPlateau(opt, {factor = 0.5, patience = 2, cooldown = 1})
    for step, value in ipairs(golden.plateau.values) do
      near(golden.plateau.rates[step], clock:step(value), 1e-12, "step " .. step)
    end
  end)

  it("LambdaLR scales each group's own start", function()
    local opt = schedule_optimizer "LambdaLR"
    local clock = optim.LambdaLR(opt, {lr_lambda = function(count) return 1 / (1 + count) end})
    clock:step()
    near(0.05, opt.groups[1].lr, 1e-12, "group 1")
    near(0.01, opt.groups[2].lr, 1e-12, "group 2")
  end)

  it("go on where they were saved", function()
    local opt = schedule_optimizer "StepLR"
    local clock = optim.StepLR(opt, {step_size = 2})
    for _ = 1, 3 do clock:step() end
    local other = schedule_optimizer "StepLR"
    optim.StepLR(other, {step_size = 2}):load_state_dict(clock:state_dict())
    assert.equal(opt.lr, other.lr)
  end)

  it("say what is wrong", function()
    local opt = schedule_optimizer "OneCycleLR"
    fails(function() optim.OneCycleLR(opt, {max_lr = 1}) end, "total_steps")
    fails(function() optim.StepLR(opt, {}) end, "step_size")
    fails(function() optim.StepLR({}, {step_size = 1}) end, "optimiser")
    fails(function() optim.MultiStepLR(opt, {milestones = {"a"}}) end, "milestones[1]", "a")
    local plateau = optim.ReduceLROnPlateau(opt)
    fails(function() optim.SequentialLR(opt, {schedulers = {plateau}, milestones = {}}) end, "schedulers[1]", "value")
    fails(function() optim.SequentialLR(opt, {schedulers = {3}, milestones = {}}) end, "schedulers[1]", "number")
    local clock = optim.OneCycleLR(opt, {max_lr = 1, total_steps = 2})
    clock:step()
    clock:step()
    fails(function() clock:step() end, "3", "2")
    fails(function() optim.OneCycleLR(optim.Adagrad {params = {parameter {0}}}, {max_lr = 1, total_steps = 2}) end,
      "momentum")
  end)
end)

describe("a lack of memory", function()
  local function setup()
    local a, b = parameter(golden.start), parameter {1}
    a.grad, b.grad = dlua.ones(5), dlua.ones(1)
    return optim.RMSprop({a, b}, {lr = 0.1, centered = true, momentum = 0.5}), a, b
  end

  it("at any allocation leaves the step whole or undone", function()
    local reference = setup()
    reference:step()
    local expected, n = reference.groups[1].params[1]:totable(), 0
    repeat
      n = n + 1
      local opt, a = setup()
      dlua.test.fail_allocation(n)
      local ok, message = pcall(opt.step, opt)
      dlua.test.fail_allocation(0)
      if not ok then
        assert.truthy(tostring(message):find("memory", 1, true), tostring(message))
        assert.same(parameter(golden.start):totable(), a:totable())
        opt:step()
      end
      assert.same(expected, a:totable())
    until ok or n > 200
    assert.is_true(n > 1 and n <= 200)
  end)

  it("at any allocation leaves gradients to be clipped again", function()
    local n = 0
    repeat
      n = n + 1
      local _, a, b = setup()
      dlua.test.fail_allocation(n)
      local ok = pcall(nn.clip_grad_norm_, {a, b}, 1)
      dlua.test.fail_allocation(0)
      if not ok then nn.clip_grad_norm_({a, b}, 1) end
      near(1, nn.clip_grad_norm_({a, b}, 100), 1e-6, "norm")
    until ok or n > 200
    assert.is_true(n <= 200)
  end)
end)

describe("clipping", function()
  local function with_gradients()
    local a, b = parameter {0, 0}, parameter {0}
    a.grad, b.grad = dlua.tensor {3, 0}, dlua.tensor {4}
    return {a, b}
  end

  it("scales to the norm and returns the norm before", function()
    local list = with_gradients()
    near(5, nn.clip_grad_norm_(list, 1), 1e-6, "norm")
    near(0.6, list[1].grad[1]:item(), 1e-6, "first")
    near(0.8, list[2].grad:item(), 1e-6, "second")
  end)

  it("leaves small gradients alone", function()
    local list = with_gradients()
    nn.clip_grad_norm_(list, 10)
    assert.equal(3, list[1].grad[1]:item())
  end)

  it("takes other norms", function()
    near(4, nn.clip_grad_norm_(with_gradients(), 100, {norm_type = math.huge}), 1e-6, "largest")
    near(7, nn.clip_grad_norm_(with_gradients(), 100, {norm_type = 1}), 1e-6, "sum")
  end)

  it("leaves gradients that are not finite for the guard", function()
    local list = with_gradients()
    list[2].grad = dlua.tensor {math.huge}
    assert.equal(math.huge, nn.clip_grad_norm_(list, 1))
    assert.equal(3, list[1].grad[1]:item())
  end)

  it("holds values", function()
    local list = with_gradients()
    nn.clip_grad_value_(list, 3.5)
    assert.equal(3.5, list[2].grad:item())
  end)
end)
