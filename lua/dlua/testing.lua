-- testing.lua - what `dlua test` is: busted inside this program, with assertions for tensors and gradients.
--
--   assert.shape({5, 3}, y)
--   assert.close(expected, y, {rtol = 1e-5, atol = 1e-8})
--   assert.gradcheck(function(x) return net(x):sum() end, x)
--   assert.finite(y)
local dlua = require "dlua"

local testing = {}

local function fail(state, format, ...)
  state.failure_message = format:format(...)
  return false
end

local function shape_text(shape) return "{" .. table.concat(shape, ",") .. "}" end

local function same_shape(a, b)
  if #a ~= #b then return false end
  for k = 1, #a do
    if a[k] ~= b[k] then return false end
  end
  return true
end

local function is_shape(state, arguments)
  local expected, x = arguments[1], arguments[2]
  if not dlua.is_tensor(x) then return fail(state, "expected a tensor, got %s", type(x)) end
  if same_shape(expected, x.shape) then return true end
  return fail(state, "expected shape %s, got %s", shape_text(expected), shape_text(x.shape))
end

local function as_tensor(value, like)
  if dlua.is_tensor(value) then return value end
  return dlua.tensor(value, {dtype = dlua.is_tensor(like) and like.dtype ~= "bool" and like.dtype or "f32"})
end

-- The position with the largest distance, for the message.
local function worst(expected, actual)
  local distance = (expected:to("f64") - actual:to("f64")):abs():flatten()
  local at = distance:argmax():item()
  return at, expected:flatten()[at]:item(), actual:flatten()[at]:item()
end

local function is_close(state, arguments)
  local expected, actual = arguments[1], arguments[2]
  expected, actual = as_tensor(expected, actual):detach():cpu(), as_tensor(actual, expected):detach():cpu()
  if not same_shape(expected.shape, actual.shape) then
    return fail(state, "expected shape %s, got %s", shape_text(expected.shape), shape_text(actual.shape))
  end
  if actual:numel() == 0 or actual:to("f64"):allclose(expected:to("f64"), arguments[3]) then return true end
  return fail(state, "tensors differ, most at element %d: expected %.9g, got %.9g", worst(expected, actual))
end

local function is_gradcheck(state, arguments)
  local fn, inputs, given = arguments[1], {}, nil
  for k = 2, arguments.n do
    if dlua.is_tensor(arguments[k]) then inputs[#inputs + 1] = arguments[k] else given = arguments[k] end
  end
  local ok, problem = require "dlua.gradcheck" (fn, inputs, given)
  return ok or fail(state, "gradients are wrong: %s", problem)
end

local function is_finite(state, arguments)
  local x = arguments[1]
  if not dlua.is_tensor(x) then return fail(state, "expected a tensor, got %s", type(x)) end
  if x:numel() == 0 or x:isfinite():all():item() then return true end
  local bad = x:isfinite():logical_not():to("i64"):sum():item()
  return fail(state, "%d of %d elements are not finite", bad, x:numel())
end

local assertions = {shape = is_shape, close = is_close, gradcheck = is_gradcheck, finite = is_finite}

local function register()
  local assert, say = require "luassert", require "say"
  for name, check in pairs(assertions) do
    local key = "assertion.dlua." .. name
    say:set(key .. ".positive", "expected assert." .. name .. " to hold")
    say:set(key .. ".negative", "expected assert." .. name .. " not to hold")
    assert:register("assertion", name, check, key .. ".positive", key .. ".negative")
  end
end

-- Modules that specs share: loaded before busted, which forgets what a spec file loads.
local function load_all()
  for _, name in ipairs {"nn", "optim", "data", "transforms", "image", "train", "metrics", "args"} do
    pcall(function() return dlua[name] end)
  end
end

-- Runs busted with the arguments in the global arg; gives what the program exits with.
function testing.run()
  local ok, runner = pcall(require, "busted.runner")
  if not ok then dlua.fail("test: busted is not installed (package lua-busted)") end
  load_all()
  register()
  runner {standalone = false}
  return 0
end

testing.register = register

return testing
