-- activation.lua - activations as layers: one op each, applied element by element.
local dlua = require "dlua"
local layer = require "dlua.nn.layer"
local Parameter = require "dlua.nn.module".Parameter

local activations = {}

-- A layer whose forward is the op called with the layer's options in the order of its description.
local function activation(op, description)
  local keys = {}
  for k = 2, #description do keys[k - 1] = description[k][1] end
  local first, second = keys[1], keys[2]
  local new = layer(description)
  if second then
    function new:forward(x) return op(x, self[first], self[second]) end
  elseif first then
    function new:forward(x) return op(x, self[first]) end
  else
    function new:forward(x) return op(x) end -- luacheck: ignore 212
  end
  activations[new.__name] = new
end

activation(dlua.relu, {"ReLU", doc = "max(x, 0)"})
activation(dlua.leaky_relu, {
  "LeakyReLU", {"slope", "number", 0.01, long = "negative_slope"}, doc = "x where x > 0, slope * x elsewhere",
})
activation(dlua.elu, {"ELU", {"alpha", "number", 1.0}, doc = "x where x > 0, alpha * (exp(x) - 1) elsewhere"})
activation(dlua.gelu, {
  "GELU", {"approximate", {"none", "tanh"}, "none"},
  doc = "x * P(Z <= x) for a standard normal Z; \"tanh\" approximates",
})
activation(dlua.silu, {"SiLU", doc = "x * sigmoid(x)"})
activation(dlua.sigmoid, {"Sigmoid", doc = "1 / (1 + exp(-x))"})
activation(dlua.tanh, {"Tanh", doc = "hyperbolic tangent"})
activation(dlua.softplus, {
  "Softplus", {"beta", "positive", 1.0}, {"threshold", "number", 20.0},
  doc = "log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold",
})
activation(dlua.softmax, {"Softmax", {"dim", "integer", -1}, doc = "exp(x) / sum(exp(x)) along dim"})
activation(dlua.log_softmax, {"LogSoftmax", {"dim", "integer", -1}, doc = "log(softmax(x)) along dim"})
activation(dlua.logsigmoid, {"LogSigmoid", doc = "log(sigmoid(x))"})
activation(dlua.hardtanh, {
  "Hardtanh", {"min", "number", -1.0, long = "min_val"}, {"max", "number", 1.0, long = "max_val"},
  doc = "x held between min and max",
})

-- The same after a product or batch norm, in one call.
function activations.ReLU:after_linear(x, weight, bias) -- luacheck: ignore 212
  return dlua.ops.linear_relu(x, weight, bias)
end

activations.ReLU.part_of_norm = true

function activations.GELU:after_linear(x, weight, bias)
  return dlua.ops.linear_gelu(x, weight, bias, self.approximate)
end

-- PReLU's slope is trained: one for all, or one per channel (dimension 2).
local PReLU = layer {
  "PReLU", {"count", "count", 1, long = "num_parameters"}, {"start", "number", 0.25, long = "init"},
  doc = "x where x > 0, weight * x elsewhere; weight {count} is trained, one for all or one per channel",
}
activations.PReLU = PReLU

function PReLU:build() self.weight = Parameter(dlua.full({self.count}, self.start)) end

function PReLU:forward(x)
  local slope = self.weight
  if self.count > 1 then
    local size = {self.count}
    for k = 3, x.ndim do size[k - 1] = 1 end
    slope = slope:reshape(size)
  end
  return x:relu() - slope * (-x):relu()
end

return activations
