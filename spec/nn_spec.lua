-- Layers: how they are made, what they compute beyond their op, initial values, help.
local dlua = require "dlua"
local nn = dlua.nn
local helpers = require "spec.helpers"

local fails, near = helpers.fails, helpers.near

describe("arguments", function()
  it("come by position, by name and by PyTorch's names", function()
    local a = nn.Conv2d(3, 8, {3, 5}, {padding = 1})
    local b = nn.Conv2d {cin = 3, cout = 8, kernel = {3, 5}, padding = 1}
    local c = nn.Conv2d {in_channels = 3, out_channels = 8, kernel_size = {3, 5}, padding = 1}
    assert.equal(a:describe(), b:describe())
    assert.equal(a:describe(), c:describe())
    assert.equal("Conv2d(3, 8, {3, 5}, {padding = 1})", a:describe())
    assert.same({8, 3, 3, 5}, a.weight.shape)
    assert.equal("Linear(4, 2, {bias = false})", nn.Linear(4, 2, {bias = false}):describe())
    assert.equal("Dropout(0.2)", nn.Dropout(0.2):describe())
    assert.equal("BatchNorm1d(3, {momentum = 0.3})", nn.BatchNorm1d(3, {momentum = 0.3}):describe())
    assert.same({2, 4}, nn.Linear({in_features = 4, out_features = 2}).weight.shape)
    assert.same({6}, nn.BatchNorm2d({num_features = 6}).weight.shape)
    assert.equal(0.2, nn.LeakyReLU({negative_slope = 0.2}).slope)
    assert.equal(2, nn.MaxPool2d(3, 2).stride)
  end)

  it("are checked where they are given", function()
    fails(function() nn.Conv2d(3, 8, 3, {pading = 1}) end, "nn.Conv2d", "pading", "padding")
    fails(function() nn.Conv2d {cin = 3, cout = 8} end, "nn.Conv2d", "kernel")
    fails(function() nn.Conv2d(3, 8, 3, {kernel = 3}) end, "kernel", "twice")
    fails(function() nn.Conv2d(3, 8, 0) end, "kernel", "0")
    fails(function() nn.Conv2d(3, 8, {3, 3, 3}) end, "kernel", "{3, 3, 3}")
    fails(function() nn.Conv2d(3, 8, 3, {padding_mode = "reflect"}) end, "padding_mode", "reflect")
    fails(function() nn.Conv2d(3, 8, 3, {groups = 2}) end, "cin = 3", "groups = 2")
    fails(function() nn.Linear("4", 2) end, "cin", '"4"')
    fails(function() nn.Linear(2.5, 2) end, "cin", "2.5")
    fails(function() nn.Dropout(1.5) end, "p", "1.5")
    fails(function() nn.ReLU(1) end, "nn.ReLU", "0 arguments")
    fails(function() nn.GELU {approximate = "erf"} end, "approximate", '"tanh"')
    fails(function() nn.CrossEntropyLoss {reduction = "avg"} end, "reduction", "avg", '"mean"')
    fails(function() return nn.Conv2D end, "Conv2D", "Conv2d")
  end)

  it("may be floats that are whole", function() assert.same({2, 4}, nn.Linear(8 / 2, 2).weight.shape) end)
end)

