-- Modules: registration, names, state, modes, printing, calling.
local dlua = require "dlua"
local nn = dlua.nn
local helpers = require "spec.helpers"
local fails = helpers.fails

local Pair = nn.class "Pair"
function Pair:init(width)
  self.second = nn.Linear(2, width)
  self.first = nn.Linear(width, 1, {bias = false})
  self.scale = nn.Parameter(dlua.ones(1))
end
function Pair:forward(x) return self.first(self.second(x)) * self.scale end

describe("net:to", function()
  it("asks for what it is moved to", function()
    local layer = dlua.nn.Linear(1, 1)
    assert.error_matches(function() layer:to() end, "to: a dtype or a device is missing", 1, true)
  end)
end)

describe("registration", function()
  it("keeps the order of assignment", function()
    assert.same({"second.weight", "second.bias", "first.weight", "scale"}, Pair(3):parameters().names)
  end)

  it("follows replaced fields", function()
    local m = Pair(3)
    m.second = nn.Identity()
    assert.same({"first.weight", "scale"}, m:parameters().names)
    m.second = nil
    assert.same({"first.weight", "scale"}, m:parameters().names)
  end)

  it("lists shared parameters once", function()
    local m = nn.Sequential {nn.Linear(2, 2), nn.Linear(2, 2)}
    m[2].weight = m[1].weight
    assert.same({"1.weight", "1.bias", "2.bias"}, m:parameters().names)
    assert.truthy(m:state_dict()["2.weight"])
  end)

  it("refuses fields named like methods", function()
    fails(function()
      local m = Pair(3)
      m.parameters = 1
    end, "Pair", "parameters", "method")
  end)

  it("refuses modules hidden in plain tables", function()
    local m = Pair(3)
    m.layers = {nn.Linear(1, 1)}
    fails(function() m:parameters() end, "layers", "ModuleList")
  end)

  it("searches a large plain table once, and again when its list grows", function()
    local words = {}
    for k = 1, 100000 do words["word" .. k] = k end
    local m = Pair(2)
    m.words = words
    m:parameters()
    local seen = 0
    debug.sethook(function() seen = seen + 1 end, "", 1000)
    m:parameters()
    debug.sethook()
    assert.is_true(seen < 10, ("%d thousand instructions"):format(seen))
    words[1] = nn.ReLU()
    fails(function() m:parameters() end, "words", "ModuleList")
  end)

  it("refuses a tensor in a parameter's place", function()
    local m = Pair(3)
    m.scale = m.scale * 2
    fails(function() m:parameters() end, "scale", "nn.Parameter")
    m.scale = nn.Parameter(dlua.ones(1))
    assert.equal(4, #m:parameters())
  end)

  it("takes buffers along but does not train them", function()
    local m = Pair(3)
    m:register_buffer("mean", dlua.zeros(3))
    assert.same({"mean"}, m:buffers().names)
    assert.truthy(m:state_dict().mean)
    assert.equal(4, #m:parameters())
  end)

  it("finds a module that contains itself", function()
    local m = Pair(3)
    m.loop = m
    fails(function() m:parameters() end, "itself")
  end)
end)

describe("classes", function()
  it("know what they are", function()
    local Wide = nn.class("Wide", Pair)
    local m = Wide(5)
    assert.is_true(m:is(Wide) and m:is(Pair) and m:is(nn.Module))
    assert.is_false(m:is(nn.Linear))
    assert.shape({4, 1}, m(dlua.randn(4, 2)))
  end)

  it("say when forward is missing", function()
    fails(function() nn.class("Empty")()(1) end, "Empty", "forward")
  end)

  it("give several results", function()
    local Two = nn.class "Two"
    function Two.forward(_, x) return x, 2 end
    local _, second = Two()(1)
    assert.equal(2, second)
  end)
end)

describe("modes and gradients", function()
  it("train and eval reach everything", function()
    local m = nn.Sequential {nn.Sequential {nn.Dropout(0.5)}}
    m:eval()
    assert.is_false(m[1][1].training)
    m:train()
    assert.is_true(m[1][1].training)
  end)

  it("freeze and forget", function()
    local m = Pair(3)
    m:requires_grad_(false)
    assert.is_false(m(dlua.ones(1, 2)).requires_grad)
    m:requires_grad_()
    m(dlua.ones(1, 2)):sum():backward()
    assert.truthy(m.scale.grad)
    m:zero_grad()
    assert.is_nil(m.scale.grad)
  end)

  it("apply goes inside first", function()
    local seen = {}
    nn.Sequential({nn.ReLU(), nn.Tanh()}):apply(function(m) seen[#seen + 1] = m:describe() end)
    assert.same({"ReLU()", "Tanh()", "Sequential"}, seen)
  end)

  it("to keeps the parameters themselves", function()
    local m = nn.Sequential {nn.Linear(2, 2), nn.BatchNorm1d(2)}
    local before = m:parameters()
    m:to("f64")
    for k, p in ipairs(m:parameters()) do
      assert.is_true(rawequal(before[k], p))
      assert.equal("f64", p.dtype)
      assert.is_true(p.requires_grad)
    end
    assert.equal("f64", m[2].running_mean.dtype)
    assert.equal("i64", m[2].num_batches_tracked.dtype)
    assert.equal("f64", m(dlua.randn({3, 2}, {dtype = "f64"})).dtype)
    fails(function() m:to("i64") end, "i64")
  end)

  it("to takes gradients along", function()
    local m = nn.Linear(2, 1)
    m(dlua.ones(1, 2)):sum():backward()
    m:to("f64")
    assert.equal("f64", m.weight.grad.dtype)
    assert.same({{1, 1}}, m.weight.grad:totable())
  end)
end)

describe("state", function()
  it("travels by name", function()
    local a, b = Pair(3), Pair(3)
    b:load_state_dict(a:state_dict())
    local x = dlua.randn(4, 2)
    assert.is_true(a(x):equal(b(x)))
  end)

  it("travels through a file", function()
    local folder = helpers.folder()
    local path = folder:path "pair.safetensors"
    local a, b = Pair(3), Pair(3)
    a:save(path)
    b:load(path)
    folder:remove()
    assert.is_true(a.second.weight:equal(b.second.weight))
  end)

  it("raises when the file is missing", function()
    fails(function() Pair(3):load("no/such.safetensors") end, "no/such.safetensors")
  end)

  it("lists every mismatch in one error", function()
    local state = Pair(3):state_dict()
    state["first.weight"], state.extra = nil, dlua.ones(1)
    state.scale = dlua.ones(2)
    state["second.bias"] = state["second.bias"]:to("f64")
    fails(function() Pair(3):load_state_dict(state) end, "missing: first.weight", "not in the model: extra",
      "scale is {1} f32 here but {2} f32", "second.bias is {3} f32 here but {3} f64")
  end)

  it("must be a table", function()
    fails(function() Pair(3):load_state_dict(nil) end, "load_state_dict", "nil")
  end)

  it("may be partial when asked", function()
    local m = Pair(3)
    m:load_state_dict({scale = dlua.full({1}, 3)}, {strict = false})
    assert.equal(3, m.scale:item())
  end)
end)

describe("hooks", function()
  it("see inputs and outputs and can be removed", function()
    local m, seen = nn.Linear(2, 3), 0
    local remove = m:register_forward_hook(function(_, inputs, y) seen = seen + inputs[1]:size(1) + y:size(2) end)
    m(dlua.ones(4, 2))
    remove()
    m(dlua.ones(4, 2))
    assert.equal(7, seen)
  end)

  it("are taken away one by one, also while they run", function()
    local m, calls = nn.Identity(), {}
    local function hook() calls[#calls + 1] = "twice" end
    local remove = m:register_forward_hook(hook)
    m:register_forward_hook(hook)
    remove()
    m(1)
    assert.same({"twice"}, calls)
    local remove_itself
    m, calls = nn.Identity(), {}
    remove_itself = m:register_forward_hook(function()
      calls[#calls + 1] = "first"
      remove_itself()
    end)
    m:register_forward_hook(function() calls[#calls + 1] = "second" end)
    m(1)
    m(1)
    assert.same({"first", "second", "second"}, calls)
  end)

  it("may replace the output", function()
    local m = nn.Identity()
    m:register_forward_hook(function() return 5 end)
    assert.equal(5, m(1))
  end)
end)

describe("containers", function()
  it("index, count, append", function()
    local m = nn.Sequential {nn.Linear(2, 3)}
    m:append(nn.ReLU())
    assert.equal(2, #m)
    assert.is_true(m[2]:is(nn.ReLU))
    assert.shape({5, 3}, m(dlua.randn(5, 2)))
  end)

  it("refuse what is no module", function()
    fails(function() nn.Sequential {nn.ReLU(), "relu"} end, "item 2", "string")
    fails(function() nn.Sequential {nn.ReLU(), nil, nn.ReLU()} end, "item 2", "nil")
    fails(function() nn.Sequential {first = nn.ReLU()} end, "first")
    fails(function() nn.Sequential():append(nil) end, "append", "nil")
    fails(function() nn.Sequential():append {nn.ReLU(), nn.ReLU()} end, "append", "table")
    fails(function() nn.Identity():register_buffer("b", 5) end, "register_buffer", "b", "number")
    fails(function() nn.Linear(1, 1):to(nil) end, "to", "nil")
    fails(function() nn.Linear(1, 1):to() end, "to", "device")
  end)

  it("keep lists and names", function()
    local list = nn.ModuleList {nn.Linear(1, 1), nn.Linear(1, 1)}
    assert.equal(2, #list)
    assert.same({"1.weight", "1.bias", "2.weight", "2.bias"}, list:parameters().names)
    local dict = nn.ModuleDict {b = nn.Linear(1, 1, {bias = false}), a = nn.Linear(1, 1, {bias = false})}
    assert.same({"a.weight", "b.weight"}, dict:parameters().names)
  end)

  it("never take a tensor away from the program", function()
    local kept
    local Keeper = nn.class "Keeper"
    function Keeper.forward(_, x)
      kept = x
      return x * 1
    end
    local m = nn.Sequential {nn.Linear(2, 2), nn.ReLU(), Keeper(), nn.Identity(), nn.ReLU(), nn.Tanh()}
    local x = dlua.randn(3, 2)
    m(x):sum():backward()
    assert.shape({3, 2}, x)
    assert.shape({3, 2}, kept)
    local same = nn.Sequential {nn.Identity(), nn.ReLU(), nn.Tanh()}
    same(x)
    assert.shape({3, 2}, x)
  end)

  it("hold two activations at a time when nothing is recorded", function()
    local layers = {}
    for k = 1, 12 do layers[k] = nn.Tanh() end
    local m, x = nn.Sequential(layers), dlua.randn(100000)
    collectgarbage()
    collectgarbage()
    dlua.reset_peak_memory()
    local before = dlua.memory().live
    dlua.no_grad(function() return m(x) end)
    assert.is_true(dlua.memory().peak - before < 3 * 400000)
  end)

  it("give the gradients of a loop of one's own", function()
    local m = nn.Sequential {nn.Linear(2, 4), nn.Sequential {nn.Tanh(), nn.Linear(4, 4)}, nn.ReLU(), nn.Linear(4, 1)}
    local x = dlua.randn(3, 2)
    m(x):sum():backward()
    local first = m[1].weight.grad:clone()
    m:zero_grad()
    m[4](m[3](m[2][2](m[2][1](m[1](x))))):sum():backward()
    assert.is_true(first:equal(m[1].weight.grad))
  end)
end)

describe("batch norm and the relu after it", function()
  -- The result, and the gradients of input and parameters. before: what makes x of a leaf.
  local function all_of(norm, leaf, before, forward)
    leaf = leaf:detach():requires_grad_()
    norm:zero_grad()
    norm.running_mean:zero_()
    local y = forward(before(leaf))
    y:backward(dlua.linspace(-1, 1, y:numel(), {dtype = "f32"}):reshape(y.shape):to(y.dtype))
    return {y:detach(), leaf.grad, norm.weight.grad:clone(), norm.bias.grad:clone(), norm.running_mean:clone()}
  end
  local function given(x) return x end

  it("run as one call with the same bits", function()
    local conv = nn.Conv2d(3, 20, 3) -- its activations are blocked in f32 and channels-last in bf16
    for _, case in ipairs {
      {nn.BatchNorm1d(40), {64, 40}, given}, {nn.BatchNorm1d(3), {7, 3, 50}, given},
      {nn.BatchNorm2d(5), {2, 5, 7, 3}, given}, {nn.BatchNorm2d(20), {4, 3, 9, 10}, conv},
    } do
      local norm, size, before = table.unpack(case)
      for _, dtype in ipairs {"f32", "f64", "bf16"} do
        local net = nn.Sequential {norm, nn.ReLU()}
        before = before == given and given or conv:to(dtype)
        net:to(dtype)
        dlua.no_grad(function() norm.weight:normal_() norm.bias:normal_() end)
        local x = dlua.randn(size):to(dtype)
        for _, mode in ipairs {"train", "eval"} do
          net[mode](net)
          local got = all_of(norm, x, before, net)
          local wanted = all_of(norm, x, before, function(z) return norm(z):relu() end)
          for k = 1, #wanted do
            assert.is_true(got[k]:equal(wanted[k]), ("%s in %s, %s: %d"):format(norm, dtype, mode, k))
          end
        end
      end
    end
  end)

  it("are differentiated twice", function()
    local x, weight, bias = dlua.randn({5, 2, 3}, {dtype = "f64"}), dlua.rand(2):double() + 0.5, dlua.randn(2):double()
    local function slopes(f)
      local z = x:detach():requires_grad_()
      local first = dlua.grad((f(z) ^ 2):sum(), z, {create_graph = true})
      return dlua.grad((first ^ 2):sum(), z)
    end
    local function norm(z, relu) return (dlua.batch_norm(z, weight, bias, {training = true, relu = relu})) end
    assert.is_true(slopes(function(z) return norm(z, true) end):allclose(slopes(function(z) return norm(z):relu() end)))
  end)

  it("are two calls where somebody looks", function()
    local m, x, seen = nn.Sequential {nn.BatchNorm1d(2), nn.ReLU()}, dlua.randn(8, 2), nil
    m[1]:register_forward_hook(function(_, _, y) seen = y end)
    local y = m(x)
    assert.is_true(seen:min():item() < 0)
    assert.is_true(y:equal(seen:relu()))
  end)
end)

describe("a product and the activation after it", function()
  local activations = {nn.ReLU(), nn.GELU(), nn.GELU {approximate = "tanh"}}
  -- The result, and the gradients of input and parameters.
  local function all_of(layer, x, forward)
    x = x:detach():requires_grad_()
    layer:zero_grad()
    local y = forward(x)
    y:backward(dlua.linspace(-1, 1, y:numel(), {dtype = y.dtype}):reshape(y.shape))
    local bias = layer.bias and layer.bias.grad:clone() or nil
    return {y:detach(), x.grad, layer.weight.grad:clone(), bias}
  end

  it("run as one call with the same bits", function()
    for _, activation in ipairs(activations) do
      for _, size in ipairs {{3, 5, 4}, {300, 70, 200}, {70, 20, 1500}, {1, 4, 4}, {0, 3, 2}} do
        for _, o in ipairs {{"f32", true}, {"f64", true}, {"f32", false}} do
          local layer, x = nn.Linear(size[2], size[3], o[2]):to(o[1]), dlua.randn(size[1], size[2]):to(o[1])
          local got = all_of(layer, x, nn.Sequential {layer, activation})
          local wanted = all_of(layer, x, function(given) return activation(layer(given)) end)
          for k = 1, #wanted do assert.is_true(got[k]:equal(wanted[k]), ("%s: %d"):format(activation, k)) end
          assert.is_true(nn.Sequential {layer, activation}:eval()(x):equal(wanted[1]))
        end
      end
    end
  end)

  it("have the same values in half precision", function()
    for _, activation in ipairs(activations) do
      local layer, x = nn.Linear(30, 20):to("bf16"), dlua.randn(4, 30):to("bf16")
      local got, wanted = nn.Sequential {layer, activation}(x), activation(layer(x))
      assert.is_true(got:float():allclose(wanted:float(), {rtol = 2 ^ -6, atol = 2 ^ -9}))
      if activation:is(nn.ReLU) then assert.is_true(got:equal(wanted)) end
    end
  end)

  it("are not what a second argument of one's own means", function()
    local layer, x = nn.Linear(3, 2), dlua.randn(4, 3)
    for _, extra in ipairs {dlua.ones(4), {mask = true}, nn.Tanh(), "mask"} do
      assert.is_true(layer(x, extra):equal(layer(x)))
    end
  end)

  local wrong = dlua.ones(1, 3)
  it("name the layer that fails", function()
    local m = nn.Sequential {nn.Identity(), nn.Sequential {nn.Linear(4, 2), nn.ReLU()}}
    fails(function() m(wrong) end, "linear_relu: x has 3 features but w expects 4", "[2.1]")
  end)

  it("are two calls where somebody looks", function()
    local m = nn.Sequential {nn.Linear(4, 2), nn.GELU(), nn.Linear(2, 2)}
    fails(function() m(wrong) end, "linear_gelu: x has", "[1]")
    for k = 1, 2 do
      local seen
      local remove = m[k]:register_forward_hook(function(_, inputs, y) seen = {inputs.n, y} end)
      fails(function() m(wrong) end, "linear: x has", "[1]")
      local x = dlua.randn(3, 4)
      m(x)
      assert.equal(1, seen[1])
      assert.is_true(seen[2]:equal(k == 1 and m[1](x) or m[1](x):gelu()))
      remove()
      fails(function() m(wrong) end, "linear_gelu: x has", "[1]")
    end
    fails(function() m:summary {3} end, "linear: x has", "[1]")
    assert.matches("1: Linear%(4, 2%) +{n,2}", m:summary {4})
    assert.matches("2: GELU%([^\n]* +{n,2}", m:summary {4})
  end)

  it("are two calls where one is no longer dlua's own", function()
    local m, own = nn.Sequential {nn.Linear(4, 2), nn.ReLU()}, nn.ReLU.forward
    nn.ReLU.forward = function(_, x) return x + 100 end
    local ok, y = pcall(m, dlua.ones(1, 4))
    nn.ReLU.forward = own
    assert.is_true(ok and y:min():item() > 90)
    local Mine = nn.class "Mine"
    function Mine:forward(x) return x - 100 end -- luacheck: ignore 212
    assert.is_true(nn.Sequential {nn.Linear(4, 2), Mine()}(dlua.ones(1, 4)):max():item() < -90)
  end)
end)

describe("messages", function()
  it("name the layer by its path", function()
    local m = nn.Sequential {nn.Identity(), nn.Sequential {nn.Linear(4, 2)}}
    fails(function() m(dlua.ones(1, 3)) end, "linear", "[2.1]")
  end)
end)

describe("showing", function()
  it("prints a tree with shapes", function()
    local text = tostring(nn.Sequential {nn.Conv2d(3, 8, 3, {padding = 1, bias = false}), nn.ReLU(), Pair(2)})
    assert.truthy(text:find("1: Conv2d(3, 8, 3, {padding = 1, bias = false})  weight {8,3,3,3}", 1, true), text)
    assert.truthy(text:find("\n    second: Linear(2, 2)  weight {2,2}, bias {2}", 1, true), text)
  end)

  it("summarises without leaving a trace", function()
    local m = nn.Sequential {
      nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8 * 4 * 4, 10),
    }
    m[3]:eval()
    dlua.seed(3)
    local expected = dlua.rand(1):item()
    dlua.seed(3)
    local text = m:summary {3, 6, 6}
    assert.equal(expected, dlua.rand(1):item())
    assert.is_true(m[1].training)
    assert.is_false(m[3].training)
    assert.equal(0, m[2].num_batches_tracked:item())
    assert.truthy(text:find("{n,8,4,4}", 1, true), text)
    assert.truthy(text:find("1,290", 1, true), text)
    assert.equal("1,530 parameters", text:match "[^\n]+$")
  end)

  it("puts the modes back when the model raises", function()
    local m = nn.Sequential {nn.Linear(3, 1)}
    fails(function() m:summary {4} end, "linear")
    assert.is_true(m.training)
  end)
end)
