-- gradients.lua - keeping gradients in bounds: all of them in one pass over memory, in C.
local dlua = require "dlua"

local gradients = {}

local function listed(who, parameters)
  if dlua.is_tensor(parameters) then return {parameters} end
  if type(parameters) ~= "table" or getmetatable(parameters) then
    dlua.fail("%s: takes a list of parameters, such as net:parameters()", who)
  end
  return parameters
end

-- The norm over all gradients by ops, for devices and dtypes that the C pass does not take: a tensor of no dimensions.
local function norm_by_ops(list, p)
  local total
  for _, g in ipairs(list) do
    local magnitude = g:to("f32"):abs()
    local part = p == math.huge and magnitude:max() or (magnitude ^ p):sum()
    total = not total and part or p == math.huge and total:maximum(part) or total + part
  end
  return p == math.huge and total or total ^ (1 / p)
end

-- All on the device: whether to scale is decided there too, so that nothing waits for the norm.
local function clip_by_ops(parameters, max_norm, p)
  local list = {}
  for _, parameter in ipairs(parameters) do list[#list + 1] = parameter.grad end
  if #list == 0 then return 0.0 end
  local norm = norm_by_ops(list, p)
  local factor = (max_norm / (norm + 1e-6)):clamp(0, 1):masked_fill(norm:isfinite():logical_not(), 1)
  for _, g in ipairs(list) do g:mul_(factor:to(g.dtype)) end
  return norm
end

-- Scales all gradients together so that their norm is at most max_norm; returns the norm they had: a number, or on a
-- device a tensor of no dimensions, which is not waited for. A norm that is not finite leaves them as they are, for the
-- optimiser's guard to name the culprit.
--   local norm = nn.clip_grad_norm_(net:parameters(), 5)
function gradients.clip_grad_norm_(parameters, max_norm, given)
  local o = dlua.options("clip_grad_norm_", given, {norm_type = 2})
  parameters = listed("clip_grad_norm_", parameters)
  if not math.type(max_norm) or max_norm < 0 then
    dlua.fail("clip_grad_norm_: max_norm must be a number of at least 0, not %s", tostring(max_norm))
  end
  local norm = dlua.clip_grad_norm(parameters, max_norm, o.norm_type)
  return norm or dlua.no_grad(function() return clip_by_ops(parameters, max_norm, o.norm_type) end)
end

-- Holds every element of the gradients between -limit and limit.
--   nn.clip_grad_value_(net:parameters(), 0.5)
function gradients.clip_grad_value_(parameters, limit)
  if not math.type(limit) or limit < 0 then
    dlua.fail("clip_grad_value_: limit must be a number of at least 0, not %s", tostring(limit))
  end
  dlua.no_grad(function()
    for _, p in ipairs(listed("clip_grad_value_", parameters)) do
      if p.grad then p.grad:clamp_(-limit, limit) end
    end
  end)
end

return gradients
