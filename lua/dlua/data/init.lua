-- data/init.lua - dlua.data: reading, splitting and loading examples.
--
--   local images = data.load("cifar10", {split = "train"})
--   local train_set, val_set = data.random_split(images, {0.9, 0.1}, {seed = 1, stratify = true})
--   for x, y in data.DataLoader(train_set, {batch_size = 64, shuffle = true}):iter() do … end
local core = require "dlua.core"
local help = require "dlua.help"
local options = require "dlua.options"
local dataset = require "dlua.data.dataset"
local sources = require "dlua.data.sources"
local strict = require "dlua.strict"
local Frame = require "dlua.data.frame"
local io = core.io

local data = {DataLoader = require "dlua.data.loader"}

-- A data set by name (cifar10, mnist) or from a folder with train/CLASS/*.png and test/CLASS/*.png. Names are looked
-- for in $DLUA_DATA, then in the subset shipped with dlua; a line on the standard error stream says which was used.
-- channels (1, 3 or 4) is what the pictures of a folder are converted to, 3 unless given.
--   data.load("cifar10", {split = "test"})
function data.load(name, given)
  local o = options.check("data.load", given, {split = "train"}, {channels = "count"})
  if type(name) ~= "string" then core.fail("data.load: name must be a string, not %s", type(name)) end
  if o.channels and o.channels ~= 1 and o.channels ~= 3 and o.channels ~= 4 then
    core.fail("data.load: channels must be 1, 3 or 4, not %s", tostring(o.channels))
  end
  return sources.load(name, o.split, o.channels)
end

-- The pictures of folder/CLASS/*.png, classes in byte order of their names. Files are decoded when first needed and
-- kept for later epochs, up to cache bytes in all.
--   data.ImageFolder("flowers/train", {channels = 3, cache = 4 << 30})
function data.ImageFolder(folder, given)
  local o = options.check("data.ImageFolder", given, {channels = 3, cache = 4 << 30})
  if math.type(o.cache) ~= "integer" or o.cache < 0 then
    core.fail("data.ImageFolder: cache must be a number of bytes, not %s", tostring(o.cache))
  end
  if o.channels ~= 1 and o.channels ~= 3 and o.channels ~= 4 then
    core.fail("data.ImageFolder: channels must be 1, 3 or 4, not %s", tostring(o.channels))
  end
  return dataset.Dataset(io.folder(folder, o.channels, o.cache), {name = folder, path = folder, has_pictures = true})
end

-- Examples from tensors: example i is row i of each.
--   data.TensorDataset(dlua.randn(10, 4), dlua.randint(1, 3, {10}))
function data.TensorDataset(...)
  return dataset.Dataset(io.tensors(...), {name = "TensorDataset"})
end

-- One idx file (as MNIST's, plain or .gz) as a tensor, values as they are.
--   data.idx("mnist/t10k-labels-idx1-ubyte.gz")
function data.idx(path) return io.idx(path) end

-- A CSV file as a Frame: frame.names, frame.Column, frame:tensor {…}, #frame.
--   data.csv("ETTh1.csv", {header = true, delimiter = ",", dtype = "f32"})
function data.csv(path, given)
  local o = options.check("data.csv", given, {header = true, delimiter = ",", dtype = "f32"})
  if #o.delimiter ~= 1 or o.delimiter:find '["\r\n]' then
    core.fail("data.csv: delimiter must be one character, not %q", o.delimiter)
  end
  local names, columns, rows = io.csv(path, o.delimiter, o.header)
  for k, column in ipairs(columns) do
    local wanted = core.is_tensor(column) and column:to(o.dtype)
    if wanted and not rawequal(wanted, column) then column:release() end -- a large table is not held twice
    columns[k] = wanted or column
  end
  return Frame(names, columns, rows)
end

-- ---------------------------------------------------------------- parts

local function as_index(what)
  if core.is_tensor(what) then return what:to("i64"):reshape(-1):contiguous() end
  return core.tensor(what, {dtype = "i64"})
end

-- A part of a data set: its first n examples, n drawn ones when a seed is given, or those at given positions.
--   data.subset(set, 1000, {seed = 1});  data.subset(set, {1, 5, 9})
function data.subset(set, what, given)
  local o = options.check("data.subset", given, {}, {seed = "integer"})
  if math.type(what) ~= "integer" then return dataset.part(set, as_index(what)) end
  local count = dataset.size(set)
  if what < 1 or what > count then core.fail("data.subset: %d examples of %d", what, count) end
  if not o.seed then return dataset.part(set, core.range(1, what)) end
  return dataset.part(set, (io.split(o.seed, count, nil, {what})))
end

-- Counts from counts or fractions; what rounding leaves over goes to the first parts, one each.
local function part_counts(lengths, count)
  local counts, total, sum = {}, 0, 0
  for k, length in ipairs(lengths) do
    if not math.type(length) or length < 0 then
      core.fail("data.random_split: part %d must be a count or a fraction, not %s", k, tostring(length))
    end
    sum = sum + length
  end
  local fractions = math.abs(sum - 1) < 1e-6 and not (sum == 1 and math.type(sum) == "integer")
  for k, length in ipairs(lengths) do
    counts[k] = fractions and math.floor(length * count + 1e-9) or math.tointeger(length)
    if not counts[k] then core.fail("data.random_split: fractions must add up to 1, not %g", sum) end
    total = total + counts[k]
  end
  for k = 1, fractions and count - total or 0 do counts[k] = counts[k] + 1 end
  if not fractions and total > count then
    core.fail("data.random_split: the parts have %d examples, the data set %d", total, count)
  end
  return counts
end

-- Deals a data set to parts given as counts or fractions. stratify keeps the share of each class in every part. The
-- same seed gives the same parts; without one it is drawn from the global generator.
--   local a, b = data.random_split(set, {0.8, 0.2}, {seed = 1, stratify = true})
function data.random_split(set, lengths, given)
  local o = options.check("data.random_split", given, {stratify = false}, {seed = "integer"})
  if type(lengths) ~= "table" or #lengths == 0 then
    core.fail("data.random_split: lengths must be a list of counts or fractions")
  end
  local count = dataset.size(set)
  local counts = part_counts(lengths, count)
  local labels = o.stratify and dataset.labels(set) or nil
  if o.stratify and not labels then core.fail("data.random_split: stratify needs class labels") end
  local parts = table.pack(io.split(o.seed or core.random_key(), count, labels, counts))
  for k = 1, parts.n do parts[k] = dataset.part(set, parts[k]) end
  return table.unpack(parts, 1, parts.n)
end

-- ---------------------------------------------------------------- what ?name says

for usage, doc in pairs {
  ['data.load(name, {split = "train", channels})'] =
    "A data set by name (cifar10, mnist) or from a folder with train/CLASS/*.png and test/CLASS/*.png.",
  ["data.ImageFolder(folder, {channels = 3, cache = 4 << 30})"] =
    "The pictures of folder/CLASS/*.png, decoded when first needed and kept up to cache bytes.",
  ["data.TensorDataset(x, …)"] = "Examples from tensors: example i is row i of each.",
  ["data.idx(path)"] = "One idx file (plain or .gz) as a tensor.",
  ['data.csv(path, {header = true, delimiter = ",", dtype = "f32"})'] =
    "A table: frame.names, frame.Column, frame:tensor {names}, #frame.",
  ["data.subset(set, what, {seed})"] = "The first examples, drawn ones (with a seed), or those at given positions.",
  ["data.random_split(set, lengths, {seed, stratify = false})"] =
    "Deals a data set to parts given as counts or fractions; stratify keeps the share of each class.",
} do
  help.register(usage:match "^[^(]+", usage .. "\n  " .. doc)
end

return strict("data", data)
