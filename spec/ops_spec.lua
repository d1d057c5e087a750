-- ops_spec.lua - what is true of every op, derived from the list of ops at run time. A new row in ops.def is tested as
-- soon as it exists; without doc, reference or samples it fails here under its name.
local dlua = require "dlua"
local array = require "spec.array"
local cases = require "spec.cases"
local derived = require "spec.derived"
local reference = require "spec.reference"
local live = require "spec.live"
local is_mine = require "spec.helpers".is_mine

math.randomseed(7)

-- Differences are taken at this many places of an input; the sanitized build sees every path with two.
local most_places = os.getenv "DLUA_SANITIZED" and 2 or 12
local names = dlua.op_info()
table.sort(names)

-- Ops that cannot have a value reference, with the reason.
local exempt = {
  empty = "its content is undefined",
  rand = "random: its distribution is in random_spec", randn = "random: see random_spec",
  randint = "random: see random_spec", randperm = "random: see random_spec", bernoulli = "random: see random_spec",
  uniform = "random: see random_spec", normal = "random: see random_spec", dropout = "random: see random_spec",
  dropout2d = "random: see random_spec",
}

-- Ops that carry no gradient: their results are counts, positions, truth values or constants. batch_norm_grad, when it
-- is itself recorded, is written in other ops.
local without_gradient = {
  batch_norm_grad = true, cross_entropy_weights = true, relu_linear_grad = true, gelu_linear_grad = true,
}
for name in ([[all any argmax argmin argsort augment empty eq eye full full_like ge gt isfinite isinf isnan le linspace
  logical_and logical_not logical_or logical_xor loss_scale lt ne nonzero one_hot ones ones_like rand randint randn
  randperm range zeros zeros_like]]):gmatch "%S+" do
  without_gradient[name] = true
end

-- Hidden ops are the gradients of others: each is checked as the first and second derivative of its op.
local function part_of(op)
  if not op.hidden then return nil end
  for _, other in ipairs(names) do
    if other ~= op.name and op.name:find("^" .. other .. "_") then return other end
  end
end

local function closeness(op, dtype)
  if dtype == "f64" and not op.create then return 1e-10, 1e-12, 1e-11 end
  return 2e-5, 1e-6, op.elementwise and 1e-6 or 1e-5
end

-- ---------------------------------------------------------------- values

local function check_values(op, sample, dtype)
  local got = derived.call(op, (derived.arguments(sample, {dtype = dtype})))
  local wanted = table.pack(reference[op.name](derived.named(op, sample)))
  assert.equal(wanted.n, got.n, "number of results")
  for k = 1, got.n do
    local why = derived.difference(derived.read(got[k]), wanted[k], closeness(op, dtype))
    assert.is_nil(why, ("%s(%s), result %d: %s"):format(op.name, derived.picture(sample), k, why))
  end
end

-- Two ways to make the same call give the same results. scaled: tolerance in parts of the largest value.
local function check_same(op, sample, one, other, rtol, what, scaled)
  scaled = scaled or (op.elementwise and 0 or rtol)
  assert.equal(one.n, other.n)
  for k = 1, one.n do
    local why = derived.difference(derived.read(one[k]), derived.read(other[k]), rtol, 0, scaled)
    assert.is_nil(why, ("%s(%s): %s: %s"):format(op.name, derived.picture(sample), what, why))
    assert.equal(one[k].dtype, other[k].dtype)
  end
end

local function check_layouts(op, sample)
  for _, dtype in ipairs {"f32", "f64"} do
    local plain = derived.call(op, (derived.arguments(sample, {dtype = dtype})))
    local strided = derived.call(op, (derived.arguments(sample, {dtype = dtype, strided = true})))
    check_same(op, sample, strided, plain, dtype == "f64" and 1e-12 or 1e-5, "strided and contiguous inputs differ")
  end
end

local function in_reference_mode(f)
  local before = dlua.test.reference(true)
  local ok, result = pcall(f)
  dlua.test.reference(before)
  return ok and result or error(result, 0)
end

local function check_plain(op, sample)
  for _, dtype in ipairs {"f32", "f64"} do
    local arguments = derived.arguments(sample, {dtype = dtype})
    local fast = derived.call(op, arguments)
    local plain = in_reference_mode(function() return derived.call(op, arguments) end)
    check_same(op, sample, fast, plain, dtype == "f64" and 1e-12 or 1e-5, "fast and plain kernels differ")
  end
end