describe("initial values", function()
  it("are PyTorch's for Linear and Conv2d", function()
    dlua.seed(1)
    for layer, fan_in in pairs {[nn.Linear(100, 300)] = 100, [nn.Conv2d(4, 500, 5)] = 100} do
      local bound = 1 / math.sqrt(fan_in)
      assert.is_true(layer.weight:abs():max():item() <= bound)
      near(bound / math.sqrt(3), layer.weight:detach():std():item(), 0.02 * bound)
      near(0, layer.weight:detach():mean():item(), 0.03 * bound)
      assert.is_true(layer.bias:abs():max():item() <= bound)
      assert.is_true(layer.weight.requires_grad)
    end
  end)

  it("have the variance their formula says", function()
    dlua.seed(2)
    local x = dlua.empty(400, 100)
    local cases = {
      {function() nn.init.kaiming_normal_(x, {nonlinearity = "relu"}) end, math.sqrt(2 / 100)},
      {function() nn.init.kaiming_uniform_(x, {mode = "fan_out", nonlinearity = "tanh"}) end, 5 / 3 / math.sqrt(400)},
      {function() nn.init.xavier_normal_(x) end, math.sqrt(2 / 500)},
      {function() nn.init.xavier_uniform_(x, {gain = 2}) end, 2 * math.sqrt(2 / 500)},
      {function() nn.init.normal_(x, 0, 3) end, 3},
      {function() nn.init.uniform_(x, -1, 1) end, 1 / math.sqrt(3)},
    }
    for _, case in ipairs(cases) do
      case[1]()
      near(case[2], x:std():item(), 0.02 * case[2])
    end
  end)

  it("fill in place, also parameters", function()
    local p = nn.Parameter(dlua.empty(2, 3))
    assert.is_true(rawequal(p, nn.init.constant_(p, 2)))
    assert.equal(12, p:sum():item())
    assert.equal(0, nn.init.zeros_(p):sum():item())
    assert.equal(6, nn.init.ones_(p):sum():item())
    assert.same({{1, 0, 0}, {0, 1, 0}}, nn.init.eye_(p):totable())
    assert.is_true(p.requires_grad)
  end)

  it("trunc_normal_ stays inside", function()
    local x = nn.init.trunc_normal_(dlua.empty(1000), 1, 2, 0, 3)
    assert.is_true(x:min():item() >= 0 and x:max():item() <= 3)
    fails(function() nn.init.trunc_normal_(x, 0, 1, 5, 6) end, "trunc_normal_", "5..6")
  end)

  it("orthogonal_ gives orthonormal rows or columns", function()
    for _, size in ipairs {{4, 4}, {3, 8}, {8, 3}, {3, 2, 2, 2}} do
      local x = nn.init.orthogonal_(dlua.empty(size, {dtype = "f64"}), {gain = 2}):reshape(size[1], -1)
      local small = x:size(1) <= x:size(2) and x:matmul(x:t()) or x:t():matmul(x)
      assert.is_true(small:allclose(dlua.eye(small:size(1)):to("f64") * 4, {atol = 1e-10}))
    end
  end)

  it("dirac_ hands channels through", function()
    local conv = nn.Conv2d(3, 3, 3, {padding = 1, bias = false})
    nn.init.dirac_(conv.weight)
    local x = dlua.randn(2, 3, 5, 5)
    assert.is_true(conv(x):allclose(x, {atol = 1e-6}))
  end)

  it("say what they need", function()
    fails(function() nn.init.kaiming_normal_(dlua.empty(3)) end, "kaiming_normal_", "{3}")
    fails(function() nn.init.calculate_gain("rellu") end, "rellu")
    fails(function() nn.init.zeros_(nil) end, "zeros_", "nil")
  end)
end)

