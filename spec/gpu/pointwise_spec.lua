-- pointwise_spec.lua - what elementwise and random kernels do on a GPU beyond parity_spec.lua: mistakes in values,
-- found late, and draws in half precision. DLUA_MODULES=build/emulated runs it without a GPU.
local dlua = require "dlua"
local sorted = require "spec.helpers".sorted

local available, reason = dlua.cuda.available()
if not available then
  describe("the GPU", function() pending(reason) end)
  return
end

local function on_gpu(values, dtype) return dlua.tensor(values, {dtype = dtype}):to("cuda") end

-- The message of a call that fails at the next wait: it ends with the line of the call, and with no other.
local function late_message(call)
  call()
  local fine, message = pcall(dlua.cuda.synchronize)
  assert.is_false(fine)
  local text, line = message:match("^(.-)  %S+pointwise_spec%.lua:(%d+)$")
  assert.is_truthy(text, message)
  assert.equal(debug.getinfo(call, "S").linedefined, tonumber(line))
  dlua.cuda.synchronize() -- raised once
  return text
end

describe("a value that the CPU refuses", function()
  local zeros, minus = on_gpu({1, 0}, "i64"), on_gpu({1, -2}, "i64")

  it("may be an integer divisor of 0", function()
    local x = on_gpu({{7, 7}, {7, 7}}, "i64")
    assert.equal("floor_div: integer division by zero (x {2,2}, y {2})", late_message(function() return x // zeros end))
    assert.equal("mod: integer division by zero (x {2,2}, y {2})", late_message(function() return x % zeros end))
    assert.equal("mod: integer division by zero (x {2,2}, y {})", late_message(function() return x % 0 end))
  end)

  it("may be a negative integer exponent", function()
    assert.equal("pow: an integer to a negative power is no integer; use a float tensor (x {2}, y {2})",
      late_message(function() return zeros ^ minus end))
  end)

  it("may be a probability outside 0..1", function()
    local p = on_gpu({0, 0.5, 1, 1.5}, "f32")
    assert.equal("bernoulli: p 1.5 at position 4 is outside 0..1", late_message(function() return p:bernoulli() end))
  end)

  it("is not seen in floats", function()
    local y = on_gpu({1, 0}, "f32")
    assert.same({1, math.huge}, (y:full_like(1) // y):to("cpu"):totable())
    assert.same({1, math.huge}, (y ^ -2):to("cpu"):totable())
  end)
end)

describe("a draw in half precision", function()
  local draws = {
    rand = function(o) return dlua.rand({1003}, o) end,
    randn = function(o) return dlua.randn({1003}, o) end,
    randint = function(o) return dlua.randint(-9, 9, {1003}, o) end,
    bernoulli = function(o) return dlua.full({1003}, 0.3, o):bernoulli() end,
    dropout = function(o) return dlua.dropout(dlua.linspace(-3, 4, 1003, o), 0.3) end,
    dropout2d = function(o) return dlua.dropout2d(dlua.linspace(-3, 4, 960, o):reshape(4, 6, 8, 5), 0.3) end,
  }
  for name, draw in sorted(draws) do
    it("is the CPU's: " .. name, function()
      for _, dtype in ipairs {"bf16", "f16"} do
        local results = {}
        for _, device in ipairs {"cpu", "cuda"} do
          dlua.seed(3)
          results[device] = draw({dtype = dtype, device = device}):to("cpu"):flatten():totable()
        end
        assert.same(results.cpu, results.cuda)
      end
    end)
  end
end)

describe("choosing", function()
  it("takes elements of every width, from anywhere", function()
    for _, dtype in ipairs {"u8", "bf16", "f32", "f64", "i32"} do
      local x = dlua.randint(1, 100, {4001}, {dtype = "f32"}):to(dtype)
      local condition = dlua.rand(4001):gt(0.5)
      for _, first in ipairs {1, 2} do
        local n = 4002 - first
        local c, y = condition:narrow(1, first, n), x:narrow(1, first, n)
        local wanted = dlua.where(c, y, 7):to("f64"):totable()
        local moved, whole = x:to("cuda"), condition:to("cuda")
        local got = dlua.where(whole:narrow(1, first, n), moved:narrow(1, first, n), 7)
        assert.same(wanted, got:to("cpu"):to("f64"):totable())
      end
    end
  end)
end)
