-- resident.lua - data sets that live on a device: uploaded once, and batches of them made there by one kernel.
--
--   local resident = require "dlua.data.resident"
--   local home = resident.open(set, transforms.steps(augment), "cuda", "f32")  -- nil where that cannot be
--   local x, y = home:batch(examples, key, epoch)                              -- examples: i64 on the device
--
-- A set can live on a device when its first part is u8 pictures of one size and its transforms are those of C in any
-- order, sixteen at most, of which one may sample between pixels (Resize, or a rotation or affine map with bilinear
-- interpolation): a pixel of the result is then worked out from those of the set without a picture in between. Pixels
-- and draws are the CPU's, so that nothing but the speed depends on it. Whatever would be an error is left to the CPU,
-- which has the words for it.
local core = require "dlua.core"
local class = require "dlua.class"
local io = core.io

local resident = {}

-- ---------------------------------------------------------------- from transforms to numbers

local most, numbers = 16, 40 -- steps that augment takes, and numbers of each

-- Whether a step makes pixels out of several, when it turns a picture x into y.
local function samples(step, x, y)
  if step.kind == "Resize" then return x.shape[2] ~= y.shape[2] or x.shape[3] ~= y.shape[3] end
  return step.kind == "RandomAffine" and step.numbers[9] ~= 0
end

local function changes_contrast(step)
  return step.kind == "ColorJitter" and (step.numbers[3] ~= 1 or step.numbers[4] ~= 1)
end

-- One row of augment's steps: what happens to pictures like x.
local function row_of(step, x)
  local row = {step.number, x.shape[2], x.shape[3], x.dtype == "u8" and 1 or 0, table.unpack(step.numbers)}
  for k = #row + 1, 4 + numbers do row[k] = 0 end
  return row
end

-- The arguments of augment by which pictures like x go through the steps, or nil. This one goes through them first: its
-- sizes on the way are those of all, and it meets what errors there are.
local function plan_for(steps, x)
  if #steps > most or x.ndim ~= 3 or x.dtype ~= "u8" then return nil end
  local rows, sampled, contrast = {}, 0, false
  for k, step in ipairs(steps) do
    if step.fn then return nil end
    local ok, y = pcall(io.apply, {step.handle}, x, 0, 1, 1, k)
    if not ok then return nil end
    rows[k], contrast = row_of(step, x), contrast or changes_contrast(step)
    if samples(step, x, y) then sampled = sampled + 1 end
    x = y
  end
  if sampled > 1 then return nil end
  return {
    rows = rows, size = {x.shape[2], x.shape[3]}, u8 = x.dtype == "u8", contrast = contrast, between = sampled > 0,
  }
end

-- ---------------------------------------------------------------- uploads

-- For every data set, by device: its parts there, for as long as a loader uses them.
local uploads = setmetatable({}, {__mode = "k"})

-- The parts of a data set on a device, {stamp = …, x, y, …}; nil where it cannot live there.
local function upload(handle, device)
  local there = uploads[handle]
  if not there then
    there = setmetatable({}, {__mode = "v"})
    uploads[handle] = there
  end
  local stamp = io.stamp(handle)
  if there[device] and there[device].stamp == stamp then return there[device] end
  local parts = table.pack(io.fields(handle, device))
  if parts.n == 0 then return nil end
  for k = 1, parts.n do
    local host = parts[k]
    parts[k] = host:to(device)
    host:release() -- a large set is not held twice
  end
  parts.stamp, there[device] = stamp, parts
  return parts
end

-- ---------------------------------------------------------------- batches

local Home = class "Home"

-- A data set with its steps on a device, or nil where its batches have to be made on the CPU. dtype is that of its
-- pictures where the steps make floats of them.
--   resident.open(set, steps, "cuda", "f32")
function resident.open(set, steps, device, dtype)
  if device == "cpu" then return nil end
  local readable, first = pcall(io.get, set.handle, 1)
  local plan = readable and plan_for(steps, first)
  local parts = plan and upload(set.handle, device)
  if not parts then return nil end
  return Home(parts, plan, device, dtype)
end

function Home:init(parts, plan, device, dtype)
  self.parts = parts
  local steps = #plan.rows > 0 and core.tensor(plan.rows, {dtype = "f64", device = device}) or nil
  self.arguments = {
    steps = steps, size = plan.size, contrast = plan.contrast, between = plan.between,
    dtype = plan.u8 and "u8" or dtype,
  }
end

-- The batch of these examples, an i64 tensor of positions on the device.
function Home:batch(examples, key, epoch)
  local arguments = self.arguments
  arguments.key, arguments.epoch = key, epoch
  local batch = {core.ops.augment(self.parts[1], examples, arguments)}
  for k = 2, self.parts.n do batch[k] = self.parts[k]:index_select(1, examples) end
  return table.unpack(batch, 1, self.parts.n)
end

return resident
