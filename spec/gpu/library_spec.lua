-- library_spec.lua - products and convolutions on the GPU beyond what parity_spec.lua derives: memory layouts, the
-- switches, and what happens when the libraries refuse or fail. DLUA_MODULES=build/emulated runs it without a GPU.
local dlua = require "dlua"
local hooks = dlua.test

local available, reason = dlua.cuda.available()
if not available then
  describe("libraries of the GPU", function() pending(reason) end)
  return
end

-- The largest difference between a result on the GPU and the wanted one, as a part of the latter's largest element.
local function error_of(got, wanted)
  assert.equal("cuda", got.device)
  assert.same(wanted.shape, got.shape)
  assert.equal(wanted.dtype, got.dtype)
  if wanted:numel() == 0 then return 0 end
  wanted = wanted:double()
  return ((got:to("cpu"):double() - wanted):abs():max() / wanted:abs():max():clamp{min = 1e-300}):item()
end

local limits = {f32 = 1e-5, f64 = 1e-12, bf16 = 2 ^ -7, f16 = 2 ^ -10}

-- Calls f with tensors, on the CPU and on the GPU; view is applied on both after the move.
local function compare(f, view, dtype, ...)
  local cpu, gpu = {}, {}
  for k, shape in ipairs {...} do
    local x = dlua.randn(shape):to(dtype)
    cpu[k], gpu[k] = view(x, k), view(x:to("cuda"), k)
  end
  local difference = error_of(f(table.unpack(gpu)), f(table.unpack(cpu)))
  assert.is_true(difference <= limits[dtype], ("%s: %g"):format(dtype, difference))
end

local function as_is(x) return x end

-- Winograd's algorithm is allowed more than the limits above.
local function precise() dlua.winograd(false) end

local function as_from_the_start()
  dlua.winograd(true)
  dlua.autotune(false)
  dlua.cuda.tf32(false)
end

-- Runs f while the n-th call of a library's function fails with a code; what pcall gives.
local fault_code = {blas_unsupported = 15, blas_failed = 13, dnn_unsupported = 3000, dnn_failed = 5000}
local function with_fault(call, code, n, f)
  hooks.fault("cuda", call .. " " .. code, n)
  local ok, message = pcall(f)
  hooks.fault("cuda", call, 0)
  return ok, tostring(message)
end

