-- initial.lua - nn.init: starting values, written in place; each returns its tensor.
--
--   nn.init.kaiming_normal_(net[1].weight, {nonlinearity = "relu"})
--
-- Names and formulas are PyTorch's (Glorot and Bengio 2010, He et al. 2015, Saxe et al. 2014).
local dlua = require "dlua"
local help = require "dlua.help"
local shape_text = require "dlua.nn.module".shape_text

local init = {}

-- Defines nn.init.<name>: body(tensor, …) runs without recording.
local function define(name, usage, doc, body)
  help.register("nn.init." .. name, ("nn.init.%s(%s)\n  %s"):format(name, usage, doc))
  init[name] = function(tensor, ...)
    if not dlua.is_tensor(tensor) then dlua.fail("%s: takes a tensor, not a %s", name, type(tensor)) end
    local arguments = table.pack(...)
    dlua.no_grad(function() body(tensor, table.unpack(arguments, 1, arguments.n)) end)
    return tensor
  end
end

define("uniform_", "x, low = 0, high = 1", "U(low, high)",
  function(x, low, high) x:uniform_(low or 0, high or 1) end)
define("normal_", "x, mean = 0, std = 1", "N(mean, std^2)",
  function(x, mean, std) x:normal_(mean or 0, std or 1) end)
define("constant_", "x, value", "value everywhere", function(x, value) x:fill_(value) end)
define("zeros_", "x", "0 everywhere", function(x) x:fill_(0) end)
define("ones_", "x", "1 everywhere", function(x) x:fill_(1) end)

-- Draws again what fell outside; at three deviations or more from the mean that would take for ever.
define("trunc_normal_", "x, mean = 0, std = 1, low = -2, high = 2", "N(mean, std^2) held between low and high",
  function(x, mean, std, low, high)
    mean, std, low, high = mean or 0, std or 1, low or -2, high or 2
    if low >= high or low > mean + 3 * std or high < mean - 3 * std then
      dlua.fail("trunc_normal_: %g..%g holds too little of N(%g, %g^2)", low, high, mean, std)
    end
    x:normal_(mean, std)
    local outside = x:lt(low):logical_or(x:gt(high))
    while outside:any():item() do
      x:copy_(dlua.where(outside, dlua.zeros_like(x):normal_(mean, std), x))
      outside = x:lt(low):logical_or(x:gt(high))
    end
  end)

-- ---------------------------------------------------------------- by fan

-- The factor that keeps the variance through a nonlinearity; parameter is leaky_relu's slope.
--   nn.init.calculate_gain("relu")                           --> 1.4142135623731
function init.calculate_gain(nonlinearity, parameter)
  local gains = {
    linear = 1, conv2d = 1, sigmoid = 1, tanh = 5 / 3, relu = math.sqrt(2), selu = 3 / 4,
    leaky_relu = math.sqrt(2 / (1 + (parameter or 0.01) ^ 2)),
  }
  local gain = gains[nonlinearity]
  if not gain then dlua.fail("calculate_gain: no gain is known for nonlinearity %q", tostring(nonlinearity)) end
  return gain
end

-- How many inputs feed one output and how many outputs one input feeds.
local function fans(name, x)
  if x.ndim < 2 then dlua.fail("%s: needs at least 2 dimensions, x is %s", name, shape_text(x)) end
  local receptive = x:numel() // (x:size(1) * x:size(2))
  return x:size(2) * receptive, x:size(1) * receptive
end

local function kaiming_std(name, x, given)
  local o = dlua.options(name, given, {a = 0, mode = "fan_in", nonlinearity = "leaky_relu"})
  local fan_in, fan_out = fans(name, x)
  if o.mode ~= "fan_in" and o.mode ~= "fan_out" then
    dlua.fail("%s: mode must be \"fan_in\" or \"fan_out\", not %q", name, o.mode)
  end
  return init.calculate_gain(o.nonlinearity, o.a) / math.sqrt(o.mode == "fan_in" and fan_in or fan_out)
end

local function xavier_std(name, x, given)
  local o = dlua.options(name, given, {gain = 1})
  local fan_in, fan_out = fans(name, x)
  return o.gain * math.sqrt(2 / (fan_in + fan_out))
end

local function define_pair(name, std, usage, doc)
  define(name .. "_normal_", usage, "N(0, s^2), " .. doc,
    function(x, given) x:normal_(0, std(name .. "_normal_", x, given)) end)
  define(name .. "_uniform_", usage, "U(-s sqrt(3), s sqrt(3)), " .. doc, function(x, given)
    local bound = math.sqrt(3) * std(name .. "_uniform_", x, given)
    x:uniform_(-bound, bound)
  end)
end

define_pair("kaiming", kaiming_std, "x, {a = 0, mode = \"fan_in\", nonlinearity = \"leaky_relu\"}",
  "s = gain / sqrt(fan)")
define_pair("xavier", xavier_std, "x, {gain = 1}", "s = gain * sqrt(2 / (fan_in + fan_out))")

-- ---------------------------------------------------------------- matrices

-- Makes the rows of a f64 matrix orthonormal: Gram-Schmidt, each row twice, which is as good as a factorisation.
local function orthonormal_rows(x)
  for k = 1, x:size(1) do
    local row = x[k]
    for _ = 1, k > 1 and 2 or 0 do
      local before = x:narrow(1, 1, k - 1)
      row:copy_(row - before:t():matmul(before:matmul(row)))
    end
    row:copy_(row / row:norm())
  end
  return x
end

local orthogonal = "rows (or columns, if there are fewer) orthonormal, times gain"
define("orthogonal_", "x, {gain = 1}", orthogonal, function(x, given)
  local o = dlua.options("orthogonal_", given, {gain = 1})
  fans("orthogonal_", x)
  local rows, columns = x:size(1), x:numel() // x:size(1)
  local wide = dlua.randn({math.min(rows, columns), math.max(rows, columns)}, {dtype = "f64"})
  local basis = orthonormal_rows(wide)
  if rows > columns then basis = basis:t() end
  x:copy_((basis * o.gain):reshape(x.shape):to(x.dtype))
end)

define("eye_", "x", "1 on the diagonal of a matrix, 0 elsewhere", function(x)
  if x.ndim ~= 2 then dlua.fail("eye_: needs 2 dimensions, x is %s", shape_text(x)) end
  x:copy_(dlua.eye(x:size(1), x:size(2)):to(x.dtype))
end)

define("dirac_", "x, groups = 1", "convolution weights that hand their input channels through", function(x, groups)
  groups = groups or 1
  if x.ndim < 3 or x:size(1) % groups ~= 0 then
    dlua.fail("dirac_: needs 3 to 5 dimensions and channels divisible by groups %d, x is %s", groups, shape_text(x))
  end
  x:fill_(0)
  local per_group, place = x:size(1) // groups, {1, 1}
  for k = 3, x.ndim do place[k] = x:size(k) // 2 + 1 end
  for g = 0, groups - 1 do
    for k = 1, math.min(per_group, x:size(2)) do
      place[1], place[2] = g * per_group + k, k
      x[place] = 1
    end
  end
end)

return init
