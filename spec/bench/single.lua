-- single.lua - single operations; the second result is the number of calls per step. peer.py has the twins.
local dlua = require "dlua"
local nn, optim = dlua.nn, dlua.optim
local single = {}

-- ---------------------------------------------------------------- the cost of a call

single["add-4"] = function()
  local x, y = dlua.randn(4), dlua.randn(4)
  return function() for _ = 1, 1000 do local _ = x + y end end, 1000
end

single["add-4-grad"] = function()
  local x, y = dlua.randn({4}, {requires_grad = true}), dlua.randn(4)
  return function() for _ = 1, 1000 do local _ = x + y end end, 1000
end

single["chain-10"] = function()
  local x, y = dlua.randn(4), dlua.randn(4)
  return function()
    for _ = 1, 100 do
      local z = x
      for _ = 1, 5 do z = (z + y) * y end
    end
  end, 1000
end

-- ---------------------------------------------------------------- products and convolutions

local function product(n)
  return function()
    local x, y = dlua.randn(n, n), dlua.randn(n, n)
    return function() x:matmul(y) end
  end
end
single["gemm-256"], single["gemm-1024"], single["gemm-2048"] = product(256), product(1024), product(2048)

local function convolution(batch)
  local x = dlua.randn({batch, 64, 32, 32}, {requires_grad = true})
  local w = dlua.randn({64, 64, 3, 3}, {requires_grad = true})
  return x, w
end

single["conv-forward"] = function(batch)
  local x, w = convolution(batch)
  return function() dlua.no_grad(function() return x:conv2d(w, {padding = 1}) end) end
end

-- The gradient by one of the two, of a forward pass made once.
local function gradient(which)
  return function(batch)
    local x, w = convolution(batch)
    local y, g = x:conv2d(w, {padding = 1}), dlua.randn(batch, 64, 32, 32)
    local by = which == "input" and x or w
    return function() dlua.grad(y, by, {grad_outputs = {g}, retain_graph = true}) end
  end
end
single["conv-input-grad"], single["conv-weight-grad"] = gradient "input", gradient "weight"

-- ---------------------------------------------------------------- passes over memory

single["softmax"] = function()
  local x = dlua.randn(1024, 1024)
  return function() x:softmax(2) end
end

single["batch-norm"] = function(batch)
  local norm, x = nn.BatchNorm2d(64), dlua.randn(batch, 64, 32, 32)
  return function() dlua.no_grad(norm, x) end
end

local function adam(millions)
  return function()
    local p = nn.Parameter(dlua.randn(millions, 1000, 1000))
    local opt = optim.Adam({p}, {lr = 1e-3})
    p:sum():backward()
    return function() opt:step() end
  end
end
single["adam-1M"], single["adam-3M"], single["adam-10M"] = adam(1), adam(3), adam(10)

return single
