-- scaler.lua - loss scaling for f16, whose smallest numbers gradients fall below (Micikevicius et al. 2018, "Mixed
-- precision training"). bf16 has the range of f32 and needs none.
--
--   local scaler = dlua.GradScaler()
--   local loss = dlua.autocast("f16", function() return criterion(net(x), y) end)
--   scaler:scale(loss):backward()
--   scaler:step(opt)
--   scaler:update()
local dlua = require "dlua"
local class = require "dlua.class"
local options = require "dlua.options"

local GradScaler = class "GradScaler"

-- After a step whose gradients are not finite the scale is multiplied by backoff_factor, after growth_interval good
-- steps in a row by growth_factor.
GradScaler.signature = options.signature {
  "GradScaler", {"init_scale", "positive", 65536}, {"growth_factor", "positive", 2},
  {"backoff_factor", "fraction", 0.5}, {"growth_interval", "count", 2000},
  doc = "Scales the loss so that f16 gradients neither vanish nor overflow.",
}

function GradScaler:init(...)
  local o = self.signature:read(...)
  for name, value in pairs(o) do self[name] = value end
  self.current, self.good_steps = o.init_scale, 0
  self.found_bad, self.unscaled = false, {}
end

-- The loss times the scale, to call backward on.
--   scaler:scale(loss):backward()
function GradScaler:scale(loss) return loss * self.current end

-- The scale of the moment, a number.
--   print(scaler:get_scale())
function GradScaler:get_scale() return self.current end

local function each_gradient(opt, fn)
  for _, group in ipairs(opt.groups) do
    for _, p in ipairs(group.params) do
      if p.grad then fn(p.grad) end
    end
  end
end

-- Waits for a device once, however many groups there are.
local function is_finite(opt)
  local sum = 0 -- of differences that are 0, or NaN where a gradient is not finite
  for _, group in ipairs(opt.groups) do
    local largest = dlua.nn.clip_grad_norm_(group.params, math.huge, {norm_type = math.huge})
    local difference = largest - largest
    local two_devices = dlua.is_tensor(difference) and dlua.is_tensor(sum)
    sum = sum + (two_devices and difference:to(sum.device) or difference)
  end
  if dlua.is_tensor(sum) then sum = sum:item() end
  return sum == 0
end

-- Divides the gradients of an optimiser's parameters by the scale, for clipping before step does it.
--   scaler:unscale_(opt); nn.clip_grad_norm_(net:parameters(), 1)
function GradScaler:unscale_(opt)
  if self.unscaled[opt] ~= nil then
    dlua.fail("unscale_: the gradients of this optimiser are unscaled already; call update after each step")
  end
  local finite = is_finite(opt)
  if finite then
    local factor = 1 / self.current
    dlua.no_grad(each_gradient, opt, function(g) g:mul_(factor) end)
  end
  self.unscaled[opt] = finite
  self.found_bad = self.found_bad or not finite
end

-- Steps the optimiser, unless a gradient is not finite: then nothing is changed and the result is false.
--   scaler:step(opt)
function GradScaler:step(opt)
  if self.unscaled[opt] == nil then self:unscale_(opt) end
  if not self.unscaled[opt] then return false end
  opt:step()
  return true
end

-- Sets the scale for the next step. Call it once after all optimisers have stepped.
--   scaler:step(opt); scaler:update()
function GradScaler:update()
  if next(self.unscaled) == nil then dlua.fail("update: no optimiser has stepped with this scaler since the last") end
  if self.found_bad then
    self.current, self.good_steps = self.current * self.backoff_factor, 0
  else
    self.good_steps = self.good_steps + 1
    if self.good_steps >= self.growth_interval then
      local grown = self.current * self.growth_factor
      self.current, self.good_steps = grown < math.huge and grown or self.current, 0
    end
  end
  self.found_bad, self.unscaled = false, {}
end

-- What a checkpoint needs.
--   local saved = scaler:state_dict()
function GradScaler:state_dict() return {scale = self.current, good_steps = self.good_steps} end

-- Takes over a table from state_dict.
--   scaler:load_state_dict(scaler:state_dict())
function GradScaler:load_state_dict(saved)
  if type(saved) ~= "table" then dlua.fail("load_state_dict: takes a table from state_dict, not a %s", type(saved)) end
  if not math.type(saved.scale) or not (saved.scale > 0 and saved.scale < math.huge) then
    dlua.fail("load_state_dict: scale must be a finite number above 0, not %s", tostring(saved.scale))
  end
  if math.type(saved.good_steps) ~= "integer" or saved.good_steps < 0 then
    dlua.fail("load_state_dict: good_steps must be a whole number of at least 0, not %s", tostring(saved.good_steps))
  end
  self.current, self.good_steps = saved.scale, saved.good_steps
end

return GradScaler
