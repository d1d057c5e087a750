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

-- Scales all gradients together so that their norm is at most max_norm; returns the norm they had, a number. A norm
-- that is not finite leaves them as they are, for the optimiser's guard to name the culprit.
--   local norm = nn.clip_grad_norm_(net:parameters(), 5)
function gradients.clip_grad_norm_(parameters, max_norm, given)
  local o = dlua.options("clip_grad_norm_", given, {norm_type = 2})
  parameters = listed("clip_grad_norm_", parameters)
  if not math.type(max_norm) or max_norm < 0 then
    dlua.fail("clip_grad_norm_: max_norm must be a number of at least 0, not %s", tostring(max_norm))
  end
  return dlua.clip_grad_norm(parameters, max_norm, o.norm_type)
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
