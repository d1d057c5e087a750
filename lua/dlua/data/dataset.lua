-- dataset.lua - data sets as scripts see them.
--
--   local set = data.load("cifar10", {split = "train"})
--   #set, set.classes, set.mean, set.std
--   local x, y = set:get(1)               -- a picture {3,32,32} and its class
--   local sample = set[1]                 -- the same as a list: {x, y}
--
-- A Dataset stands for examples held in C. Anything else with a length and an item serves as a data set too: a
-- table with size() and get(i), or one with __len and __index whose items are {x, y} or one value.
local core = require "dlua.core"
local class = require "dlua.class"
local io = core.io

local dataset = {}

local Dataset = class "Dataset"
dataset.Dataset = Dataset

function Dataset:init(handle, fields)
  rawset(self, "handle", handle)
  for key, value in pairs(fields or {}) do rawset(self, key, value) end
end

-- The parts of example i as several results.
--   local x, y = set:get(1)
function Dataset:get(i) return io.get(self.handle, i) end

-- How many examples there are; the same as #set.
--   set:size()
function Dataset:size() return #self.handle end

function Dataset:__len() return #self.handle end

-- Mean and deviation are those of the training split, for its subsets and for the other splits too.
local function statistics(self)
  local whole = self.train_split and self.train_split() or self
  local mean, std = io.statistics(whole.handle)
  rawset(self, "mean", mean)
  rawset(self, "std", std)
end

function Dataset:__index(key)
  if math.type(key) == "integer" then return {io.get(rawget(self, "handle"), key)} end
  if key == "mean" or key == "std" then
    statistics(self)
    return rawget(self, key)
  end
  if key == "classes" then
    local classes = io.classes(rawget(self, "handle"))
    rawset(self, "classes", classes)
    return classes
  end
  return Dataset[key]
end

function Dataset:__tostring()
  local classes = self.classes
  local suffix = classes and (", %d classes"):format(#classes) or ""
  return ("%s: %d examples%s"):format(self.name or "Dataset", #self, suffix)
end

-- ---------------------------------------------------------------- any data set

-- Is the value one held in C?
--   dataset.is_native(set)
function dataset.is_native(set) return type(set) == "table" and getmetatable(set) == Dataset end

-- How many examples any data set has.
--   dataset.size {size = function() return 3 end, get = …}      --> 3
function dataset.size(set)
  if type(set) ~= "table" and type(set) ~= "userdata" then
    core.fail("data: a data set is needed, not %s", type(set))
  end
  local meta = type(set) == "table" and getmetatable(set) or {}
  if type(set) == "userdata" or meta.__len or not set.size then return #set end
  return set:size()
end

-- Example i of any data set as several results.
--   dataset.get({ {1, 2} }, 1)            --> 1 2
function dataset.get(set, i)
  if dataset.is_native(set) then return io.get(set.handle, i) end
  local has_get = type(set) == "table" and not core.is_tensor(set) and rawget(set, "get")
    or (getmetatable(set) or {}).get
  local meta = getmetatable(set)
  if not has_get and meta and type(meta.__index) == "table" then has_get = meta.__index.get end
  if has_get then return set:get(i) end
  local item = set[i]
  if type(item) == "table" and not core.is_tensor(item) then return table.unpack(item) end
  return item
end

-- ---------------------------------------------------------------- parts of a data set

-- A part of a data set written in Lua, by positions.
local Part = class "Part"

function Part:init(set, index)
  self.set, self.index, self.classes = set, index, rawget(set, "classes")
end

-- How many examples the part has.
function Part:size() return #self.index end

-- The parts of example i.
function Part:get(i) return dataset.get(self.set, self.index[i]) end

function Part:__len() return #self.index end

-- The examples at the positions of an i64 tensor.
--   dataset.part(set, dlua.tensor({1, 3}, {dtype = "i64"}))
function dataset.part(set, index)
  if not dataset.is_native(set) then return Part(set, index:totable()) end
  local fields = {name = set.name, classes = set.classes, path = set.path, train_split = set.train_split}
  if set.has_pictures then
    fields.has_pictures = true
    fields.train_split = function() return set.train_split and set.train_split() or set end
    fields.mean, fields.std = rawget(set, "mean"), rawget(set, "std")
  end
  return Dataset(io.subset(set.handle, index), fields)
end

-- Class labels as an i64 tensor, or nil: the last part of every example.
--   dataset.labels(set)
function dataset.labels(set)
  if dataset.is_native(set) then return io.labels(set.handle) end
  local labels = {}
  for i = 1, dataset.size(set) do
    local parts = table.pack(dataset.get(set, i))
    local label = parts[parts.n]
    if core.is_tensor(label) then label = label:item() end
    if math.type(label) ~= "integer" then return nil end
    labels[i] = label
  end
  return core.tensor(labels, {dtype = "i64"})
end

return dataset
