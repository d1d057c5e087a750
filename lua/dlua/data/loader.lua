-- loader.lua - batches of a data set, epoch after epoch.
--
--   local batches = data.DataLoader(set, {batch_size = 128, shuffle = true, transform = T.ToFloat(), num_workers = 2})
--   for x, y in batches:iter() do … end                     -- the next epoch begins at every iter()
--   print(#batches, batches.stats().wait)                   -- share of the time spent waiting
--
-- Worker threads read, transform and fill batches in C. What Lua must do itself runs on the main thread: Lambda and
-- whatever follows it, collate, and data sets written in Lua. The order of an epoch and the draws of its transforms
-- follow from the loader's key, the epoch and the example, never from num_workers.
--
-- With a device, u8 pictures of one size are uploaded once, and every batch is cut, turned, coloured and normalised
-- there by one kernel in the order of the transforms (resident.lua), the same pixels as on the CPU; workers have
-- nothing to do then. Batches that need anything else (Lambda, collate, two transforms that sample between pixels) are
-- made on the CPU and uploaded one by one.
local core = require "dlua.core"
local class = require "dlua.class"
local options = require "dlua.options"
local dataset = require "dlua.data.dataset"
local resident = require "dlua.data.resident"
local transforms = require "dlua.transforms"
local io = core.io

local signature = options.signature {
  "data.DataLoader", {"set", "any"}, {"batch_size", "count", 1}, {"shuffle", "boolean", false},
  {"drop_last", "boolean", false}, {"transform", "any", optional = true}, {"collate", "function", optional = true},
  {"num_workers", "natural", 0}, {"prefetch_factor", "count", 2}, {"device", "string", optional = true},
  {"dtype", {"f32", "bf16", "f16"}, "f32"},
  doc = "Batches of a data set. #loader is their number; loader:iter() goes through the next epoch. dtype is what an "
    .. "f32 first part is turned into. With a device, u8 pictures are kept and transformed there, unless two "
    .. "transforms sample between pixels (Resize, bilinear rotations and affine maps) or one is a Lua function.",
}

local DataLoader = class "DataLoader"

-- ---------------------------------------------------------------- batches made in Lua

local function all_integers(values)
  for _, value in ipairs(values) do
    if math.type(value) ~= "integer" then return false end
  end
  return true
end

-- Examples as one batch: tensors are stacked, numbers become a tensor (i64 if all are integers), anything else a list.
local function stack(values)
  local first = values[1]
  if core.is_tensor(first) then return core.stack(values) end
  if all_integers(values) then return core.tensor(values, {dtype = "i64"}) end
  if math.type(first) or type(first) == "boolean" then return core.tensor(values) end
  return values
end

local function default_collate(samples)
  local parts = {}
  for k = 1, samples[1].n or #samples[1] do
    local values = {}
    for i, sample in ipairs(samples) do values[i] = sample[k] end
    parts[k] = stack(values)
  end
  return table.unpack(parts)
end

-- A batch of tensors as a list of samples {x, y, …}; single values become Lua numbers.
local function unstack(parts)
  local samples = {}
  for i = 1, #parts[1] do
    local sample = {n = #parts}
    for k, part in ipairs(parts) do
      local value = part[i]
      if value.ndim == 0 then value = value:item() end
      sample[k] = value
    end
    samples[i] = sample
  end
  return samples
end

-- ---------------------------------------------------------------- building

local function first_lua_step(steps)
  for k, step in ipairs(steps) do
    if step.fn then return k end
  end
  return #steps + 1
end

local function native_loader(self, given)
  local handles = {}
  for k = 1, self.first_lua - 1 do handles[k] = self.steps[k].handle end
  self.native = io.loader(given.set.handle, {
    batch = given.batch_size, shuffle = given.shuffle, drop_last = given.drop_last, workers = given.num_workers,
    ahead = given.prefetch_factor, key = self.key,
  }, handles)
end

-- Figures of the running or last epoch.
local function figures(self)
  if self.native and not self.home then return io.stats(self.native) end
  local elapsed = self.began and core.time() - self.began or 0
  return {wait = elapsed > 0 and self.waited / elapsed or 0, waited = self.waited or 0, elapsed = elapsed,
    batches = self.made or 0}
end

function DataLoader:init(set, ...)
  -- A data set may be a plain table, which alone would read as options.
  local given = select("#", ...) == 0 and signature:read(set, {}) or signature:read(set, ...)
  self.set, self.batch_size, self.collate = given.set, given.batch_size, given.collate
  self.shuffle, self.drop_last, self.num_workers = given.shuffle, given.drop_last, given.num_workers
  self.device, self.dtype = given.device and core.device(given.device), given.dtype
  self.key = core.random_key()
  -- loader.stats(): wait (share of the epoch's time spent waiting for batches), waited and elapsed in seconds, batches.
  self.stats = function() return figures(self) end
  self.epoch = 0
  self.steps = transforms.steps(given.transform)
  self.first_lua = first_lua_step(self.steps)
  self.count = dataset.size(given.set)
  if dataset.is_native(given.set) then native_loader(self, given) end
end

function DataLoader:__len()
  if self.drop_last then return self.count // self.batch_size end
  return (self.count + self.batch_size - 1) // self.batch_size
end

-- ---------------------------------------------------------------- one epoch

local function draw(self, example) return {key = self.key, epoch = self.epoch, sample = example} end

-- Runs the transforms that C has not run on the first part of every sample.
local function finish(self, samples, examples, from)
  for i, sample in ipairs(samples) do
    sample[1] = transforms.run(self.steps, from, sample[1], draw(self, examples[i]))
  end
  return (self.collate or default_collate)(samples)
end

-- The next batch from C, passed on as it is unless Lua has a part in it.
local function native_batch(self, number)
  local parts = table.pack(io.next(self.native))
  if parts.n == 0 then return end
  local with_lua = self.first_lua <= #self.steps
  if not with_lua and not self.collate then return table.unpack(parts, 1, parts.n) end
  local samples = unstack(parts)
  local examples = with_lua and io.examples(self.native, (number - 1) * self.batch_size + 1, #samples) or {}
  return finish(self, samples, examples, self.first_lua)
end

local function lua_batch(self, number, order)
  local samples, examples = {}, {}
  local last = math.min(number * self.batch_size, self.count)
  for k = (number - 1) * self.batch_size + 1, last do
    local example = order and order[k] or k
    samples[#samples + 1] = table.pack(dataset.get(self.set, example))
    examples[#examples + 1] = example
  end
  return finish(self, samples, examples, 1)
end

-- The batch as it is handed out: its first part in the loader's dtype, everything on its device.
local function finished(self, ...)
  local as_is = self.dtype == "f32"
  if as_is and not self.device then return ... end
  local parts = table.pack(...)
  if not as_is and core.is_tensor(parts[1]) and parts[1].dtype == "f32" then parts[1] = parts[1]:to(self.dtype) end
  for k = 1, self.device and parts.n or 0 do
    if core.is_tensor(parts[k]) then parts[k] = parts[k]:to(self.device) end
  end
  return table.unpack(parts, 1, parts.n)
end

-- The batch made where the data set lives.
local function resident_batch(self, number, order)
  local first = (number - 1) * self.batch_size + 1
  local size = math.min(self.batch_size, self.count - first + 1)
  return self.home:batch(order:narrow(1, first, size), self.key, self.epoch)
end

-- Finds the data set a home on the loader's device, where it can have one; once, unless its tensors are written to.
local function settle(self)
  if not self.native or not self.device or self.collate then return end
  local stamp = io.stamp(self.set.handle)
  if self.stamp == stamp then return end
  self.home = resident.open(self.set, self.steps, self.device, self.dtype)
  self.stamp = stamp
end

local function begin(self)
  if #self == 0 then
    core.fail("DataLoader: %d examples make no whole batch of %d%s", self.count, self.batch_size,
      self.drop_last and " (drop_last)" or "")
  end
  settle(self)
  self.epoch = self.epoch + 1
  if self.native and not self.home then
    io.start(self.native, self.epoch)
  else
    self.began, self.waited, self.made = core.time(), 0, 0
  end
end

-- The order of the running epoch where C does not keep it: a tensor on the device where the data set lives, a table for
-- a data set written in Lua, nothing where it goes through that one in order.
local function order_of(self)
  local drawn = self.shuffle and (self.home or not self.native) and io.permutation(self.key, self.epoch, self.count)
  if self.home then return (drawn or core.range(1, self.count)):to(self.device) end
  return drawn and drawn:totable()
end

-- Begins the next epoch and returns the iterator of its batches: for x, y in loader:iter() do … end. Leaving the loop
-- early is fine.
--   for x, y in batches:iter() do print(x.shape[1]) end
function DataLoader:iter()
  begin(self)
  local epoch, number, batches, home = self.epoch, 0, #self, self.home
  local native, order = not home and self.native, order_of(self)
  return function()
    if self.epoch ~= epoch then core.fail("DataLoader: this loop was ended by a newer iter() of the same loader") end
    number = number + 1
    if number > batches then
      if native then io.next(native) end
      return nil
    end
    if native then return finished(self, native_batch(self, number)) end
    local before = core.time()
    local batch = table.pack((home and resident_batch or lua_batch)(self, number, order))
    self.waited, self.made = self.waited + core.time() - before, number
    if home then return table.unpack(batch, 1, batch.n) end
    return finished(self, table.unpack(batch, 1, batch.n))
  end
end

function DataLoader:__tostring()
  return ("DataLoader: %d batches of %d from %d examples"):format(#self, self.batch_size, self.count)
end

return DataLoader
