-- gradcheck.lua - gradients against central differences, in f64. The oracle of every backward function.
local core = require "dlua.core"
local options = require "dlua.options"

local defaults = {eps = 1e-6, atol = 1e-7, rtol = 1e-5, second_order = false}

-- One number from an output of any shape: a weighted sum whose weights differ, so that errors do not cancel.
local function project(y)
  if y.ndim == 0 then return y end
  local n = y:numel()
  local weights = (core.range(1, n):to(y.dtype) * 0.7):cos():reshape(n)
  return (y:reshape(n) * weights):sum()
end

local function leaves(inputs)
  local fresh = {}
  for k, x in ipairs(inputs) do fresh[k] = x:detach():clone():requires_grad_() end
  return fresh
end

local function analytic(fn, inputs)
  local fresh = leaves(inputs)
  local y = project((fn(table.unpack(fresh))))
  if not y.requires_grad then
    local zeros = {}
    for k, x in ipairs(inputs) do zeros[k] = core.zeros_like(x) end
    return zeros
  end
  local gradients = table.pack(core.grad(y, fresh, {allow_unused = true}))
  for k, x in ipairs(inputs) do gradients[k] = gradients[k] or core.zeros_like(x) end
  return gradients
end

local function value(fn, inputs)
  return core.no_grad(function() return project((fn(table.unpack(inputs)))):item() end)
end

-- d value / d element i of input k.
local function numeric(fn, inputs, k, i, eps)
  local flat = inputs[k]:reshape(-1)
  local before = flat[i]:item()
  flat[i] = before + eps
  local above = value(fn, inputs)
  flat[i] = before - eps
  local below = value(fn, inputs)
  flat[i] = before
  return (above - below) / (2 * eps)
end

local function first_order(fn, given, o)
  local inputs = {}
  for k, x in ipairs(given) do
    if x.dtype ~= "f64" then return false, ("input %d is %s, gradcheck needs f64"):format(k, x.dtype) end
    inputs[k] = x:detach():clone()
  end
  local gradients = analytic(fn, inputs)
  for k, x in ipairs(inputs) do
    local found = gradients[k]:reshape(-1)
    for i = 1, x:numel() do
      local a, n = found[i]:item(), numeric(fn, inputs, k, i, o.eps)
      local near = math.abs(a - n) <= o.atol + o.rtol * math.abs(n) -- false where one is NaN
      if not near then
        return false, ("input %d, element %d: gradient is %.10g, differences give %.10g"):format(k, i, a, n)
      end
    end
  end
  return true
end

-- The gradient of fn as a function of the same inputs, itself differentiable.
local function gradient_of(fn)
  return function(...)
    local inputs, total = {...}, nil
    for k, x in ipairs(inputs) do inputs[k] = x.requires_grad and x or x:detach():requires_grad_() end
    local results = table.pack(core.enable_grad(function()
      return core.grad(project((fn(table.unpack(inputs)))), inputs, {create_graph = true, allow_unused = true})
    end))
    for k = 1, #inputs do
      local g = results[k]
      if g then total = total and total + project(g) or project(g) end
    end
    return total or core.zeros({}, {dtype = "f64"})
  end
end

-- Compares the gradients of fn(x, …) with central differences: true, or false and what differs.
--   gradcheck(function(x) return x:sin():sum() end, {dlua.randn({3}, {dtype = "f64"})})
local function gradcheck(fn, inputs, given)
  local o = options.check("gradcheck", given, defaults)
  local ok, problem = first_order(fn, inputs, o)
  if ok and o.second_order then
    ok, problem = first_order(gradient_of(fn), inputs, {eps = 1e-5, atol = 1e-5, rtol = 1e-4})
    problem = problem and "second order: " .. problem
  end
  return ok, problem
end

return gradcheck
