-- layers_spec.lua - softmax, class losses, pooling and batch normalisation on the GPU: their fused gradients, and
-- shapes that take every way through the kernels. What the derived samples are too small for.
local dlua = require "dlua"

local available, reason = dlua.cuda.available()
if not available then
  describe("layers on the GPU", function() pending(reason) end)
  return
end

local ops = dlua.ops

-- Values between -3 and 3 that differ from place to place.
local function numbers(size, dtype, factor)
  local n = 1
  for _, s in ipairs(size) do n = n * s end
  return ((dlua.range(1, n):to("f64") * (factor or 0.7391)):sin() * 3):reshape(size):to(dtype)
end

-- Labels from 1 to k, every fifth of them -100.
local function labels(size, k)
  local n = 1
  for _, s in ipairs(size) do n = n * s end
  local list = {}
  for p = 1, n do list[p] = p % 5 == 0 and -100 or p * 7 % k + 1 end
  return dlua.tensor(list, {dtype = "i64"}):reshape(size)
end

local tolerance = {f32 = 1e-5, f64 = 1e-10, bf16 = 2 ^ -8, f16 = 2 ^ -11}

local function close(got, wanted, dtype, what)
  assert.equal(wanted.dtype, got.dtype, what)
  got, wanted = got:to("cpu"):to("f64"):flatten(), wanted:to("f64"):flatten()
  assert.equal(wanted:numel(), got:numel(), what)
  local scale = wanted:abs()
  local allowed = (scale + scale:max():item()) * tolerance[dtype] + 1e-12
  assert.is_true((got - wanted):abs():le(allowed):all():item(), what)
end

-- Calls an op with these arguments on both devices; compares all results.
local function same(name, dtype, ...)
  local here, there, n = {...}, {...}, select("#", ...)
  for k = 1, n do
    if type(here[k]) == "userdata" then there[k] = here[k]:to("cuda") end
  end
  local wanted = table.pack(ops[name](table.unpack(here, 1, n)))
  local got = table.pack(ops[name](table.unpack(there, 1, n)))
  assert.equal(wanted.n, got.n)
  for k = 1, wanted.n do close(got[k], wanted[k], dtype, ("%s in %s, result %d"):format(name, dtype, k)) end
  return wanted
end

