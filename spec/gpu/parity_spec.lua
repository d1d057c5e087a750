-- parity_spec.lua - every op on the GPU against the CPU: values in every dtype, gradients, second derivatives. Derived
-- from the list of ops like ops_spec.lua. DLUA_MODULES=build/emulated runs it without a GPU, on the emulator.
local dlua = require "dlua"
local cases = require "spec.cases"
local derived = require "spec.derived"
local is_mine = require "spec.helpers".is_mine

local available, reason = dlua.cuda.available()
if not available then
  describe("the GPU", function() pending(reason) end)
  return
end

math.randomseed(7)

-- Winograd's algorithm is allowed more than the tolerances below.
local winograd
setup(function() winograd = dlua.winograd(false) end)
teardown(function() dlua.winograd(winograd) end)

local names = dlua.op_info()
table.sort(names)

local asked_for = {}
for pattern in (os.getenv "DLUA_GPU_OPS" or ".*"):gmatch "%S+" do
  local found
  for place, name in ipairs(names) do
    if name:match("^" .. pattern .. "$") then asked_for[name], found = is_mine(place), true end
  end
  if not found then error("DLUA_GPU_OPS: no op is called " .. pattern) end
end

-- Their content is undefined, or looked at elsewhere.
local skipped = {empty = true}

-- rtol, atol and what is allowed times the largest element. bf16 and f16 are computed in f32 and rounded once.
local function closeness(op, dtype)
  if dtype == "f64" then return 1e-10, 1e-12, 1e-11 end
  if dtype == "bf16" then return 2 ^ -7, 1e-5, op.elementwise and 0 or 2 ^ -8 end
  if dtype == "f16" then return 2 ^ -10, 1e-5, op.elementwise and 0 or 2 ^ -11 end
  if op.elementwise then return 1.3e-6, 1e-5, 0 end
  return 1e-5, 1e-6, 1e-5
end

-- The same samples as tensors of a dtype that arrays of numbers cannot be written in directly.
local function arguments_of(sample, options)
  local direct = options.dtype == "f32" or options.dtype == "f64"
  local arguments, tensors = derived.arguments(sample, {dtype = direct and options.dtype or "f32",
    strided = options.strided, device = direct and options.device or nil, grad = options.grad})
  if direct then return arguments, tensors end
  local function convert(v)
    if type(v) == "table" then
      local copy = {}
      for key, entry in pairs(v) do copy[key] = convert(entry) end
      return copy
    end
    if type(v) ~= "userdata" then return v end
    if v.dtype == "f32" then v = v:to(options.dtype) end
    return options.device and v:to(options.device) or v
  end
  for k = 1, arguments.n do arguments[k] = convert(arguments[k]) end
  return arguments, tensors
end

local function on_device(op, arguments, device)
  if not op.create then return arguments end
  local options = arguments[arguments.n]
  if type(options) ~= "table" or #options > 0 or next(options) == nil then
    options, arguments.n = {}, arguments.n + 1
    arguments[arguments.n] = options
  end
  options.device = device
  return arguments
end

local function compare(op, sample, dtype, got, wanted)
  assert.equal(wanted.n, got.n)
  for k = 1, wanted.n do
    local why = derived.difference(derived.read(got[k]), derived.read(wanted[k]), closeness(op, dtype))
    assert.is_nil(why, ("%s(%s) in %s, result %d: %s"):format(op.name, derived.picture(sample), dtype, k, why))
    assert.equal(wanted[k].dtype, got[k].dtype)
    assert.equal("cuda", got[k].device)
  end
end

-- Calls op on both devices with the same arguments: the same results, or the same error.
local function check_values(op, sample, dtype, strided)
  math.randomseed(7) -- large samples are drawn anew each time
  local cpu = arguments_of(sample, {dtype = dtype, strided = strided})
  math.randomseed(7)
  local gpu = on_device(op, arguments_of(sample, {dtype = dtype, strided = strided, device = "cuda"}), "cuda")
  local wanted, got
  local fine, message = pcall(function() wanted = derived.call(op, cpu) end)
  local works, text = pcall(function()
    got = derived.call(op, gpu)
    dlua.cuda.synchronize()
  end)
  if fine then
    assert.is_true(works, ("%s(%s) in %s: %s"):format(op.name, derived.picture(sample), dtype, tostring(text)))
    compare(op, sample, dtype, got, wanted)
  else
    assert.is_false(works, op.name .. " should fail: " .. tostring(message))
    assert.equal((message:gsub("  %S+:%d+$", "")), (text:gsub("  %S+:%d+$", "")))
  end
