-- formulas.lua - the optimisers' update rules as tensor ops.
--
-- They run where the fused pass in C does not go (other devices, half precision), and specs hold the fused pass
-- against them. Each takes the gradient with sign and weight decay already in it, a function that gives the n-th
-- state tensor, the group's options and the number of the step, and returns what to subtract from the parameter.
-- The number is a tensor of f64 where only a device knows which steps were taken.
local dlua = require "dlua"

local formulas = {}

-- A factor of d: a number, or a tensor that does not widen what it multiplies beyond f32.
local function factor(d, x) return dlua.is_tensor(x) and x:to(d.dtype == "f64" and "f64" or "f32") or x end

-- Sutskever et al. 2013, in PyTorch's form: the rate multiplies the velocity, not the gradient in it.
function formulas.sgd(d, slot, o, step)
  if o.momentum ~= 0 then
    local velocity, later = slot(1), step ~= 1 -- the first velocity is the first gradient itself
    if dlua.is_tensor(step) then
      later = factor(d, step:ne(1))
      velocity:copy_(velocity * (later * o.momentum) + d * (1 - later * o.dampening))
    else
      velocity:copy_(later and velocity * o.momentum + d * (1 - o.dampening) or d)
    end
    d = o.nesterov and d + velocity * o.momentum or velocity
  end
  return d * o.lr
end

-- Kingma and Ba 2015; amsgrad after Reddi et al. 2018.
function formulas.adam(d, slot, o, step)
  local mean, square, beta1, beta2 = slot(1), slot(2), o.betas[1], o.betas[2]
  mean:copy_(mean + (d - mean) * (1 - beta1))
  square:copy_(square * beta2 + d * d * (1 - beta2))
  if o.amsgrad then
    slot(3):copy_(slot(3):maximum(square))
    square = slot(3)
  end
  local denominator = square:sqrt() / factor(d, (1 - beta2 ^ step) ^ 0.5) + o.eps
  return mean / denominator * factor(d, o.lr / (1 - beta1 ^ step))
end

-- Hinton, lecture 6e of "Neural networks for machine learning"; centred after Graves 2013.
function formulas.rmsprop(d, slot, o)
  local square = slot(1)
  square:copy_(square * o.alpha + d * d * (1 - o.alpha))
  if o.centered then
    local mean = slot(2)
    mean:copy_(mean + (d - mean) * (1 - o.alpha))
    square = square - mean * mean
  end
  local direction = d / (square:sqrt() + o.eps)
  if o.momentum ~= 0 then
    slot(3):copy_(slot(3) * o.momentum + direction)
    direction = slot(3)
  end
  return direction * o.lr
end

-- Duchi et al. 2011.
function formulas.adagrad(d, slot, o, step)
  local sum = slot(1)
  sum:copy_(sum + d * d)
  return d / (sum:sqrt() + o.eps) * factor(d, o.lr / (1 + (step - 1) * o.lr_decay))
end

return formulas
