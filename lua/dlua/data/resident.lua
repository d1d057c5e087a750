-- resident.lua - data sets that live on a device: uploaded once, and batches of them made there by one kernel.
--
--   local resident = require "dlua.data.resident"
--   local home = resident.open(set, transforms.steps(augment), "cuda", "f32")  -- nil where that cannot be
--   local x, y = home:batch(examples, key, epoch)                              -- examples: i64 on the device
--
-- A set can live on a device when its first part is u8 pictures of one size, and when its transforms are crops, flips,
-- one RandomErasing, ToFloat and Normalize in an order that the op augment knows. Pixels and draws are the CPU's, so
-- that nothing but the speed depends on it. Whatever would be an error is left to the CPU, which has the words for it.
local core = require "dlua.core"
local class = require "dlua.class"
local io = core.io

local resident = {}

-- ---------------------------------------------------------------- from transforms to numbers

local modes = {[0] = "constant", "reflect", "symmetric", "edge"}
local mirrored = {reflect = 1, symmetric = 0} -- by how much less than its length a line can be continued
local most = 1 << 24                          -- sizes and places that augment takes

-- What each kind adds to the arguments of augment. p: the numbers of the transform, as runtime/data/transform.h lists
-- them; at: its place in the list, from 0. false where augment has no such thing, here or at all.
local kinds = {}

-- One window, drawn before pictures become floats: what lies outside is filled with a level of u8. side: padding
-- {top, right, bottom, left}.
local function set_window(plan, window, side, mode, fill, at)
  local word = modes[mode]
  for k = 1, 4 do
    local size = k % 2 == 1 and plan.h or plan.w
    if mirrored[word] and side[k] > size - mirrored[word] then return false end
  end
  for k, value in ipairs(window) do
    window[k] = math.tointeger(value)
    if math.abs(value) > most then return false end
  end
  fill = math.tointeger(fill)
  if plan.window or plan.float or not fill or fill < 0 or fill > 255 then return false end
  if window[1] < 1 or window[2] < 1 or window[5] < 1 or window[6] < 1 then return false end
  plan.window, plan.mode, plan.fill, plan.draw[2] = window, word, fill, at
  return true
end

function kinds.RandomCrop(plan, p, at)
  local rows, columns = plan.h + p[3] + p[5] - p[1], plan.w + p[4] + p[6] - p[2]
  return set_window(plan, {p[1], p[2], -p[3], -p[6], rows + 1, columns + 1}, {table.unpack(p, 3, 6)}, p[7], p[8], at)
end

function kinds.CenterCrop(plan, p, at)
  if p[1] > plan.h or p[2] > plan.w then return false end
  return set_window(plan, {p[1], p[2], (plan.h - p[1]) // 2, (plan.w - p[2]) // 2, 1, 1}, {0, 0, 0, 0}, 0, 0, at)
end

function kinds.Pad(plan, p, at)
  return set_window(plan, {plan.h + p[1] + p[3], plan.w + p[2] + p[4], -p[1], -p[4], 1, 1}, {table.unpack(p, 1, 4)},
    p[5], p[6], at)
end

local function flip(word, place)
  return function(plan, p, at)
    if plan[word] then return false end
    plan[word], plan.draw[place] = p[1], at
    return true
  end
end
kinds.RandomVerticalFlip, kinds.RandomHorizontalFlip = flip("vertical", 3), flip("horizontal", 4)

-- A level of u8 is the value's low byte, as on the CPU, where it is a number of that size.
function kinds.RandomErasing(plan, p, at)
  if plan.erase or not plan.float and math.abs(p[6]) > 1 << 31 then return false end
  plan.erase = {p[1], p[2], p[3], math.log(p[4]), math.log(p[5]), p[6], p[7]}
  plan.draw[5], plan.draw[6] = at, plan.mean and 2 or plan.float and 1 or 0
  return true
end

function kinds.ToFloat(plan)
  plan.float = true
  return true
end

function kinds.Normalize(plan, p)
  local n = p[1]
  if not plan.float or plan.mean or (n ~= 1 and n ~= plan.c) then return false end
  plan.mean, plan.std = {table.unpack(p, 2, n + 1)}, {table.unpack(p, n + 2, 2 * n + 1)}
  return true
end

-- Are all of these steps of kinds that augment knows?
local function known(steps)
  for _, step in ipairs(steps) do
    if not kinds[step.kind] then return false end
  end
  return #steps > 0
end

-- The arguments of augment by which pictures {c,h,w} go through the steps, or nil.
local function plan_for(steps, c, h, w)
  local plan = {c = c, h = h, w = w, draw = {0, 0, 0, 0}}
  for k, step in ipairs(steps) do
    if k > 256 or not kinds[step.kind](plan, step.numbers, k - 1) then return nil end
  end
  if not plan.float then return nil end
  return {
    window = plan.window or {h, w, 0, 0, 1, 1}, draw = plan.draw, mode = plan.mode, fill = plan.fill,
    vertical = plan.vertical, horizontal = plan.horizontal, mean = plan.mean, std = plan.std, erase = plan.erase,
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

-- A data set with its steps on a device, or nil where its batches have to be made on the CPU.
-- dtype is that of its pictures.
--   resident.open(set, steps, "cuda", "f32")
function resident.open(set, steps, device, dtype)
  if device == "cpu" or not known(steps) then return nil end
  local parts = upload(set.handle, device)
  local arguments = parts and plan_for(steps, table.unpack(parts[1].shape, 2))
  if not arguments then return nil end
  arguments.dtype = dtype
  return Home(parts, arguments, device)
end

function Home:init(parts, arguments, device)
  self.parts, self.arguments = parts, arguments
  for _, word in ipairs {"mean", "std"} do
    if arguments[word] then arguments[word] = core.tensor(arguments[word], {device = device}) end
  end
  if arguments.erase then arguments.erase = core.tensor(arguments.erase, {dtype = "f64", device = device}) end
end

-- The batch of these examples, an i64 tensor of positions on the device.
function Home:batch(examples, key, epoch)
  local arguments = self.arguments
  arguments.key, arguments.draw[1] = key, epoch
  local batch = {core.ops.augment(self.parts[1], examples, arguments)}
  for k = 2, self.parts.n do batch[k] = self.parts[k]:index_select(1, examples) end
  return table.unpack(batch, 1, self.parts.n)
end

return resident