end

local function check_inplace(op, sample)
  local results = {}
  for k, device in ipairs {"cpu", "cuda"} do
    local arguments = arguments_of(sample, {dtype = "f32", strided = true, device = device ~= "cpu" and device or nil})
    local ok = pcall(function()
      arguments[1] = arguments[1]:clone()
      results[k] = table.pack(derived.call(op, arguments, true)[1])
      dlua.cuda.synchronize()
    end)
    if not ok then results[k] = false end
  end
  assert.equal(results[1] == false, results[2] == false)
  if results[1] then compare(op, sample, "f32", results[2], results[1]) end
end

-- Gradients of a fixed weighting of the results, and of those gradients.
local function gradients(op, sample, device)
  local arguments, tensors = arguments_of(sample, {dtype = "f64", grad = true, device = device})
  if #tensors == 0 then return {n = 0} end
  local function weighted(results)
    local loss
    for k = 1, results.n do
      local y = results[k]
      if y and y.requires_grad and y.dtype == "f64" then
        local weights = dlua.linspace(-1, 1, math.max(1, y:numel()), {dtype = "f64"}):to(y.device)
        local term = y:numel() > 0 and (y:flatten() * weights):sum() or y:sum()
        loss = loss and loss + term or term
      end
    end
    return loss
  end
  local options = {create_graph = true, allow_unused = true}
  local loss = weighted(derived.call(op, arguments))
  if not loss then return {n = 0} end
  local first = table.pack(dlua.grad(loss, tensors, options))
  local again = weighted(first)
  local second = again and table.pack(dlua.grad(again, tensors, options)) or {n = 0}
  local all = {n = 0}
  for _, list in ipairs {first, second} do
    for k = 1, list.n do
      if list[k] then all.n, all[all.n + 1] = all.n + 1, list[k] end
    end
  end
  return all
end

-- A hidden op's gradient may refuse shapes that the op itself takes.
local function check_gradients(op, sample)
  local fine, wanted = pcall(gradients, op, sample)
  local works, got = pcall(gradients, op, sample, "cuda")
  if fine then
    assert.is_true(works, tostring(got))
    compare(op, sample, "f64", got, wanted)
  else
    assert.equal(wanted, got)
  end
end

-- The sanitizers, under which all takes several times as long, see every fourth sample.
local function share_of(samples)
  if not os.getenv "DLUA_SANITIZED" then return samples end
  local list = {}
  for k = 1, #samples, 4 do list[#list + 1] = samples[k] end
  return list
end

local function with_gradient(samples)
  local list = {}
  for _, sample in ipairs(samples) do
    if not sample.no_gradient then list[#list + 1] = sample end
  end
  return list
end

for _, name in ipairs(names) do
  local op = dlua.op_info(name)
  local samples = derived.samples(op) or cases.parts[name]
  if asked_for[name] then
    it("op " .. name .. " has samples", function() assert.is_truthy(samples) end)
  end
  if samples and not skipped[name] and asked_for[name] then
    samples = share_of(samples)
    describe("op " .. name, function()
      for _, dtype in ipairs {"f32", "f64", "bf16", "f16", "i64", "i32", "u8", "bool"} do
        it("is the same in " .. dtype, function()
          for _, sample in ipairs(samples) do
            if dtype == "f64" or not sample.no_gradient then check_values(op, sample, dtype) end
          end
        end)
      end
      it("is the same on strided inputs", function()
        for _, sample in ipairs(with_gradient(samples)) do check_values(op, sample, "f32", true) end
      end)
      if op.inplace then
        it("is the same in place", function()
          for _, sample in ipairs(with_gradient(samples)) do check_inplace(op, sample) end
        end)
      end
      if op.differentiable and not op.random then
        it("has the same gradients", function()
          for _, sample in ipairs(with_gradient(samples)) do check_gradients(op, sample) end
        end)
      end
      local big = not os.getenv "DLUA_SANITIZED" and derived.big(op)
      if big then
        it("is the same on a large input", function() check_values(op, big, "f32") end)
      end
    end)
  end
end
