-- reference.lua - what every op means, as slow Lua loops over the arrays of array.lua.
--
-- reference[name](p) gets the op's arguments by their names in its signature (missing ones are nil, dimensions and
-- indices count from 1) and returns one array per result. An op that cannot have one is in reference.exempt with the
-- reason. Formulas are written from the definitions, not from the C code.
local array = require "spec.array"
local at, build, map, zip, with = array.at, array.build, array.map, array.zip, array.with
local dim_of, each, count, broadcast_at = array.dim, array.each, array.count, array.broadcast_at
local exp, log, sqrt, abs, floor, pi = math.exp, math.log, math.sqrt, math.abs, math.floor, math.pi
local huge, nan = math.huge, 0 / 0

local reference = {}
reference.exempt = {}

-- ---------------------------------------------------------------- elementwise

local function is_integer(v) return math.type(v) == "integer" end

local function truncate(v) return v < 0 and math.ceil(v) + 0.0 or floor(v) + 0.0 end

local function round_even(v)
  if is_integer(v) or v ~= v or abs(v) >= 2 ^ 52 then return v end
  local low = floor(v)
  local rest = v - low
  if rest < 0.5 or (rest == 0.5 and low % 2 == 0) then return low + 0.0 end
  return low + 1.0
end

-- Series near 0, continued fraction of the complement elsewhere.
local function erf(x)
  if x ~= x then return x end
  if abs(x) > 6 then return x > 0 and 1.0 or -1.0 end
  if abs(x) < 2.5 then
    local term, sum, n = x, x, 0
    repeat
      n = n + 1
      term = -term * x * x / n
      sum = sum + term / (2 * n + 1)
    until abs(term) < 1e-18
    return 2 / sqrt(pi) * sum
  end
  local a, f = abs(x), 0.0
  for k = 120, 1, -1 do f = k / 2 / (a + f) end
  local rest = exp(-a * a) / sqrt(pi) / (a + f)
  return x > 0 and 1 - rest or rest - 1
end

local function sigmoid(v) return 1 / (1 + exp(-v)) end
local function tanh(v)
  if abs(v) > 20 then return v > 0 and 1.0 or -1.0 end
  if abs(v) < 1e-3 then return v - v ^ 3 / 3 + 2 * v ^ 5 / 15 end
  return (exp(v) - exp(-v)) / (exp(v) + exp(-v))
end
-- Kahan's way to log(1 + v) and exp(v) - 1 near 0.
local function log1p(v)
  local u = 1 + v
  if u == 1 then return v end
  return u == huge and huge or log(u) * v / (u - 1)
end
local function expm1(v)
  if abs(v) < 1e-3 then return v + v ^ 2 / 2 + v ^ 3 / 6 + v ^ 4 / 24 + v ^ 5 / 120 end
  return exp(v) - 1
end
local function softplus(v) return v > 0 and v + log1p(exp(-v)) or log1p(exp(v)) end

local unary = {
  neg = function(v) return -v end, abs = abs, square = function(v) return v * v end,
  sign = function(v) return v > 0 and 1 or v < 0 and -1 or v * 0 end,
  reciprocal = function(v) return 1 / v end, sqrt = function(v) return v < 0 and nan or sqrt(v) end,
  rsqrt = function(v) return 1 / sqrt(v) end,
  floor = function(v) return (v ~= v or abs(v) == huge) and v or floor(v) end,
  ceil = function(v) return (v ~= v or abs(v) == huge) and v or math.ceil(v) end,
  trunc = function(v) return (v ~= v or abs(v) == huge) and v or truncate(v) end, round = round_even,
  exp = exp, expm1 = expm1, log = log, log1p = log1p,
  log2 = function(v) return log(v, 2) end, log10 = function(v) return log(v, 10) end,
  sin = math.sin, cos = math.cos, tan = math.tan, asin = math.asin, acos = math.acos, atan = math.atan,
  sinh = function(v) return abs(v) < 1e-3 and v + v ^ 3 / 6 or (exp(v) - exp(-v)) / 2 end,
  cosh = function(v) return (exp(v) + exp(-v)) / 2 end, erf = erf,
  relu = function(v) return v > 0 and v or v ~= v and v or 0 end, sigmoid = sigmoid, tanh = tanh,
  silu = function(v) return v == -huge and nan or v * sigmoid(v) end,
  logsigmoid = function(v) return -softplus(-v) end,
  contiguous = function(v) return v end, clone = function(v) return v end,
  logical_not = function(v) return v == 0 or v == false end,
  isnan = function(v) return v ~= v end, isinf = function(v) return abs(v) == huge end,
  isfinite = function(v) return v == v and abs(v) ~= huge end,
  zeros_like = function() return 0 end, ones_like = function() return 1 end, zero = function() return 0 end,
}
for name, f in pairs(unary) do reference[name] = function(p) return map(p.x, f) end end