describe("products on the GPU", function()
  before_each(precise)
  after_each(as_from_the_start)

  local products = {
    {"turned operands", function(x) return x:transpose(-2, -1) end, {7, 5}, {9, 7}},
    {"one turned operand", function(x, k) return k == 1 and x:transpose(1, 2) or x end, {7, 5}, {7, 9}},
    {"operands without a unit stride", function(x) return x[{{}, {1, -1, 2}}] end, {5, 13}, {7, 9}},
    {"operands that start anywhere", function(x) return x[{{2, -1}, {}}] end, {6, 5}, {6, 3}},
    {"an expanded row", function(x, k) return k == 1 and x:expand(6, 5) or x end, {1, 5}, {5, 4}},
    {"batches that broadcast", as_is, {3, 1, 4, 5}, {2, 5, 6}},
    {"one batch for all", as_is, {1, 4, 5}, {3, 5, 6}},
    {"rows that follow each other", as_is, {2, 3, 4, 5}, {5, 6}},
    {"rows with gaps", function(x, k) return k == 1 and x[{{}, {1, 3}, {}}] or x end, {3, 4, 5}, {5, 6}},
    {"heads between rows", function(x) return x:transpose(2, 3) end, {2, 4, 3, 5}, {2, 5, 3, 4}},
    {"many batches that do not merge", function(x) return x:transpose(2, 3) end, {10, 4, 9, 2}, {10, 2, 9, 4}},
    {"a row and a column", as_is, {5}, {5}},
    {"a row", as_is, {5}, {2, 5, 3}},
    {"a strided row", function(x, k) return k == 1 and x[{{1, -1, 3}}] or x end, {13}, {5, 3}},
    {"a column", as_is, {2, 3, 5}, {5}},
    {"nothing to add up", as_is, {3, 0}, {0, 4}},
    {"no rows", as_is, {0, 3}, {3, 4}},
  }
  for _, case in ipairs(products) do
    local name, view, x, y = table.unpack(case)
    it("take " .. name, function()
      for _, dtype in ipairs {"f32", "f64", "bf16", "f16"} do
        compare(dlua.matmul, view, dtype, x, y)
        compare(dlua.matmul, view, dtype, x, y) -- with the plan that is there now
      end
    end)
  end

  it("leave nothing out of long sums", function()
    local function product(x, y) return x:matmul(y) end
    for _, tune in ipairs {false, true} do
      dlua.autotune(tune)
      for _, k in ipairs {1024, 1032, 1033, 2063, 5000} do
        for dtype in pairs(limits) do compare(product, as_is, dtype, {2, k}, {k, 3}) end
      end
    end
  end)

  it("add a bias, strided too", function()
    local function every_second(x, k) return k == 3 and x[{{1, -1, 2}}] or x end
    for _, dtype in ipairs {"f32", "f64", "bf16", "f16"} do
      compare(dlua.linear, as_is, dtype, {2, 3, 5}, {4, 5}, {4})
      compare(dlua.linear, every_second, dtype, {3, 5}, {4, 5}, {7})
      compare(dlua.linear, as_is, dtype, {3, 0}, {4, 0}, {4})
    end
  end)

  local function gelu(x, w, b) return dlua.ops.linear_gelu(x, w, b) end
  local function gelu_tanh(x, w, b) return dlua.ops.linear_gelu(x, w, b, "tanh") end
  it("apply an activation", function()
    local function gaps(x, k) return k == 1 and x[{{}, {1, 3}, {}}] or x end
    local function every_second(x, k) return k == 3 and x[{{1, -1, 2}}] or x end
    local function from_second(x, k) return k == 3 and x[{{2, -1}}] or x end
    for _, f in ipairs {dlua.ops.linear_relu, gelu, gelu_tanh} do
      for _, dtype in ipairs {"f32", "f64", "bf16", "f16"} do
        compare(f, as_is, dtype, {2, 3, 5}, {4, 5}, {4})
        compare(f, as_is, dtype, {6, 5}, {16, 5}, {16}) -- 8 elements at a time
        compare(f, from_second, dtype, {6, 5}, {16, 5}, {17}) -- the same with a bias less aligned
        compare(f, as_is, dtype, {6, 5}, {16, 5})
        compare(f, as_is, dtype, {5}, {8, 5}, {8})
        compare(f, gaps, dtype, {3, 4, 5}, {8, 5}, {8})
        compare(f, every_second, dtype, {3, 5}, {8, 5}, {15})
        compare(f, as_is, dtype, {3, 0}, {8, 0}, {8})
        compare(f, as_is, dtype, {0, 3}, {8, 3}, {8})
      end
    end
  end)

  it("give the gradients of a layer's parameters", function()
    local function turned(x) return x:t():contiguous():t() end
    local function gaps(x) return x[{{}, {1, -1, 2}}] end
    for k = 1, 2 do
      local function f(g, x) return (select(k, dlua.ops.linear_weight_grad(g, x))) end
      for _, dtype in ipairs {"f32", "f64", "bf16", "f16"} do
        for _, view in ipairs {as_is, turned, gaps} do
          compare(f, view, dtype, {6, 16}, {6, 24})
          compare(f, view, dtype, {6, 16}, {6, 24}) -- with the plan that is there now
          compare(f, view, dtype, {40, 13}, {40, 7})
          compare(f, view, dtype, {1, 16}, {1, 8}) -- nothing to sum, or a single sum
          compare(f, view, dtype, {9, 1}, {9, 8})
          compare(f, view, dtype, {9, 8}, {9, 1})
        end
        compare(f, as_is, dtype, {0, 4}, {0, 3})
        compare(f, as_is, dtype, {5, 4}, {5, 0})
      end
    end
  end)

  it("take a gradient on past an activation", function()
    local function turned(x, k) return k == 2 and x:t():contiguous():t() or x end
    local function gaps(x, k) return k == 2 and x or x:narrow(1, 2, x.shape[1] - 1) end
    local function by_tanh(g, w, z) return dlua.ops.gelu_linear_grad(g, w, z, "tanh") end
    for _, f in ipairs {dlua.ops.relu_linear_grad, dlua.ops.gelu_linear_grad, by_tanh} do
      for _, dtype in ipairs {"f32", "f64", "bf16", "f16"} do
        for _, view in ipairs {as_is, turned, gaps} do
          compare(f, view, dtype, {6, 5}, {5, 16}, {6, 16})
          compare(f, view, dtype, {6, 5}, {5, 16}, {6, 16})
          compare(f, view, dtype, {3, 4, 5}, {5, 264}, {3, 4, 264}) -- more than two packs of bits
          compare(f, view, dtype, {6, 5}, {5, 13}, {6, 13})
          compare(f, view, dtype, {6, 1}, {1, 16}, {6, 16}) -- a layer of one output: nothing to add up
        end
        compare(f, as_is, dtype, {5}, {5, 8}, {8})
        compare(f, as_is, dtype, {3, 0}, {0, 8}, {3, 8})
        compare(f, as_is, dtype, {0, 3}, {3, 8}, {0, 8})
      end
    end
  end)

  it("keep nan through relu", function()
    for _, dtype in ipairs {"f32", "f64", "bf16", "f16"} do
      local x = dlua.tensor({{0 / 0, 1}, {1, 1}}):to(dtype):to("cuda")
      local y = dlua.ops.linear_relu(x, dlua.ones(8, 2):to(dtype):to("cuda"), dlua.ones(8):to(dtype):to("cuda"))
      assert.equal(8, y:isnan():sum():item(), dtype)
    end
  end)

  it("give the activation's gradients what it was applied to", function()
    for _, f in ipairs {dlua.ops.linear_relu, gelu, gelu_tanh} do
      for _, dtype in ipairs {"f32", "f64", "bf16"} do
        local given = {dlua.randn(40, 5):to(dtype), dlua.randn(16, 5):to(dtype), dlua.randn(16):to(dtype)}
        local g, all = dlua.randn(40, 16):to(dtype), {}
        for _, device in ipairs {"cpu", "cuda"} do
          local leaves = {}
          for k, x in ipairs(given) do leaves[k] = x:to(device):detach():requires_grad_() end
          f(table.unpack(leaves)):backward(g:to(device))
          for k, x in ipairs(leaves) do leaves[k] = x.grad end
          all[device] = leaves
        end
        for k = 1, 3 do assert.is_true(error_of(all.cuda[k], all.cpu[k]) <= 2 * limits[dtype], dtype) end
      end
    end
  end)

  it("have the same gradients", function()
    local x, w, g = dlua.randn(2, 3, 5), dlua.randn(4, 5), dlua.randn(2, 3, 4)
    local function gradients(device)
      local a = x:to(device):requires_grad_()
      local b = w:to(device):requires_grad_()
      dlua.linear(a, b):backward(g:to(device))
      return a.grad, b.grad
    end
    local gx, gw = gradients("cuda")
    local wanted_x, wanted_w = gradients("cpu")
    assert.is_true(error_of(gx, wanted_x) < 1e-5)
    assert.is_true(error_of(gw, wanted_w) < 1e-5)
  end)

  it("of f32 are exact to f32 unless TF32 is switched on", function()
    local x, y = dlua.randn(8, 64), dlua.randn(64, 8)
    local wanted = x:double():matmul(y:double()):float()
    assert.is_true(error_of(x:to("cuda"):matmul(y:to("cuda")), wanted) < 1e-5)
    dlua.cuda.tf32(true)
    local difference = error_of(x:to("cuda"):matmul(y:to("cuda")), wanted)
    assert.is_true(difference < 2e-3)
    if dlua.cuda.devices()[1].name == "emulator" then assert.is_true(difference > 1e-5) end
  end)

  it("may be timed", function()
    dlua.autotune(true)
    compare(dlua.matmul, as_is, "f32", {11, 12}, {12, 13})
    compare(dlua.linear, as_is, "bf16", {11, 12}, {13, 12}, {13})
    compare(dlua.ops.linear_weight_grad, as_is, "bf16", {11, 12}, {11, 8})
    compare(dlua.ops.relu_linear_grad, as_is, "f32", {11, 12}, {12, 13}, {11, 13})
  end)
end)

