-- tensor.lua - tensor methods that are better said in Lua: wrappers over ops that return several results or only
-- rename one. Each is a function of dlua and a method, like every op.
local core = require "dlua.core"
local options = require "dlua.options"

local methods = core.methods

local function define(name, fn)
  core[name], methods[name] = fn, fn
end

-- Turns a dimension counted from either end into 1..ndim.
local function dimension(who, x, dim)
  dim = dim or 1
  local from_start = dim < 0 and x.ndim + 1 + dim or dim
  if math.type(from_start) ~= "integer" or from_start < 1 or from_start > x.ndim then
    core.fail("%s: dim %s is outside 1..%d", who, tostring(dim), x.ndim)
  end
  return from_start
end

local function pieces_of(total, size)
  local sizes = {}
  for start = 1, total, size do sizes[#sizes + 1] = math.min(size, total - start + 1) end
  return sizes
end

-- Cuts x along dim into pieces of the given sizes, or of one size (the last may be smaller); views of x.
--   local left, right = dlua.ones(2, 3):split({1, 2}, 2)
define("split", function(x, sizes, dim)
  dim = dimension("split", x, dim)
  local total = x:size(dim)
  if math.type(sizes) == "integer" and sizes >= 1 then sizes = pieces_of(total, sizes) end
  if type(sizes) ~= "table" then core.fail("split: size must be at least 1 or a list, not %s", tostring(sizes)) end
  local pieces, start = {}, 1
  for k, size in ipairs(sizes) do
    if start + size - 1 > total then break end
    pieces[k], start = x:narrow(dim, start, size), start + size
  end
  if start ~= total + 1 or #pieces ~= #sizes then
    core.fail("split: sizes {%s} do not add up to %d, the size of dim %d", table.concat(sizes, ","), total, dim)
  end
  return table.unpack(pieces)
end)

-- Cuts x along dim into count pieces of equal size (the last may be smaller); views of x.
--   local a, b = dlua.range(1, 5):chunk(2)                   --> {1,2,3} and {4,5}
define("chunk", function(x, count, dim)
  if math.type(count) ~= "integer" or count < 1 then
    core.fail("chunk: count must be at least 1, not %s", tostring(count))
  end
  dim = dimension("chunk", x, dim)
  return methods.split(x, math.max(1, (x:size(dim) + count - 1) // count), dim)
end)

-- Every slice of x along dim, as several results; views of x.
--   local first, second = dlua.ones(2, 3):unbind()
define("unbind", function(x, dim)
  dim = dimension("unbind", x, dim)
  local slices = {}
  for k = 1, x:size(dim) do slices[k] = x:select(dim, k) end
  return table.unpack(slices)
end)

-- Is every |x - y| at most atol + rtol * |y|? Equal infinities are close; NaN is close to nothing unless equal_nan.
--   dlua.ones(2):allclose(dlua.ones(2) + 1e-9)               --> true
define("allclose", function(x, y, given)
  local o = options.check("allclose", given, {rtol = 1e-5, atol = 1e-8, equal_nan = false})
  return core.no_grad(function()
    local distance = (x - y):abs()
    local close = distance:le(core.abs(y) * o.rtol + o.atol):logical_and(distance:isfinite()):logical_or(x:eq(y))
    if o.equal_nan then close = close:logical_or(x:isnan():logical_and(core.isnan(y))) end
    return close:all():item()
  end)
end)

-- Are shape and all elements the same? A Lua boolean; NaN differs from itself.
--   dlua.ones(2):equal(dlua.ones(2))                         --> true
define("equal", function(x, y)
  if x.ndim ~= y.ndim then return false end
  for k = 1, x.ndim do
    if x:size(k) ~= y:size(k) then return false end
  end
  return x:eq(y):all():item()
end)

-- Writes y's elements into x, which keeps its dtype and device; shapes must be equal. Not recorded.
--   dlua.zeros(2):copy_(dlua.ones(2))
methods.copy_ = core.assign

for name, dtype in pairs {float = "f32", double = "f64", half = "f16", bfloat16 = "bf16", long = "i64", int = "i32",
  byte = "u8", bool = "bool"} do
  -- x:float() is x:to("f32"), and so on for the other dtypes by their C names.
  --   assert(dlua.ones(2):long().dtype == "i64")
  methods[name] = function(x) return x:to(dtype) end
end

-- x:cpu() is x:to("cpu").
--   dlua.ones(2):cpu().device                                --> cpu
methods.cpu = function(x) return x:to "cpu" end

-- The same op under PyTorch's longer name.
--   p:binary_cross_entropy(target) is p:bce_loss(target)
for alias, name in pairs {
  binary_cross_entropy = "bce_loss", binary_cross_entropy_with_logits = "bce_with_logits", concat = "cat",
  clip = "clamp", absolute = "abs", negative = "neg", multiply = "mul", divide = "div", subtract = "sub",
} do
  core[alias], methods[alias] = core[name], methods[name]
end

return methods