-- A copy of the arguments in which f is applied to every f32 tensor.
local function mapped(v, f)
  if type(v) == "userdata" then return v.dtype == "f32" and f(v) or v end
  if type(v) ~= "table" then return v end
  local copy = {}
  for key, entry in pairs(v) do copy[key] = mapped(entry, f) end
  return copy
end

-- How far bf16 may lie from the rounded f32 result. Products and convolutions run on the CPU's bf16 units, which add
-- up in f32 but in an order of their own: two sums that differ in their last bits may lie on two sides of a rounding
-- boundary and so become neighbours in bf16, which are at most 2^-7 apart; where terms cancel, the sums differ by what
-- f32 sums may. linear_gelu rounds there what gelu is applied to, as two calls do. Every other op gives the same bits.
local function half_tolerance(op, dtype)
  if op.name == "linear_gelu" and dtype == "bf16" then return 2 ^ -7, 2 ^ -8 end
  if op.bf16_units and dtype == "bf16" then return 2 ^ -7, 1e-5 end
  return 0, 0
end

-- bf16 and f16 are computed in f32 and rounded once; who refuses them does so in one line.
local function check_half(op, sample)
  local arguments = derived.arguments(sample, {dtype = "f32"})
  for _, dtype in ipairs {"bf16", "f16"} do
    local rounded = mapped(arguments, function(x) return x:to(dtype):to("f32") end)
    local ok, got = pcall(derived.call, op, mapped(arguments, function(x) return x:to(dtype) end))
    if ok then
      local wanted = derived.call(op, rounded)
      for k = 1, wanted.n do
        if wanted[k].dtype == "f32" and got[k].dtype == dtype then wanted[k] = wanted[k]:to(dtype) end
      end
      local rtol, scaled = half_tolerance(op, dtype)
      check_same(op, sample, got, wanted, rtol, dtype .. " and f32 differ", scaled)
    else
      assert.matches(dtype, tostring(got))
    end
  end
end

local function check_mock(op, sample)
  local cpu = derived.call(op, (derived.arguments(sample, {dtype = "f32"})))
  local arguments = derived.arguments(sample, {dtype = "f32", device = "mock"})
  if op.create then
    local options = arguments[arguments.n]
    if type(options) ~= "table" or #options > 0 or next(options) == nil then
      options, arguments.n = {}, arguments.n + 1
      arguments[arguments.n] = options
    end
    options.device = "mock"
  end
  local mock = derived.call(op, arguments)
  assert.equal("mock", mock[1].device)
  check_same(op, sample, mock, cpu, op.elementwise and 0 or 1e-5, "mock and cpu differ")
end

local function check_inplace(op, sample)
  local arguments = derived.arguments(sample, {dtype = "f64"})
  local out = derived.call(op, arguments)
  local x = arguments[1]
  local fits = type(x) == "userdata" and out[1].dtype == x.dtype
    and table.concat(out[1].shape, ",") == table.concat(x.shape, ",")
  if not fits then return end
  arguments[1] = x:clone()
  local result = derived.call(op, arguments, true)
  assert.is_true(rawequal(result[1], arguments[1]), "the method returns its tensor")
  check_same(op, sample, {n = 1, result[1]}, {n = 1, out[1]}, 1e-12, "in place and out of place differ")
end

-- Whether results are equal to the last bit, which is quickly said of large ones.
local function same_values(one, two)
  for k = 1, one.n do
    if not one[k]:eq(two[k]):all():item() then return false end
  end
  return true
end

local function check_threads(op)
  local sample = derived.big(op)
  if not sample then return end
  local arguments = derived.arguments(sample, {dtype = "f32"})
  local before = dlua.threads(1)
  local one = derived.call(op, arguments)
  dlua.threads(2)
  local two = derived.call(op, arguments)
  dlua.threads(before)
  if same_values(one, two) then return end
  check_same(op, sample, two, one, op.elementwise and 2 ^ -22 or 1e-5, "two threads and one differ")
end

-- ---------------------------------------------------------------- gradients

-- Weights that turn all float results into one number; always the same for the same sample.
local function weights_for(results)
  local weights = {}
  for k = 1, results.n do
    if results[k].dtype == "f64" then
      weights[k] = array.build(results[k].shape, function() return math.random() * 2 - 1 end)
    end
  end
  return weights
end

local function dot(x, weights)
  local sum = 0.0
  for k, v in ipairs(derived.read(x).data) do sum = sum + v * weights.data[k] end
  return sum
end