describe("convolutions on the GPU", function()
  before_each(precise)
  after_each(as_from_the_start)

  local cases = {
    {"3x3", {2, 8, 7, 6}, {4, 8, 3, 3}, {padding = 1}},
    {"strides", {2, 3, 9, 8}, {5, 3, 3, 2}, {stride = {2, 3}, padding = {1, 0}}},
    {"dilation", {1, 4, 9, 9}, {4, 4, 3, 3}, {dilation = 2}},
    {"groups", {2, 6, 5, 5}, {4, 3, 3, 3}, {groups = 2, padding = 1}},
    {"a channel per group", {2, 4, 5, 5}, {8, 1, 3, 3}, {groups = 4}},
    {"dilated groups", {1, 4, 7, 7}, {4, 2, 3, 3}, {groups = 2, dilation = 2}},
    {"single pixels", {3, 5, 1, 1}, {2, 5, 1, 1}, {padding = 0}},
    {"one channel", {2, 1, 5, 6}, {1, 1, 2, 2}, {padding = 0}},
    {"no pictures", {0, 3, 5, 5}, {2, 3, 3, 3}, {padding = 0}},
  }
  -- Result and gradients, computed on a device; the gradient is 1, -1, 1, … in memory.
  local function all(device, x, w, b, options, view)
    x, w, b = view(x:to(device)), view(w:to(device)), b:to(device)
    x, w = x:detach():requires_grad_(), w:detach():requires_grad_()
    local y = dlua.conv2d(x, w, b, options)
    local g = dlua.randint(-2, 3, y.shape, {dtype = "f32"}):to(y.dtype)
    if y:numel() == 0 then return {y:detach()} end
    y:backward(g:to(device))
    return {y:detach(), x.grad, w.grad}
  end
  local function check(dtype, x, w, options, view)
    x, w = dlua.randn(x):to(dtype), dlua.randn(w):to(dtype)
    local b = dlua.randn(w.shape[1]):to(dtype)
    dlua.seed(3)
    local got = all("cuda", x, w, b, options, view or as_is)
    dlua.seed(3)
    for k, wanted in ipairs(all("cpu", x, w, b, options, view or as_is)) do
      local difference = error_of(got[k], wanted)
      assert.is_true(difference <= 2 * limits[dtype], ("%s, result %d: %g"):format(dtype, k, difference))
    end
  end

  for _, case in ipairs(cases) do
    local name, x, w, options = table.unpack(case)
    it("take " .. name, function()
      for _, dtype in ipairs {"f32", "f64", "bf16", "f16"} do
        check(dtype, x, w, options)
        check(dtype, x, w, options)
      end
    end)
  end

  it("take tensors in any strides", function()
    local function turned(x) return x:transpose(3, 4) end
    local function last(x) return x:permute(1, 3, 4, 2):contiguous():permute(1, 4, 2, 3) end
    local function slice(x) return x[{{}, {}, {1, -1, 2}, {}}] end
    for _, dtype in ipairs {"f32", "f64", "bf16", "f16"} do
      check(dtype, {2, 3, 6, 5}, {4, 3, 2, 3}, {padding = 1}, turned)
      check(dtype, {2, 3, 6, 5}, {4, 3, 2, 3}, {padding = 1}, last)
      check(dtype, {2, 3, 6, 5}, {4, 3, 2, 3}, {padding = 1}, slice)
    end
  end)

  it("of f32 are exact to f32 unless TF32 is switched on", function()
    local x, w = dlua.randn(1, 16, 8, 8), dlua.randn(8, 16, 3, 3)
    local wanted = dlua.conv2d(x:double(), w:double()):float()
    assert.is_true(error_of(dlua.conv2d(x:to("cuda"), w:to("cuda")), wanted) < 1e-5)
    dlua.cuda.tf32(true)
    local difference = error_of(dlua.conv2d(x:to("cuda"), w:to("cuda")), wanted)
    assert.is_true(difference < 2e-3)
    if dlua.cuda.devices()[1].name == "emulator" then assert.is_true(difference > 1e-5) end
  end)

  it("may be timed", function()
    dlua.autotune(true)
    check("f32", {2, 3, 9, 9}, {5, 3, 3, 3}, {stride = 2})
    check("bf16", {2, 8, 9, 9}, {8, 8, 3, 3}, {padding = 1})
  end)
end)

