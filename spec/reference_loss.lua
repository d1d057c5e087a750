-- reference_loss.lua - losses.
local array = require "spec.array"
local at, build, zip = array.at, array.build, array.zip
local exp, log, abs, max = math.exp, math.log, math.abs, math.max

return function(reference)
  local softplus = reference.helpers.softplus

  local function reduced(values, reduction, weight)
    reduction = reduction or "mean"
    if reduction == "none" then return values end
    local sum = 0.0
    for _, v in ipairs(values.data) do sum = sum + v end
    if reduction == "batchmean" then return array.new({}, {sum / values.size[1]}) end
    if reduction == "mean" then sum = sum / (weight or #values.data) end
    return array.new({}, {sum})
  end
  local function pointwise(f)
    return function(p)
      return reduced(zip(function(x, y) return f(x, y, p) end, p.x, p.target), p.reduction)
    end
  end
  reference.mse_loss = pointwise(function(x, y) return (x - y) ^ 2 end)
  reference.l1_loss = pointwise(function(x, y) return abs(x - y) end)
  reference.huber_loss = pointwise(function(x, y, p)
    local d, delta = abs(x - y), p.delta or 1
    return d <= delta and d * d / 2 or delta * (d - delta / 2)
  end)
  reference.smooth_l1_loss = pointwise(function(x, y, p)
    local d, beta = abs(x - y), p.beta or 1
    return d < beta and d * d / 2 / beta or d - beta / 2
  end)
  reference.kl_div = pointwise(function(x, y, p)
    if p.log_target then return exp(y) * (y - x) end
    return y > 0 and y * (log(y) - x) or 0.0
  end)
  function reference.bce_loss(p)
    return reduced(zip(function(x, y, w)
      return -w * (y * max(log(x), -100) + (1 - y) * max(log(1 - x), -100))
    end, p.x, p.target, p.weight or 1), p.reduction)
  end
  function reference.bce_with_logits(p)
    return reduced(zip(function(x, y, w, positive)
      return w * (positive * y * softplus(-x) + (1 - y) * softplus(x))
    end, p.x, p.target, p.weight or 1, p.pos_weight or 1), p.reduction)
  end

  -- Class scores {k}, {n,k} or {n,k,…}: the dimension of the classes, and the shape of the targets.
  local function classes_of(x)
    local d = #x.size == 1 and 1 or 2
    local size = {table.unpack(x.size)}
    table.remove(size, d)
    return d, size
  end
  local function spread(index, d, class)
    local own = {table.unpack(index)}
    table.insert(own, d, class)
    return own
  end

  -- The sum over classes of share(class) * weight(class) * -log p(class), and the weight that a mean divides by.
  local function class_loss(p, log_p, share_of)
    local d, size = classes_of(p.x)
    local k, weights = p.x.size[d], 0.0
    local values = build(size, function(index)
      local loss = 0.0
      local share, divisor = share_of(index, d, k)
      weights = weights + divisor
      for class = 1, k do
        local w = share(class)
        local scale = p.weight and p.weight.data[class] or 1
        if w ~= 0 then loss = loss - w * scale * at(log_p, spread(index, d, class)) end
      end
      return loss
    end)
    return reduced(values, p.reduction, weights)
  end
  local function class_shares(p, smoothing)
    return function(index, _, k)
      local target = at(p.target, index)
      if target == (p.ignore_index or -100) then return function() return 0 end, 0 end
      return function(class) return (class == target and 1 - smoothing or 0) + smoothing / k end,
        p.weight and p.weight.data[target] or 1
    end
  end
  local function probability_shares(p, smoothing)
    return function(index, d, k)
      return function(class) return (1 - smoothing) * at(p.target, spread(index, d, class)) + smoothing / k end, 1
    end
  end

  function reference.nll_loss(p) return class_loss(p, p.x, class_shares(p, 0)) end
  function reference.cross_entropy(p)
    local d = classes_of(p.x)
    local log_p = reference.log_softmax {x = p.x, dim = d}
    local smoothing = p.label_smoothing or 0
    local shares = p.target.dtype == "i64" and class_shares or probability_shares
    return class_loss(p, log_p, shares(p, smoothing))
  end

  function reference.loss_scale(p)
    local scale, good = p.scale.data[1], p.good.data[1] + 1
    local bad = p.found.data[1] ~= 0
    local grows = not bad and good >= (p.interval or 2000)
    local factor = bad and (p.backoff or 0.5) or grows and (p.growth or 2) or 1
    return array.new({}, {max(scale * factor, 0x1p-126)}), array.new({}, {(bad or grows) and 0 or good})
  end
end
