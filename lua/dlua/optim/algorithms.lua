-- algorithms.lua - SGD, Adam, AdamW, RMSprop, Adagrad: what each takes. The arithmetic is in formulas.lua and, fused,
-- in the C pass; defaults are PyTorch's.
local dlua = require "dlua"
local optimizer = require "dlua.optim.optimizer"

local lr = "nonnegative"
local algorithms = {}

algorithms.SGD = optimizer {
  "SGD", {"lr", lr, 1e-3}, {"momentum", "nonnegative", 0.0}, {"dampening", "number", 0.0},
  {"weight_decay", "nonnegative", 0.0}, {"nesterov", "boolean", false},
  rule = "sgd", slots = {"momentum_buffer"},
  doc = "p = p - lr * velocity; velocity = momentum * velocity + (1 - dampening) * gradient",
  check = function(o)
    if o.nesterov and (o.momentum == 0 or o.dampening ~= 0) then
      dlua.fail("optim.SGD: nesterov needs momentum above 0 and dampening 0, not %g and %g", o.momentum, o.dampening)
    end
  end,
}

local function check_betas(name)
  return function(o)
    for k = 1, 2 do
      local beta = o.betas[k]
      if #o.betas ~= 2 or not math.type(beta) or beta < 0 or beta >= 1 then
        dlua.fail("optim.%s: betas must be two numbers from 0 up to, but not, 1, not {%s, %s}", name,
          tostring(o.betas[1]), tostring(o.betas[2]))
      end
    end
  end
end

local function adam(name, decay, doc)
  local new = optimizer {
    name, {"lr", lr, 1e-3}, {"betas", "table", {0.9, 0.999}}, {"eps", "nonnegative", 1e-8},
    {"weight_decay", "nonnegative", decay}, {"amsgrad", "boolean", false},
    {"decoupled", "boolean", name == "AdamW", long = "decoupled_weight_decay"},
    rule = "adam", slots = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}, doc = doc, check = check_betas(name),
  }
  algorithms[name] = new
end

adam("Adam", 0.0, "Steps of size lr along mean / sqrt(mean square) of the gradients; weight decay joins the gradient.")
adam("AdamW", 1e-2, "Adam whose weight decay shrinks the parameters by itself: p = p * (1 - lr * weight_decay).")

algorithms.RMSprop = optimizer {
  "RMSprop", {"lr", lr, 1e-2}, {"alpha", "decay", 0.99}, {"eps", "nonnegative", 1e-8},
  {"weight_decay", "nonnegative", 0.0}, {"momentum", "nonnegative", 0.0}, {"centered", "boolean", false},
  rule = "rmsprop", slots = {"square_avg", "grad_avg", "momentum_buffer"},
  doc = "p = p - lr * gradient / (sqrt(mean square) + eps); centered takes the variance instead of the mean square",
}

algorithms.Adagrad = optimizer {
  "Adagrad", {"lr", lr, 1e-2}, {"lr_decay", "nonnegative", 0.0}, {"weight_decay", "nonnegative", 0.0},
  {"initial_accumulator_value", "nonnegative", 0.0}, {"eps", "nonnegative", 1e-10},
  rule = "adagrad", slots = {"sum"},
  doc = "p = p - lr / (1 + (step - 1) * lr_decay) * gradient / (sqrt(sum of squares) + eps)",
}

return algorithms
