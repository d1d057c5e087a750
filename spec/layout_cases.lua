-- layout_cases.lua - what is done with channels-last activations on every device: functions of an activation x and of a
-- strided tensor y of its shape, by what layout their result has.
local dlua = require "dlua"

-- x as a convolution gives it, which changes nothing: every channel is itself.
local function activation(x)
  local c = x.shape[2]
  return dlua.conv2d(x, dlua.eye(c):reshape(c, c, 1, 1):to(x.dtype):to(x.device))
end

local function weights(x, shape)
  dlua.seed(3)
  return (dlua.randn(shape) / 4):to(x.dtype):to(x.device)
end

local function norm(x, training)
  local c = x.shape[2]
  local mean, var = weights(x, {c}):float(), weights(x, {c}):float():square() + 0.5
  return dlua.batch_norm(x, weights(x, {c}):float(), weights(x, {c}):float(), mean, var, {training = training})
end

-- What gives channels-last results again.
local kept = {
  relu = function(x) return x:relu() end,
  tanh = function(x) return x:tanh() end,
  ["relu of what is used twice"] = function(x) return x:relu() + x end,
  ["add"] = function(x, y) return x + activation(y) end,
  ["add of a strided tensor"] = function(x, y) return x + y end,
  ["mul by a strided tensor in front"] = function(x, y) return y * x end,
  ["mul by a transposed tensor"] = function(x, y)
    return x * y:transpose(3, 4):contiguous():transpose(3, 4)
  end,
  ["numbers"] = function(x) return 1 - x * 2 end,
  ["a value for each channel"] = function(x, y) return x * y[{{1, 1}, {}, {1, 1}, {1, 1}}] end,
  ["a value for each picture and channel"] = function(x, y) return x + y:mean({3, 4}, {keepdim = true}) end,
  ["a value on the device"] = function(x, y) return x * y:sum():relu() end,
  ["broadcasting to more pictures"] = function(x, y) return activation(y[{{1, 1}}]) * x end,
  where = function(x, y) return dlua.where(x:gt(0), x, activation(y)) end,
  clamp = function(x) return x:clamp {min = -0.5, max = 0.5} end,
  clone = function(x) return x:clone() end,
  zeros_like = function(x) return dlua.zeros_like(x) end,
  full_like = function(x) return dlua.full_like(x, 3) * x end,
  ["fill in place"] = function(x) return x:detach():fill_(2) end,
  ["a cast to f32 and back"] = function(x) return x:float():to(x.dtype) end,
  ["batch_norm in training"] = function(x) return norm(x, true) end,
  batch_norm = function(x) return norm(x, false) end,
  max_pool2d = function(x) return dlua.max_pool2d(x, 3, {stride = 2, padding = 1}) end,
  ["max_pool2d with gaps"] = function(x) return dlua.max_pool2d(x, 2, {dilation = 2, stride = 1}) end,
  avg_pool2d = function(x) return dlua.avg_pool2d(x, 3, {stride = 2, padding = 1}) end,
  ["avg_pool2d that counts no padding"] = function(x)
    return dlua.avg_pool2d(x, {2, 3}, {padding = 1, count_include_pad = false})
  end,
  adaptive_avg_pool2d = function(x) return dlua.adaptive_avg_pool2d(x, {4, 3}) end,
  adaptive_max_pool2d = function(x) return dlua.adaptive_max_pool2d(x, {4, 3}) end,
  conv2d = function(x) return dlua.conv2d(x, weights(x, {8, x.shape[2], 3, 3}), weights(x, {8}), {padding = 1}) end,
  ["conv2d in groups"] = function(x)
    return dlua.conv2d(x, weights(x, {4, x.shape[2] // 2, 3, 2}), weights(x, {4}), {groups = 2, stride = 2})
  end,
  ["conv2d with a bias from elsewhere"] = function(x)
    return dlua.conv2d(x, weights(x, {8, x.shape[2], 1, 1}), weights(x, {15})[{{1, -1, 2}}])
  end,
}

-- What gives strided results.
local strided = {
  sum = function(x) return x:sum() end,
  ["mean of planes"] = function(x) return x:mean {3, 4} end,
  flatten = function(x) return x:flatten(2) * 1 end,
  permute = function(x) return x:permute(2, 3, 4, 1) * 1 end,
  ["a slice"] = function(x) return x[{{}, {2, 4}, {1, -1, 2}}] * 1 end,
  cat = function(x, y) return dlua.cat({x, y}, 2) end,
  pad = function(x) return x:pad {1, 2, 0, 1} end,
  softmax = function(x) return x:softmax(2) end,
  dropout = function(x) return x:dropout {p = 0.4, training = true} end,
  ["pooling to single pixels"] = function(x) return dlua.adaptive_avg_pool2d(x, 1) end,
  ["convolution to single pixels"] = function(x)
    return dlua.conv2d(x, weights(x, {8, x.shape[2], 9, 7}), weights(x, {8}))
  end,
  ["convolution to one channel"] = function(x) return dlua.conv2d(x, weights(x, {1, x.shape[2], 3, 3})) end,
  ["broadcasting to another shape"] = function(x, y)
    return activation(x[{{1, 1}}]) + y:reshape(2, 1, 1, -1, y.shape[3], y.shape[4])[{1}] * 1
  end,
}

return {activation = activation, weights = weights, norm = norm, kept = kept, strided = strided}