local function truth(v) return v ~= 0 and v ~= false end

local binary = {
  add = function(x, y) return x + y end, sub = function(x, y) return x - y end,
  mul = function(x, y) return x * y end, div = function(x, y) return x / y end,
  floor_div = function(x, y) return x // y end, mod = function(x, y) return x % y end,
  pow = function(x, y)
    if not is_integer(x) then return x ^ y end
    local product = 1
    for _ = 1, y do product = product * x end
    return product
  end,
  maximum = function(x, y) return (x ~= x or x > y) and x or y end,
  minimum = function(x, y) return (x ~= x or x < y) and x or y end,
  eq = function(x, y) return x == y end, ne = function(x, y) return x ~= y end,
  lt = function(x, y) return x < y end, le = function(x, y) return x <= y end,
  gt = function(x, y) return x > y end, ge = function(x, y) return x >= y end,
  logical_and = function(x, y) return truth(x) and truth(y) end,
  logical_or = function(x, y) return truth(x) or truth(y) end,
  logical_xor = function(x, y) return truth(x) ~= truth(y) end,
}
for name, f in pairs(binary) do reference[name] = function(p) return zip(f, p.x, p.y) end end

function reference.atan2(p) return zip(function(y, x) return math.atan(y, x) end, p.y, p.x) end
function reference.where(p) return zip(function(c, x, y) if c then return x end return y end, p.condition, p.x, p.y) end
function reference.fill(p) return map(p.x, function() return p.value end) end
reference.full_like = reference.fill
function reference.masked_fill(p)
  return zip(function(v, m) return m and p.value or v end, p.x, p.mask)
end
function reference.clamp(p)
  return map(p.x, function(v)
    if p.min and v < p.min then v = p.min end
    if p.max and v > p.max then v = p.max end
    return v
  end)
end
function reference.cast(p)
  if p.dtype == "bool" then return map(p.x, truth) end
  if p.dtype:find "^[iu]" then return map(p.x, function(v) return floor(truncate(v)) end) end
  return map(p.x, function(v) return v end)
end

-- ---------------------------------------------------------------- activations

function reference.leaky_relu(p) return map(p.x, function(v) return v > 0 and v or (p.slope or 0.01) * v end) end
function reference.elu(p) return map(p.x, function(v) return v > 0 and v or (p.alpha or 1) * expm1(v) end) end
function reference.gelu(p)
  return map(p.x, function(v)
    if p.approximate == "tanh" then return v / 2 * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 * v ^ 3))) end
    return v / 2 * (1 + erf(v / sqrt(2)))
  end)
end
function reference.softplus(p)
  local beta, threshold = p.beta or 1, p.threshold or 20
  return map(p.x, function(v) return beta * v > threshold and v or softplus(beta * v) / beta end)
end
function reference.hardtanh(p)
  return map(p.x, function(v) return math.max(p.min or -1, math.min(p.max or 1, v)) end)
end

-- ---------------------------------------------------------------- creation

