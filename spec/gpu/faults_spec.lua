-- faults_spec.lua - every call of CUDA's libraries fails, at every n-th time: a Lua error that names the call, what the
-- library says and the op; nothing is lost on the host, nothing hangs, and where the GPU survived, the same step works
-- afterwards (R16). Needs the emulator: DLUA_MODULES=build/emulated.
local dlua = require "dlua"
local nn, optim = dlua.nn, dlua.optim
local program = os.getenv "DLUA" or arg[-1] or "build/dlua"

local available, reason = dlua.cuda.available()
local faults = available and pcall(dlua.test.fault, "cuda", "any", 0)
if not faults then
  describe("a GPU's faults", function() pending(reason or "a real GPU has no faults to inject") end)
  return
end

local all = os.getenv "DLUA_FAULT_ALL" == "1"
local layered = {} -- messages that name a layer, by library
local struck = 0 -- calls that were made to fail
local most = 400 -- calls of one function in a step; more would mean that it never ends

-- Every function of gpu/calls.def, by library.
local function calls()
  local list = {}
  for line in io.lines "gpu/calls.def" do
    local library, name = line:match "^(%u+)_CALL%((%w+)%)"
    if library then list[#list + 1] = {library = library, name = name} end
  end
  return list
end

-- What libraries say. The first of each list is one that nothing recovers from by itself. Out of memory is one that
-- the same call may get over: once, it is not noticed; for good, it is an error.
local errors = {
  CUDA = {
    {code = 999, text = "an error of the emulator"}, {code = 2, text = "out of memory", memory = true},
    {code = 35, text = "CUDA driver version is insufficient"},
    {code = 100, text = "no CUDA%-capable device is detected"}, {code = 802, text = "system not yet initialized"},
    {code = 700, text = "an illegal memory access was encountered", final = true},
    {code = 719, text = "unspecified launch failure", final = true},
  },
  BLAS = {{code = 13, text = "failed to launch on the GPU"},
    {code = 3, text = "the resource allocation failed", memory = true},
    {code = "13+full", text = "failed to launch on the GPU", memory = true},
    {code = 15, text = "the functionality is not supported"}},
  DNN = {{code = 5000, text = "CUDNN_STATUS_EXECUTION_FAILED"}, {code = 3000, text = "CUDNN_STATUS_NOT_SUPPORTED"},
    {code = 4004, text = "DEVICE_ALLOCATION_FAILED", memory = true},
    {code = "5000+full", text = "CUDNN_STATUS_EXECUTION_FAILED", memory = true}},
}

-- Bytes in use once everything is collected, or once they are down to those of before.
local function settled(host_base, device_base)
  for _ = 1, 3 do
    collectgarbage()
    if host_base and dlua.memory().live <= host_base and dlua.cuda.memory().live <= device_base then break end
  end
  dlua.cuda.empty_cache()
  return dlua.memory().live, dlua.cuda.memory().live
end

local host = dlua.rand(64, 64)
local pictures, labels = dlua.rand(2, 3, 12, 12), dlua.tensor({1, 3}, {dtype = "i64"})
local variant = 0 -- of the network: what the libraries plan for one, they know from then on

-- A step of training from a fresh copy of the batch to the changed weights and the loss.
local function train_step()
  local _ <close> = dlua.scope()
  local h, w, channels = 4 + variant % 9, 4 + variant // 9 % 9, 2 + variant // 81 % 9
  local net = nn.Sequential(nn.Conv2d(3, channels, 3, {padding = 1}), nn.BatchNorm2d(channels), nn.ReLU(),
    nn.MaxPool2d(2), nn.Flatten(), nn.Linear(channels * (h // 2) * (w // 2), 3 + variant % 80), nn.ReLU(),
    nn.Linear(3 + variant % 80, 3)):to "cuda"
  local optimizer = optim.Adam(net:parameters(), {lr = 0.01})
  local x = pictures:narrow(3, 1, h):narrow(4, 1, w):to "cuda"
  local loss = nn.CrossEntropyLoss()(net(x), labels:to "cuda")
  loss:backward()
  nn.clip_grad_norm_(net:parameters(), 0.1)
  optimizer:step()
  assert.is_true(loss:item() > 0)
end

local function move() host:to "cuda":to "cpu" end
local function read() dlua.ones(1):to "cuda":item() end
local function send()
  local ticket = dlua.send(dlua.ones(1):to "cuda")
  repeat until dlua.receive(ticket)
end
local function wait()
  host:to "cuda":release()
  dlua.cuda.synchronize()
end

-- Makes the n-th call of a function fail while fn runs, and for -n all after it; whether fn raised.
local function fail_once(call, fault, n, fn, host_base, device_base)
  variant, struck = variant + 1, struck + 1
  dlua.cuda.empty_cache() -- or the GPU is never asked for memory
  dlua.test.fault("cuda", call.name .. " " .. fault.code, n)
  local ok, message = pcall(fn)
  local again = fault.final and {pcall(fn)}
  dlua.test.fault("cuda", "any", 0)
  if ok and again and not again[1] then ok, message = false, again[2] end
  local what = ("%s (%s) at call %d: %s"):format(call.name, fault.code, n, tostring(message))
  if not ok then
    assert.equal("string", type(message), what)
    assert.is_nil(message:find "\n", what)
    assert.matches(call.name .. ": ", message, 1, true)
    assert.matches(fault.text, message)
    assert.matches("^[%w_]+: ", message)
    assert.matches("faults_spec.lua:%d+", message)
    if message:find "%[[1-8]%]  " then layered[call.library] = (layered[call.library] or 0) + 1 end
    if again then
      assert.is_false(again[1], what)
      assert.matches("start the process again to use the GPU", message)
    end
  end
  assert.is_true(host:sum():item() > 0)
  local host_live, device_live = settled(host_base, device_base)
  assert.is_true(host_live <= host_base and device_live <= device_base,
    ("%s: %d and %d bytes live before, %d and %d after"):format(what, host_base, device_base, host_live, device_live))
  fn()
  return not ok
end

-- Makes each call of a function fail until three in a row go unnoticed: then there are no more, or what fails there is
-- done in another way. Beyond the first six it is every fourth call. Each fails with the first error and with one of
-- the others by turns. With DLUA_FAULT_ALL=1 it is every call, with every error.
local function fail_each(call, fn)
  local list, unnoticed, raised = errors[call.library], 0, 0
  local host_base, device_base = settled()
  for k = 1, most do
    local n = (all or k <= 6) and k or 6 + (k - 6) * 4
    local noticed = fail_once(call, list[1], n, fn, host_base, device_base)
    unnoticed = noticed and 0 or unnoticed + 1
    if unnoticed == 3 then return raised end
    raised = raised + (noticed and 1 or 0)
    for j = 2, #list do
      local turn = all or j == 2 + k % (#list - 1)
      if noticed and turn then
        if list[j].memory then
          assert.is_false(fail_once(call, list[j], n, fn, host_base, device_base), call.name .. " is not tried again")
        end
        local last = list[j].memory and -n or n
        if fail_once(call, list[j], last, fn, host_base, device_base) then raised = raised + 1 end
      end
    end
  end
  error(call.name .. " is called without end")
end

-- cudaFree and what asks for texts are not listened to.
local silent = {cudaFree = true, cudaEventDestroy = true, cudaGetLastError = true,
  cudaGetErrorString = true}

-- How many faults in fn were raised, by library.
local function check(fn)
  fn()
  local raised = {CUDA = 0, BLAS = 0, DNN = 0}
  for _, call in ipairs(calls()) do
    if not silent[call.name] then raised[call.library] = raised[call.library] + fail_each(call, fn) end
  end
  return raised
end

describe("a fault of the GPU's libraries", function()
  after_each(function() dlua.test.fault("cuda", "any", 0) end)
  teardown(function() print(("%d calls were made to fail"):format(struck)) end)

  it("in a step of training is an error", function()
    local raised = check(train_step)
    assert.is_true(raised.CUDA > 50 and raised.BLAS > 20 and raised.DNN > 30)
    assert.is_true(layered.CUDA > 5 and layered.BLAS > 10 and layered.DNN > 10)
  end)
  it("in a copy there and back is an error", function() assert.is_true(check(move).CUDA > 5) end)
  it("in reading a number is an error", function() assert.is_true(check(read).CUDA > 5) end)
  it("in sending a number is an error", function() assert.is_true(check(send).CUDA > 5) end)
  it("in waiting is an error", function() assert.is_true(check(wait).CUDA > 5) end)
end)

-- What a script prints in a process of its own that starts with a fault.
local function run(fault, script)
  local file = os.tmpname()
  local out = assert(io.open(file, "w"))
  out:write(script)
  out:close()
  local process = assert(io.popen(("DLUA_CUDA_FAULT=%q %s %s 2>&1"):format(fault, program, file)))
  local text = process:read "a"
  process:close()
  os.remove(file)
  return text
end

describe("a GPU that cannot be used", function()
  local function why(fault)
    return run(fault, [[
      local dlua = require "dlua"
      print(dlua.cuda.available())
      print(pcall(dlua.ones(1).to, dlua.ones(1), "cuda"))
      print(dlua.device(), dlua.ones(2):sum():item())]])
  end

  it("says why, and the CPU goes on", function()
    for code, text in pairs {
      [100] = "no CUDA%-capable device is detected %(100%)",
      ["35+12040"] = "CUDA driver version is insufficient for CUDA runtime version %(35%); "
        .. "the driver is for CUDA 12%.4, a newer one is needed",
      ["35+0"] = "CUDA driver version is insufficient for CUDA runtime version %(35%); there is no driver of NVIDIA's",
      [802] = "system not yet initialized %(802%); is nvidia%-fabricmanager running%?",
    } do
      local lines = {}
      for line in why(("cudaGetDeviceCount %s -1"):format(code)):gmatch "[^\n]+" do lines[#lines + 1] = line end
      assert.equal(3, #lines)
      assert.matches("^false\tcuda is not available: cudaGetDeviceCount: " .. text .. "$", lines[1])
      assert.matches("^false\tcuda is not available: cudaGetDeviceCount: " .. text, lines[2])
      assert.equal("cpu\t2.0", lines[3])
    end
  end)

  it("raises what the first calls of a process meet, and works when that was all", function()
    local script = [[
      local dlua = require "dlua"
      local x = dlua.rand(256, 256)
      local function step() return (x:to "cuda" * x:to "cuda"):to "cpu":sum():item() end
      for _ = 1, 6 do
        local ok, message = pcall(step)
        if not ok then print(message) end
      end
      print(step() == (x * x):sum():item())]]
    local raised = 0
    for _, call in ipairs(calls()) do
      if not silent[call.name] and call.name ~= "cudaGetDeviceCount" then
        for n = 1, 5, 2 do
          local text = run(("%s 999 %d"):format(call.name, n), script)
          assert.matches("true\n$", text)
          if text ~= "true\n" then
            raised = raised + 1
            assert.matches("^%w+: " .. call.name .. ": an error of the emulator %(999%)[^\n]*\ntrue\n$", text)
          end
        end
      end
    end
    assert.is_true(raised > 15)
  end)
end)
