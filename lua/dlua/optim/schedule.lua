-- schedule.lua - learning rates that follow the clock.
--
--   local schedule = optim.CosineAnnealingLR(opt, {T_max = 100})
--   for step = 1, 100 do … opt:step() schedule:step() end
--
-- A schedule is a factor (or a rate) as a function of how often step was called. Each group's rate starts from its own
-- value, kept in group.initial_lr, so groups keep their ratios. Rates are computed from that start every time, not
-- from the rate before: what was assigned to opt.lr in between is overwritten, and rounding does not add up.
local dlua = require "dlua"
local class = require "dlua.class"
local options = require "dlua.options"

local schedules = {}

local Schedule = class "Schedule"

-- Reads (optimizer, {options}) and sets the rates of time 0.
function Schedule:init(opt, ...)
  if type(opt) ~= "table" or not opt.groups then
    dlua.fail("%s: takes an optimiser first, not a %s", self.signature.name, type(opt))
  end
  for name, value in pairs(self.signature:read(opt, ...)) do self[name] = value end
  self.count = 0
  for _, group in ipairs(opt.groups) do group.initial_lr = group.initial_lr or group.lr end
  if self.build then self:build() end
  self:apply()
end

-- Sets every group's rate for the present count.
function Schedule:apply()
  for k, group in ipairs(self.optimizer.groups) do group.lr = self:rate(group.initial_lr, self.count, k) end
end

-- Counts one step (or epoch) and sets the rates; returns group 1's.
--   schedule:step()
function Schedule:step()
  self.count = self.count + 1
  self:apply()
  return self.optimizer.lr
end

-- What a checkpoint needs: {count =}.
--   local saved = schedule:state_dict()
function Schedule:state_dict() return {count = self.count} end

-- Goes on where state_dict was taken.
--   schedule:load_state_dict(schedule:state_dict())
function Schedule:load_state_dict(saved)
  self.count = saved.count
  self:apply()
end

-- A schedule class from its description and rate(self, start, count, group).
local function schedule(description, rate)
  local new = class(description[1], Schedule)
  local full = {"optim." .. description[1], {"optimizer", "any"}, doc = description.doc}
  for k = 2, #description do full[k + 1] = description[k] end
  new.signature, new.rate = options.signature(full), rate
  new.doc = new.signature:help()
  schedules[description[1]] = new
  return new
end

-- ---------------------------------------------------------------- plain ones