function reference.zeros(p) return build(p.size, function() return 0 end) end
function reference.ones(p) return build(p.size, function() return 1 end) end
function reference.full(p) return build(p.size, function() return p.value end) end
function reference.eye(p) return build({p.n, p.m or p.n}, function(i) return i[1] == i[2] and 1 or 0 end) end
function reference.range(p)
  local data = {}
  for v = p.first, p.last, p.step or 1 do data[#data + 1] = v end
  return array.new({#data}, data)
end
function reference.linspace(p)
  return build({p.steps}, function(i)
    return p.steps == 1 and p.first or p.first + (p.last - p.first) * (i[1] - 1) / (p.steps - 1)
  end)
end

-- ---------------------------------------------------------------- shapes

local function list(v) return type(v) == "table" and v or {v} end

local function with_size(x, size)
  local known, open, full = 1, nil, {}
  for k, s in ipairs(size) do
    full[k] = s
    if s == -1 then open = k else known = known * s end
  end
  if open then full[open] = count(x.size) // known end
  return array.new(full, {table.unpack(x.data)})
end

function reference.reshape(p) return with_size(p.x, list(p.size)) end
function reference.flatten(p)
  if #p.x.size == 0 then return with_size(p.x, {1}) end
  local first, last = dim_of(p.x, p.first or 1), dim_of(p.x, p.last or -1)
  local size = {}
  for k, s in ipairs(p.x.size) do
    if k > first and k <= last then size[#size] = size[#size] * s else size[#size + 1] = s end
  end
  return with_size(p.x, size)
end
function reference.permute(p)
  local size, dims = {}, {}
  for k, d in ipairs(p.dims) do
    dims[k] = dim_of(p.x, d)
    size[k] = p.x.size[dims[k]]
  end
  return build(size, function(index)
    local own = {}
    for k, d in ipairs(dims) do own[d] = index[k] end
    return at(p.x, own)
  end)
end
function reference.transpose(p)
  local dims = {}
  for k = 1, #p.x.size do dims[k] = k end
  local a, b = dim_of(p.x, p.dim1), dim_of(p.x, p.dim2)
  dims[a], dims[b] = dims[b], dims[a]
  return reference.permute {x = p.x, dims = dims}
end
function reference.t(p) return reference.transpose {x = p.x, dim1 = 1, dim2 = 2} end
function reference.expand(p)
  local size = {}
  for k, s in ipairs(list(p.size)) do size[k] = s == -1 and p.x.size[k - #p.size + #p.x.size] or s end
  return build(size, function(index) return broadcast_at(p.x, index) end)
end
function reference.squeeze(p)
  local size, only = {}, p.dim and dim_of(p.x, p.dim)
  for k, s in ipairs(p.x.size) do
    if s ~= 1 or (only and only ~= k) then size[#size + 1] = s end
  end
  return with_size(p.x, size)
end
function reference.unsqueeze(p)
  local size = {table.unpack(p.x.size)}
  table.insert(size, dim_of(p.x, p.dim, 1), 1)
  return with_size(p.x, size)
end
function reference.narrow(p)
  local d = dim_of(p.x, p.dim)
  return build(with(p.x.size, d, p.length), function(i) return at(p.x, with(i, d, i[d] + p.start - 1)) end)
end
function reference.select(p)
  local d = dim_of(p.x, p.dim)
  local k = p.index > 0 and p.index or p.x.size[d] + 1 + p.index
  local size = {table.unpack(p.x.size)}
  table.remove(size, d)
  return build(size, function(i)
    local own = {table.unpack(i)}
    table.insert(own, d, k)
    return at(p.x, own)
  end)
end

-- Where element index of a slice lies in x, and the slice's own size without dropped dimensions.
local function slice_size(p)
  local size = {}
  for k = 1, #p.x.size do
    if p.drop[k] == 0 then size[#size + 1] = p.count[k] end
  end
  return size
end
local function slice_place(p, index)
  local own, next_entry = {}, 1
  for k = 1, #p.x.size do
    local i = 1
    if p.drop[k] == 0 then
      i = index[next_entry]
      next_entry = next_entry + 1
    end
    own[k] = p.start[k] + 1 + (i - 1) * p.step[k]
  end
  return own
end
function reference.slice(p)
  return build(slice_size(p), function(index) return at(p.x, slice_place(p, index)) end)
end
function reference.set_slice(p)
  local changed = {}
  each(slice_size(p), function(index)
    changed[table.concat(slice_place(p, index), ",")] = broadcast_at(p.value, index)
  end)
  return build(p.x.size, function(index) return changed[table.concat(index, ",")] or at(p.x, index) end)
end
function reference.cat(p)
  local d, total = dim_of(p.xs[1], p.dim or 1), 0
  for _, x in ipairs(p.xs) do total = total + x.size[d] end
  return build(with(p.xs[1].size, d, total), function(index)
    local k = index[d]
    for _, x in ipairs(p.xs) do
      if k <= x.size[d] then return at(x, with(index, d, k)) end
      k = k - x.size[d]
    end
  end)
end
function reference.stack(p)
  local lifted = {}
  for k, x in ipairs(p.xs) do lifted[k] = reference.unsqueeze {x = x, dim = p.dim or 1} end
  return reference.cat {xs = lifted, dim = p.dim or 1}
end
function reference.flip(p)
  local set = {}
  for _, d in ipairs(list(p.dims)) do set[dim_of(p.x, d)] = true end
  return build(p.x.size, function(index)
    local own = {}
    for k, i in ipairs(index) do own[k] = set[k] and p.x.size[k] + 1 - i or i end
    return at(p.x, own)
  end)
end
function reference.roll(p)
  local by = {}
  for k, d in ipairs(list(p.dims)) do by[dim_of(p.x, d)] = list(p.shifts)[k] end
  return build(p.x.size, function(index)
    local own = {}
    for k, i in ipairs(index) do own[k] = (i - 1 - (by[k] or 0)) % p.x.size[k] + 1 end
    return at(p.x, own)
  end)
end
function reference.tile(p)
  local repeats, size, own_size = list(p.repeats), {}, {}
  local extra = #repeats - #p.x.size
  for k, r in ipairs(repeats) do
    own_size[k] = p.x.size[k - extra] or 1
    size[k] = own_size[k] * r
  end
  local x = with_size(p.x, own_size)
  return build(size, function(index)
    local own = {}
    for k, i in ipairs(index) do own[k] = (i - 1) % own_size[k] + 1 end
    return at(x, own)
  end)
end
function reference.repeat_interleave(p)
  local d = dim_of(p.x, p.dim)
  return build(with(p.x.size, d, p.x.size[d] * p.repeats), function(index)
    return at(p.x, with(index, d, (index[d] - 1) // p.repeats + 1))
  end)
end

-- The source of place i (counted from 0, may lie outside) of a line of n; nil is the padding value.
local padded = {
  constant = function(i, n) return i >= 0 and i < n and i or nil end,
  replicate = function(i, n) return math.max(0, math.min(n - 1, i)) end,
  circular = function(i, n) return i % n end,
  reflect = function(i, n)
    if i < 0 then i = -i end
    return i < n and i or 2 * (n - 1) - i
  end,
}
function reference.pad(p)
  local size, before = {table.unpack(p.x.size)}, {}
  for k = 1, #size do before[k] = 0 end
  for pair = 1, #p.pad // 2 do
    local d = #size + 1 - pair
    before[d] = p.pad[2 * pair - 1]
    size[d] = size[d] + before[d] + p.pad[2 * pair]
  end
  local source = padded[p.mode or "constant"]
  return build(size, function(index)
    local own = {}
    for k, i in ipairs(index) do
      local from = source(i - 1 - before[k], p.x.size[k])
      if not from then return p.value or 0 end
      own[k] = from + 1
    end
    return at(p.x, own)
  end)
end
local function triangle(keep)
  return function(p)
    local n = #p.x.size
    return build(p.x.size, function(i) return keep(i[n] - i[n - 1], p.diagonal or 0) and at(p.x, i) or 0 end)
  end
end
reference.tril = triangle(function(above, diagonal) return above <= diagonal end)
reference.triu = triangle(function(above, diagonal) return above >= diagonal end)
function reference.sum_to(p)
  local sums = {}
  local target, skip = {size = list(p.size)}, #p.x.size - #list(p.size)
  local function key_of(index)
    local key = {}
    for k, s in ipairs(target.size) do key[k] = s == 1 and 1 or index[k + skip] end
    return table.concat(key, ",")
  end
  each(p.x.size, function(index)
    local key = key_of(index)
    sums[key] = (sums[key] or 0) + at(p.x, index)
  end)
  return build(target.size, function(index) return sums[table.concat(index, ",")] or 0 end)
end

reference.helpers = {erf = erf, softplus = softplus, list = list}

for _, family in ipairs {"index", "reduce", "loss", "network", "data"} do
  require("spec.reference_" .. family)(reference)
end

return reference
