-- cases.lua - what the derived specs call every op with. Elementwise ops get theirs from their signature (derived.lua);
-- the others are listed here, as argument lists. T is a float tensor of random values, I an index tensor with the given
-- values, B a random mask. A last table with names is the options table, as in a script.
local cases, domains, big = {}, {}, {}

-- T{2,3}: values are drawn from lo..hi (default -2..2). Options: lo, hi, values; fixed: the op has no gradient there.
-- A sample with no_gradient is for values alone: ties, or numbers too large for differences.
local function T(size, options)
  local t = {is = "T", size = size}
  for key, value in pairs(options or {}) do t[key] = value end
  return t
end
local function I(values, size) return {is = "I", size = size or {#values}, values = values} end
local function B(size) return {is = "B", size = size} end
-- A tensor of this dtype in every call: whole numbers from lo to hi, or the given values.
local function N(dtype, size, options)
  local t = T(size, options)
  t.is, t.dtype = "N", dtype
  return t
end

-- Where an elementwise op has values and a gradient.
for _, name in ipairs {"log", "log2", "log10", "sqrt", "rsqrt"} do domains[name] = {0.1, 4} end
for _, name in ipairs {"asin", "acos"} do domains[name] = {-0.95, 0.95} end
domains.log1p = {-0.9, 4}
domains.reciprocal = {0.2, 3}
domains.tan = {-1.4, 1.4}
domains.pow = {0.2, 3}
for _, name in ipairs {"div", "floor_div", "mod"} do domains[name] = {0.3, 4} end

-- ---------------------------------------------------------------- elementwise, with more than tensors

local function shapes(...)
  local list = {}
  for _, size in ipairs {{}, {1}, {0}, {2, 0, 3}, {5}, {3, 4}, {2, 3, 4}, {33}} do
    list[#list + 1] = {T(size), ...}
  end
  return list
end

for _, name in ipairs {"contiguous", "zeros_like", "ones_like", "zero"} do cases[name] = shapes() end
cases.clamp = shapes(-0.5, 1.25)
cases.clamp[#cases.clamp + 1] = {T {7}, {min = 0.25}}
cases.clamp[#cases.clamp + 1] = {T {7}, {max = 0.25}}
cases.cast = shapes "f64"
cases.cast[#cases.cast + 1] = {T({9}, {lo = 0, hi = 99}), "i64"}
cases.cast[#cases.cast + 1] = {T({9}, {lo = 0, hi = 99}), "u8"}
cases.cast[#cases.cast + 1] = {T {9}, "bool"}
cases.where = {
  {B {3, 4}, T {3, 4}, T {3, 4}}, {B {4}, T {3, 1}, T {4}}, {B {}, T {2}, T {2}}, {B {0}, T {0}, T {0}},
  {B {1}, T {5}, T {1}}, {B {2, 3, 1}, T {3, 4}, T {}}, {B {33}, T {33}, T {33}}, {B {2, 1}, T {2, 7}, T {1, 7}},
}
cases.full_like, cases.fill = shapes(2.5), shapes(2.5)
cases.masked_fill = {
  {T {3, 4}, B {3, 4}, 7}, {T {3, 4}, B {4}, 0.5}, {T {2, 3, 4}, B {3, 1}, -1}, {T {}, B {}, 2}, {T {0}, B {0}, 2},
  {T {1}, B {1}, 2}, {T {33}, B {33}, 1e30, no_gradient = true}, {T {2, 1, 5}, B {5}, 3},
}

-- ---------------------------------------------------------------- creation

cases.zeros = {{{2, 3}}, {{0}}, {{}}, {2, 3}, {{1}}, {{2, 0, 3}}, {7}, {{1, 1, 1, 1, 1, 1, 1, 2}}}
cases.ones, cases.empty = cases.zeros, cases.zeros
cases.full = {
  {{2, 3}, 1.5}, {{0}, 1}, {{}, 2}, {{1}, -1}, {{2, 0}, 3}, {{33}, 1e30}, {{3, 2, 2}, 0.0}, {{5}, -2.5},
}
cases.eye = {{3}, {3, 4}, {4, 3}, {1}, {0}, {2, 0}, {0, 2}, {5, 5}}
cases.range = {
  {1, 5}, {5, 1, -1}, {1, 10, 3}, {0, 1, 0.25}, {3, 3}, {0.5, 4}, {-3, 3}, {1.0, 2.0, 0.5},
}
cases.linspace = {{0, 1, 5}, {0, 1, 1}, {1, 0, 3}, {-2, 2, 9}, {5, 5, 2}, {0, 1e30, 3}, {0, 1, 2}, {-1, 1, 33}}

-- ---------------------------------------------------------------- shapes

cases.reshape = {
  {T {2, 3}, {3, 2}}, {T {2, 3}, {-1}}, {T {6}, {2, -1}}, {T {1}, {}}, {T {}, {1, 1}}, {T {0, 3}, {3, 0}},
  {T {2, 3, 4}, {4, 6}}, {T {5}, {1, 5, 1}},
}
cases.flatten = {
  {T {2, 3}}, {T {2, 3, 4}, 2}, {T {2, 3, 4}, 1, 2}, {T {}}, {T {0, 3}}, {T {2, 3, 4}, -2, -1}, {T {5}}, {T {1, 1}},
}
cases.transpose = {
  {T {2, 3}, 1, 2}, {T {2, 3, 4}, 1, -1}, {T {2, 3, 4}, 2, 2}, {T {0, 3}, 1, 2}, {T {1, 1}, 1, 2}, {T {5}, 1, 1},
  {T {3, 2, 1, 2}, -1, -2}, {T {7, 5}, 2, 1},
}
cases.t = {{T {2, 3}}, {T {1, 1}}, {T {0, 3}}, {T {3, 0}}, {T {5, 1}}, {T {1, 5}}, {T {4, 4}}, {T {7, 3}}}
cases.permute = {
  {T {2, 3}, {2, 1}}, {T {2, 3, 4}, {3, 1, 2}}, {T {2, 3, 4}, {1, 2, 3}}, {T {5}, {1}}, {T {0, 2}, {2, 1}},
  {T {1, 2, 1, 3}, {4, 2, 3, 1}}, {T {2, 3, 4}, {-1, -2, -3}}, {T {3, 3}, 2, 1},
}
cases.expand = {
  {T {1, 3}, {2, 3}}, {T {3}, {2, 3}}, {T {3}, {2, -1}}, {T {}, {2, 2}}, {T {1}, {0}}, {T {2, 1, 3}, {2, 4, 3}},
  {T {2, 3}, {2, 3}}, {T {1}, {5}},
}
cases.squeeze = {
  {T {1, 3}}, {T {1, 3}, 1}, {T {1, 3}, 2}, {T {1, 1}}, {T {0, 1}}, {T {2, 1, 3}, -2}, {T {}}, {T {5}},
}
cases.unsqueeze = {
  {T {3}, 1}, {T {3}, 2}, {T {3}, -1}, {T {}, 1}, {T {0}, 1}, {T {2, 3}, 2}, {T {2, 3}, 3}, {T {2, 3}, -3},
}
cases.narrow = {
  {T {5}, 1, 2, 3}, {T {2, 5}, 2, 1, 5}, {T {2, 5}, -1, 5, 1}, {T {3}, 1, 1, 0}, {T {0}, 1, 1, 0}, {T {1}, 1, 1, 1},
  {T {2, 3, 4}, 2, 2, 2}, {T {33}, 1, 7, 20},
}
cases.select = {
  {T {5}, 1, 2}, {T {2, 5}, 2, -1}, {T {2, 5}, 1, 1}, {T {1}, 1, 1}, {T {0, 2}, 2, 1}, {T {2, 3, 4}, 2, 3},
  {T {2, 3, 4}, -1, -4}, {T {33}, 1, 33},
}
local function region(start, size, step, drop) return {start = start, count = size, step = step, drop = drop} end
local regions = {
  {{4, 5}, region({1, 0}, {2, 5}, {1, 1}, {0, 0}), {2, 5}}, {{4, 5}, region({1, 2}, {1, 3}, {1, 1}, {1, 0}), {3}},
  {{9}, region({0}, {5}, {2}, {0}), {5}}, {{3}, region({1}, {1}, {1}, {1}), {}},
  {{3}, region({1}, {0}, {1}, {0}), {0}},
  {{0}, region({0}, {0}, {1}, {0}), {0}}, {{1}, region({0}, {1}, {1}, {0}), {1}},
  {{2, 3, 4}, region({0, 2, 1}, {2, 1, 2}, {1, 1, 2}, {0, 1, 0}), {2, 2}},
}
cases.slice, cases.set_slice = {}, {}
for k, r in ipairs(regions) do
  local o = r[2]
  cases.slice[k] = {T(r[1]), o.start, o.count, o.step, o.drop}
  cases.set_slice[k] = {T(r[1]), T(r[3]), o.start, o.count, o.step, o.drop}
end
cases.cat = {
  {{T {2, 3}, T {1, 3}}}, {{T {2, 3}, T {2, 1}}, 2}, {{T {3}}}, {{T {0}, T {2}}}, {{T {1}, T {1}, T {1}}},
  {{T {2, 0, 3}, T {2, 2, 3}}, -2}, {{T {2, 3}, T {2, 3}}, -1}, {{T {7}, T {5}, T {3}}, 1},
}
cases.stack = {
  {{T {2, 3}, T {2, 3}}}, {{T {2, 3}, T {2, 3}}, 2}, {{T {2, 3}, T {2, 3}}, -1}, {{T {}, T {}}}, {{T {0}, T {0}}},
  {{T {1}}}, {{T {5}, T {5}, T {5}}, 2}, {{T {2, 2}, T {2, 2}}, 3},
}
cases.tile = {
  {T {3}, {2}}, {T {2, 3}, {2, 2}}, {T {3}, {2, 1}}, {T {}, {3}}, {T {0}, {2}}, {T {1}, {5}}, {T {2, 3}, {1, 1}},
  {T {2, 2}, {2, 1, 3}},
}
cases.repeat_interleave = {
  {T {3}, 2, 1}, {T {2, 3}, 2, 1}, {T {2, 3}, 3, 2}, {T {1}, 4, 1}, {T {0}, 2, 1}, {T {2, 3}, 1, -1}, {T {5}, 0, 1},
  {T {2, 2, 2}, 2, 2},
}
cases.flip = {
  {T {3}, {1}}, {T {2, 3}, {1, 2}}, {T {2, 3}, 2}, {T {1}, 1}, {T {0}, 1}, {T {2, 3, 4}, {-1, 1}}, {T {33}, 1},
  {T {2, 1, 3}, {2}},
}
cases.roll = {
  {T {5}, {1}, {1}}, {T {5}, {-2}, {1}}, {T {2, 3}, {1, 2}, {1, 2}}, {T {1}, {3}, {1}}, {T {0}, {1}, {1}},
  {T {2, 3}, {7}, {2}}, {T {5}, {0}, {1}}, {T {2, 3, 4}, {-1}, {-1}},
}
cases.pad = {
  {T {2, 3}, {1, 2}}, {T {2, 3}, {1, 0, 0, 2}, {value = 5}}, {T {1, 2, 4, 5}, {2, 1, 1, 2}, "reflect"},
  {T {1, 2, 4, 5}, {2, 1, 1, 2}, "replicate"}, {T {1, 2, 4, 5}, {2, 1, 1, 2}, "circular"}, {T {0}, {1, 1}},
  {T {1}, {0, 3}}, {T {5}, {-1, 2}}, {T {3}, {0, 0}},
}
cases.tril = {
  {T {3, 3}}, {T {3, 4}, 1}, {T {4, 3}, -1}, {T {1, 1}}, {T {0, 3}}, {T {2, 3, 3}}, {T {5, 5}, 9}, {T {5, 5}, -9},
}
cases.triu = cases.tril
cases.sum_to = {
  {T {2, 3}, {1, 3}}, {T {2, 3}, {3}}, {T {2, 3}, {2, 1}}, {T {2, 3, 4}, {1, 4}}, {T {2, 3}, {}}, {T {0, 3}, {1, 3}},
  {T {1}, {1}}, {T {2, 3}, {2, 3}},
}

-- ---------------------------------------------------------------- indexing and sorting

cases.index_select = {
  {T {4, 3}, 1, I {4, 1, 1}}, {T {4, 3}, 2, I {3}}, {T {5}, 1, I {2, 5, 2, 1}}, {T {1}, 1, I {1, 1}},
  {T {0, 2}, 2, I {1}}, {T {3}, 1, I {}}, {T {2, 3, 4}, -1, I {4, 2}}, {T {33}, -1, I {33, 17, 1}},
}
local lists = {
  {{4, 3}, 1, {4, 1}, {2, 3}}, {{4, 3}, 2, {3}, {4, 1}}, {{5}, 1, {2, 5, 1}, {3}}, {{1}, 1, {1}, {1}},
  {{0, 2}, 2, {1}, {0, 1}}, {{3}, 1, {}, {0}}, {{2, 3, 4}, -1, {4, 2}, {2, 3, 2}}, {{33}, 1, {33, 17, 1}, {3}},
}
cases.index_add, cases.index_copy = {}, {}
for k, c in ipairs(lists) do
  cases.index_add[k] = {T(c[1]), c[2], I(c[3]), T(c[4])}
  cases.index_copy[k] = {T(c[1]), c[2], I(c[3]), T(c[4])}
end
cases.index_add[9] = {T {3}, 1, I {2, 2, 2}, T {3}}
local elements = {
  {{3, 4}, 1, {1, 2, 3, 1, 3, 1, 2, 2}, {2, 4}}, {{3, 4}, 2, {4, 1, 2, 3, 1, 2}, {3, 2}}, {{5}, 1, {5, 1, 3}, {3}},
  {{1}, 1, {1}, {1}}, {{0}, 1, {}, {0}}, {{3}, 1, {}, {0}}, {{2, 2, 3}, -1, {1, 2, 3, 1}, {2, 2, 1}},
  {{3, 1}, 1, {3, 1}, {2, 1}},
}
cases.gather, cases.scatter, cases.scatter_add = {}, {}, {}
for k, c in ipairs(elements) do
  cases.gather[k] = {T(c[1]), c[2], I(c[3], c[4])}
  cases.scatter[k] = {T(c[1]), c[2], I(c[3], c[4]), T(c[4])}
  cases.scatter_add[k] = {T(c[1]), c[2], I(c[3], c[4]), T(c[4])}
end
cases.scatter_add[9] = {T {3}, 1, I {2, 2, 2}, T {3}}
local masks = {{{3, 4}, {3, 4}}, {{7}, {7}}, {{1}, {1}}, {{0}, {0}}, {{2, 3, 4}, {2, 3, 4}}, {{33}, {33}}, {{5}, {5}},
  {{2, 2}, {2, 2}}}
cases.masked_select, cases.masked_scatter = {}, {}
for k, c in ipairs(masks) do
  cases.masked_select[k] = {T(c[1]), B(c[2])}
  cases.masked_scatter[k] = {T(c[1]), B(c[2]), T {40}}
end
cases.nonzero = {
  {T({5}, {values = {0, 1, 0, 2, 3}})}, {T({2, 2}, {values = {0, 1, 1, 0}})}, {T {0}}, {T {1}}, {T {3, 4}},
  {T({3}, {values = {0, 0, 0}})}, {T {2, 3, 4}}, {B {9}},
}
cases.one_hot = {
  {I {1, 3, 2}, 3}, {I {1, 3, 2}, 5}, {I {2}}, {I({1, 2, 2, 1}, {2, 2})}, {I({}, {0}), 3}, {I({3}, {}), 4}, {I {1}, 1},
  {I {4, 4}, {classes = 6}},
}
local ties = T({6}, {values = {2, 1, 2, 1, 3, 1}})
cases.sort = {
  {T {5}}, {T {3, 4}}, {T {3, 4}, 1}, {T {3, 4}, 2, true}, {ties, no_gradient = true}, {T {1}}, {T {0}},
  {T {33}, {descending = true}},
  {T {2, 3, 4}, -2},
}
cases.argsort = cases.sort
cases.topk = {
  {T {5}, 2}, {T {3, 4}, 2}, {T {3, 4}, 2, 1}, {T {3, 4}, 3, 2, false}, {ties, 4, no_gradient = true}, {T {1}, 1},
  {T {4}, 0}, {T {33}, 7},
}

-- ---------------------------------------------------------------- reductions

local function reductions(...)
  local list = {}
  for _, c in ipairs {
    {{}}, {{1}}, {{7}}, {{3, 4}}, {{3, 4}, 1}, {{3, 4}, -1}, {{2, 3, 4}, 2}, {{2, 3, 4}, {1, 3}}, {{2, 3, 4}, {2, 3}},
    {{33}}, {{3, 4}, {dim = 1, keepdim = true}}, {{2, 3}, {keepdim = true}},
  } do
    list[#list + 1] = {T(c[1], ...), c[2]}
  end
  return list
end
for _, name in ipairs {"sum", "mean", "prod", "logsumexp", "norm", "all", "any"} do cases[name] = reductions() end
for k, c in ipairs(cases.norm) do
  if c[2] and not (type(c[2]) == "table" and c[2].keepdim) then cases.norm[k] = {c[1], 2, c[2]} end
end
cases.norm[#cases.norm + 1] = {T {3, 4}, 1}
cases.norm[#cases.norm + 1] = {T {3, 4}, 3, 2}
cases.norm[#cases.norm + 1] = {T {3, 4}, math.huge, 1}
for _, name in ipairs {"sum", "prod", "all", "any"} do table.insert(cases[name], {T {0}}) end
cases.sum[#cases.sum + 1] = {T {0, 3}, 1}
cases.all[#cases.all + 1] = {B {3, 4}, 1}
cases.any[#cases.any + 1] = {B {3, 4}, 2}
cases.var = {
  {T {7}}, {T {3, 4}, 1}, {T {3, 4}, 2, true}, {T {2, 3, 4}, {1, 3}}, {T {2, 3}, {unbiased = false}}, {T {33}},
  {T {2}}, {T {3, 4}, {dim = -1, unbiased = false, keepdim = true}},
}
cases.std = cases.var
cases.channel_sum = {
  {T {2, 3}}, {T {2, 3, 4}}, {T {2, 3, 2, 2}}, {T {1, 1}}, {T {0, 3}}, {T {5, 7}}, {T {1, 16, 3, 3}}, {T {33, 2}},
}
cases.max = {
  {T {7}}, {T {3, 4}}, {T {3, 4}, 1}, {T {3, 4}, -1, true}, {ties, no_gradient = true}, {T {1}}, {T {}},
  {T {2, 3, 4}, 2}, {T {33}},
}
cases.min, cases.argmax, cases.argmin = cases.max, cases.max, cases.max
cases.cumsum = {
  {T {5}, 1}, {T {3, 4}, 1}, {T {3, 4}, -1}, {T {1}, 1}, {T {0}, 1}, {T {2, 3, 4}, 2}, {T {33}, 1}, {T {2, 0}, 1},
}
cases.cumprod = cases.cumsum
cases.linear_scan = {}
for k, c in ipairs(cases.cumsum) do
  cases.linear_scan[k] = {T(c[1].size), T(c[1].size), c[2], {reverse = k % 2 == 0}}
end
cases.softmax = {
  {T {5}, 1}, {T {3, 4}, 1}, {T {3, 4}, -1}, {T {1}, 1}, {T {0, 3}, 2}, {T {2, 3, 4}, 2}, {T {33}, 1},
  {T({4}, {values = {1000, 999, -1000, 0}}), 1, no_gradient = true},
}
cases.log_softmax = cases.softmax

-- ---------------------------------------------------------------- losses

local function losses(domain, target_domain, ...)
  local list = {}
  for _, c in ipairs {
    {{4}}, {{3, 4}}, {{3, 4}, {reduction = "sum"}}, {{3, 4}, {reduction = "none"}}, {{1}}, {{}}, {{33}},
    {{2, 3, 4}, {reduction = "none"}}, {{0}, {reduction = "sum"}},
  } do
    list[#list + 1] = {T(c[1], domain), T(c[1], target_domain), c[2]}
  end
  for _, more in ipairs {...} do list[#list + 1] = {T({3, 4}, domain), T({3, 4}, target_domain), more} end
  return list
end
local unit, inner, weights = {lo = 0, hi = 1}, {lo = 0.05, hi = 0.95}, {lo = 0.05, hi = 0.95, fixed = true}
cases.mse_loss, cases.l1_loss = losses(), losses()
cases.huber_loss, cases.smooth_l1_loss = losses(nil, nil, {delta = 0.5}), losses(nil, nil, {beta = 0.5})
cases.bce_loss = losses(inner, inner, {weight = T({3, 4}, weights)})
cases.bce_with_logits = losses(nil, inner, {weight = T({3, 4}, weights)}, {pos_weight = T({4}, weights)})
cases.kl_div = losses({lo = -3, hi = -0.1}, inner, {reduction = "batchmean"})
local negative = {lo = -3, hi = -0.1}
cases.kl_div[#cases.kl_div + 1] = {T({3, 4}, negative), T({3, 4}, negative), {log_target = true}}
cases.nll_loss = {
  {T {3, 4}, I {1, 4, 2}}, {T {3, 4}, I {1, 4, 2}, {weight = T({4}, weights)}}, {T {3, 4}, I {1, -100, 2}},
  {T {3, 4}, I {1, 4, 2}, {reduction = "sum"}}, {T {3, 4}, I {3, 4, 2}, {reduction = "none", ignore_index = 2}},
  {T {4}, I({2}, {})}, {T {2, 3, 2}, I({1, 3, 2, 2}, {2, 2})}, {T {1, 1}, I {1}},
  {T {0, 3}, I({}, {0}), {reduction = "sum"}},
}
cases.cross_entropy = {
  {T {3, 4}, T({3, 4}, weights)}, {T {3, 4}, T({3, 4}, weights), {weight = T({4}, weights), label_smoothing = 0.2}},
  {T {3, 4}, I {1, 4, 2}, {label_smoothing = 0.1}}, {T {3, 4}, I {1, -100, 2}, {label_smoothing = 0.1}},
  {T {3, 4}, I {1, 4, 2}, {weight = T({4}, weights), label_smoothing = 0.3}}, {T {2, 3, 2}, T({2, 3, 2}, weights)},
  {T({2, 3}, {values = {1000, -1000, 0, 0, 1000, 5}}), I {1, 2}, no_gradient = true},
}
for _, c in ipairs(cases.nll_loss) do table.insert(cases.cross_entropy, c) end

-- ---------------------------------------------------------------- matrix products and networks

cases.matmul = {
  {T {2, 3}, T {3, 4}}, {T {3}, T {3}}, {T {2, 3}, T {3}}, {T {3}, T {3, 4}}, {T {2, 2, 3}, T {2, 3, 4}},
  {T {2, 3}, T {5, 3, 2}}, {T {2, 1, 2, 3}, T {3, 3, 2}}, {T {0, 3}, T {3, 2}}, {T {2, 0}, T {0, 3}},
  {T {1, 1}, T {1, 1}}, {T {7, 5}, T {5, 9}},
}
cases.bmm = {
  {T {2, 3, 4}, T {2, 4, 2}}, {T {1, 1, 1}, T {1, 1, 1}}, {T {0, 2, 3}, T {0, 3, 2}}, {T {3, 1, 5}, T {3, 5, 1}},
  {T {2, 2, 0}, T {2, 0, 2}}, {T {2, 5, 7}, T {2, 7, 3}}, {T {4, 2, 2}, T {4, 2, 2}}, {T {1, 3, 3}, T {1, 3, 3}},
}
cases.dot = {
  {T {3}, T {3}}, {T {1}, T {1}}, {T {0}, T {0}}, {T {33}, T {33}}, {T {2}, T {2}}, {T {5}, T {5}}, {T {7}, T {7}},
  {T {8}, T {8}},
}
cases.linear = {
  {T {2, 3}, T {4, 3}, T {4}}, {T {2, 3}, T {4, 3}}, {T {3}, T {4, 3}, T {4}}, {T {2, 5, 3}, T {4, 3}, T {4}},
  {T {0, 3}, T {4, 3}, T {4}}, {T {1, 1}, T {1, 1}, T {1}}, {T {7, 5}, T {9, 5}, T {9}}, {T {2, 3}, T {1, 3}},
}
cases.linear_relu = cases.linear
cases.linear_gelu = {
  {T {2, 3}, T {4, 3}, T {4}}, {T {2, 3}, T {4, 3}}, {T {3}, T {4, 3}, T {4}}, {T {2, 5, 3}, T {4, 3}, T {4}, "tanh"},
  {T {0, 3}, T {4, 3}, T {4}}, {T {1, 1}, T {1, 1}, T {1}}, {T {7, 5}, T {9, 5}, T {9}, "tanh"},
  {T {2, 3}, T {1, 3}, {approximate = "tanh"}},
}
cases.linear_weight_grad = {
  {T {2, 3}, T {2, 4}}, {T {1, 3}, T {1, 5}}, {T {4, 1}, T {4, 3}}, {T {4, 3}, T {4, 1}}, {T {0, 3}, T {0, 2}},
  {T {2, 0}, T {2, 3}}, {T {2, 3}, T {2, 0}}, {T {7, 9}, T {7, 16}}, {T {40, 17}, T {40, 8}},
}
local function slopes(...)
  return {
    {T {2, 3}, T {3, 4}, T {2, 4}, ...}, {T {3}, T {3, 4}, T {4}}, {T {1, 1}, T {1, 1}, T {1, 1}, ...},
    {T {2, 5, 3}, T {3, 8}, T {2, 5, 8}, ...}, {T {0, 3}, T {3, 2}, T {0, 2}}, {T {2, 0}, T {0, 3}, T {2, 3}, ...},
    {T {5, 9}, T {9, 16}, T {5, 16}}, {T {5, 9}, T {9, 17}, T {5, 17}, ...}, {T {6, 3}, T {3, 136}, T {6, 136}, ...},
    {T({1, 2}, {values = {1, 2}}), T {2, 8}, T({1, 8}, {values = {0, -0.0, 1, -1, 1e-30, -1e-30, 0, 2}}), ...},
  }
end
cases.relu_linear_grad, cases.gelu_linear_grad = slopes(), slopes "tanh"
cases.relu_bias_grad = {
  {T {2, 3}, T {2, 3}}, {T {3}, T {3}}, {T {1, 4}, T {1, 4}}, {T {4, 1}, T {4, 1}}, {T {0, 3}, T {0, 3}},
  {T {2, 0}, T {2, 0}}, {T {2, 3, 5}, T {2, 3, 5}}, {T {40, 17}, T {40, 17}},
}
cases.gelu_bias_grad = {
  {T {2, 3}, T {2, 3}}, {T {3}, T {3}, "tanh"}, {T {1, 4}, T {1, 4}}, {T {4, 1}, T {4, 1}, "tanh"},
  {T {0, 3}, T {0, 3}}, {T {2, 0}, T {2, 0}}, {T {2, 3, 5}, T {2, 3, 5}}, {T {40, 17}, T {40, 17}, "tanh"},
}
cases.conv2d = {
  {T {2, 3, 5, 5}, T {4, 3, 3, 3}, T {4}}, {T {1, 2, 4, 5}, T {3, 2, 2, 3}}, {T {1, 1, 3, 3}, T {1, 1, 1, 1}, T {1}},
  {T {2, 2, 5, 5}, T {2, 2, 3, 3}, T {2}, {padding = 1}},
  {T {1, 2, 6, 7}, T {3, 2, 3, 3}, {stride = 2, padding = {1, 0}}},
  {T {1, 2, 7, 7}, T {2, 2, 3, 3}, {dilation = 2}}, {T {1, 4, 4, 4}, T {6, 2, 3, 3}, T {6}, {groups = 2, padding = 1}},
  {T {2, 3, 4, 4}, T {3, 1, 3, 3}, {groups = 3}}, {T {0, 2, 4, 4}, T {2, 2, 3, 3}, T {2}},
  {T {1, 16, 5, 5}, T {16, 16, 3, 3}, T {16}, {padding = 1}},
}
cases.max_pool2d = {
  {T {1, 2, 4, 4}, 2}, {T {2, 1, 5, 5}, 2}, {T {1, 1, 5, 5}, 3, {stride = 1, padding = 1}},
  {T {1, 2, 5, 7}, {2, 3}, {stride = {1, 2}}}, {T {1, 1, 5, 5}, 2, {ceil_mode = true}}, {T {1, 1, 1, 1}, 1},
  {T {0, 2, 4, 4}, 2}, {T {1, 1, 6, 6}, 2, {dilation = 2, stride = 1}}, {T {1, 16, 4, 4}, 2},
}
cases.avg_pool2d = {
  {T {1, 2, 4, 4}, 2}, {T {2, 1, 5, 5}, 2}, {T {1, 1, 5, 5}, 3, {stride = 1, padding = 1}},
  {T {1, 2, 5, 7}, {2, 3}, {stride = {1, 2}}}, {T {1, 1, 5, 5}, 2, {ceil_mode = true}}, {T {1, 1, 1, 1}, 1},
  {T {0, 2, 4, 4}, 2}, {T {1, 1, 5, 5}, 3, {stride = 2, padding = 1, count_include_pad = false}},
}
cases.adaptive_avg_pool2d = {
  {T {1, 2, 4, 4}, 1}, {T {1, 2, 5, 7}, {2, 3}}, {T {2, 1, 4, 4}, {4, 2}}, {T {1, 1, 1, 1}, 1}, {T {0, 1, 3, 3}, 2},
  {T {1, 1, 3, 3}, 5}, {T {1, 3, 8, 8}, 2}, {T {1, 1, 7, 5}, {3, 1}},
}
cases.adaptive_max_pool2d = cases.adaptive_avg_pool2d
local function statistics(c, relu)
  return {running_mean = T({c}, {fixed = true}), running_var = T({c}, {lo = 0.5, hi = 2, fixed = true}), relu = relu}
end
cases.batch_norm = {
  {T {4, 3}, T {3}, T {3}, {training = true}}, {T {4, 3}, {training = true}},
  {T {2, 3, 2, 2}, T {3}, T {3}, {training = true, eps = 1e-3}}, {T {3, 2, 5}, T {2}, T {2}, {training = true}},
  {T {2, 1, 2, 2}, {training = true}}, {T {4, 3}, T {3}, T {3}, statistics(3)}, {T {2, 3, 2, 2}, statistics(3)},
  {T {2, 16, 2, 2}, T {16}, T {16}, {training = true}},
  {T {4, 3}, T {3}, T {3}, {training = true, relu = true}}, {T {2, 3, 2, 5}, {training = true, relu = true}},
  {T {2, 16, 2, 4}, T {16}, T {16}, {training = true, relu = true}},
  {T {2, 3, 2, 2}, T {3}, T {3}, statistics(3, true)},
}
local function pictures(size) return N("u8", size, {lo = 0, hi = 255}) end
-- Rows for augment of {kind, height, width, 1 for u8 before it, numbers…}.
local kinds = {}
for k, name in ipairs {"ToFloat", "Normalize", "RandomCrop", "CenterCrop", "Resize", "Pad", "RandomHorizontalFlip",
  "RandomVerticalFlip", "RandomAffine", "ColorJitter", "RandomErasing"} do kinds[name] = k - 1 end
local function steps(list)
  local values = {}
  for k, row in ipairs(list) do
    for j = 1, 44 do values[(k - 1) * 44 + j] = j == 1 and kinds[row[1]] or row[j] or 0 end
  end
  return N("f64", {#list, 44}, {values = values})
end
local function erase(h, w, levels, chance, value, noise)
  return {"RandomErasing", h, w, levels, chance, 0.05, 0.4, math.log(0.3), math.log(3.3), value, noise or 0}
end
cases.augment = {
  {pictures {6, 2, 6, 7}, I {6, 1, 2}, steps {
    {"RandomCrop", 6, 7, 1, 6, 7, 2, 2, 2, 2, 0, 9}, {"RandomHorizontalFlip", 6, 7, 1, 0.5}, {"ToFloat", 6, 7, 1},
    erase(6, 7, 0, 1, 99.5), {"Normalize", 6, 7, 0, 2, 0.5, 0.25, 0.3, 0.7},
  }, {6, 7}, {epoch = 1, key = 7}},
  {pictures {6, 2, 6, 7}, I {1, 2, 4}, steps {
    erase(6, 7, 1, 0.7, 0, 1), {"RandomVerticalFlip", 6, 7, 1, 0.5}, {"RandomCrop", 6, 7, 1, 5, 6, 1, 2, 1, 2, 3, 0},
    {"ToFloat", 5, 6, 1}, {"RandomHorizontalFlip", 5, 6, 0, 0.5},
  }, {5, 6}, {epoch = 2}},
  {pictures {6, 1, 6, 7}, I {1, 3}, steps {
    {"ToFloat", 6, 7, 1}, {"RandomVerticalFlip", 6, 7, 0, 0.5}, {"RandomHorizontalFlip", 6, 7, 0, 0.5},
    erase(6, 7, 0, 1, 0, 1), {"Pad", 6, 7, 0, 1, 2, 3, 0, 0, 0.5}, {"Normalize", 10, 9, 0, 1, 0.5, 0.25},
  }, {10, 9}, {epoch = 3, key = -9}},
  {pictures {4, 1, 6, 7}, I {4, 3, 2, 1}, steps {
    {"RandomCrop", 6, 7, 1, 5, 5, 6, 7, 6, 7, 2, 0}, {"CenterCrop", 5, 5, 1, 3, 2}, erase(3, 2, 1, 0.8, 300),
    {"ToFloat", 3, 2, 1},
  }, {3, 2}, {epoch = 4294967295, key = 1 << 40}},
  {pictures {3, 3, 5, 4}, I {3, 2, 3, 1, 1}, steps {
    {"RandomCrop", 5, 4, 1, 6, 7, 4, 3, 4, 3, 1, 0}, {"RandomHorizontalFlip", 6, 7, 1, 1}, erase(6, 7, 1, 1, -3),
    {"RandomCrop", 6, 7, 1, 9, 2, 4, 0, 4, 0, 0, 17},
  }, {9, 2}, {epoch = 5, dtype = "u8"}},
  {pictures {2, 3, 4, 4}, I {2, 1}, {size = {4, 4}, dtype = "u8"}},
  {pictures {2, 6, 2, 3}, I {1, 2}, steps {
    {"ToFloat", 2, 3, 1}, {"Normalize", 2, 3, 0, 6, 1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1}, erase(2, 3, 0, 1, 0, 1),
  }, {2, 3}},
  {pictures {2, 3, 4, 4}, I({}, {0}), steps {{"ToFloat", 4, 4, 1}}, {4, 4}},
  {pictures {1, 1, 1, 1}, I {1}, steps {{"ToFloat", 1, 1, 1}}, {1, 1}},
}

local function one(value) return T({}, {values = {value}}) end
cases.loss_scale = {
  {one(8), one(3), one(0)}, {one(8), one(3), one(2), {backoff = 0.25}}, {one(8), one(3), one(0), {interval = 4}},
  {one(8), one(3), one(0), {growth = 1.5, interval = 2}}, {one(0x1p-126), one(3), one(1)},
  {one(2), one(0), one(1), {growth = 3, backoff = 0}}, {one(2), one(0), one(0), {interval = 1, growth = 0.75}},
  {one(4096), one(1999), one(0)}, {one(4096), one(1998), one(0)},
}

-- ---------------------------------------------------------------- large ones, for one thread against two

big.sum, big.mean, big.norm, big.logsumexp = {T {600, 700}}, {T {600, 700}, 1}, {T {600, 700}}, {T {600, 700}, 2}
big.softmax, big.log_softmax, big.cumsum = {T {600, 700}, 2}, {T {600, 700}, 1}, {T {600, 700}, 1}
big.matmul, big.linear = {T {200, 300}, T {300, 100}}, {T {200, 300}, T {100, 300}, T {100}}
big.linear_relu, big.linear_gelu = big.linear, big.linear
big.linear_weight_grad = {T {300, 100}, T {300, 200}}
big.relu_linear_grad = {T {200, 100}, T {100, 300}, T {200, 300}}
big.gelu_linear_grad = {T {200, 100}, T {100, 300}, T {200, 300}, "tanh"}
big.relu_bias_grad, big.gelu_bias_grad = {T {600, 1700}, T {600, 1700}}, {T {600, 700}, T {600, 700}}
big.conv2d = {T {4, 16, 24, 24}, T {16, 16, 3, 3}, T {16}, {padding = 1}}
big.max_pool2d, big.avg_pool2d = {T {8, 16, 48, 48}, 2}, {T {8, 16, 48, 48}, 2}
big.batch_norm = {T {8, 16, 48, 48}, T {16}, T {16}, {training = true, relu = true}}
big.cross_entropy = {T {3000, 100}, T({3000, 100}, unit)}
big.transpose, big.index_select = {T {600, 700}, 1, 2}, {T {600, 700}, 2, I {7, 700, 3}}
big.augment = {pictures {9, 3, 32, 32}, I {9, 8, 7, 6, 5, 4, 3, 2, 1}, steps {
  erase(32, 32, 1, 0.5, 0, 1), {"RandomCrop", 32, 32, 1, 32, 32, 4, 4, 4, 4, 0, 0}, {"ToFloat", 32, 32, 1},
}, {32, 32}}
big.sort, big.max = {T {300, 700}, 1}, {T {600, 700}, 1}

-- ---------------------------------------------------------------- compared between devices alone

-- Ops without samples above: hidden ones, which the gradients of their ops check, and random ones.
local parts = {}

parts.pad_grad = {
  {T {2, 6}, {2, 3}, {1, 2}}, {T {4, 6}, {2, 3}, {1, 2, 2, 0}}, {T {2}, {0}, {1, 1}}, {T {6}, {5}, {-1, 2}},
  {T {3}, {3}, {0, 0}}, {T {1, 2, 7, 8}, {1, 2, 4, 5}, {2, 1, 1, 2}, "reflect"},
  {T {1, 2, 7, 8}, {1, 2, 4, 5}, {2, 1, 1, 2}, "replicate"}, {T {1, 2, 7, 8}, {1, 2, 4, 5}, {2, 1, 1, 2}, "circular"},
  {T {8}, {3}, {3, 2}, "circular"}, {T {9}, {2}, {4, 3}, "replicate"},
}
parts.gather_last = {}
for k, sample in ipairs(cases.gather) do parts.gather_last[k] = sample end
local many = {}
for k = 1, 210 do many[k] = k * k % 11 + 1 end
table.move({
  {T {3}, 1, I {2, 2, 2}}, {T {4, 2}, 1, I({1, 4, 1, 2, 4, 4}, {3, 2})}, {T {11}, 1, I(many)},
  {T {3, 11}, 2, I(many, {3, 70})}, {T {11, 3}, 1, I(many, {70, 3})}, {T {3}, 1, I {2, 4, 2}, no_gradient = true},
}, 1, 6, #parts.gather_last + 1, parts.gather_last)
for _, name in ipairs {"softmax_grad", "log_softmax_grad"} do
  parts[name] = {}
  for k, c in ipairs {{{5}, 1}, {{3, 4}, 1}, {{3, 4}, 2}, {{0, 3}, 2}, {{2, 3, 4}, 2}, {{33}, 1}, {{2, 3000}, 2},
    {{300, 5}, 1}} do
    parts[name][k] = {T(c[1]), T(c[1], {lo = name == "softmax_grad" and 0.01 or -4, hi = 0.5}), c[2]}
  end
end
parts.cross_entropy_grad, parts.cross_entropy_weights = {}, {}
for k, call in ipairs(cases.cross_entropy) do
  local given = call[3] or {}
  local reduced = given.reduction ~= "none"
  local size = table.move(call[1].size, 3, #call[1].size, 2, {call[1].size[1]})
  parts.cross_entropy_grad[k] = {T(reduced and {} or size), call[1], call[2], call[3]}
  parts.cross_entropy_weights[k] = {call[1], call[2], call[3]}
end
parts.conv2d_input_grad = {
  {T {2, 4, 3, 3}, T {4, 3, 3, 3}, 5}, {T {2, 2, 5, 5}, T {2, 2, 3, 3}, 5, {padding = 1}},
  {T {1, 3, 3, 3}, T {3, 2, 3, 3}, {6, 7}, {stride = 2, padding = {1, 0}}},
  {T {1, 2, 3, 3}, T {2, 2, 3, 3}, 7, {dilation = 2}},
  {T {1, 6, 4, 4}, T {6, 2, 3, 3}, 4, {groups = 2, padding = 1}},
  {T {0, 2, 2, 2}, T {2, 2, 3, 3}, 4},
}
parts.conv2d_weight_grad = {
  {T {2, 4, 3, 3}, T {2, 3, 5, 5}, 3}, {T {2, 2, 5, 5}, T {2, 2, 5, 5}, 3, {padding = 1}},
  {T {1, 3, 3, 3}, T {1, 2, 6, 7}, 3, {stride = 2, padding = {1, 0}}},
  {T {1, 2, 3, 3}, T {1, 2, 7, 7}, 3, {dilation = 2}},
  {T {1, 6, 4, 4}, T {1, 4, 4, 4}, 3, {groups = 2, padding = 1}},
  {T {0, 2, 2, 2}, T {0, 2, 4, 4}, 3},
}
local function places(values, size) return {is = "I", size = size, values = values, dtype = "i32"} end
local spread = {}
for k = 1, 2 * 70 * 70 do spread[k] = (k % 70 * 71 + k // 9) % 4900 + 1 end
parts.max_pool2d_grad = {
  {T {1, 2, 2, 2}, places({1, 4, 9, 16, 6, 7, 10, 11}, {1, 2, 2, 2}), {1, 2, 4, 4}},
  {T {1, 1, 2, 3}, places({5, 5, 2, 5, 9, 5}, {1, 1, 2, 3}), {1, 1, 3, 3}}, -- windows that overlap
  {T {1, 1, 1, 2}, places({0, 1}, {1, 1, 1, 2}), {1, 1, 1, 1}}, -- a window without an element
  {T {2, 2, 1, 3}, places({0, 4, 0, 1, 1, 0, 2, 3, 2, 0, 0, 0}, {2, 2, 1, 3}), {2, 2, 2, 2}},
  {T {0, 1, 2, 2}, places({}, {0, 1, 2, 2}), {0, 1, 4, 4}},
  {T {1, 2, 70, 70}, places(spread, {1, 2, 70, 70}), {1, 2, 70, 70}}, -- more than fits a block's own memory
}
parts.avg_pool2d_grad = {
  {T {1, 2, 2, 2}, {1, 2, 4, 4}, 2}, {T {2, 1, 2, 2}, {2, 1, 5, 5}, 2},
  {T {1, 1, 5, 5}, {1, 1, 5, 5}, 3, {stride = 1, padding = 1}},
  {T {1, 2, 4, 3}, {1, 2, 5, 7}, {2, 3}, {stride = {1, 2}}}, {T {1, 1, 3, 3}, {1, 1, 5, 5}, 2, {ceil_mode = true}},
  {T {0, 2, 2, 2}, {0, 2, 4, 4}, 2},
  {T {1, 1, 3, 3}, {1, 1, 5, 5}, 3, {stride = 2, padding = 1, count_include_pad = false}},
}
parts.adaptive_avg_pool2d_grad = {
  {T {1, 2, 1, 1}, {1, 2, 4, 4}}, {T {1, 2, 2, 3}, {1, 2, 5, 7}}, {T {2, 1, 4, 2}, {2, 1, 4, 4}},
  {T {0, 1, 2, 2}, {0, 1, 3, 3}}, {T {1, 1, 5, 5}, {1, 1, 3, 3}}, {T {1, 1, 3, 1}, {1, 1, 7, 5}},
}
local function deviations(c) return T({c}, {lo = 0.5, hi = 2}) end
parts.batch_norm_grad = {
  {T {4, 3}, T {4, 3}, T {3}, T {3}, T {3}, deviations(3)},
  {T {4, 3}, T {4, 3}, T {3}, T {3}, T {3}, deviations(3), false},
  {T {2, 3, 2, 2}, T {2, 3, 2, 2}, {mean = T {3}, rstd = deviations(3)}},
  {T {3, 2, 50}, T {3, 2, 50}, T {2}, T {2}, T {2}, deviations(2)},
  {T {0, 2, 3}, T {0, 2, 3}, T {2}, T {2}, T {2}, deviations(2)},
  {T {4, 3}, T {4, 3}, T {3}, T {3}, T {3}, deviations(3), true, true},
  {T {2, 3, 5, 2}, T {2, 3, 5, 2}, T {3}, T {3}, T {3}, deviations(3), false, true},
  {T {2, 3, 5, 2}, T {2, 3, 5, 2}, {mean = T {3}, rstd = deviations(3), relu = true}},
}
parts.rand, parts.randn = {{{33}}, {{0}}, {{3, 70}}}, {{{33}}, {{0}}, {{3, 70}}}
parts.randint, parts.randperm = {{-3, 9, {33}}, {0, 2 ^ 40 // 1 | 0, {5, 7}}}, {{0}, {1}, {97}}
parts.bernoulli = {{T({33}, {lo = 0, hi = 1})}, {T({3, 70}, {lo = 0, hi = 1})}, {T({3}, {values = {0, 2, 1}})}}
parts.uniform, parts.normal = {{T {33}}, {T {3, 70}, -2, 5}}, {{T {33}}, {T {3, 70}, -2, 5}}
parts.dropout = {{T {33}}, {T {3, 70}, 0.3}, {T {5}, 0.5, false}, {T {0}}, {T {7}, 0}, {T {7}, 1}}
parts.dropout_grad = {
  {B {33}, T {33}}, {B {3, 70}, T {3, 70}, 0.3}, {B {2, 3, 1, 1}, T {2, 3, 4, 4}, 0.25}, {B {7}, T {7}, 1},
  {B {0}, T {0}}, {B {3}, T {2, 3}}, {B {2, 1001}, T {2, 1001}, 0.1},
}
parts.dropout2d = {{T {2, 3, 4, 4}}, {T {1, 70, 2, 3}, 0.3}, {T {2, 3, 4, 4}, 0.5, false}}

return {T = T, I = I, B = B, of = cases, parts = parts, domains = domains, big = big}
