-- transforms.lua - what happens to a picture {c,h,w} before it joins a batch.
--
--   local T = dlua.transforms
--   local augment = T.Compose {T.RandomCrop(32, {padding = 4}), T.RandomHorizontalFlip(), T.ToFloat(),
--     T.Normalize({0.5}, {0.25})}
--   local x = augment(dlua.zeros({3, 32, 32}, {dtype = "u8"}))
--   data.DataLoader(set, {batch_size = 128, transform = augment})
--
-- Everything but Lambda is described here and done in C, by a loader's worker threads. In a loader a random
-- transform follows from the loader's key, the epoch and the example; called directly it draws from the global
-- generator. Pictures are u8 (0..255) or f32; only ToFloat changes that. Sizes and paddings are {h, w} or one
-- number for both.
local core = require "dlua.core"
local class = require "dlua.class"
local options = require "dlua.options"
local strict = require "dlua.strict"

local io, shown = core.io, options.shown

local transforms = {}

-- ---------------------------------------------------------------- running

-- Runs steps first..#steps of a flat list on a picture; draw is {key, epoch, sample}. Steps of C that follow each
-- other cross into C once.
--   transforms.run(transforms.steps(T.ToFloat()), 1, dlua.zeros(3, 8, 8), {key = 1, epoch = 1, sample = 1})
function transforms.run(steps, first, x, draw)
  local k = first
  while k <= #steps do
    if steps[k].fn then
      x = steps[k].fn(x)
      k = k + 1
    else
      local handles, start = {}, k
      while steps[k] and steps[k].handle do
        handles[#handles + 1] = steps[k].handle
        k = k + 1
      end
      x = io.apply(handles, x, draw.key, draw.epoch, draw.sample, start)
    end
  end
  return x
end

local Transform = class "Transform"

function Transform:__call(x)
  return transforms.run(transforms.steps(self), 1, x, {key = core.random_key(), epoch = 1, sample = 1})
end

function Transform:__tostring() return self.text end

-- The flat list of steps of a transform, a function, or nothing.
--   #transforms.steps(T.Compose {T.ToFloat(), T.Compose {T.CenterCrop(8)}})      --> 2
function transforms.steps(transform, list)
  list = list or {}
  if type(transform) == "function" then
    list[#list + 1] = {fn = transform}
  elseif type(transform) == "table" and transform.parts then
    for _, part in ipairs(transform.parts) do transforms.steps(part, list) end
  elseif type(transform) == "table" and (transform.handle or transform.fn) then
    list[#list + 1] = transform
  elseif type(transform) == "table" and (getmetatable(transform) or {}).__call then
    list[#list + 1] = {fn = transform}
  elseif transform ~= nil then
    core.fail("transforms: a transform or a function is needed, not %s", type(transform))
  end
  return list
end

-- ---------------------------------------------------------------- one constructor per description

local function pair(value) return type(value) == "table" and value or {value, value} end

-- A range from what users write: {lo, hi}, or one number that middle and least make a range of.
local function range(name, key, value, middle, least)
  if math.type(value) and value >= 0 then return {math.max(middle - value, least), middle + value} end
  if type(value) == "table" and #value == 2 and math.type(value[1]) and math.type(value[2])
    and value[1] <= value[2] then
    return value
  end
  return core.fail("%s: %s must be a number of at least 0 or {low, high}, not %s", name, key, shown(value))
end

local pad_modes = {constant = 0, reflect = 1, symmetric = 2, edge = 3}
local pad_words = {"constant", "reflect", "symmetric", "edge"}
local samplings = {"nearest", "bilinear"}

-- Makes T.Name: its arguments as described, its numbers as runtime/data/transform.h lists them.
local function define(name, description, numbers, kind)
  description[1] = "transforms." .. name
  local signature = options.signature(description)
  local Class = class(name, Transform)
  function Class:init(...)
    local given = signature:read(...)
    self.text = signature:show(given)
    self.kind, self.numbers = kind or name, numbers(given, "transforms." .. name)
    self.handle, self.number = io.transform(self.kind, self.numbers)
  end
  transforms[name] = Class
end

define("ToFloat", {doc = "u8 pictures as f32 from 0 to 1 (divided by 255); f32 passes unchanged."},
  function() return {} end)

define("Normalize", {
  nil, {"mean", "any"}, {"std", "any"},
  doc = "(x - mean) / std for each channel; mean and std are lists of one number per channel, or one number.",
}, function(given, name)
  local mean = type(given.mean) == "table" and given.mean or {given.mean}
  local std = type(given.std) == "table" and given.std or {given.std}
  if #mean ~= #std or #mean == 0 then core.fail("%s: %d means but %d deviations", name, #mean, #std) end
  local numbers = {#mean}
  for _, value in ipairs(mean) do
    if not math.type(value) then core.fail("%s: mean must be numbers, not %s", name, shown(value)) end
    numbers[#numbers + 1] = value
  end
  for _, value in ipairs(std) do
    if not math.type(value) or value <= 0 then
      core.fail("%s: std must be numbers above 0, not %s", name, shown(value))
    end
    numbers[#numbers + 1] = value
  end
  return numbers
end)

define("RandomCrop", {
  nil, {"size", "pair"}, {"padding", "padding", 0}, {"padding_mode", pad_words, "constant", long = "mode"},
  {"fill", "number", 0},
  doc = "A piece of size {h, w} at a random place of the picture, padded first on all sides.",
}, function(given)
  local size, padding = pair(given.size), pair(given.padding)
  return {size[1], size[2], padding[1], padding[2], padding[1], padding[2], pad_modes[given.padding_mode], given.fill}
end)

define("CenterCrop", {nil, {"size", "pair"}, doc = "The piece of size {h, w} in the middle."},
  function(given) return pair(given.size) end)

define("Resize", {
  nil, {"size", "pair"},
  doc = "Bilinear resampling to {h, w}, or with one number so that the shorter side has it. When the picture shrinks, "
    .. "every pixel of it counts (antialias).",
}, function(given)
  if type(given.size) == "table" then return given.size end
  return {given.size, 0}
end)

define("Pad", {
  nil, {"padding", "padding"}, {"padding_mode", pad_words, "constant", long = "mode"}, {"fill", "number", 0},
  doc = "A border of padding {h, w} on all sides.",
}, function(given)
  local padding = pair(given.padding)
  return {padding[1], padding[2], padding[1], padding[2], pad_modes[given.padding_mode], given.fill}
end)

define("RandomHorizontalFlip", {nil, {"p", "fraction", 0.5}, doc = "Left and right change places with probability p."},
  function(given) return {given.p} end)

define("RandomVerticalFlip", {nil, {"p", "fraction", 0.5}, doc = "Top and bottom change places with probability p."},
  function(given) return {given.p} end)

define("RandomRotation", {
  nil, {"degrees", "any"}, {"interpolation", samplings, "nearest"}, {"fill", "number", 0},
  doc = "Turns the picture around its centre, counter-clockwise, by an angle from -degrees to degrees or {low, high}.",
}, function(given, name)
  local angle = range(name, "degrees", given.degrees, 0, -math.huge)
  return {-angle[2], -angle[1], 0, 0, 1, 1, 0, 0, given.interpolation == "bilinear" and 1 or 0, given.fill}
end, "RandomAffine")

define("RandomAffine", {
  nil, {"degrees", "any"}, {"translate", "any", 0}, {"scale", "any", optional = true}, {"shear", "any", 0},
  {"interpolation", samplings, "nearest"}, {"fill", "number", 0},
  doc = "Turns (clockwise), moves by up to translate {h, w} of the picture's size, scales by {low, high} and shears "
    .. "along x by degrees.",
}, function(given, name)
  local angle = range(name, "degrees", given.degrees, 0, -math.huge)
  local shear = range(name, "shear", given.shear, 0, -math.huge)
  local scale = given.scale and range(name, "scale", given.scale, 0, 0) or {1, 1}
  local translate = pair(given.translate)
  for k = 1, 2 do
    if not math.type(translate[k]) or translate[k] < 0 or translate[k] > 1 then
      core.fail("%s: translate must be fractions of the size from 0 to 1, not %s", name, shown(given.translate))
    end
  end
  if scale[1] <= 0 then core.fail("%s: scale must be {low, high} above 0, not %s", name, shown(given.scale)) end
  return {angle[1], angle[2], translate[1], translate[2], scale[1], scale[2], shear[1], shear[2],
    given.interpolation == "bilinear" and 1 or 0, given.fill}
end)

define("ColorJitter", {
  nil, {"brightness", "any", 0}, {"contrast", "any", 0}, {"saturation", "any", 0}, {"hue", "any", 0},
  doc = "Changes brightness, contrast and saturation by factors from 1 - value to 1 + value (or {low, high}) and hue "
    .. "by up to the given part of a turn (at most 0.5), in a drawn order.",
}, function(given, name)
  local numbers = {}
  for _, key in ipairs {"brightness", "contrast", "saturation"} do
    local factor = range(name, key, given[key], 1, 0)
    if factor[1] < 0 then core.fail("%s: %s must not be below 0, got %s", name, key, shown(given[key])) end
    table.move(factor, 1, 2, #numbers + 1, numbers)
  end
  local hue = range(name, "hue", given.hue, 0, -0.5)
  if hue[1] < -0.5 or hue[2] > 0.5 then core.fail("%s: hue must lie in -0.5..0.5, got %s", name, shown(given.hue)) end
  return table.move(hue, 1, 2, #numbers + 1, numbers)
end)

define("RandomErasing", {
  nil, {"p", "fraction", 0.5}, {"scale", "any", {0.02, 0.33}}, {"ratio", "any", {0.3, 3.3}}, {"value", "any", 0},
  doc = "With probability p fills a box whose area is a fraction from scale of the picture and whose h / w lies in "
    .. "ratio with value, or with noise when value is \"random\".",
}, function(given, name)
  local scale, ratio = range(name, "scale", given.scale, 0, 0), range(name, "ratio", given.ratio, 0, 0)
  if scale[1] < 0 or ratio[1] <= 0 then
    core.fail("%s: scale and ratio must be above 0, not %s and %s", name, shown(given.scale), shown(given.ratio))
  end
  if ratio[2] == math.huge then core.fail("%s: ratio must be finite, not %s", name, shown(given.ratio)) end
  if given.value ~= "random" and not math.type(given.value) then
    core.fail("%s: value must be a number or \"random\", not %s", name, shown(given.value))
  end
  local noise = given.value == "random"
  local ratios = {math.log(ratio[1]), math.log(ratio[2])}
  return {given.p, scale[1], scale[2], ratios[1], ratios[2], noise and 0 or given.value, noise and 1 or 0}
end)

-- ---------------------------------------------------------------- those that hold others

-- One transform after the other.
--   T.Compose {T.ToFloat(), T.Normalize({0.5}, {0.5})}
local Compose = class("Compose", Transform)
transforms.Compose = Compose

function Compose:init(parts)
  if type(parts) ~= "table" or parts.handle then
    core.fail("transforms.Compose: takes a list of transforms, not %s", shown(parts))
  end
  self.parts = parts
  local texts = {}
  for k, part in ipairs(parts) do
    transforms.steps(part)
    texts[k] = tostring(part)
  end
  self.text = "Compose {" .. table.concat(texts, ", ") .. "}"
end

-- A Lua function of the picture. Loaders call it on the main thread.
--   T.Lambda(function(x) return x * 2 end)
local Lambda = class("Lambda", Transform)
transforms.Lambda = Lambda

function Lambda:init(fn)
  if type(fn) ~= "function" then core.fail("transforms.Lambda: takes a function, not %s", type(fn)) end
  self.fn, self.text = fn, "Lambda(function)"
end

return strict("transforms", transforms)