schedule({
  "StepLR", {"step_size", "count"}, {"gamma", "number", 0.1}, doc = "Times gamma after every step_size steps.",
}, function(self, start, count) return start * self.gamma ^ (count // self.step_size) end)

local function check_milestones(name, milestones)
  for k = 1, #milestones do
    if not math.type(milestones[k]) or not math.tointeger(milestones[k]) or milestones[k] < 0 then
      dlua.fail("optim.%s: milestones[%d] must be a whole number of at least 0, not %s", name, k,
        tostring(milestones[k]))
    end
  end
end

local MultiStepLR = schedule({
  "MultiStepLR", {"milestones", "table"}, {"gamma", "number", 0.1}, doc = "Times gamma at every milestone.",
}, function(self, start, count)
  local passed = 0
  for _, milestone in ipairs(self.milestones) do
    if count >= milestone then passed = passed + 1 end
  end
  return start * self.gamma ^ passed
end)

function MultiStepLR:build() check_milestones("MultiStepLR", self.milestones) end

schedule({"ExponentialLR", {"gamma", "number"}, doc = "Times gamma at every step."},
  function(self, start, count) return start * self.gamma ^ count end)

schedule({
  "CosineAnnealingLR", {"T_max", "count"}, {"eta_min", "number", 0.0},
  doc = "Half a cosine from the start down to eta_min in T_max steps (Loshchilov and Hutter 2017).",
}, function(self, start, count)
  return self.eta_min + (start - self.eta_min) * (1 + math.cos(math.pi * count / self.T_max)) / 2
end)

schedule({
  "LinearLR", {"start_factor", "fraction", 1 / 3}, {"end_factor", "fraction", 1.0}, {"total_iters", "count", 5},
  doc = "The start times a factor that goes from start_factor to end_factor in total_iters steps: a warm-up.",
}, function(self, start, count)
  local part = math.min(count, self.total_iters) / self.total_iters
  return start * (self.start_factor + (self.end_factor - self.start_factor) * part)
end)

local LambdaLR = schedule({
  "LambdaLR", {"lr_lambda", "any"},
  doc = "The start times lr_lambda(count), a function or one per group.",
}, function(self, start, count, group)
  local fn = type(self.lr_lambda) == "table" and self.lr_lambda[group] or self.lr_lambda
  return start * fn(count)
end)

function LambdaLR:build()
  local given = self.lr_lambda
  for k = 1, #self.optimizer.groups do
    local fn = type(given) == "table" and given[k] or given
    if type(fn) ~= "function" then dlua.fail("optim.LambdaLR: lr_lambda must be a function or one per group") end
  end
end

-- ---------------------------------------------------------------- one cycle

local OneCycleLR = schedule({
  "OneCycleLR", {"max_lr", "positive"}, {"total_steps", "count", optional = true},
  {"epochs", "count", optional = true}, {"steps_per_epoch", "count", optional = true}, {"pct_start", "fraction", 0.3},
  {"anneal_strategy", {"cos", "linear"}, "cos"}, {"cycle_momentum", "boolean", true},
  {"base_momentum", "fraction", 0.85}, {"max_momentum", "fraction", 0.95},
  {"div_factor", "positive", 25.0}, {"final_div_factor", "positive", 1e4}, {"three_phase", "boolean", false},
  doc = "Up from max_lr / div_factor to max_lr and down to that / final_div_factor, once in total_steps steps, "
    .. "momentum the other way (Smith and Topin 2019). max_lr is group 1's; the others keep their ratio to it.",
}, function() end)

-- Phases {last step, from, to, momentum from, to}; rates in units of a group's peak.
local function phases_of(self)
  local low, bottom = 1 / self.div_factor, 1 / self.div_factor / self.final_div_factor
  local total, rise = self.total_steps, self.pct_start * self.total_steps - 1
  local base, top = self.base_momentum, self.max_momentum
  if self.three_phase then
    return {{rise, low, 1, top, base}, {2 * rise, 1, low, base, top}, {total - 1, low, bottom, top, top}}
  end
  return {{rise, low, 1, top, base}, {total - 1, 1, bottom, base, top}}
end

function OneCycleLR:build()
  self.total_steps = self.total_steps or self.epochs and self.steps_per_epoch and self.epochs * self.steps_per_epoch
  if not self.total_steps then
    dlua.fail("optim.OneCycleLR: total_steps is missing (or epochs and steps_per_epoch)")
  end
  self.phases, self.peaks = phases_of(self), {}
  local first = self.optimizer.groups[1]
  for k, group in ipairs(self.optimizer.groups) do
    local ratio = first.initial_lr > 0 and group.initial_lr / first.initial_lr or 1
    self.peaks[k] = self.max_lr * ratio
    group.initial_lr = self.peaks[k] / self.div_factor
    if self.cycle_momentum and not (group.momentum or group.betas) then
      dlua.fail("optim.OneCycleLR: this optimiser has no momentum to cycle (cycle_momentum = false)")
    end
  end
end

local function between(self, from, to, part)
  if self.anneal_strategy == "linear" then return from + (to - from) * part end
  return to + (from - to) / 2 * (1 + math.cos(math.pi * part))
end

function OneCycleLR:apply()
  if self.count > self.total_steps then
    dlua.fail("optim.OneCycleLR: step %d is beyond total_steps = %d", self.count, self.total_steps)
  end
  local begin, phase = 0, nil
  for k, candidate in ipairs(self.phases) do
    phase = candidate
    if self.count <= phase[1] or k == #self.phases then break end
    begin = phase[1]
  end
  local part = phase[1] == begin and 1 or (self.count - begin) / (phase[1] - begin)
  local rate, momentum = between(self, phase[2], phase[3], part), between(self, phase[4], phase[5], part)
  for k, group in ipairs(self.optimizer.groups) do
    group.lr = self.peaks[k] * rate
    if self.cycle_momentum then
      if group.betas then group.betas[1] = momentum else group.momentum = momentum end
    end
  end
end

-- ---------------------------------------------------------------- by result

local ReduceLROnPlateau = schedule({
  "ReduceLROnPlateau", {"mode", {"min", "max"}, "min"}, {"factor", "fraction", 0.1}, {"patience", "natural", 10},
  {"threshold", "nonnegative", 1e-4}, {"threshold_mode", {"rel", "abs"}, "rel"}, {"cooldown", "natural", 0},
  {"min_lr", "nonnegative", 0.0}, {"eps", "nonnegative", 1e-8},
  doc = "Times factor when the value given to step was no better for more than patience steps.",
}, function() end)

function ReduceLROnPlateau:build()
  self.best, self.bad, self.cooling = self.mode == "min" and math.huge or -math.huge, 0, 0
end

function ReduceLROnPlateau:apply() end -- luacheck: ignore 212

local function is_better(self, value)
  if self.threshold_mode == "abs" then
    if self.mode == "min" then return value < self.best - self.threshold end
    return value > self.best + self.threshold
  end
  if self.mode == "min" then return value < self.best * (1 - self.threshold) end
  return value > self.best * (1 + self.threshold)
end

-- Tells the schedule the value it watches, a number or a tensor of one; returns group 1's rate.
--   schedule:step(val.loss)
function ReduceLROnPlateau:step(value)
  if dlua.is_tensor(value) then value = value:item() end
  if not math.type(value) then dlua.fail("optim.ReduceLROnPlateau: step takes the value to watch, a number") end
  self.count = self.count + 1
  if is_better(self, value) then self.best, self.bad = value, 0 else self.bad = self.bad + 1 end
  if self.cooling > 0 then self.cooling, self.bad = self.cooling - 1, 0 end
  if self.bad > self.patience then
    for _, group in ipairs(self.optimizer.groups) do
      local lower = math.max(group.lr * self.factor, self.min_lr)
      if group.lr - lower > self.eps then group.lr = lower end
    end
    self.cooling, self.bad = self.cooldown, 0
  end
  return self.optimizer.lr
end

function ReduceLROnPlateau:state_dict()
  return {count = self.count, best = self.best, bad = self.bad, cooling = self.cooling}
end

function ReduceLROnPlateau:load_state_dict(saved)
  self.count, self.best, self.bad, self.cooling = saved.count, saved.best, saved.bad, saved.cooling
end

-- ---------------------------------------------------------------- one after the other

local SequentialLR = schedule({
  "SequentialLR", {"schedulers", "table", long = "schedules"}, {"milestones", "table"},
  doc = "Hands over to the next schedule at each milestone; each starts at its own time 0.",
}, function() end)

function SequentialLR:build()
  if #self.milestones ~= #self.schedulers - 1 then
    dlua.fail("optim.SequentialLR: %d schedulers need %d milestones, not %d", #self.schedulers, #self.schedulers - 1,
      #self.milestones)
  end
  check_milestones("SequentialLR", self.milestones)
  for k, item in ipairs(self.schedulers) do
    if type(item) ~= "table" or item.apply == nil then
      dlua.fail("optim.SequentialLR: schedulers[%d] must be a schedule, not a %s", k, type(item))
    end
    if item.apply == ReduceLROnPlateau.apply then
      dlua.fail("optim.SequentialLR: schedulers[%d] waits for a value, which nobody would give it", k)
    end
    if item.optimizer ~= self.optimizer then
      dlua.fail("optim.SequentialLR: schedulers[%d] drives another optimiser", k)
    end
  end
end

function SequentialLR:apply()
  local index, begin = 1, 0
  for k, milestone in ipairs(self.milestones) do
    if self.count >= milestone then index, begin = k + 1, milestone end
  end
  local current = self.schedulers[index]
  current.count = self.count - begin
  current:apply()
end

return schedules
