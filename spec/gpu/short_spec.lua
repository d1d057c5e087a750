-- short_spec.lua - libraries that are out of memory. They ask for some beside the runtime's cache: for handles, plans,
-- the code of kernels, and while a product or a convolution runs. What nobody needs any more is given back and the call
-- made once more; where that does not help it is an error that names the call, the op, the layer and the largest
-- tensors, and all goes on working. Needs the emulator: DLUA_MODULES=build/emulated.
local dlua = require "dlua"
local nn, optim = dlua.nn, dlua.optim
local program = os.getenv "DLUA" or arg[-1] or "build/dlua"

local available, reason = dlua.cuda.available()
local faults = available and pcall(dlua.test.fault, "cuda", "any", 0)
if not faults then
  describe("a library that is out of memory", function()
    pending(reason or "a real GPU has no faults to inject")
  end)
  return
end

local MIB = 1 << 20

-- Calls, and the codes with which they say so. "+full" is a library that has only a general failure to tell, while CUDA
-- says that nothing is left.
local blas = {text = "the resource allocation failed", op = "linear", layer = "%[4%]"}
local dnn = {text = "DEVICE_ALLOCATION_FAILED", op = "conv2d", layer = "%[1%]"}
local shorts = {
  {call = "cublasLtMatmul", codes = {3, "13+full"}, error = blas},
  {call = "cublasLtMatmulAlgoGetHeuristic", codes = {3, "14+full"}, error = blas},
  {call = "cublasLtMatmulDescCreate", codes = {3}, error = blas},
  {call = "cudnnBackendExecute", codes = {4004, 4003, "5000+full"}, error = dnn},
  {call = "cudnnBackendFinalize", codes = {4004, "4000+full"}, error = dnn},
  {call = "cudnnBackendCreateDescriptor", codes = {4004}, error = dnn},
  {call = "cudaLaunchKernel", codes = {2}, error = {text = "out of memory", op = "[%w_]+"}},
}

local pictures, labels = dlua.rand(2, 3, 12, 12), dlua.tensor({1, 3}, {dtype = "i64"})
local variant = 0 -- of the network: what the libraries planned for one, they know from then on

-- Losses of two steps of training, the second one with the weights that the first one left.
local function train(dtype)
  local _ <close> = dlua.scope()
  local channels, h = 2 + variant % 20, 1 + variant // 20 % 12
  dlua.seed(5)
  local net = nn.Sequential(nn.Conv2d(3, channels, 3, {padding = 1}), nn.ReLU(), nn.Flatten(),
    nn.Linear(channels * h * 12, 3 + variant)):to("cuda", dtype)
  local optimizer = optim.SGD(net:parameters(), {lr = 0.1, momentum = 0.9})
  local x, y = pictures:narrow(3, 1, h):to "cuda":to(dtype), labels:to "cuda"
  local losses = {}
  for k = 1, 2 do
    local loss = net(x):cross_entropy(y)
    optimizer:zero_grad()
    loss:backward()
    optimizer:step()
    losses[k] = loss:item()
  end
  return losses
end

-- What pcall says of fn while the n-th call fails; for -n all after it too.
local function with_fault(call, code, n, fn, ...)
  dlua.test.fault("cuda", call .. " " .. code, n)
  local ok, result = pcall(fn, ...)
  dlua.test.fault("cuda", "any", 0)
  return ok, result
end

describe("a library that is out of memory", function()
  after_each(function() dlua.test.fault("cuda", "any", 0) end)

  it("gets what nobody needs any more, and computes the same", function()
    for _, short in ipairs(shorts) do
      for _, code in ipairs(short.codes) do
        for n = 1, 7, 2 do
          local dtype = n % 4 == 1 and "f32" or "bf16"
          local what = ("%s %s, call %d, %s: "):format(short.call, code, n, dtype)
          variant = variant + 1
          local ok, losses = with_fault(short.call, code, n, train, dtype)
          assert.is_true(ok, what .. tostring(losses))
          assert.same(train(dtype), losses, what)
        end
      end
    end
  end)

  it("is what the cache and the garbage are given back for", function()
    local x = dlua.ones(64, 64):to "cuda"
    collectgarbage()
    dlua.cuda.empty_cache()
    collectgarbage "stop"
    local before = dlua.cuda.memory()
    dlua.zeros({16 * MIB}, {dtype = "u8", device = "cuda"})
    assert.is_true(dlua.cuda.memory().live >= before.live + 16 * MIB)
    local ok, y = with_fault("cublasLtMatmul", 3, 1, x.matmul, x, x)
    collectgarbage "restart"
    assert.is_true(ok, tostring(y))
    local after = dlua.cuda.memory()
    assert.is_true(after.live < before.live + MIB and after.cached <= before.cached + 2 * MIB)
    assert.equal(64 ^ 3, y:sum():item())
  end)

  it("for good is an error that says where and what lies there", function()
    local _ <close> = dlua.scope()
    local large = dlua.zeros({40 * MIB}, {dtype = "u8", device = "cuda"})
    for _, short in ipairs(shorts) do
      variant = variant + 1
      local wanted = train "f32"
      variant = variant + 1
      local ok, message = with_fault(short.call, short.codes[1], -1, train, "f32")
      assert.is_false(ok, short.call)
      assert.is_nil(message:find "\n", message)
      assert.matches("^" .. short.error.op .. ": " .. short.call .. ": [%w_ ]*" .. short.error.text, message)
      if short.error.layer then assert.matches("  " .. short.error.layer .. "  ", message) end
      assert.matches("%(largest tensors: u8{41943040} 40.0 MiB", message)
      assert.matches("short_spec.lua:%d+$", message)
      assert.is_true(train "f32"[1] > 0)
      variant = variant - 1
      assert.same(wanted, train "f32")
      variant = variant + 1
    end
    large:release()
  end)

  it("while a handle is made is tried again too", function()
    local file = os.tmpname()
    local out = assert(io.open(file, "w"))
    out:write [[
      local dlua = require "dlua"
      local x, w = dlua.rand(1, 3, 8, 8), dlua.rand(2, 3, 3, 3)
      local m = dlua.rand(8, 8)
      local function close(a, b) return (a:to "cpu" - b):abs():max():item() < 1e-4 end
      for _ = 1, 2 do
        print(pcall(function()
          local y, p = x:to "cuda":conv2d(w:to "cuda"), m:to "cuda":matmul(m:to "cuda")
          return close(y, x:conv2d(w)) and close(p, m:matmul(m))
        end))
        dlua.test.fault("cuda", "any", 0)
      end]]
    out:close()
    local function run(fault)
      local process = assert(io.popen(("DLUA_CUDA_FAULT=%q %s %s 2>&1"):format(fault, program, file)))
      local text = process:read "a"
      process:close()
      return text
    end
    local codes = {cublasLtCreate = 3, cudnnCreate = 4004, cudaStreamCreateWithFlags = 2, cudaSetDevice = 2}
    for call, code in pairs(codes) do
      assert.equal("true\ttrue\ntrue\ttrue\n", run(("%s %d 1"):format(call, code)), call)
      assert.matches("^false\t[%w_]+: " .. call .. ": [^\n]+\ntrue\ttrue\n$", run(("%s %d -1"):format(call, code)))
    end
    for call, code in pairs {cublasLtCreate = "1+full", cudnnCreate = "1000+full"} do
      assert.equal("true\ttrue\ntrue\ttrue\n", run(("%s %s 1"):format(call, code)), call)
    end
    os.remove(file)
  end)
end)
