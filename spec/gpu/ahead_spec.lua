-- ahead_spec.lua - the way back through chains of linear layers on a device, where a product takes the gradient on past
-- the activation before it: what comes out is the CPU's in every graph, and where a graph allows no such step none is
-- taken. Runs on the devices there are: the mock, and the GPU or its emulator (DLUA_MODULES=build/emulated).
local dlua = require "dlua"
local nn = dlua.nn
local fails = require "spec.helpers".fails

local limits = {f64 = 1e-12, f32 = 1e-5, bf16 = 2 ^ -5, f16 = 2 ^ -8}

-- One gradient is the other, up to a part of its largest element.
local function assert_same(wanted, got, dtype, what)
  assert.equal(wanted == nil, got == nil, what)
  if not wanted then return end
  assert.same(wanted.shape, got.shape, what)
  assert.equal(wanted.dtype, got.dtype, what)
  wanted, got = wanted:to("f64"), got:to("cpu"):to("f64")
  local difference = (got - wanted):abs():max():item() / math.max(wanted:abs():max():item(), 1e-300)
  assert.is_true(difference <= limits[dtype], ("%s in %s: %g"):format(what, dtype, difference))
end

-- What f returns for the same leaves on the CPU and on a device: f gets them as a table.
local function compare(device, dtype, leaves, f)
  local results = {}
  for _, place in ipairs {"cpu", device} do
    local copies = {}
    for name, x in pairs(leaves) do copies[name] = x:to(dtype):to(place):detach():requires_grad_() end
    results[place] = f(copies, place)
  end
  for k, wanted in pairs(results.cpu) do assert_same(wanted, results[device][k], dtype, tostring(k)) end
end

local function layers(...)
  local sizes, leaves = {...}, {x = dlua.randn(6, (...))}
  for k = 1, #sizes - 1 do
    leaves["w" .. k] = dlua.randn(sizes[k + 1], sizes[k]) / sizes[k] ^ 0.5
    leaves["b" .. k] = dlua.randn(sizes[k + 1])
  end
  return leaves
end

local relu = dlua.ops.linear_relu
local function gelu(x, w, b) return dlua.ops.linear_gelu(x, w, b, "tanh") end

-- Those of gelu pass through its slope in 16 bits, which round alike on all devices only where forward is smooth and
-- the loss is straight.
local dtype_of = {[relu] = "f32", [gelu] = "bf16"}

local function weighted(y)
  return (y * dlua.linspace(-1, 1, y:numel()):to(y.dtype):to(y.device):reshape(y.shape)):sum()
end

-- The loss of a layer, an activation and another layer.
local function chain(l, f) return weighted(dlua.linear(f(l.x, l.w1, l.b1), l.w2, l.b2)) end

local function gradients(leaves)
  local all = {}
  for name, x in pairs(leaves) do all[name] = x.grad end
  return all
end

local has_mock = pcall(dlua.device, "mock")

