-- cuda_spec.lua - dlua.cuda: devices, their memory, waiting. DLUA_MODULES=build/emulated runs it without a GPU.
local dlua = require "dlua"

local available, reason = dlua.cuda.available()
if not available then
  describe("the GPU", function() pending(reason) end)
  return
end

local MIB = 1 << 20
local program = os.getenv "DLUA" or arg[-1] or "build/dlua"

describe("dlua.cuda", function()
  it("describes every device", function()
    local devices = dlua.cuda.devices()
    assert.is_true(#devices >= 1)
    for k, d in ipairs(devices) do
      assert.equal(k == 1 and "cuda" or "cuda:" .. k, d.device)
      assert.equal("string", type(d.name))
      assert.matches("^CUDA %d+%.%d+, cuDNN %d+%.%d+%.%d+$", d.libraries)
      assert.matches("^%d+%.%d+$", d.capability)
      assert.is_true(d.memory > 0 and d.free > 0 and d.free <= d.memory and d.multiprocessors > 0)
    end
    assert.equal("cuda", dlua.device())
    assert.error_matches(function() dlua.device("cuda:" .. #devices + 1) end,
      ("device 'cuda:%d' is not there: this machine has %d cuda device"):format(#devices + 1, #devices))
  end)

  it("counts the memory of a device", function()
    collectgarbage()
    local before = dlua.cuda.memory()
    dlua.cuda.reset_peak_memory()
    assert.equal(before.live, dlua.cuda.memory().peak)
    local x = dlua.zeros(3, MIB):to "cuda"
    local during = dlua.cuda.memory()
    assert.equal(before.live + 12 * MIB, during.live)
    assert.is_true(during.peak >= during.live and during.allocations > before.allocations)
    x:release()
    local after = dlua.cuda.memory()
    assert.equal(before.live, after.live)
    assert.equal(during.peak, after.peak)
    assert.same(after.live, dlua.memory "cuda".live)
    assert.equal(0, dlua.cuda.memory "cpu".segments or 0)
  end)

  it("gives unused memory back", function()
    dlua.zeros(3, MIB):to "cuda":release()
    assert.is_true(os.getenv "DLUA_CACHE" == "0" or dlua.cuda.memory().cached >= 12 * MIB)
    collectgarbage()
    collectgarbage()
    dlua.cuda.empty_cache()
    local m = dlua.cuda.memory()
    assert.is_true(m.cached < 4 * MIB and m.largest <= m.cached)
  end)

  it("waits, and says for what device it cannot", function()
    local before = dlua.test.waits "cuda"
    dlua.cuda.synchronize()
    dlua.synchronize "cuda"
    assert.equal(before + 2, dlua.test.waits "cuda")
    for name in pairs {synchronize = true, memory = true, empty_cache = true, reset_peak_memory = true} do
      assert.error_matches(function() dlua.cuda[name] "cuda:0" end, "devices count from 1")
    end
  end)

  -- The second wait of a process is that after the product, if there is one after each op.
  it("blames the op that failed when DLUA_SYNC=1", function()
    if not pcall(dlua.test.fault, "cuda", "any", 0) then return pending "a real GPU has no faults to inject" end
    local file = os.tmpname()
    local out = assert(io.open(file, "w"))
    out:write [[
      local dlua = require "dlua"
      local x = dlua.ones(3):to "cuda"
      local y = x + x
      local z = y * y
      print(z:to "cpu":totable()[1])]]
    out:close()
    local function run(sync)
      local command = "DLUA_SYNC=%d DLUA_CUDA_FAULT='cudaStreamSynchronize 719 2' %s %s 2>&1"
      local process = assert(io.popen(command:format(sync, program, file)))
      local text = process:read "a"
      process:close()
      return text
    end
    assert.matches("^dlua: mul: cudaStreamSynchronize: unspecified launch failure %(719%); start the process again to"
      .. " use the GPU %(with DLUA_SYNC=1 it names the op that failed%)  %S+:4\n$", run(1))
    assert.matches("^dlua: to: cudaStreamSynchronize: unspecified launch failure.+:5\n$", run(0))
    os.remove(file)
  end)
end)
