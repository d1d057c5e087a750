-- fit.lua - the usual loop, for when there is nothing unusual about it.
--
-- It is the loop of the README with callbacks: nothing here is hidden from a loop of one's own. A callback is a
-- function(event, state) or an object with methods named by events: train_begin, epoch_begin, batch_end, epoch_end,
-- train_end. state holds net, optimizer, epoch, batch, loss (a number, or on a device a tensor, whose item() waits),
-- history and, at an epoch's end, every figure by name; a callback ends training by state.stop = true.
local dlua = require "dlua"
local Late = require "dlua.late"
local evaluation = require "dlua.train.evaluate"
local metrics = require "dlua.metrics"
local nn = require "dlua.nn"
local options = require "dlua.options"
local Progress = require "dlua.train.progress"

local signature = options.signature {
  "train.fit", {"net", "any"}, {"optimizer", "any"}, {"loss", "function"}, {"train", "any"},
  {"val", "any", optional = true}, {"epochs", "count"}, {"metrics", "table", {}}, {"schedule", "any", optional = true},
  {"schedule_every", {"step", "epoch"}, "step"}, {"callbacks", "table", {}}, {"clip_norm", "positive", optional = true},
  {"guard", "boolean", true}, {"progress", "boolean", true},
  doc = "Trains net for epochs passes over the loader train and returns the history: a list of figures per epoch "
    .. "for loss, every metric, lr and, with val, val_loss and val_<metric>.",
}

-- What state holds besides the figures.
local state_fields = {
  net = true, optimizer = true, epoch = true, epochs = true, batch = true, history = true, stop = true,
}

local function check_metric_name(name)
  if name == "loss" or name == "lr" or state_fields[name] or tostring(name):find "^val_" then
    dlua.fail("train.fit: a metric cannot be named %s", name)
  end
end

local function check_has(name, value, method)
  if type(value) ~= "table" or type(value[method]) ~= "function" then
    dlua.fail("train.fit: %s must be an object with %s, not a %s", name, method, type(value))
  end
end

local function check(o)
  if not nn.is_module(o.net) then dlua.fail("train.fit: net must be a module, not a %s", type(o.net)) end
  check_has("optimizer", o.optimizer, "step")
  check_has("optimizer", o.optimizer, "zero_grad")
  check_has("train", o.train, "iter")
  if o.val ~= nil then check_has("val", o.val, "iter") end
  if o.schedule ~= nil then check_has("schedule", o.schedule, "step") end
  for k, callback in ipairs(o.callbacks) do
    if type(callback) ~= "function" and type(callback) ~= "table" then
      dlua.fail("train.fit: callbacks[%d] must be a function or an object, not a %s", k, type(callback))
    end
  end
  for name in pairs(o.metrics) do check_metric_name(name) end
end

local function tell(o, event, state)
  for _, callback in ipairs(o.callbacks) do
    if type(callback) == "function" then
      callback(event, state)
    elseif callback[event] then
      callback[event](callback, state)
    end
  end
end

local function raise_not_finite(o, state, inputs, value)
  local culprit = inputs and nn.first_not_finite(o.net, inputs)
  local where = culprit and "; first not finite: the output of " .. culprit
    or inputs and "; all layers give finite outputs" or ""
  dlua.fail("train.fit: the loss is %s in epoch %d, batch %d%s (guard = false goes on)", tostring(value), state.epoch,
    state.batch, where)
end

local function is_finite(value) return value == value and value ~= math.huge and value ~= -math.huge end

-- ---------------------------------------------------------------- losses on a device

-- On a device no step waits for its loss. What is sent to the host is a sum over the epoch, which a loss that is not
-- finite spoils for good, so that none is missed; until it has arrived the batches it speaks of are kept, the inputs of
-- the latest few, and when it turns out spoilt, or the optimiser finds a bad gradient first, they are searched.
local MOST_INPUTS = 8

