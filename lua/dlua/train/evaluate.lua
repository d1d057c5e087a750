-- evaluate.lua - figures of a model over a loader's batches, with nothing changed by looking.
local dlua = require "dlua"
local metrics = require "dlua.metrics"
local nn = require "dlua.nn"

-- Splits a batch into what goes to the model and the target, which comes last.
local function inputs_and_target(batch)
  if batch.n < 2 then dlua.fail("train: a batch must have inputs and a target, not %d values", batch.n) end
  return batch.n - 1, batch[batch.n]
end

-- Iterates over a loader's batches as packed tables.
local function each_batch(loader)
  local step, state, control = loader:iter()
  return function()
    local batch = table.pack(step(state, control))
    control = batch[1]
    if control ~= nil then return batch end
  end
end

-- A loss's value for a batch of count samples as their mean, whatever the loss's own reduction.
local function sample_mean(criterion, value, count)
  if type(criterion) == "table" and criterion.reduction == "sum" then return value / count end
  return dlua.is_tensor(value) and value:mean() or value
end

-- A loss as a metric: its mean over samples, whatever the batch sizes.
local function loss_mean(criterion)
  local mean = metrics.Mean()
  return {
    reset = function() mean:reset() end,
    value = function() return mean:value() end,
    update = function(_, output, target)
      local count = #target
      if count > 0 then mean:update(sample_mean(criterion, criterion(output, target), count), count) end
    end,
  }
end

-- Named gatherers: metrics as they are, anything else callable as a loss.
local function gatherers(who, given)
  local all = {}
  for name, item in pairs(given) do
    local callable = type(item) == "function" or type(item) == "table" and (getmetatable(item) or {}).__call
    if type(item) == "table" and item.update and item.value then
      all[name] = item
    elseif callable then
      all[name] = loss_mean(item)
    else
      dlua.fail("%s: %s must be a metric or a loss, not a %s", who, tostring(name), type(item))
    end
    all[name]:reset()
  end
  return all
end

-- Values of losses and metrics over all batches of a loader: {name = number}. Runs in eval mode without recording;
-- every module's mode, all buffers and the random generator are as before afterwards, after an error too.
--   local val = train.evaluate(net, val_batches, {loss = criterion, accuracy = metrics.Accuracy()})
--   print(val.loss, val.accuracy)
local function evaluate(net, loader, given)
  if not nn.is_module(net) then dlua.fail("evaluate: takes a module first, not a %s", type(net)) end
  if type(given) ~= "table" then dlua.fail("evaluate: takes a table of losses and metrics, not a %s", type(given)) end
  local all, state = gatherers("evaluate", given), dlua.rng_state()
  local ok, message = pcall(nn.in_eval_mode, net, function()
    for batch in each_batch(loader) do
      local inputs, target = inputs_and_target(batch)
      local output = net(table.unpack(batch, 1, inputs))
      for _, gatherer in pairs(all) do gatherer:update(output, target) end
    end
  end)
  dlua.set_rng_state(state)
  if not ok then error(message, 0) end
  local values = {}
  for name, gatherer in pairs(all) do values[name] = gatherer:value() end
  return values
end

return {
  evaluate = evaluate, each_batch = each_batch, inputs_and_target = inputs_and_target, gatherers = gatherers,
  sample_mean = sample_mean,
}
