-- copies_spec.lua - tensors on their way to the GPU and back, at every size where the way changes.
-- DLUA_MODULES=build/emulated runs it without a GPU.
local dlua = require "dlua"
local eventually = require "spec.helpers".eventually

local available, reason = dlua.cuda.available()
if not available then
  describe("the GPU", function() pending(reason) end)
  return
end

local KIB, MIB = 1 << 10, 1 << 20

-- Bytes that differ wherever a part could be swapped with another, drawn without knowing the parts.
local function numbers(count)
  dlua.seed(count)
  return dlua.rand(count):mul(255):to "u8"
end

local function check(count)
  local x = numbers(count)
  local y = x:to "cuda":to "cpu"
  assert.is_true(y:eq(x):all():item(), ("%d bytes came back changed"):format(count))
end

describe("a copy to the GPU and back", function()
  for _, count in ipairs {
    1, 63, 64 * KIB - 1, 64 * KIB, MIB + 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 16 * MIB, 40 * MIB + 5,
  } do
    it(("of %d bytes is the same"):format(count), function() check(count) end)
  end

  it("takes any number of small ones, all in flight", function()
    local x = numbers(300 * 20000):reshape(300, 20000)
    local there = {}
    for k = 1, 300 do there[k] = x[k]:to "cuda" end
    for k = 1, 300, 7 do assert.is_true(there[k]:to "cpu":eq(x[k]):all():item()) end
  end)

  it("takes many large ones, all in flight", function()
    local x = numbers(12 * 3 * MIB):reshape(12, 3 * MIB)
    local there = {}
    for k = 1, 12 do there[k] = x[k]:to "cuda" end
    for k = 12, 1, -1 do assert.is_true(there[k]:to "cpu":eq(x[k]):all():item()) end
  end)

  it("lets the source change at once, and reuses what was freed", function()
    local x = dlua.ones(MIB)
    for k = 1, 20 do
      local there = x:to "cuda"
      x:add_(1)
      assert.equal(k, (there + 0)[MIB]:item())
    end
  end)
end)

describe("a number sent to the host", function()
  local function arrived(ticket)
    return eventually(function() return dlua.receive(ticket) end, "the number")
  end

  it("comes without waiting", function()
    for _, dtype in ipairs {"f32", "f64", "i64", "bool", "bf16"} do
      local x = dlua.ones({1}, {dtype = dtype}):to "cuda"
      local before = dlua.test.waits "cuda"
      local ticket = dlua.send(x)
      x:release()
      dlua.ones(1):to "cuda" -- may reuse the block
      assert.equal(before, dlua.test.waits "cuda")
      assert.equal(1, arrived(ticket))
    end
  end)

  it("is there until many more were sent", function()
    local tickets = {}
    for k = 1, 64 do tickets[k] = dlua.send(dlua.full({1}, k):to "cuda") end
    for k = 64, 1, -1 do assert.equal(k, arrived(tickets[k])) end
    dlua.send(dlua.ones(1):to "cuda")
    assert.error_matches(function() dlua.receive(tickets[1]) end, "receive: this value was sent too long ago")
    assert.error_matches(function() dlua.send(dlua.ones(1)) end, "send: x must be one element on a device")
    assert.error_matches(function() dlua.send(dlua.ones(2):to "cuda") end, "x {2} on cuda")
    assert.error_matches(function() dlua.receive(7) end, "receive: takes what send gave")
  end)
end)
