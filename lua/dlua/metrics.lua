-- metrics.lua - figures gathered over batches: update(output, target) for each, value() at the end, reset() to begin
-- again. Everything is weighted by sample, so a short last batch counts for what it is; a mean or a share of no samples
-- is an error.
--
--   local accuracy = metrics.Accuracy()
--   for x, y in batches:iter() do accuracy:update(net(x), y) end
--   print(accuracy:value())
local dlua = require "dlua"
local class = require "dlua.class"
local shape_text = require "dlua.nn.module".shape_text
local strict = require "dlua.strict"

local metrics = {}

local function check_tensors(name, output, target)
  if not dlua.is_tensor(output) or not dlua.is_tensor(target) then
    dlua.fail("%s: takes two tensors, not %s and %s", name, type(output), type(target))
  end
end

local function check_classes(name, output, target)
  check_tensors(name, output, target)
  local fits = output.ndim == target.ndim + 1 and output:size(1) == target:size(1)
  if not fits then
    dlua.fail("%s: takes scores {n,classes} and classes {n}, not %s and %s", name, shape_text(output),
      shape_text(target))
  end
end

-- ---------------------------------------------------------------- Mean

-- A running mean of numbers, each with a weight.
--   local mean = metrics.Mean(); mean:update(2); mean:update(5, 3); mean:value()      --> 4.25
local Mean = class "Mean"
metrics.Mean = Mean

function Mean:init() self:reset() end

-- Forgets everything.
function Mean:reset() self.sum, self.weight = 0.0, 0 end

-- What counts as a number. Those on a device stay there, in f64: the number would have to be waited for.
local function addend(x)
  if not dlua.is_tensor(x) then return x end
  if x.device == "cpu" or x:numel() ~= 1 then return x:item() end
  return x:detach():to "f64":flatten()
end

local function add(self, value, weight)
  local sum = self.sum + value
  self.sum, self.weight = dlua.is_tensor(sum) and dlua.lasting(sum) or sum, self.weight + weight
end

-- Takes a number, or a tensor of one element, that stands for weight samples. One on a device is not waited for before
-- value asks.
function Mean:update(value, weight)
  weight = weight or 1
  add(self, addend(value) * weight, weight)
end

-- The mean so far, or the share that a subclass counts; without a sample there is none, which raises.
function Mean:value()
  if self.weight == 0 then
    dlua.fail("%s: no value, as no sample was counted (is the loader empty?)", getmetatable(self).__name)
  end
  if dlua.is_tensor(self.sum) then self.sum = self.sum:item() end
  return self.sum / self.weight
end

-- ---------------------------------------------------------------- Accuracy, TopK

-- The share of samples whose largest score is that of their class.
--   local a = metrics.Accuracy(); a:update(dlua.tensor {{1, 2}, {3, 1}}, dlua.tensor({2, 2}, {dtype = "i64"}))
--   a:value()                                                --> 0.5
local Accuracy = class("Accuracy", Mean)
metrics.Accuracy = Accuracy

function Accuracy:update(output, target)
  check_classes("Accuracy", output, target)
  local hits = dlua.no_grad(function() return output:argmax(2):eq(target):sum() end)
  add(self, addend(hits), target:numel()) -- counts, not shares, so that an empty batch changes nothing
end

-- The share of samples whose class is among the k largest scores.
--   local top5 = metrics.TopK(5)
local TopK = class("TopK", Mean)
metrics.TopK = TopK

function TopK:init(k)
  if math.type(k) ~= "integer" or k < 1 then dlua.fail("metrics.TopK: k must be at least 1, not %s", tostring(k)) end
  self.k = k
  self:reset()
end

function TopK:update(output, target)
  check_classes("TopK", output, target)
  if output.ndim ~= 2 or self.k > output:size(2) then
    dlua.fail("TopK: takes scores {n,classes} with at least %d classes, not %s", self.k, shape_text(output))
  end
  local hits = dlua.no_grad(function()
    local _, best = output:topk(self.k, 2)
    return best:eq(target:unsqueeze(2)):sum()
  end)
  add(self, addend(hits), target:numel())
end

-- ---------------------------------------------------------------- ConfusionMatrix

-- Counts by true class (row) and predicted class (column).
--   local matrix = metrics.ConfusionMatrix(10)
local MOST_CLASSES = 1 << 16
local ConfusionMatrix = class "ConfusionMatrix"
metrics.ConfusionMatrix = ConfusionMatrix

function ConfusionMatrix:init(classes)
  if math.type(classes) ~= "integer" or classes < 1 or classes > MOST_CLASSES then
    dlua.fail("metrics.ConfusionMatrix: classes must be from 1 to %d, not %s", MOST_CLASSES, tostring(classes))
  end
  self.classes = classes
  self:reset()
end

-- Forgets everything.
function ConfusionMatrix:reset()
  self.counts, self.waiting = {}, {} -- counts by cell, those that are not 0: most of a large matrix is
end

local function count_pairs(self, predicted, target)
  local guesses, truths = predicted:totable(), target:totable()
  for k, truth in ipairs(truths) do
    local guess = guesses[k]
    if truth < 1 or truth > self.classes or guess < 1 or guess > self.classes then
      dlua.fail("ConfusionMatrix: class %d at position %d is outside 1..%d", math.max(truth, guess), k, self.classes)
    end
    local cell = (truth - 1) * self.classes + guess
    self.counts[cell] = (self.counts[cell] or 0) + 1
  end
end

-- Takes scores {n,classes} (or predicted classes {n}) and true classes {n}. Those on a device are counted when the
-- counts are asked for.
function ConfusionMatrix:update(output, target)
  check_tensors("ConfusionMatrix", output, target)
  local predicted = (output.ndim == target.ndim and output or output:argmax(2)):flatten()
  if output.device == "cpu" then return count_pairs(self, predicted, target:flatten()) end
  self.waiting[#self.waiting + 1] = dlua.lasting {predicted:to "i64", target:flatten():to "i64"}
end

local function count_waiting(self)
  local waiting = self.waiting
  self.waiting = {}
  for _, pair in ipairs(waiting) do count_pairs(self, pair[1], pair[2]) end
end

-- The counts as an i64 tensor {classes,classes}.
function ConfusionMatrix:value()
  count_waiting(self)
  local cells, counts = {}, {}
  for cell, count in pairs(self.counts) do cells[#cells + 1], counts[#counts + 1] = cell, count end
  local matrix = dlua.zeros({self.classes * self.classes}, {dtype = "i64"})
  if #cells > 0 then matrix:index_copy_(1, cells, dlua.tensor(counts, {dtype = "i64"})) end
  return matrix:reshape(self.classes, self.classes)
end

-- For each true class the share that was recognised; NaN where it never came.
function ConfusionMatrix:recall()
  count_waiting(self)
  local totals, shares = {}, {}
  for cell, count in pairs(self.counts) do
    local row = (cell - 1) // self.classes + 1
    totals[row] = (totals[row] or 0) + count
  end
  for row = 1, self.classes do
    shares[row] = (self.counts[(row - 1) * self.classes + row] or 0) / (totals[row] or 0)
  end
  return shares
end

return strict("metrics", metrics)
