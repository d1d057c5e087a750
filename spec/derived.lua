-- derived.lua - from an op's description to samples, tensors and comparisons: the machinery of ops_spec.lua.
local dlua = require "dlua"
local array = require "spec.array"
local cases = require "spec.cases"
local sorted = require "spec.helpers".sorted

local derived = {}
local T = cases.T

-- ---------------------------------------------------------------- samples

local function elementwise_shapes(ntensor)
  if ntensor == 1 then return {{{}}, {{1}}, {{0}}, {{2, 0, 3}}, {{5}}, {{3, 4}}, {{2, 3, 4}}, {{33}}} end
  return {
    {{}, {}}, {{1}, {5}}, {{0}, {1}}, {{2, 0, 3}, {3}}, {{5}, {5}}, {{3, 4}, {4}}, {{2, 1, 4}, {3, 1}}, {{33}, {33}},
  }
end

local extremes = {0, 1e-30, -1e-30, 1e-8, 0.5, -1, 30, -30, 700, -700, 1e6, -1e6}

-- Samples of an op whose arguments are all tensors that broadcast, the rest having defaults.
local function derive(op)
  local domain, ntensor, list = cases.domains[op.name] or {}, 0, {}
  for _, p in ipairs(op.params) do
    if p.kind == "T" then ntensor = ntensor + 1 elseif not p.optional then return end
    if p.lo then domain = {p.lo, p.hi} end
  end
  if ntensor == 0 or ntensor > 2 or not op.elementwise then return end
  for k, sizes in ipairs(elementwise_shapes(ntensor)) do
    list[k] = {}
    for i, size in ipairs(sizes) do list[k][i] = T(size, {lo = domain[1], hi = domain[2]}) end
  end
  if ntensor == 1 and not domain[1] then
    list[#list + 1] = {T({#extremes}, {values = extremes}), no_gradient = true}
  end
  return list
end

-- The argument lists to call an op with, or nil when nobody has written any.
function derived.samples(op) return cases.of[op.name] or derive(op) end

-- A large call, for threads; elementwise ops get theirs from their signature.
function derived.big(op)
  if cases.big[op.name] then return cases.big[op.name] end
  local first = not cases.of[op.name] and derive(op)
  if not first then return end
  local call = {}
  for k, t in ipairs(first[1]) do call[k] = T({300, 1000}, {lo = t.lo, hi = t.hi}) end
  return call
end

-- ---------------------------------------------------------------- values

-- Rounds to a value that f32 has too, so that both precisions see the same input.
local function single(v) return (string.unpack("f", string.pack("f", v))) end

local function is_placeholder(v) return type(v) == "table" and v.is ~= nil end

local function value_of(t)
  if t.is == "B" then return math.random() < 0.5 end
  if t.is == "N" then return math.random(t.lo, t.hi) end
  local lo, hi = t.lo or -2, t.hi or 2
  return single(lo + (hi - lo) * math.random())
end

local dtypes = {T = "f64", I = "i64", B = "bool"}
local LARGE, PERIOD = 10000, 9973 -- a large array repeats its first PERIOD values

-- The array behind a placeholder: drawn once, then kept; but a large one is not, or each full collection of the
-- specs that let allocations fail would walk through all of them.
local function array_of(t)
  if t.array then return t.array end
  local data = {}
  for k = 1, array.count(t.size) do data[k] = t.values and t.values[k] or data[k - PERIOD] or value_of(t) end
  if t.is == "T" then
    for k, v in ipairs(data) do data[k] = v + 0.0 end
  end
  local a = {size = t.size, data = data, dtype = t.dtype or dtypes[t.is], fixed = t.dtype}
  if #data < LARGE then t.array = a end
  return a
end

-- A tensor of an array. Strided: the same values, lying in memory in the reverse order of dimensions and with gaps.
function derived.tensor(a, options)
  local dtype = a.fixed or a.dtype == "f64" and options.dtype or a.dtype
  if #a.size == 0 then return dlua.tensor(a.data[1], {dtype = dtype}) end
  if array.count(a.size) == 0 then return dlua.zeros(a.size, {dtype = dtype}) end
  if not options.strided then return dlua.tensor(a.data, {dtype = dtype}):reshape(a.size) end
  local n, size, dims = #a.size, {2}, {}
  for k = 1, n do
    size[k + 1] = a.size[n + 1 - k]
    dims[k] = n + 1 - k
  end
  local reversed = array.build({table.unpack(size, 2)}, function(index)
    local own = {}
    for k = 1, n do own[k] = index[n + 1 - k] end
    return array.at(a, own)
  end)
  local flat = {}
  for k, v in ipairs(reversed.data) do flat[2 * k - 1], flat[2 * k] = v, v end
  size = {table.unpack(size, 2)}
  size[n + 1] = 2
  return dlua.tensor(flat, {dtype = dtype}):reshape(size):select(n + 1, 1):permute(dims)
end

-- Arguments for a call: tensors in place of placeholders. options: dtype, strided, device, grad. The second result
-- lists the float tensors, the third their arrays.
function derived.arguments(sample, options)
  local tensors, arrays = {}, {}
  local function convert(v)
    if not is_placeholder(v) then
      if type(v) ~= "table" then return v end
      local copy = {}
      for key, entry in sorted(v) do copy[key] = convert(entry) end
      return copy
    end
    local a = array_of(v)
    local x = derived.tensor(a, options)
    if options.device then x = x:to(options.device) end
    if v.is == "T" and not v.fixed then
      if options.grad then x:requires_grad_(true) end
      tensors[#tensors + 1], arrays[#arrays + 1] = x, a
    end
    return x
  end
  local arguments = {n = #sample}
  for k = 1, #sample do arguments[k] = convert(sample[k]) end
  return arguments, tensors, arrays
end

-- The same arguments by name, with arrays in place of tensors, for a reference.
function derived.named(op, sample)
  local function convert(v)
    if is_placeholder(v) then return array_of(v) end
    if type(v) ~= "table" then return v end
    local copy = {}
    for key, entry in sorted(v) do copy[key] = convert(entry) end
    return copy
  end
  local p = {}
  for k, v in ipairs(sample) do
    local param = op.params[k]
    if type(v) == "table" and not v.is and type(next(v)) == "string" then
      for key, entry in sorted(v) do p[key] = convert(entry) end
    elseif k == #op.params and type(v) == "number" and #sample > k then
      p[param.name] = {table.unpack(sample, k)}
      break
    else
      p[param.name] = convert(v)
    end
  end
  for _, param in ipairs(op.params) do
    local v = p[param.name]
    if type(v) == "number" and param.kind == "s" and not param.exactly then p[param.name] = {v} end
  end
  return p
end

function derived.call(op, arguments, inplace)
  if op.random then dlua.seed(1) end
  return table.pack(dlua.ops[inplace and op.name .. "_" or op.name](table.unpack(arguments, 1, arguments.n)))
end

-- The elements of a tensor as an array.
function derived.read(x)
  x = x:detach()
  if x.device ~= "cpu" then x = x:to("cpu") end
  local data = x:numel() == 0 and {} or x:contiguous():flatten():totable()
  return {size = x.shape, data = data, dtype = x.dtype}
end

-- ---------------------------------------------------------------- comparing

local function text(size) return "{" .. table.concat(size, ",") .. "}" end

-- nil, or what is different: |a - b| <= rtol |b| + atol + scaled * max|b|.
function derived.difference(got, wanted, rtol, atol, scaled)
  if text(got.size) ~= text(wanted.size) then return ("shape %s, not %s"):format(text(got.size), text(wanted.size)) end
  local largest = 0
  for _, v in ipairs(wanted.data) do
    if type(v) == "number" and v == v and math.abs(v) < math.huge then largest = math.max(largest, math.abs(v)) end
  end
  for k, b in ipairs(wanted.data) do
    local a = got.data[k]
    if type(a) == "number" and type(b) == "boolean" then b = b and 1 or 0 end
    local same = a == b or (a ~= a and b ~= b)
    if not same and type(a) == "number" and type(b) == "number" then
      same = math.abs(a - b) <= rtol * math.abs(b) + atol + (scaled or 0) * largest
    end
    if not same then return ("element %d is %s, not %s"):format(k, tostring(a), tostring(b)) end
  end
end

-- A short picture of a sample, for messages.
function derived.picture(sample)
  local function show(v)
    if is_placeholder(v) then return v.is .. text(v.size) end
    if type(v) ~= "table" then return tostring(v) end
    local parts = {}
    for key, entry in pairs(v) do
      parts[#parts + 1] = type(key) == "string" and key .. "=" .. show(entry) or show(entry)
    end
    table.sort(parts)
    return "{" .. table.concat(parts, ",") .. "}"
  end
  local parts = {}
  for k, v in ipairs(sample) do parts[k] = show(v) end
  return table.concat(parts, ", ")
end

return derived