if not pcall(hooks.fault, "cuda", "any", 0) then
  describe("libraries of the GPU that fail", function() pending "a real GPU has no faults to inject" end)
  return
end

describe("libraries of the GPU that fail", function()
  before_each(precise)
  after_each(as_from_the_start)

  local x, y = dlua.randn(3, 17):to("cuda"), dlua.randn(17, 3):to("cuda")
  local picture, kernel = dlua.randn(1, 3, 11, 5):to("cuda"), dlua.randn(4, 3, 3, 3):to("cuda")

  it("leave what they do not support to dlua's kernels", function()
    local wanted, before = x:to("cpu"):matmul(y:to("cpu")), nil
    assert.is_true(with_fault("cublasLtMatmulAlgoGetHeuristic", fault_code.blas_unsupported, 1,
      function() before = x:matmul(y) end))
    assert.is_true(error_of(before, wanted) < 1e-5)
    local columns = 40
    for _, tune in ipairs {false, true} do -- what the heuristic has found and the product refuses
      dlua.autotune(tune)
      for _, refusals in ipairs {1, -1} do
        for _, code in ipairs {fault_code.blas_unsupported, 8} do -- 8: not on this GPU
          columns = columns + 1 -- a new plan
          local w = dlua.randn(17, columns):to("cuda")
          wanted = x:to("cpu"):matmul(w:to("cpu"))
          assert.is_true(with_fault("cublasLtMatmul", code, refusals, function() before = x:matmul(w) end))
          assert.is_true(error_of(before, wanted) < 1e-5)
          assert.is_true(error_of(x:matmul(w), wanted) < 1e-5)
        end
      end
    end
    dlua.autotune(false)
    wanted = dlua.conv2d(picture:to("cpu"), kernel:to("cpu"))
    assert.is_true(with_fault("cudnnBackendFinalize", fault_code.dnn_unsupported, -1,
      function() before = dlua.conv2d(picture, kernel) end))
    assert.is_true(error_of(before, wanted) < 1e-5)
  end)

  it("add a bias afterwards that they do not add", function()
    for k, dtype in ipairs {"f32", "f64", "bf16", "f16"} do
      local t, gpu = {dlua.randn(2, 3, 5):to(dtype), dlua.randn(20 + k, 5):to(dtype), dlua.randn(20 + k):to(dtype)}, {}
      for i = 1, 3 do gpu[i] = t[i]:to("cuda") end
      local got
      local function layer() got = dlua.linear(gpu[1], gpu[2], gpu[3]) end
      assert.is_true(with_fault("cublasLtMatmulAlgoGetHeuristic", fault_code.blas_unsupported, 1, layer))
      assert.is_true(error_of(got, dlua.linear(t[1], t[2], t[3])) <= limits[dtype], dtype)
      assert.is_false((with_fault("cublasLtMatmul", fault_code.blas_failed, 1, layer))) -- the product is theirs
    end
  end)

  local relu, parameters, through_relu = dlua.ops.linear_relu, dlua.ops.linear_weight_grad, dlua.ops.relu_linear_grad
  local function gelu(a, w, b) return dlua.ops.linear_gelu(a, w, b, "tanh") end
  local function through_gelu(g, w, z) return dlua.ops.gelu_linear_grad(g, w, z, "tanh") end
  local function sums(g, input) return (select(2, parameters(g, input))) end
  -- What a layer is called with, or on the way back f.
  local function layer(rows, dtype, f)
    local shapes = {{rows, 7}, {16, 7}, {16}}
    if f == parameters or f == sums then shapes = {{rows, 16}, {rows, 8}} end
    if f == through_relu or f == through_gelu then shapes = {{rows, 7}, {7, 16}, {rows, 16}} end
    local cpu, gpu = {}, {}
    for k, shape in ipairs(shapes) do cpu[k] = dlua.randn(shape):to(dtype) end
    for k, t in ipairs(cpu) do gpu[k] = t:to("cuda") end
    return cpu, gpu
  end

  it("leave an activation to dlua's kernels, or the whole layer", function()
    local rows = 40
    for _, case in ipairs {
      {relu, "f32"}, {relu, "bf16"}, {gelu, "bf16"}, {gelu, "f16"}, {gelu, "f32"}, {parameters, "f32"}, {sums, "f16"},
      {parameters, "bf16"}, {through_relu, "f32"}, {through_relu, "bf16"}, {through_gelu, "f16"}, {through_gelu, "f32"},
    } do
      for refusal = 1, 4 do -- the first question or product, or all
        rows = rows + 1
        local call = refusal % 2 == 0 and "cublasLtMatmul" or "cublasLtMatmulAlgoGetHeuristic"
        local f, dtype = table.unpack(case)
        local cpu, gpu = layer(rows, dtype, f)
        local got
        assert.is_true(with_fault(call, fault_code.blas_unsupported, refusal <= 2 and 1 or -1,
          function() got = f(table.unpack(gpu)) end))
        assert.is_true(error_of(got, f(table.unpack(cpu))) <= limits[dtype], dtype)
        assert.is_true(error_of(f(table.unpack(gpu)), got:to("cpu")) <= limits[dtype]) -- with the plans there are
      end
    end
  end)

  it("launch no kernel for an activation that they apply", function()
    for _, case in ipairs {{relu, "f32", false}, {relu, "f16", false}, {relu, "f64", false}, {gelu, "bf16", true},
      {gelu, "f16", true}, {gelu, "f32", false}, {dlua.ops.linear_gelu, "bf16", false}} do
      local _, gpu = layer(6, case[2])
      assert.equal(case[3], (with_fault("cudaLaunchKernel", 719, 1, function() case[1](table.unpack(gpu)) end)))
    end
  end)

  -- A plan is made of one question where the library does all of it; the bits of relu's slope are a kernel's.
  it("end a product on the way back as they are asked to", function()
    local rows = 120
    for _, case in ipairs {
      {parameters, "f32", 0}, {parameters, "bf16", 0}, {parameters, "f16", 0}, {through_gelu, "bf16", 0},
      {through_gelu, "f16", 0}, {through_relu, "f32", 1}, {through_relu, "bf16", 1}, {through_relu, "f16", 1},
    } do
      rows = rows + 1
      local f, dtype, launches = table.unpack(case)
      local _, gpu = layer(rows, dtype, f)
      local function call() f(table.unpack(gpu)) end
      assert.is_true((with_fault("cublasLtMatmulAlgoGetHeuristic", fault_code.blas_failed, 2, call)), dtype)
      assert.is_true((with_fault("cudaLaunchKernel", 719, launches + 1, call)), dtype)
      assert.equal(launches == 0, (with_fault("cudaLaunchKernel", 719, 1, call)), dtype)
      assert.is_false((with_fault("cublasLtMatmulDescSetAttribute", fault_code.blas_failed, 1, call)), dtype)
    end
    for _, f in ipairs {through_relu, through_gelu} do -- no such end in double
      local _, gpu = layer(7, "f64", f)
      assert.is_true((with_fault("cublasLtMatmulDescSetAttribute", fault_code.blas_failed, 1,
        function() f(table.unpack(gpu)) end)))
    end
  end)

  it("hold nothing back after an activation that fails", function()
    local rows = 100
    for _, f in ipairs {gelu, parameters, through_relu, through_gelu} do
      for _, call in ipairs {"cublasLtMatmulDescSetAttribute", "cublasLtMatmul", "cudaMalloc"} do
        rows = rows + 1
        local n, _, gpu = 1, layer(rows, "bf16", f)
        collectgarbage()
        local live = dlua.cuda.memory().live
        if call == "cudaMalloc" then dlua.cuda.empty_cache() end
        repeat
          local ok, message = with_fault(call, 999, n, function() f(table.unpack(gpu)) end)
          assert.is_true(ok or message:find(call .. ": an error of the emulator (999)", 1, true) ~= nil, message)
          n = n + 1
        until ok
        assert.is_true(n > 2 or call == "cudaMalloc", call)
        collectgarbage()
        assert.equal(live, dlua.cuda.memory().live)
      end
    end
  end)

  it("are named in the message", function()
    local ok, message = with_fault("cublasLtMatmul", fault_code.blas_failed, 1, function() y:matmul(x) end)
    assert.is_false(ok)
    assert.truthy(message:find("cublasLtMatmul: the function failed to launch on the GPU (13)", 1, true), message)
    for code, advice in pairs {[209] = "was not built for this GPU", [222] = "a newer driver is needed"} do
      ok, message = with_fault("cudaLaunchKernel", code, 1, function() return x + x end)
      assert.is_false(ok)
      assert.truthy(message:find(advice, 1, true), message)
    end
    ok, message = with_fault("cudnnBackendExecute", fault_code.dnn_failed, 1,
      function() dlua.conv2d(picture, kernel, nil, {padding = 2}) end)
    assert.is_false(ok)
    assert.truthy(message:find("cudnnBackendExecute: CUDNN_STATUS_EXECUTION_FAILED (5000)", 1, true), message)
  end)

  it("are asked once for each shape", function()
    local a, b = dlua.randn(19, 4):to("cuda"), dlua.randn(4, 19):to("cuda")
    a:matmul(b)
    assert.is_true((with_fault("cublasLtMatmulAlgoGetHeuristic", fault_code.blas_failed, 1,
      function() a:matmul(b) end)))
    dlua.conv2d(picture, kernel, nil, {stride = 2})
    assert.is_true((with_fault("cudnnBackendGetAttribute", fault_code.dnn_failed, 1,
      function() dlua.conv2d(picture, kernel, nil, {stride = 2}) end)))
  end)

  it("do without a workspace when memory is short", function()
    local a, b = dlua.randn(23, 4):to("cuda"), dlua.randn(4, 23):to("cuda")
    local calls = {function() return a:matmul(b) end,
      function() return dlua.conv2d(picture, kernel, nil, {padding = 3}) end}
    local wanted = {a:to("cpu"):matmul(b:to("cpu")),
      dlua.conv2d(picture:to("cpu"), kernel:to("cpu"), nil, {padding = 3})}
    for k, call in ipairs(calls) do
      local got
      collectgarbage()
      dlua.cuda.empty_cache()
      assert.is_true((with_fault("cudaMalloc", 2, -2, function() got = call() end))) -- the result's block is there
      assert.is_true(error_of(got, wanted[k]) < 1e-5)
    end
  end)

  it("hold nothing back after any failing call", function()
    local calls = {"cublasLtMatmulDescCreate", "cublasLtMatmulDescSetAttribute", "cublasLtMatrixLayoutCreate",
      "cublasLtMatrixLayoutSetAttribute", "cublasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceSetAttribute",
      "cudnnBackendCreateDescriptor", "cudnnBackendSetAttribute"}
    for k, call in ipairs(calls) do
      local n, rows = 1, 30 + k
      local a, b = dlua.randn(2, rows, 4):to("cuda"), dlua.randn(2, rows, 4):to("cuda"):transpose(2, 3)
      local p = dlua.randn(1, 3, rows, 5):to("cuda")
      local function both() return a:matmul(b), dlua.conv2d(p, kernel) end
      collectgarbage()
      local live = dlua.cuda.memory().live
      repeat
        local ok, message = with_fault(call, 999, n, both)
        assert.is_true(ok or message:find(call .. ": an error of the emulator (999)", 1, true) ~= nil, message)
        n = n + 1
      until ok
      assert.is_true(n > 2, call)
      collectgarbage()
      assert.equal(live, dlua.cuda.memory().live)
      local product, convolved = both()
      assert.is_true(error_of(product, a:to("cpu"):matmul(b:to("cpu"))) < 1e-5)
      assert.is_true(error_of(convolved, dlua.conv2d(p:to("cpu"), kernel:to("cpu"))) < 1e-5)
    end
  end)
end)
