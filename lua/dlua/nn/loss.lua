-- loss.lua - losses as layers: criterion(output, target) gives a 0-d tensor (or one per element, reduction = "none").
-- Losses never broadcast: output and target must have the same shape, classes one dimension less.
local dlua = require "dlua"
local layer = require "dlua.nn.layer"

local losses = {}
local reduction = {"reduction", {"mean", "sum", "none"}, "mean"}

-- A layer over a loss op. Its options are the op's; tensors among them are buffers, so that they move with the module.
local function loss(op, description)
  local names = {}
  for k = 2, #description do
    if description[k][2] ~= "tensor" then names[#names + 1] = description[k][1] end
  end
  local new = layer(description)
  function new:build()
    local named = {}
    for _, name in ipairs(names) do named[name] = self[name] end
    rawset(self, "_named", named)
    for _, parameter in ipairs(self.signature.parameters) do
      local name = parameter[1]
      if parameter[2] == "tensor" and self[name] then
        self:replace(name, dlua.lasting(self[name]))
        self._buffers[name] = true
      end
    end
  end
  new.forward = op
  losses[new.__name] = new
end

local function plain(op)
  return function(self, x, target) return op(x, target, self._named) end
end

local function weighted(op)
  return function(self, x, target) return op(x, target, self.weight, self._named) end
end

loss(plain(dlua.mse_loss), {"MSELoss", reduction, doc = "(x - target)^2"})
loss(plain(dlua.l1_loss), {"L1Loss", reduction, doc = "|x - target|"})
loss(plain(dlua.huber_loss), {
  "HuberLoss", reduction, {"delta", "positive", 1.0},
  doc = "d^2 / 2 where d = |x - target| <= delta, delta * (d - delta / 2) elsewhere",
})
loss(plain(dlua.smooth_l1_loss), {
  "SmoothL1Loss", reduction, {"beta", "nonnegative", 1.0},
  doc = "d^2 / (2 beta) where d = |x - target| < beta, d - beta / 2 elsewhere",
})
loss(weighted(dlua.bce_loss), {
  "BCELoss", {"weight", "tensor", optional = true}, reduction,
  doc = "-(target * log(x) + (1 - target) * log(1 - x)) of probabilities x; logarithms stop at -100",
})
loss(function(self, x, target) return dlua.bce_with_logits(x, target, self.weight, self.pos_weight, self._named) end, {
  "BCEWithLogitsLoss", {"weight", "tensor", optional = true}, {"pos_weight", "tensor", optional = true}, reduction,
  doc = "BCELoss of sigmoid(x), without overflow; pos_weight multiplies the term of target = 1",
})
loss(weighted(dlua.nll_loss), {
  "NLLLoss", {"weight", "tensor", optional = true}, {"ignore_index", "integer", -100}, reduction,
  doc = "-x[target] of log-probabilities x {n,classes}; classes start at 1",
})
loss(plain(dlua.kl_div), {
  "KLDivLoss", {"log_target", "boolean", false}, {"reduction", {"mean", "sum", "none", "batchmean"}, "mean"},
  doc = "target * (log(target) - x) of log-probabilities x",
})
loss(weighted(dlua.cross_entropy), {
  "CrossEntropyLoss", {"weight", "tensor", optional = true}, {"ignore_index", "integer", -100}, reduction,
  {"label_smoothing", "fraction", 0.0},
  doc = "-log(softmax(x)[target]) of scores x {n,classes}; targets are classes from 1 or probabilities of x's shape",
})

return losses
