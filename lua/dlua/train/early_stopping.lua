-- early_stopping.lua - stop when it no longer gets better, and go back to when it was best.
local dlua = require "dlua"
local class = require "dlua.class"
local options = require "dlua.options"

local EarlyStopping = class "EarlyStopping"

EarlyStopping.signature = options.signature {
  "train.EarlyStopping", {"monitor", "string", "val_loss"}, {"mode", {"min", "max"}, optional = true},
  {"patience", "natural", 5}, {"min_delta", "nonnegative", 0.0}, {"restore_best", "boolean", false},
  doc = "Stops after patience epochs in a row that were not better than the best by more than min_delta.",
}

-- Makes a watcher, for train.fit as a callback or for a loop of one's own. mode is "max" for names that end in
-- accuracy, else "min", unless given.
--   local stop = train.EarlyStopping {mode = "min", patience = 5, restore_best = true}
function EarlyStopping:init(...)
  for name, value in pairs(self.signature:read(...)) do self[name] = value end
  self.mode = self.mode or self.monitor:find "accuracy$" and "max" or "min"
  self:train_begin()
end

local function is_better(self, value)
  if value ~= value then return false end
  if not self.best then return true end
  if self.mode == "min" then return value < self.best - self.min_delta end
  return value > self.best + self.min_delta
end

local function keep(self, net)
  if not net then dlua.fail("EarlyStopping: restore_best needs the module: stop:step(value, net)") end
  self.kept = {}
  for name, tensor in pairs(net:state_dict()) do self.kept[name] = dlua.lasting(tensor:clone()) end
end

-- Takes an epoch's value; true when it is time to stop. best and best_epoch say what was best so far.
--   local is_over = stop:step(val.loss, net)
function EarlyStopping:step(value, net)
  if dlua.is_tensor(value) then value = value:item() end
  if not math.type(value) then dlua.fail("EarlyStopping: step takes a number, not a %s", type(value)) end
  self.epoch = self.epoch + 1
  if is_better(self, value) then
    self.best, self.best_epoch, self.bad = value, self.epoch, 0
    if self.restore_best then keep(self, net) end
  else
    self.bad = self.bad + 1
  end
  return self.bad >= math.max(self.patience, 1)
end

-- Puts the weights of the best epoch back; nothing happens before the first epoch.
--   stop:restore(net)
function EarlyStopping:restore(net)
  if not self.restore_best then dlua.fail("EarlyStopping: nothing was kept; give restore_best = true") end
  if self.kept then net:load_state_dict(self.kept) end
end

-- Forgets what was seen: train.fit begins every run with it.
--   stop:train_begin()
function EarlyStopping:train_begin()
  self.epoch, self.bad = 0, 0
  self.best, self.best_epoch, self.kept = nil, nil, nil
end

-- As a callback of train.fit: reads what it monitors, and restores at the end, stopped or not.
function EarlyStopping:epoch_end(state)
  local value = state[self.monitor]
  if value == nil then dlua.fail("EarlyStopping: there is no %s to monitor", self.monitor) end
  if self:step(value, state.net) then state.stop = true end
end

function EarlyStopping:train_end(state)
  if self.restore_best then self:restore(state.net) end
end

return EarlyStopping
