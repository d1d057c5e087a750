-- single.lua - single operations; the second result is the number of calls per step. peer.py has the twins. `on` says
-- where tensors are and in which precision the call runs (row.lua).
local dlua = require "dlua"
local nn, optim = dlua.nn, dlua.optim
local single = {}

-- ---------------------------------------------------------------- the cost of a call

single["add-4"] = function(_, on)
  local x, y = on.place(dlua.randn(4)), on.place(dlua.randn(4))
  return function() for _ = 1, 1000 do local _ = x + y end end, 1000
end

single["add-4-grad"] = function(_, on)
  local x, y = on.place(dlua.randn(4)):requires_grad_(), on.place(dlua.randn(4))
  return function() for _ = 1, 1000 do local _ = x + y end end, 1000
end

single["chain-10"] = function(_, on)
  local x, y = on.place(dlua.randn(4)), on.place(dlua.randn(4))
  return function()
    for _ = 1, 100 do
      local z = x
      for _ = 1, 5 do z = (z + y) * y end
    end
  end, 1000
end

-- ---------------------------------------------------------------- products and convolutions

local function product(n)
  return function(_, on)
    local x, y = on.place(dlua.randn(n, n)), on.place(dlua.randn(n, n))
    local function call() x:matmul(y) end
    return function() on.forward(call) end
  end
end
for _, n in ipairs {256, 1024, 2048, 8192} do single["gemm-" .. n] = product(n) end

local function convolution(batch, on)
  return on.place(dlua.randn(batch, 64, 32, 32)):requires_grad_(), on.place(dlua.randn(64, 64, 3, 3)):requires_grad_()
end

single["conv-forward"] = function(batch, on)
  local x, w = convolution(batch, on)
  local function call() return x:conv2d(w, {padding = 1}) end
  return function() on.forward(dlua.no_grad, call) end
end

-- The gradient by one of the two, of a forward pass made once.
local function gradient(which)
  return function(batch, on)
    local x, w = convolution(batch, on)
    local y = on.forward(function() return x:conv2d(w, {padding = 1}) end)
    local g = on.place(dlua.randn(batch, 64, 32, 32)):to(y.dtype)
    local by = which == "input" and x or w
    return function() dlua.grad(y, by, {grad_outputs = {g}, retain_graph = true}) end
  end
end
single["conv-input-grad"], single["conv-weight-grad"] = gradient "input", gradient "weight"

-- ---------------------------------------------------------------- passes over memory

single["softmax"] = function(_, on)
  local x = on.place(dlua.randn(1024, 1024))
  return function() x:softmax(2) end
end

single["batch-norm"] = function(batch, on)
  local norm, x = on.place(nn.BatchNorm2d(64)), on.place(dlua.randn(batch, 64, 32, 32))
  return function() dlua.no_grad(function() return norm(x) end) end
end

local function adam(millions)
  return function(_, on)
    local p = nn.Parameter(on.place(dlua.randn(millions, 1000, 1000)))
    local opt = optim.Adam({p}, {lr = 1e-3})
    p:sum():backward()
    return function() opt:step() end
  end
end
single["adam-1M"], single["adam-3M"], single["adam-10M"] = adam(1), adam(3), adam(10)

return single
