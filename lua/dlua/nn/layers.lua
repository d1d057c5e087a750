-- layers.lua - the layers that hold parameters or treat training differently, and the ones that only reshape.
--
-- Each layer is its description, build where it has parameters, and a forward of one op. Initial values are
-- PyTorch's: weights U(-b, b) with b = 1 / sqrt(fan_in), the same for biases.
local dlua = require "dlua"
local layer = require "dlua.nn.layer"
local module = require "dlua.nn.module"

local Parameter = module.Parameter
local linear, conv2d, batch_norm = dlua.linear, dlua.conv2d, dlua.batch_norm
local dropout, dropout2d, flatten = dlua.dropout, dlua.dropout2d, dlua.flatten

local layers = {}

local function uniform(size, bound) return Parameter(dlua.empty(size):uniform_(-bound, bound)) end

local function width(pair) return type(pair) == "table" and pair[2] or pair end
local function height(pair) return type(pair) == "table" and pair[1] or pair end

-- ---------------------------------------------------------------- affine

local Linear = layer {
  "Linear", {"cin", "count", long = "in_features"}, {"cout", "count", long = "out_features"}, {"bias", "boolean", true},
  doc = "y = x w' + b: x {…,cin} -> {…,cout}; weight {cout,cin}, bias {cout}",
}
layers.Linear = Linear

function Linear:build()
  local bound = 1 / math.sqrt(self.cin)
  self.weight = uniform({self.cout, self.cin}, bound)
  if self.bias then self:replace("bias", uniform({self.cout}, bound)) end
end

-- after: the activation that follows, where Sequential wants both in one call. Whatever else stands there is not
-- Linear's business, as with every layer of one input.
function Linear:forward(x, after)
  if type(after) == "table" and after.after_linear then return after:after_linear(x, self.weight, self.bias or nil) end
  return linear(x, self.weight, self.bias or nil)
end

local Conv2d = layer {
  "Conv2d", {"cin", "count", long = "in_channels"}, {"cout", "count", long = "out_channels"},
  {"kernel", "pair", long = "kernel_size"}, {"stride", "pair", 1}, {"padding", "padding", 0}, {"dilation", "pair", 1},
  {"groups", "count", 1}, {"bias", "boolean", true}, {"padding_mode", "string", "zeros"},
  doc = "2-D convolution: x {n,cin,h,w} -> {n,cout,h',w'}, "
    .. "h' = floor((h + 2*padding - dilation*(kernel - 1) - 1) / stride) + 1",
}
layers.Conv2d = Conv2d

