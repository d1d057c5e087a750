-- image.lua - PNG pictures as tensors {c,h,w}.
--
--   local x = assert(image.load("cat.png"))                  -- u8 {3,h,w}
--   image.save("grey.png", x:to("f32"):mean(1) / 255)
--   image.save("batch.png", image.grid(batch, {columns = 8}))
local core = require "dlua.core"
local help = require "dlua.help"
local options = require "dlua.options"
local strict = require "dlua.strict"
local io = core.io

local image = {}

-- Reads a PNG: u8 {c,h,w} with the file's own values and channels (1 grey, 2 grey and alpha, 3 RGB, 4 RGBA); files of
-- 16 bits give i32 of 0..65535, unless dtype = "u8" scales them. channels = 1, 3 or 4 converts. Returns nil and a
-- message when the file cannot be read.
--   local x, why = image.load("cat.png", {channels = 3, dtype = "u8"})
function image.load(path, given)
  local o = options.check("image.load", given, {channels = 0}, {dtype = "string"})
  if type(path) ~= "string" then core.fail("image.load: path must be a string, not %s", type(path)) end
  if o.channels ~= 0 and o.channels ~= 1 and o.channels ~= 3 and o.channels ~= 4 then
    core.fail("image.load: channels must be 1, 3 or 4, not %s", tostring(o.channels))
  end
  if o.dtype and o.dtype ~= "u8" then core.fail("image.load: dtype can only be u8, not %s", tostring(o.dtype)) end
  return io.png_read(path, o.channels, o.dtype ~= "u8")
end

local function savable(x)
  if not core.is_tensor(x) then core.fail("image.save: x must be a tensor, not %s", type(x)) end
  if x.ndim == 2 then x = x:unsqueeze(1) end
  x = x:detach():to("cpu")
  if x.dtype == "bool" then x = x:to("f32") end
  if x.dtype ~= "u8" and x.dtype ~= "i32" and x.dtype ~= "i64" then
    x = (x:to("f32"):clamp(0, 1) * 255):round():to("u8")
  end
  return x:contiguous()
end

-- Writes {c,h,w} or {h,w} of 1 to 4 channels as PNG: u8 as it is, i32 (0..65535) with 16 bits, floats and bool from
-- 0..1. The file appears whole or not at all.
--   image.save("out.png", dlua.rand(3, 8, 8))
function image.save(path, x, given)
  local o = options.check("image.save", given, {level = 6})
  if type(path) ~= "string" then core.fail("image.save: path must be a string, not %s", type(path)) end
  if math.type(o.level) ~= "integer" or o.level < 1 or o.level > 9 then
    core.fail("image.save: level must be 1..9, not %s", tostring(o.level))
  end
  io.png_write(path, savable(x), o.level)
end

-- Pictures {n,c,h,w} side by side in one, with a border of padding pixels of value between them.
--   image.grid(dlua.rand(10, 3, 32, 32), {columns = 5, padding = 2})
function image.grid(x, given)
  local o = options.check("image.grid", given, {columns = 8, padding = 2, value = 0})
  if not core.is_tensor(x) or x.ndim ~= 4 then core.fail("image.grid: takes a tensor {n,c,h,w}") end
  if math.type(o.columns) ~= "integer" or o.columns < 1 then
    core.fail("image.grid: columns must be a whole number of at least 1, not %s", tostring(o.columns))
  end
  if math.type(o.padding) ~= "integer" or o.padding < 0 then
    core.fail("image.grid: padding must be a whole number of at least 0, not %s", tostring(o.padding))
  end
  local n, c, h, w = x:size()
  local columns = math.min(o.columns, n)
  local rows = (n + columns - 1) // columns
  local high, wide = h + o.padding, w + o.padding
  local grid = core.full({c, rows * high + o.padding, columns * wide + o.padding}, o.value,
    {dtype = x.dtype, device = x.device})
  for k = 1, n do
    local top, left = (k - 1) // columns * high + o.padding, (k - 1) % columns * wide + o.padding
    grid[{ {}, {top + 1, top + h}, {left + 1, left + w} }] = x[k]
  end
  return grid
end

for usage, doc in pairs {
  ["image.load(path, {channels, dtype})"] = "A PNG as u8 {c,h,w} (16-bit files as i32), or nil and a message.",
  ["image.save(path, x, {level = 6})"] = "Writes {c,h,w} or {h,w} as PNG: u8, i32 with 16 bits, or floats from 0 to 1.",
  ["image.grid(x, {columns = 8, padding = 2, value = 0})"] = "Pictures {n,c,h,w} side by side in one {c,h,w}.",
} do
  help.register(usage:match "^[^(]+", usage .. "\n  " .. doc)
end

return strict("image", image)