local function keep(o, state, inputs, loss)
  local kept = o.kept
  kept[#kept + 1] = {epoch = state.epoch, batch = state.batch, inputs = dlua.lasting(inputs), loss = dlua.lasting(loss)}
  if #kept > MOST_INPUTS then kept[#kept - MOST_INPUTS].inputs = nil end
end

local function raise_first_kept(o)
  for _, batch in ipairs(o.kept) do
    local value = batch.loss:item()
    if not is_finite(value) then raise_not_finite(o, batch, batch.inputs, value) end
  end
end

-- Forgets batches whose losses have arrived as finite.
local function look_for_sum(o)
  local sum, batch = o.late:take()
  if not sum then return end
  if not is_finite(sum) then raise_first_kept(o) end
  local first = 1
  while o.kept[first] and o.kept[first].batch <= batch do first = first + 1 end
  o.kept = table.move(o.kept, first, #o.kept, 1, {})
end

-- The loss of a batch as a number; on a device as a tensor.
local function checked(o, state, inputs, loss)
  if loss.device == "cpu" then
    local value = loss:item()
    if o.guard and not is_finite(value) then raise_not_finite(o, state, inputs, value) end
    return value
  end
  local value = loss:detach()
  if o.guard then
    look_for_sum(o)
    keep(o, state, inputs, value)
  end
  return value
end

-- A loss that is not finite says more than the gradients that came of it.
local function step_optimizer(o)
  local ok, message = pcall(o.optimizer.step, o.optimizer)
  if ok then return end
  if o.guard and tostring(message):find("not finite", 1, true) then raise_first_kept(o) end
  error(message, 0)
end

-- One forward and backward pass and one step; returns the output and the loss, a number where that costs no wait.
local function train_batch(o, state, batch)
  local count, target = evaluation.inputs_and_target(batch)
  local inputs = {table.unpack(batch, 1, count)}
  local output = o.net(table.unpack(inputs))
  local loss = o.loss(output, target)
  local value = checked(o, state, inputs, loss)
  o.optimizer:zero_grad()
  loss:backward()
  if o.clip_norm then nn.clip_grad_norm_(o.parameters, o.clip_norm) end
  step_optimizer(o)
  if o.schedule and o.schedule_every == "step" and not o.schedule.mode then o.schedule:step() end
  return output, value, target
end

local function train_epoch(o, state, gathered, progress)
  local mean = metrics.Mean()
  local function read_loss() return mean:value() end
  o.kept, o.late = {}, Late()
  o.net:train()
  state.batch = 0
  for batch in evaluation.each_batch(o.train) do
    state.batch = state.batch + 1
    local output, value, target = train_batch(o, state, batch)
    state.loss = value
    local count = #target
    if count > 0 then mean:update(evaluation.sample_mean(o.loss, value, count), count) end
    if #o.kept > 0 and dlua.is_tensor(mean.sum) then o.late:offer(mean.sum, state.batch) end
    for _, gatherer in pairs(gathered) do gatherer:update(output:detach(), target) end
    if progress then progress:step {loss = mean.weight > 0 and read_loss or nil, lr = o.optimizer.lr} end
    tell(o, "batch_end", state)
    if state.stop then break end
  end
  local value = mean:value()
  if o.guard and not is_finite(value) then
    raise_first_kept(o)
    dlua.fail("train.fit: the mean loss is %s in epoch %d (guard = false goes on)", tostring(value), state.epoch)
  end
  return value
end

-- A schedule that follows a result (it has a mode) always waits for the epoch's.
local function step_schedule(o, figures)
  if not o.schedule then return end
  if o.schedule.mode then
    o.schedule:step(figures.val_loss or figures.loss)
  elseif o.schedule_every == "epoch" then
    o.schedule:step()
  end
end

local function figures_of(o, state, loss, gathered)
  local figures = {loss = loss, lr = o.optimizer.lr}
  for name, gatherer in pairs(gathered) do figures[name] = gatherer:value() end
  if o.val then
    local asked = {loss = o.loss}
    for name, metric in pairs(o.metrics) do asked[name] = metric end
    for name, value in pairs(evaluation.evaluate(o.net, o.val, asked)) do figures["val_" .. name] = value end
    if o.guard and not is_finite(figures.val_loss) then
      dlua.fail("train.fit: val_loss is %s in epoch %d (guard = false goes on)", figures.val_loss, state.epoch)
    end
  end
  return figures
end

local function record(state, figures)
  for name, value in pairs(figures) do
    state[name] = value
    state.history[name] = state.history[name] or {}
    table.insert(state.history[name], value)
  end
end

-- Runs fn with the optimiser's own guard off when fit's is; the optimiser's comes back afterwards.
local function under_guard(o, fn)
  if o.guard or not o.optimizer.guard then return fn() end
  o.optimizer.guard = false
  local ok, message = pcall(fn)
  o.optimizer.guard = true
  if not ok then error(message, 0) end
end

local function run_epochs(o, state)
  tell(o, "train_begin", state)
  for epoch = 1, o.epochs do
    state.epoch = epoch
    tell(o, "epoch_begin", state)
    local progress = o.progress and Progress(#o.train, ("epoch %d/%d"):format(epoch, o.epochs))
    local gathered = evaluation.gatherers("train.fit", o.metrics)
    local figures = figures_of(o, state, train_epoch(o, state, gathered, progress), gathered)
    record(state, figures)
    if progress then progress:finish(figures) end
    step_schedule(o, figures)
    tell(o, "epoch_end", state)
    if state.stop then break end
  end
  tell(o, "train_end", state)
end

-- Trains a net and returns the history, {loss = {…}, val_loss = {…}, …}, one number per epoch.
--   local history = train.fit {net = net, optimizer = opt, loss = nn.CrossEntropyLoss(), train = batches, epochs = 3}
local function fit(...)
  local o = signature:read(...)
  check(o)
  local state = {net = o.net, optimizer = o.optimizer, epochs = o.epochs, history = {}, stop = false}
  o.parameters = o.clip_norm and o.net:parameters()
  under_guard(o, function() run_epochs(o, state) end)
  return state.history
end

return fit