describe("layers on the GPU", function()
  for _, dtype in ipairs {"f32", "f64", "bf16", "f16"} do
    it("take softmax of rows of any length in " .. dtype, function()
      for _, shape in ipairs {
        {{7, 10}, 2}, {{3, 64}, 2}, {{2, 5001}, 2}, {{2, 16384}, 2}, {{3, 70, 5}, 2}, {{300, 33}, 1},
      } do
        local x, g = numbers(shape[1], dtype), numbers(shape[1], dtype, 0.313)
        for _, name in ipairs {"softmax", "log_softmax"} do
          local y = same(name, dtype, x, shape[2])[1]
          same(name .. "_grad", dtype, g, y, shape[2])
        end
      end
    end)

    it("take class losses and their gradients in " .. dtype, function()
      local weight = numbers({12}, dtype):abs() + 0.25
      for _, shape in ipairs {{{600, 12}, {600}}, {{3, 12, 50}, {3, 50}}, {{12}, {}}} do
        local x, target = numbers(shape[1], dtype), labels(shape[2], 12)
        local shares = numbers(shape[1], dtype):abs() * 0.05
        for _, options in ipairs {{}, {reduction = "sum"}, {label_smoothing = 0.1}} do
          for _, w in ipairs {false, weight} do
            local g = dlua.tensor(0.5, {dtype = dtype})
            options.weight = w or nil
            local function call(name, ...)
              local here, there = {}, {}
              for key, value in pairs(options) do
                here[key], there[key] = value, type(value) == "userdata" and value:to("cuda") or value
              end
              local arguments, moved = {...}, {}
              for k, v in ipairs(arguments) do moved[k] = v:to("cuda") end
              arguments[#arguments + 1], moved[#moved + 1] = here, there
              close(ops[name](table.unpack(moved)), ops[name](table.unpack(arguments)), dtype, name .. " in " .. dtype)
            end
            call("cross_entropy", x, target)
            call("cross_entropy_grad", g, x, target)
            call("cross_entropy", x, shares)
            call("cross_entropy_grad", g, x, shares)
            if not options.label_smoothing then call("nll_loss", x, target) end
          end
        end
      end
    end)

    it("pool with overlapping windows in " .. dtype, function()
      for _, size in ipairs {{3, 4, 9, 11}, {40, 3, 8, 8}, {1, 1, 70, 66}} do
        local x = numbers(size, dtype)
        same("max_pool2d", dtype, x, 3, 2, 1)
        same("avg_pool2d", dtype, x, 3, 2, 1)
        same("adaptive_avg_pool2d", dtype, x, {1, 1})
        same("adaptive_avg_pool2d", dtype, x, {3, 2})
      end
    end)

    it("normalise batches, and back, in " .. dtype, function()
      for _, size in ipairs {{5000, 3}, {64, 40}, {8, 3, 16, 16}, {4, 6, 5, 7}, {2, 5, 3000}} do
        local c = size[2]
        local x, g = numbers(size, dtype) + 2, numbers(size, dtype, 0.313)
        local weight, bias = numbers({c}, dtype), numbers({c}, dtype, 0.9)
        local running = {numbers({c}, dtype, 1.3), numbers({c}, dtype, 1.7):abs()}
        local moved = {running[1]:to("cuda"), running[2]:to("cuda")}
        local mean, rstd = numbers({c}, dtype), numbers({c}, dtype, 0.5):abs() + 0.5
        for k = 0, 3 do
          local given = {training = k % 2 == 0, relu = k > 1}
          local wanted = ops.batch_norm(x, weight, bias, running[1], running[2], given)
          local got = ops.batch_norm(x:to("cuda"), weight:to("cuda"), bias:to("cuda"), moved[1], moved[2], given)
          close(got, wanted, dtype, "batch_norm")
          for i = 1, 2 do close(moved[i], running[i], dtype, "running averages") end
          same("batch_norm_grad", dtype, g, x, weight, bias, mean, rstd, given.training, given.relu)
        end
      end
    end)
  end

  it("give the gradient of max pooling over pictures without pixels", function()
    local g = dlua.zeros({2, 3, 0, 0}, {device = "cuda"})
    local gx = ops.max_pool2d_grad(g, g:to "i32", {2, 3, 0, 4})
    assert.same({2, 3, 0, 4}, gx.shape)
  end)

  it("give the gradient of max pooling without a word on its windows", function()
    for _, size in ipairs {{3, 4, 9, 11}, {40, 3, 8, 8}, {1, 2, 70, 66}} do
      local function gradient(device)
        local x = numbers(size, "f32"):to(device)
        x:requires_grad_(true)
        local y = dlua.ops.max_pool2d(x, 3, 1, 1)
        y:backward(numbers(y.shape, "f32", 0.313):to(device))
        return x.grad
      end
      close(gradient("cuda"), gradient("cpu"), "f32", "the gradient of max_pool2d")
    end
  end)

  it("normalise bf16 with parameters and statistics in f32", function()
    local function train(device)
      local x = numbers({16, 4, 10}, "bf16"):to(device)
      local weight, bias = numbers({4}, "f32"):to(device), numbers({4}, "f32", 0.9):to(device)
      local running = {dlua.zeros {4}:to(device), dlua.ones {4}:to(device)}
      for _, t in ipairs {x, weight, bias} do t:requires_grad_(true) end
      local y = ops.batch_norm(x, weight, bias, running[1], running[2], true)
      y:backward(numbers({16, 4, 10}, "bf16", 0.313):to(device))
      return y:detach(), x.grad, weight.grad, bias.grad, running[1], running[2]
    end
    local got, wanted = {train("cuda")}, {train("cpu")}
    for k = 1, 2 do close(got[k], wanted[k], "bf16", "result " .. k) end
    for k = 3, 4 do close(got[k]:to("bf16"), wanted[k]:to("bf16"), "bf16", "gradient " .. k) end
    for k = 5, 6 do close(got[k], wanted[k], "f32", "running average " .. k) end
  end)

  it("do not drift where the mean is far from 0", function()
    local x = numbers({4, 2, 1000}, "f32") + 1000
    local wanted = ops.batch_norm(x:to("f64"), nil, nil, nil, nil, true)
    local got = ops.batch_norm(x:to("cuda"), nil, nil, nil, nil, true):to("cpu"):to("f64")
    assert.is_true((got - wanted):abs():max():item() < 1e-4)
  end)

  it("name labels and scores that are none as the CPU does", function()
    local function message(device, f)
      local ok, text = pcall(function()
        f(device)
        dlua.cuda.synchronize()
      end)
      assert.is_false(ok)
      return (text:gsub("  %S+:%d+", ""))
    end
    local function whole(list) return dlua.tensor(list, {dtype = "i64"}) end
    local calls = {
      function(device) ops.cross_entropy(numbers({4, 10}, "f32"):to(device), whole {1, 2, 0, 3}:to(device)) end,
      function(device) ops.nll_loss(numbers({2, 3}, "f32"):to(device), whole {1, 4}:to(device)) end,
      function(device) ops.bce_loss(dlua.tensor {0.5, 1.5}:to(device), dlua.tensor {0, 1.0}:to(device)) end,
    }
    for _, f in ipairs(calls) do assert.equal(message("cpu", f), message("cuda", f)) end
    assert.equal("cross_entropy: target 0 at position 3 is outside 1..10 (class labels start at 1)",
      message("cuda", calls[1]))
  end)
end)