function Conv2d:build()
  if self.padding_mode ~= "zeros" then
    dlua.fail("nn.Conv2d: padding_mode %q is not supported, only \"zeros\"", self.padding_mode)
  end
  for _, key in ipairs {"cin", "cout"} do
    if self[key] % self.groups ~= 0 then
      dlua.fail("nn.Conv2d: %s = %d is not divisible by groups = %d", key, self[key], self.groups)
    end
  end
  local size = {self.cout, self.cin // self.groups, height(self.kernel), width(self.kernel)}
  local bound = 1 / math.sqrt(size[2] * size[3] * size[4])
  self.weight = uniform(size, bound)
  if self.bias then self:replace("bias", uniform({self.cout}, bound)) end
end

function Conv2d:forward(x)
  return conv2d(x, self.weight, self.bias or nil, self.stride, self.padding, self.dilation, self.groups)
end

-- ---------------------------------------------------------------- batch norm

local function build_norm(self)
  if self.affine then
    self.weight = Parameter(dlua.ones(self.features))
    self.bias = Parameter(dlua.zeros(self.features))
  end
  if self.track_running_stats then
    self:register_buffer("running_mean", dlua.zeros(self.features))
    self:register_buffer("running_var", dlua.ones(self.features))
    self:register_buffer("num_batches_tracked", dlua.zeros({}, {dtype = "i64"}))
  end
end

local function normalized(self, x, relu)
  if self.training and self.num_batches_tracked then self.num_batches_tracked:add_(1) end
  return (batch_norm(x, self.weight, self.bias, self.running_mean, self.running_var,
    self.training or not self.track_running_stats, self.momentum, self.eps, relu))
end

local function norm_layer(name, dims, doc)
  local Norm = layer {
    name, {"features", "count", long = "num_features"}, {"eps", "positive", 1e-5}, {"momentum", "fraction", 0.1},
    {"affine", "boolean", true}, {"track_running_stats", "boolean", true}, doc = doc,
  }
  Norm.build = build_norm
  function Norm:forward(x, after) -- after: as Linear's
    if not dims[x.ndim] then dlua.fail("%s: takes %s, not x %s", name, dims.text, module.shape_text(x)) end
    return normalized(self, x, type(after) == "table" and after.part_of_norm or false)
  end
  return Norm
end

layers.BatchNorm1d = norm_layer("BatchNorm1d", {[2] = true, [3] = true, text = "{n,c} or {n,c,l}"},
  "(x - mean) / sqrt(var + eps) * weight + bias per channel of {n,c} or {n,c,l}; running averages in eval mode")
layers.BatchNorm2d = norm_layer("BatchNorm2d", {[4] = true, text = "{n,c,h,w}"},
  "(x - mean) / sqrt(var + eps) * weight + bias per channel of {n,c,h,w}; running averages in eval mode")

-- ---------------------------------------------------------------- dropout

layers.Dropout = layer {
  "Dropout", {"p", "fraction", 0.5},
  doc = "In training zeroes elements with probability p and scales the others by 1 / (1 - p).",
}
function layers.Dropout:forward(x)
  if not self.training or self.p == 0 then return x end
  return (dropout(x, self.p, true))
end

layers.Dropout2d = layer {
  "Dropout2d", {"p", "fraction", 0.5},
  doc = "In training zeroes whole channels of {n,c,h,w} with probability p and scales the others by 1 / (1 - p).",
}
function layers.Dropout2d:forward(x)
  if not self.training or self.p == 0 then return x end
  return (dropout2d(x, self.p, true))
end

-- ---------------------------------------------------------------- shape

layers.Identity = layer {"Identity", doc = "Gives back what it is given."}
function layers.Identity:forward(...) return ... end -- luacheck: ignore 212

layers.Flatten = layer {
  "Flatten", {"first", "integer", 2, long = "start_dim"}, {"last", "integer", -1, long = "end_dim"},
  doc = "Joins dimensions first..last into one: x {n,c,h,w} -> {n,c*h*w}",
}
function layers.Flatten:forward(x) return flatten(x, self.first, self.last) end

-- ---------------------------------------------------------------- pooling

local max_pool2d, avg_pool2d = dlua.max_pool2d, dlua.avg_pool2d
local adaptive_avg_pool2d, adaptive_max_pool2d = dlua.adaptive_avg_pool2d, dlua.adaptive_max_pool2d

layers.MaxPool2d = layer {
  "MaxPool2d", {"kernel", "pair", long = "kernel_size"}, {"stride", "pair", optional = true},
  {"padding", "padding", 0}, {"dilation", "pair", 1}, {"ceil_mode", "boolean", false},
  doc = "The largest value of each window; stride is kernel unless given.",
}
function layers.MaxPool2d:forward(x)
  return (max_pool2d(x, self.kernel, self.stride or self.kernel, self.padding, self.dilation, self.ceil_mode))
end

layers.AvgPool2d = layer {
  "AvgPool2d", {"kernel", "pair", long = "kernel_size"}, {"stride", "pair", optional = true},
  {"padding", "padding", 0}, {"ceil_mode", "boolean", false}, {"count_include_pad", "boolean", true},
  doc = "The mean of each window; stride is kernel unless given.",
}
function layers.AvgPool2d:forward(x)
  return avg_pool2d(x, self.kernel, self.stride or self.kernel, self.padding, self.ceil_mode, self.count_include_pad)
end

layers.AdaptiveAvgPool2d = layer {
  "AdaptiveAvgPool2d", {"size", "pair", long = "output_size"},
  doc = "Means over windows that cut h and w into size parts: x {n,c,h,w} -> {n,c,size,size}",
}
function layers.AdaptiveAvgPool2d:forward(x) return adaptive_avg_pool2d(x, self.size) end

layers.AdaptiveMaxPool2d = layer {
  "AdaptiveMaxPool2d", {"size", "pair", long = "output_size"},
  doc = "Largest values over windows that cut h and w into size parts: x {n,c,h,w} -> {n,c,size,size}",
}
function layers.AdaptiveMaxPool2d:forward(x) return (adaptive_max_pool2d(x, self.size)) end

return layers