local function weighted_loss(results, weights)
  local loss
  for k = 1, results.n do
    if weights[k] and results[k].requires_grad then
      local term = (results[k] * derived.tensor(weights[k], {dtype = "f64"})):sum()
      loss = loss and loss + term or term
    end
  end
  return loss
end

-- Up to `most` places of n, spread out.
local function places(n, most)
  local list, step = {}, math.max(1, n // most)
  for k = 1, n, step do list[#list + 1] = k end
  return list
end

-- Compares d f / d input with central differences. analytic[k] is an array; f() evaluates with the arrays as they are.
local function compare_differences(op, sample, arrays, analytic, f, order)
  for i, a in ipairs(arrays) do
    for _, k in ipairs(places(#a.data, most_places)) do
      local value = a.data[k]
      local h = 2e-5 * math.max(0.5, math.abs(value))
      a.data[k] = value + h
      local above = f()
      a.data[k] = value - h
      local below = f()
      a.data[k] = value
      local numeric, got = (above - below) / (2 * h), analytic[i] and analytic[i].data[k] or 0
      assert.is_true(math.abs(got - numeric) <= 1e-7 + 1e-5 * math.abs(numeric),
        ("%s(%s): order %d gradient of tensor %d at %d is %.12g, differences give %.12g"):format(op.name,
          derived.picture(sample), order, i, k, got, numeric))
    end
  end
end

local function read_all(list, n)
  local arrays = {}
  for k = 1, n do arrays[k] = list[k] and derived.read(list[k]) end
  return arrays
end

local function first_gradients(op, sample, weights, create_graph)
  local arguments, tensors = derived.arguments(sample, {dtype = "f64", grad = true})
  local loss = weighted_loss(derived.call(op, arguments), weights)
  if not loss then return {}, tensors end
  return table.pack(dlua.grad(loss, tensors, {create_graph = create_graph, allow_unused = true})), tensors
end

local function check_gradient(op, sample)
  local arguments, tensors, arrays = derived.arguments(sample, {dtype = "f64"})
  if #tensors == 0 then return end
  local weights = weights_for(derived.call(op, arguments))
  if next(weights) == nil then return end
  local gradients = read_all(first_gradients(op, sample, weights, false), #arrays)
  compare_differences(op, sample, arrays, gradients, function()
    local results, sum = derived.call(op, (derived.arguments(sample, {dtype = "f64"}))), 0.0
    for k, w in pairs(weights) do sum = sum + dot(results[k], w) end
    return sum
  end, 1)
end

local function check_second(op, sample)
  local arguments, list, arrays = derived.arguments(sample, {dtype = "f64"})
  if #list == 0 then return end
  local weights = weights_for(derived.call(op, arguments))
  local gradients, tensors = first_gradients(op, sample, weights, true)
  local factors, loss = {}, nil
  for k in ipairs(arrays) do
    if gradients[k] then
      factors[k] = array.build(gradients[k].shape, function() return math.random() * 2 - 1 end)
      if gradients[k].requires_grad then
        local term = (gradients[k] * derived.tensor(factors[k], {dtype = "f64"})):sum()
        loss = loss and loss + term or term
      end
    end
  end
  local second = loss and table.pack(dlua.grad(loss, tensors, {allow_unused = true})) or {}
  compare_differences(op, sample, arrays, read_all(second, #arrays), function()
    local sum, first = 0.0, first_gradients(op, sample, weights, false)
    for k, factor in pairs(factors) do sum = sum + dot(first[k], factor) end
    return sum
  end, 2)
end

-- ---------------------------------------------------------------- when things go wrong

local function check_allocations(op, sample, on)
  local arguments, tensors = derived.arguments(sample, {dtype = "f32", grad = op.differentiable})
  local function call()
    local first = derived.call(op, arguments)[1]
    if first.requires_grad then dlua.grad(first:sum(), tensors, {allow_unused = true}) end
  end
  live.check(call, on)
  if not on then live.check_lua(call) end
end

local wrong = {
  function() return nil end, function() return "x" end, function() return true end, function() return {} end,
  function() return print end, function() return -1 end, function() return 0 end, function() return 1e300 end,
  function() return 0 / 0 end, function() return math.mininteger end, function() return math.maxinteger end,
  function() return 1 << 40 end, function() return {1, 2, 3, 4, 5, 6, 7, 8, 9} end, function() return {{}} end,
  function() return {"x"} end, function() return coroutine.create(print) end, function() return io.stdout end,
  function() return dlua.zeros({0}) end, function() return dlua.ones({1, 1, 1, 1, 1, 1, 1, 1}) end,
  function() return dlua.ones({3}, {dtype = "bool"}) end, function() return dlua.zeros({2, 2}, {dtype = "i64"}) end,
  function() return dlua.ones({2}, {dtype = "bf16"}) end, function() return {unknown_option = 1} end,
}

local function check_message(op, message)
  assert.equal("string", type(message))
  assert.is_nil(message:find "\n", message)
  assert.is_nil(message:find "^%S+%.lua:%d+: attempt", ("%s: not dlua's own error: %s"):format(op.name, message))
end

local function check_fuzz(op, samples)
  local functions = {dlua.ops[op.name], dlua.ops[op.name .. "_"]}
  for _, sample in ipairs {samples[1], samples[#samples]} do
    for k = 1, #sample + 2 do
      for _, make in ipairs(wrong) do
        for _, f in pairs(functions) do
          local arguments = derived.arguments(sample, {dtype = "f32"})
          arguments[k] = make()
          local ok, message = pcall(f, table.unpack(arguments, 1, math.max(k, arguments.n)))
          if not ok then check_message(op, message) end
          local kind = type(arguments[k])
          assert.is_false(ok and (kind == "function" or kind == "thread"), op.name .. " takes a " .. kind)
        end
      end
    end
  end
end

-- ---------------------------------------------------------------- the specs

local function each_sample(op, samples, check, ...)
  for _, sample in ipairs(samples) do check(op, sample, ...) end
end

local function has_gradient_samples(samples)
  local list = {}
  for _, sample in ipairs(samples) do
    if not sample.no_gradient then list[#list + 1] = sample end
  end
  return list
end

describe("the list of ops", function()
  it("has every op once", function()
    for k = 2, #names do assert.are_not.equal(names[k - 1], names[k]) end
  end)
end)

for place, name in ipairs(names) do
  if not is_mine(place) then goto continue end
  local op = dlua.op_info(name)
  local samples = derived.samples(op)
  describe("op " .. name, function()
    before_each(function() math.randomseed(7) end)

    it("has a doc", function() assert.is_true(#(op.doc or "") > 2, name .. " has no doc") end)

    it("carries a gradient or is listed", function()
      assert.equal(not without_gradient[name], op.differentiable == true)
    end)

    if part_of(op) and not cases.of[name] then return end

    it("has a reference or a reason", function()
      assert.is_true((reference[name] or exempt[name]) ~= nil, name .. " has no reference in spec/reference.lua")
    end)
    it("has samples", function()
      assert.is_true(exempt[name] ~= nil or samples ~= nil, name .. " has no samples in spec/cases.lua")
      assert.is_true(exempt[name] ~= nil or #samples >= 8, name .. " has fewer than 8 samples")
    end)
    if not samples then return end

    if reference[name] then
      it("has right values in f64", function() each_sample(op, samples, check_values, "f64") end)
      it("has right values in f32", function()
        each_sample(op, has_gradient_samples(samples), check_values, "f32")
      end)
      it("runs alike on strided inputs", function() each_sample(op, samples, check_layouts) end)
      it("runs alike on plain kernels", function() each_sample(op, samples, check_plain) end)
      it("runs alike in half precision", function() each_sample(op, samples, check_half) end)
      it("runs alike on the mock device", function() each_sample(op, samples, check_mock) end)
      it("runs alike on two threads", function() check_threads(op) end)
      if op.inplace then
        it("runs alike in place", function() each_sample(op, samples, check_inplace) end)
      end
    end
    if op.differentiable and not op.random then
      it("has right gradients", function() each_sample(op, has_gradient_samples(samples), check_gradient) end)
      it("has right second derivatives", function() each_sample(op, has_gradient_samples(samples), check_second) end)
    end
    it("survives failing allocations", function()
      each_sample(op, os.getenv "DLUA_FAULT_ALL" and samples or {samples[1], samples[#samples]}, check_allocations)
    end)
    it("survives memory that has run out", function() check_allocations(op, samples[1], true) end)
    it("refuses wrong arguments", function() check_fuzz(op, samples) end)
  end)
  ::continue::
end

describe("injected failures", function()
  it("are many", function() -- see faults_spec
    local least = live.step == 1 and 14500 or 13000 // live.step -- steps are rounded down in each sample
    local _, shares = is_mine(1)
    assert.is_true(live.injections * shares >= least, live.injections .. " allocations were made to fail")
  end)
end)

teardown(function() print(("%d allocations were made to fail"):format(live.injections)) end)
