-- late_spec.lua - what a kernel finds wrong is told where the script waits next, whatever it waits in, with the line of
-- the call that was wrong and no other. DLUA_MODULES=build/emulated runs it without a GPU.
local dlua = require "dlua"
local sorted = require "spec.helpers".sorted
local nn = dlua.nn

if not dlua.cuda.available() then return end

local function line() return debug.getinfo(2, "l").currentline end

local function on_gpu(...) return dlua.tensor(...):to "cuda" end

local x, index = on_gpu {{1.0, 2.0}, {3.0, 4.0}, {5.0, 6.0}}, on_gpu({1, 9}, {dtype = "i64"})
local labels = on_gpu({1, 0, 2}, {dtype = "i64"})

-- Calls that go wrong later, with the line they are on.
local calls = {
  index_select = {"index 9 at position 2 is outside 1..3", function() return x:index_select(1, index), line() end},
  gather = {"index 9 at position 2 is outside 1..3",
    function() return x:gather(1, index:reshape(1, 2)), line() end},
  scatter = {"index 9 at position 2 is outside 1..3",
    function() return x:scatter(1, index:reshape(1, 2), dlua.ones({1, 2}, {device = "cuda"})), line() end},
  one_hot = {"index 9 at position 2 is outside 1..3", function() return index:one_hot(3), line() end},
  cross_entropy = {"target 0 at position 2 is outside 1..2 (class labels start at 1)",
    function() return dlua.cross_entropy(x, labels), line() end},
  floor_div = {"integer division by zero (x {2}, y {})", function() return index // 0, line() end},
  bernoulli = {"p 2 at position 2 is outside 0..1", function() return x:bernoulli(), line() end},
  index_add = {"index 9 at position 2 is outside 1..3",
    function() return x:index_add(1, index, dlua.ones({2, 2}, {device = "cuda"})), line() end},
}

local mean = nn.Linear(2, 1):to "cuda"

-- Everything that waits, some of it deep in calls of its own.
local waits = {
  ["synchronize"] = function() dlua.cuda.synchronize() end,
  ["to"] = function() return x:to "cpu" end,
  ["totable"] = function() return x:totable() end,
  ["item"] = function() return x:sum():item() end,
  ["print"] = function() return tostring(x) end,
  ["an element"] = function() return x[1][1]:item() end,
  ["nonzero"] = function() return x:nonzero() end,
  ["masked_select"] = function() return x:masked_select(x:gt(2)) end,
  ["a table of the state"] = function()
    for _, p in ipairs(mean:parameters()) do p:detach():to "cpu" end
  end,
  ["a metric"] = function()
    local m = dlua.metrics.Mean()
    m:update(x:sum(), 1)
    return m:value()
  end,
  ["a file"] = function()
    local path = os.tmpname()
    local ok, message = pcall(dlua.save, path .. ".npy", x)
    os.remove(path)
    os.remove(path .. ".npy")
    if not ok then error(message, 0) end
  end,
  ["a module's forward"] = function()
    local Reads = nn.class "Reads"
    function Reads:forward(y) return y * y:sum():item() end -- luacheck: ignore self
    return nn.Sequential(Reads())(x)
  end,
  ["backward"] = function()
    local y = dlua.ones({3, 2}, {device = "cuda"}):requires_grad_()
    y:masked_select(y:detach():gt(0)):sum():backward()
    return y.grad:to "cpu"
  end,
}

describe("what a kernel finds wrong", function()
  for op, call in sorted(calls) do
    it("in " .. op .. " is told with the line of the call", function()
      local _, at = call[2]()
      local ok, message = pcall(waits.synchronize)
      assert.is_false(ok)
      assert.equal(("%s: %s  spec/gpu/late_spec.lua:%d"):format(op, call[1], at), (message:gsub("%./spec", "spec")))
      dlua.cuda.synchronize() -- once
    end)
  end

  for name, wait in sorted(waits) do
    it("is told by " .. name, function()
      local _, at = calls.index_select[2]()
      local ok, message = pcall(wait)
      assert.is_false(ok)
      assert.equal(("index_select: %s  spec/gpu/late_spec.lua:%d"):format(calls.index_select[1], at),
        (message:gsub("%./spec", "spec")))
      dlua.cuda.synchronize()
      wait()
    end)
  end

  it("is the first of several, once", function()
    local _, at = calls.one_hot[2]()
    calls.cross_entropy[2]()
    local ok, message = pcall(waits.item)
    assert.is_false(ok)
    assert.matches(("^one_hot: .*late_spec.lua:%d$"):format(at), message)
    waits.item()
  end)
end)