for _, device in ipairs {"mock", "cuda"} do
  if pcall(dlua.device, device) then
    describe("gradients of linear layers on " .. device, function()
      before_each(function() dlua.seed(5) end)

      local function nets(bias)
        local function linear(from, to) return nn.Linear(from, to, {bias = bias}) end
        local tanh = {approximate = "tanh"}
        return {
          {"relu", nn.Sequential(linear(5, 16), nn.ReLU(), linear(16, 24), nn.ReLU(), linear(24, 3))},
          {"gelu", nn.Sequential(linear(5, 16), nn.GELU(), linear(16, 8), nn.GELU(), linear(8, 3))},
          {"gelu by tanh", nn.Sequential(linear(5, 16), nn.GELU(tanh), linear(16, 8), nn.GELU(tanh), linear(8, 1))},
          {"mixed", nn.Sequential(linear(5, 136), nn.ReLU(), linear(136, 13), nn.GELU(tanh), linear(13, 9), nn.ReLU(),
            linear(9, 4), nn.ReLU())},
        }
      end
      -- By a backward of its own, which may go ahead, and as part of one that keeps to single steps.
      local function both_ways(net, x)
        local names, leaves = {"x"}, {x:detach():requires_grad_()}
        for name, p in net:named_parameters() do names[#names + 1], leaves[#leaves + 1] = name, p end
        local loss = weighted(net(leaves[1]))
        local steps = {dlua.grad(loss, leaves, {create_graph = true})}
        net:zero_grad()
        loss:backward()
        local ahead = {}
        for k, name in ipairs(names) do ahead[name], steps[name] = leaves[k].grad, steps[k]:detach() end
        return ahead, steps
      end
      for _, dtype in ipairs {"f32", "f64", "bf16", "f16"} do
        it("are those of single steps, and of the CPU, in " .. dtype, function()
          for _, bias in ipairs {true, false} do
            for _, case in ipairs(nets(bias)) do
              local name, net = table.unpack(case)
              for _, shape in ipairs {{7, 5}, {2, 3, 5}, {1, 5}, {5}} do
                local x = dlua.randn(shape):to(dtype)
                local wanted = both_ways(net:to(dtype):to "cpu", x)
                local ahead, steps = both_ways(net:to(device), x:to(device))
                for key in pairs(wanted) do
                  local what = ("%s, %s"):format(name, key)
                  assert_same(steps[key]:to "cpu", ahead[key], dtype, what)
                  if dtype == "f32" or dtype == "f64" then assert_same(wanted[key], ahead[key], dtype, what) end
                end
              end
            end
          end
        end)
      end

      it("are those of the CPU where relu gives zeros of itself", function()
        local leaves = layers(8, 16, 4)
        leaves.x[{{1, 3}}] = 0
        compare(device, "f32", leaves, function(l)
          weighted(dlua.linear(relu(l.x, l.w1), l.w2, l.b2)):backward()
          return gradients(l)
        end)
      end)

      it("may be asked for while others are not", function()
        for _, frozen in ipairs {
          {"x"}, {"w1"}, {"b1"}, {"w2"}, {"b2"}, {"x", "w1"}, {"w1", "b1"}, {"x", "w1", "b1"}, {"w2", "b2"},
        } do
          for _, f in ipairs {relu, gelu} do
            compare(device, dtype_of[f], layers(8, 16, 4), function(l)
              for _, name in ipairs(frozen) do l[name]:requires_grad_(false) end
              chain(l, f):backward()
              return gradients(l)
            end)
          end
        end
      end)

      it("add up over two backwards of one graph, and of two", function()
        for _, f in ipairs {relu, gelu} do
          compare(device, dtype_of[f], layers(8, 16, 4), function(l)
            local y = f(l.x, l.w1, l.b1)
            local one, two = weighted(dlua.linear(y, l.w2, l.b2)), dlua.linear(y, l.w2):sum()
            local sum = one + two -- uses y twice; each alone once
            one:backward {retain_graph = true}
            one:backward {retain_graph = true}
            sum:backward {retain_graph = true}
            two:backward()
            return gradients(l)
          end)
        end
      end)

      it("of a result between layers are its own", function()
        for _, f in ipairs {relu, gelu} do
          compare(device, "f32", layers(8, 16, 4), function(l, place)
            local y = f(l.x, l.w1, l.b1)
            local gy, gw = dlua.grad(weighted(dlua.linear(y, l.w2, l.b2)), {y, l.w1})
            y = f(l.x, l.w1, l.b1)
            local one = dlua.ones({}, {device = place, dtype = "f32"})
            local again = {dlua.grad({weighted(dlua.linear(y, l.w2)), y}, {l.w1, l.x},
              {grad_outputs = {one, dlua.linspace(0, 1, 96):to(place):reshape(6, 16)}})}
            return {gy, gw, again[1], again[2]}
          end)
        end
      end)

      it("have gradients", function()
        for _, f in ipairs {relu, gelu} do
          compare(device, "f64", layers(8, 16, 4), function(l)
            local first = {dlua.grad(chain(l, f), {l.x, l.w1, l.b1, l.w2, l.b2}, {create_graph = true})}
            local sum = 0
            for _, g in ipairs(first) do sum = sum + g:square():sum() end
            sum:backward()
            return gradients(l)
          end)
        end
      end)

      it("are refused where what they need has changed", function()
        local place = {x = dlua.randn(4, 8), w1 = dlua.randn(8, 8), w2 = dlua.randn(2, 8)}
        for name, x in pairs(place) do place[name] = x:to(device):requires_grad_() end
        for _, frozen in ipairs {false, true} do
          place.w2:requires_grad_(not frozen)
          local y = relu(place.x, place.w1)
          local loss = dlua.linear(y, place.w2):sum()
          y:detach():add_(1)
          fails(function() loss:backward() end, "changed in place", "linear", "ahead_spec.lua:")
        end
        local y = relu(place.x, place.w1)
        local loss = dlua.linear(y, place.w2):sum()
        y:sum():backward()
        fails(function() loss:backward() end, "freed by an earlier backward", "linear_relu")
      end)
    end)
  end
end

if not has_mock then
  describe("the product that takes a gradient past an activation", function() pending "no mock device" end)
  return
end

-- The mock device does without a kernel on demand: backward fails where it calls it.
local function with_missing(op, f)
  dlua.test.fault("mock", "missing kernel " .. op, 1)
  local ok, message = pcall(f)
  dlua.test.fault("mock", "missing kernel " .. op, 0)
  return ok, tostring(message)
end

describe("the product that takes a gradient past an activation", function()
  local function here(dtype, ...)
    local leaves = layers(...)
    for name, x in pairs(leaves) do leaves[name] = x:to(dtype):to("mock"):requires_grad_() end
    return leaves
  end
  local function is_taken(op, dtype, f)
    local l = here(dtype, 8, 16, 4)
    local ok, message = with_missing(op, function() f(l) end)
    if not ok then assert.matches("there is no kernel for it on mock", message) end
    return not ok
  end
  local function erf(x, w, b) return dlua.ops.linear_gelu(x, w, b) end

  it("is taken in training", function()
    local function train(f) return function(l) chain(l, f):backward() end end
    for dtype, wanted in pairs {f32 = {true, false}, bf16 = {true, true}, f16 = {true, true}, f64 = {false, false}} do
      assert.equal(wanted[1], is_taken("relu_linear_grad", dtype, train(relu)), dtype)
      assert.equal(wanted[2], is_taken("gelu_linear_grad", dtype, train(gelu)), dtype)
      assert.is_false(is_taken("gelu_linear_grad", dtype, train(erf)))
      assert.is_true(is_taken("linear_weight_grad", dtype, train(relu)))
    end
  end)

  it("is taken by the layers of nn.Sequential", function()
    for _, case in ipairs {{nn.ReLU(), "relu_linear_grad"}, {nn.GELU {approximate = "tanh"}, "gelu_linear_grad"}} do
      local net = nn.Sequential(nn.Linear(4, 8), case[1], nn.Linear(8, 2)):to("bf16"):to "mock"
      local x = dlua.randn(3, 4):to("bf16"):to "mock"
      assert.is_false((with_missing(case[2], function() net(x):sum():backward() end)))
      net:to "f32"
      local loss = dlua.autocast("bf16", function() return net(x:to "f32"):sum() end)
      assert.is_false((with_missing(case[2], function() loss:backward() end)))
    end
  end)

  it("is not taken where somebody else sees the activation's gradient", function()
    local graphs = {
      twice = function(l)
        local y = relu(l.x, l.w1, l.b1)
        local sum = dlua.linear(y, l.w2, l.b2):sum() + y:sum()
        sum:backward()
      end,
      ["as both operands"] = function(l)
        local y = relu(l.x, l.w1, l.b1)
        dlua.linear(y, y):sum():backward()
      end,
      ["as a root"] = function(l)
        local y = relu(l.x, l.w1, l.b1)
        dlua.grad({dlua.linear(y, l.w2), y}, {l.w1}, {grad_outputs = {dlua.linear(y, l.w2):detach(), y:detach()}})
      end,
      ["as a target"] = function(l)
        local y = relu(l.x, l.w1, l.b1)
        dlua.grad(dlua.linear(y, l.w2):sum(), {l.w1, y})
      end,
      ["in second derivatives"] = function(l)
        dlua.grad(chain(l, relu), l.w1, {create_graph = true})
      end,
      ["past a view"] = function(l)
        dlua.linear(relu(l.x, l.w1):reshape(3, 2, 16), l.w2):sum():backward()
      end,
    }
    for name, graph in pairs(graphs) do assert.is_false(is_taken("relu_linear_grad", "f32", graph), name) end
  end)

  it("is taken where others use the activation outside the walk", function()
    assert.is_true(is_taken("relu_linear_grad", "f32", function(l)
      local y = relu(l.x, l.w1, l.b1)
      assert.is_true((y * 2).requires_grad and y:detach():sum():item() > 0)
      dlua.linear(y, l.w2):sum():backward()
    end))
  end)

  -- The same graph is walked once more after a walk that failed.
  it("leaves nothing behind when a kernel or an allocation fails", function()
    local faults = {
      kernel = function(n) dlua.test.fault("mock", "launch", n) end, allocation = dlua.test.fail_allocation,
    }
    -- How many calls came before the first walk in which none failed.
    local function walks(fault, what)
      local l = here("bf16", 8, 16, 16, 4)
      local function loss() return weighted(dlua.linear(gelu(relu(l.x, l.w1, l.b1), l.w2, l.b2), l.w3, l.b3)) end
      local wanted = dlua.grad(loss(), l.w1)
      for n = 1, 1000 do
        local root = loss()
        fault(n)
        local ok, got = pcall(dlua.grad, root, l.w1, {retain_graph = true})
        fault(0)
        if not ok then got = dlua.grad(root, l.w1) end
        assert.is_true(got:eq(wanted):all():item(), ("%s %d"):format(what, n))
        if ok then return n - 1 end
      end
    end
    for what, fault in pairs(faults) do
      collectgarbage()
      local live = dlua.memory("mock").live
      assert.is_true(walks(fault, what) >= 5, what)
      collectgarbage()
      assert.equal(live, dlua.memory("mock").live)
    end
  end)
end)
