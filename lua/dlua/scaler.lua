-- scaler.lua - loss scaling for f16, whose smallest numbers gradients fall below (Micikevicius et al. 2018, "Mixed
-- precision training"). bf16 has the range of f32 and needs none.
--
--   local scaler = dlua.GradScaler()
--   local loss = dlua.autocast("f16", function() return criterion(net(x), y) end)
--   scaler:scale(loss):backward()
--   scaler:step(opt)
--   scaler:update()
--
-- Nothing waits for a device. The scale lives there, with the number of good steps; whether a gradient is finite is
-- found out there, and the step is left out there if not. get_scale and state_dict read numbers, and so they wait; so
-- does an optimiser whose gradients lie on several devices, since none of them knows what the others found.
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

-- The scale is a normal number of f32.
local smallest, largest = 0x1p-126, 0x1.fffffep127
local function check_scale(who, name, value)
  if value >= smallest and value <= largest then return end
  dlua.fail("%s: %s must lie in %g..%g, not %g", who, name, smallest, largest, value)
end

function GradScaler:init(...)
  local o = self.signature:read(...)
  check_scale("GradScaler", "init_scale", o.init_scale)
  if o.growth_interval > 1 << 24 then -- good steps are counted in f32
    dlua.fail("GradScaler: growth_interval must be at most %d, not %d", 1 << 24, o.growth_interval)
  end
  for name, value in pairs(o) do self[name] = value end
  self.current, self.good_steps = o.init_scale, 0 -- numbers until a device is known
  self.copies, self.seen = {}, {}
end

-- ---------------------------------------------------------------- what lives on devices

local function number_on(device, value) return dlua.lasting(dlua.full({}, value, {device = device})) end

local function value_of(x) return dlua.is_tensor(x) and x:item() or x end

-- Memory of a device does not wait for the collector: these are made anew in every step.
local function let_go(x)
  if dlua.is_tensor(x) then x:release() end
end

local function set_numbers(self, scale, good_steps)
  let_go(self.current)
  let_go(self.good_steps)
  for _, copy in pairs(self.copies) do let_go(copy) end
  self.current, self.good_steps, self.copies = scale, good_steps, {}
end

-- Lets the scale live on a device.
local function settle(self, device)
  if not dlua.is_tensor(self.current) then
    set_numbers(self, number_on(device, self.current), number_on(device, self.good_steps))
  elseif self.current.device ~= device then
    set_numbers(self, dlua.lasting(self.current:to(device)), dlua.lasting(self.good_steps:to(device)))
  end
end

-- The scale on a device; the first to ask is where it lives.
local function scale_on(self, device)
  if not dlua.is_tensor(self.current) then settle(self, device) end
  if self.current.device == device then return self.current end
  self.copies[device] = self.copies[device] or dlua.lasting(self.current:to(device))
  return self.copies[device]
end

-- ---------------------------------------------------------------- gradients

-- The tensor of a device that is raised above 0 where a gradient there is not finite.
local function found_on(found, device)
  found[device] = found[device] or number_on(device, 0)
  return found[device]
end

local function look_by_ops(self, parameters, found, divides)
  for _, p in ipairs(parameters) do
    local g = p.grad
    if g then
      local verdict, wide = found_on(found, g.device), g.dtype == "f64" and "f64" or "f32"
      verdict:copy_(verdict:maximum(g:isfinite():all():logical_not():to "f32"))
      if divides then g:copy_(g * scale_on(self, g.device):to(wide):reciprocal()) end
    end
  end
end

-- Looks at all gradients of an optimiser for those that are not finite, and divides them by the scale.
local function look(self, opt, found, divides)
  for _, group in ipairs(opt.groups) do
    local device = group.params[1].device
    if not dlua.unscale(group.params, divides and scale_on(self, device) or nil, found_on(found, device)) then
      dlua.no_grad(look_by_ops, self, group.params, found, divides)
    end
  end
end

-- The one tensor that tells what was found, or where there are several the largest number.
local function verdict_of(found)
  local device, verdict = next(found)
  if next(found, device) == nil then return verdict end
  local most = 0
  for _, each in pairs(found) do most = math.max(most, each:item()) end
  return most
end

-- ---------------------------------------------------------------- methods

-- The loss times the scale, to call backward on. The scale lives where the loss does from then on.
--   scaler:scale(loss):backward()
function GradScaler:scale(loss)
  settle(self, loss.device)
  return loss * self.current
end

-- The scale of the moment, a number. Waits for the device.
--   print(scaler:get_scale())
function GradScaler:get_scale() return value_of(self.current) end

local function check_optimizer(who, opt)
  if type(opt) == "table" and type(opt.groups) == "table" then return end
  dlua.fail("%s: takes an optimiser, not a %s", who, type(opt))
end

-- Divides the gradients of an optimiser's parameters by the scale, for clipping before step does it.
--   scaler:unscale_(opt); nn.clip_grad_norm_(net:parameters(), 1)
function GradScaler:unscale_(opt)
  check_optimizer("unscale_", opt)
  if self.seen[opt] then
    dlua.fail("unscale_: the gradients of this optimiser are unscaled already; call update after each step")
  end
  local found = {}
  look(self, opt, found, true)
  self.seen[opt] = {found = found, stepped = false} -- only now: a call that ran out of memory can be made again
end

-- Divides the gradients by the scale, unless unscale_ did, and steps the optimiser, unless a gradient is not finite:
-- then nothing is changed, and the step is not counted. That is no error here, also under the optimiser's guard, which
-- only makes step look again at what was unscaled before. Returns nothing, as the host does not know; a scale that fell
-- tells. Where gradients of several backward calls add up, step and update come after the last one.
--   scaler:step(opt)
function GradScaler:step(opt, ...)
  check_optimizer("step", opt)
  if select("#", ...) > 0 then dlua.fail("step: takes an optimiser alone; a closure would not know of the scale") end
  local seen = self.seen[opt]
  if seen and seen.stepped then dlua.fail("step: this optimiser has stepped already; call update after each step") end
  if not seen then
    self:unscale_(opt)
    seen = self.seen[opt]
  elseif opt.guard then
    look(self, opt, seen.found, false)
  end
  opt:step_unless(verdict_of(seen.found))
  seen.stepped = true
end

-- Sets the scale for the next step. Call it once after all optimisers have stepped.
--   scaler:step(opt); scaler:update()
function GradScaler:update()
  local home, total = dlua.is_tensor(self.current) and self.current.device, nil
  for _, seen in pairs(self.seen) do
    for _, found in pairs(seen.found) do
      local here = found:to(home)
      total = total and total:maximum(here) or here
    end
  end
  if not total then dlua.fail("update: no optimiser has stepped with this scaler since the last") end
  local scale, good_steps = dlua.ops.loss_scale(self.current, self.good_steps, total,
    {growth = self.growth_factor, backoff = self.backoff_factor, interval = self.growth_interval})
  set_numbers(self, dlua.lasting(scale), dlua.lasting(good_steps))
  for _, seen in pairs(self.seen) do
    for _, found in pairs(seen.found) do let_go(found) end
  end
  self.seen = {}
end

-- What a checkpoint needs. Waits for the device.
--   local saved = scaler:state_dict()
function GradScaler:state_dict()
  return {scale = value_of(self.current), good_steps = math.tointeger(value_of(self.good_steps))}
end

-- Takes over a table from state_dict.
--   scaler:load_state_dict(scaler:state_dict())
function GradScaler:load_state_dict(saved)
  if type(saved) ~= "table" then dlua.fail("load_state_dict: takes a table from state_dict, not a %s", type(saved)) end
  if not math.type(saved.scale) or not (saved.scale > 0 and saved.scale < math.huge) then
    dlua.fail("load_state_dict: scale must be a finite number above 0, not %s", tostring(saved.scale))
  end
  check_scale("load_state_dict", "scale", saved.scale)
  if math.type(saved.good_steps) ~= "integer" or saved.good_steps < 0 then
    dlua.fail("load_state_dict: good_steps must be a whole number of at least 0, not %s", tostring(saved.good_steps))
  end
  set_numbers(self, saved.scale, saved.good_steps)
end

return GradScaler