describe("layers", function()
  it("batch norm keeps running averages in training only", function()
    local m = nn.BatchNorm1d(2, {momentum = 0.5})
    local x = dlua.tensor {{1, 2}, {3, 6}}
    local y = m(x)
    near(0, y:sum():item(), 1e-5)
    assert.is_true(m.running_mean:allclose(dlua.tensor {1, 2}))
    assert.is_true(m.running_var:allclose(dlua.tensor {1.5, 4.5}))
    assert.equal(1, m.num_batches_tracked:item())
    m:eval()
    m(x)
    assert.equal(1, m.num_batches_tracked:item())
    assert.is_true(m.running_mean:allclose(dlua.tensor {1, 2}))
  end)

  it("batch norm may do without parameters and averages", function()
    local m = nn.BatchNorm2d(3, {affine = false, track_running_stats = false})
    assert.equal(0, #m:parameters() + #m:buffers())
    m:eval()
    near(0, m(dlua.randn(4, 3, 2, 2)):mean():item(), 1e-5)
    fails(function() m(dlua.randn(4, 3)) end, "BatchNorm2d", "{n,c,h,w}", "{4,3}")
  end)

  it("dropout is idle in eval mode", function()
    local m, x = nn.Dropout(0.5), dlua.ones(1000)
    local y = m(x)
    near(500, y:gt(0):sum():item(), 100)
    near(2, y:max():item(), 1e-6)
    assert.is_true(rawequal(x, m:eval()(x)))
    local channels = nn.Dropout2d(0.5)(dlua.ones(2, 8, 3, 3)):sum({3, 4})
    assert.is_true(channels:eq(0):logical_or(channels:eq(18)):all():item())
  end)

  it("PReLU trains its slope", function()
    local m = nn.PReLU(2)
    local x = dlua.tensor {{-1, -2}, {3, -4}}
    m(x):sum():backward()
    assert.same({{-0.25, -0.5}, {3, -1}}, m(x):totable())
    assert.same({-1, -6}, m.weight.grad:totable())
    assert.same({2, 2, 3, 3}, m(dlua.ones(2, 2, 3, 3)).shape)
  end)

  it("activations pass their options on", function()
    local x = dlua.tensor {-2, 0.5}
    assert.same({-1, 0.5}, nn.LeakyReLU(0.5)(x):totable())
    assert.same({-0.5, 0.5}, nn.Hardtanh(-0.5, 3)(x):totable())
    assert.is_true(nn.GELU {approximate = "tanh"}(x):allclose(x:gelu {approximate = "tanh"}))
    assert.is_true(nn.Softmax()(x):sum():item() > 0.999)
    assert.is_true(nn.LogSoftmax(1)(x):allclose(x:log_softmax(1)))
    for _, name in ipairs {"ReLU", "ELU", "SiLU", "Sigmoid", "Tanh", "Softplus", "LogSigmoid"} do
      assert.shape({2}, nn[name]()(x))
    end
  end)

  it("pool and flatten", function()
    local x = dlua.randn(2, 3, 8, 8)
    assert.shape({2, 3, 4, 4}, nn.MaxPool2d(2)(x))
    assert.shape({2, 3, 3, 3}, nn.AvgPool2d(3, {stride = 2})(x))
    assert.shape({2, 3, 1, 1}, nn.AdaptiveAvgPool2d(1)(x))
    assert.shape({2, 3, 2, 4}, nn.AdaptiveMaxPool2d({2, 4})(x))
    assert.shape({2, 192}, nn.Flatten()(x))
    assert.shape({2, 3, 64}, nn.Flatten(3)(x))
  end)

  it("convolve in groups, with stride and dilation", function()
    local m = nn.Conv2d(4, 6, 3, {groups = 2, stride = {2, 1}, padding = {1, 2}, dilation = 2})
    assert.same({6, 2, 3, 3}, m.weight.shape)
    local y = m(dlua.randn(1, 4, 9, 9))
    assert.shape({1, 6, 4, 9}, y)
  end)
end)

describe("losses", function()
  it("equal their functions", function()
    local x, y = dlua.randn(4, 3), dlua.tensor({1, 3, 2, 1}, {dtype = "i64"})
    local smooth = nn.CrossEntropyLoss {label_smoothing = 0.1}
    assert.is_true(smooth(x, y):equal(x:cross_entropy(y, {label_smoothing = 0.1})))
    local weight = dlua.tensor {1, 2, 3}
    local weighted = nn.CrossEntropyLoss {weight = weight, reduction = "sum"}
    assert.is_true(weighted(x, y):equal(x:cross_entropy(y, {weight = weight, reduction = "sum"})))
    assert.same({"weight"}, weighted:buffers().names)
    assert.is_true(nn.NLLLoss()(x:log_softmax(2), y):allclose(x:cross_entropy(y)))
    local p, t = x:sigmoid(), dlua.rand(4, 3)
    assert.is_true(nn.BCELoss()(p, t):allclose(nn.BCEWithLogitsLoss()(x, t), {atol = 1e-6}))
    assert.is_true(nn.MSELoss {reduction = "none"}(x, t):allclose((x - t) ^ 2))
    assert.is_true(nn.L1Loss()(x, t):allclose((x - t):abs():mean()))
    assert.is_true(nn.HuberLoss {delta = 2}(x, t):equal(x:huber_loss(t, {delta = 2})))
    assert.is_true(nn.SmoothL1Loss {beta = 0.5}(x, t):equal(x:smooth_l1_loss(t, {beta = 0.5})))
    local divergence = nn.KLDivLoss {reduction = "batchmean"}
    assert.is_true(divergence(p:log(), t):equal(p:log():kl_div(t, {reduction = "batchmean"})))
  end)
end)

describe("help", function()
  it("is the description", function()
    assert.equal("nn.Conv2d(cin, cout, kernel, {stride = 1, padding = 0, dilation = 1, groups = 1, bias = true, "
      .. "padding_mode = \"zeros\"})\n  2-D convolution: x {n,cin,h,w} -> {n,cout,h',w'}, "
      .. "h' = floor((h + 2*padding - dilation*(kernel - 1) - 1) / stride) + 1", dlua.help "nn.Conv2d")
    assert.truthy(dlua.help("optim.Adam"):find("betas = {0.9, 0.999}", 1, true))
    assert.truthy(dlua.help("nn.init.zeros_"))
    local usage = "nn.clip_grad_norm_(parameters, max_norm, {options})\n"
    assert.truthy(dlua.help("nn.clip_grad_norm_"):find(usage, 1, true))
    for _, name in ipairs {"train.Progress", "metrics.TopK", "nn.Module", "nn.Module.summary", "dlua.train.evaluate"} do
      assert.truthy(dlua.help(name), name)
    end
    assert.is_nil(dlua.help "nn.Nothing")
  end)
end)
