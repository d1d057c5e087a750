-- reference_data.lua - what augment makes of a data set: the draws of a loader's transforms and the places they show.
-- Transforms that work out new colours or sample between pixels are in transforms_spec.
local array = require "spec.array"
local at, build = array.at, array.build

-- Four numbers from 0 to 1 of Philox4x32-10 with key (key, 1) and counter (epoch, sample, step and block).
local function draws(key, epoch, sample, step, block)
  local c0, c1, c2, c3 = sample & 0xffffffff, sample >> 32, step << 24 | (block or 0), epoch
  local k0, k1 = key & 0xffffffff, (key >> 32) ~ 0x9E3779B9
  for _ = 1, 10 do
    local p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
    c0, c1, c2, c3 = (p1 >> 32) ~ c1 ~ k0, p1 & 0xffffffff, (p0 >> 32) ~ c3 ~ k1, p0 & 0xffffffff
    k0, k1 = (k0 + 0x9E3779B9) & 0xffffffff, (k1 + 0xBB67AE85) & 0xffffffff
  end
  return {(c0 >> 8) / 2 ^ 24, (c1 >> 8) / 2 ^ 24, (c2 >> 8) / 2 ^ 24, (c3 >> 8) / 2 ^ 24}
end

local function single(v) return (string.unpack("f", string.pack("f", v))) end

-- Which element of 1..n a place of the line, continued beyond its ends, shows; nil: none.
local modes = {
  edge = function(i, n) return math.max(1, math.min(n, i)) end,
  reflect = function(i, n) return i < 1 and 2 - i or 2 * n - i end,
  symmetric = function(i, n) return i < 1 and 1 - i or 2 * n + 1 - i end,
  constant = function() end,
}

-- The numbers that one step draws, in order, and any of them by its number from 0.
local function drawer(p, sample, step)
  local count = 0
  local function number_at(k) return draws(p.key or 0, p.epoch or 0, sample - 1, step, k // 4)[k % 4 + 1] end
  local function number()
    count = count + 1
    return number_at(count - 1)
  end
  return number, number_at, function() return count end
end

local function round(x)
  local whole = math.floor(x)
  local up = x - whole > 0.5 or x - whole == 0.5 and whole % 2 == 1
  return up and whole + 1 or whole
end

-- The box that is erased of a picture {h, w}, if any.
local function box_of(p, size, number)
  local function between(lo, hi) return lo + (hi - lo) * number() end
  if number() >= p[1] then return nil end
  for _ = 1, 10 do
    local area, ratio = size.h * size.w * between(p[2], p[3]), math.exp(between(p[4], p[5]))
    local h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if h >= 1 and h < size.h and w >= 1 and w < size.w then
      local top = math.floor(number() * (size.h - h + 1))
      return {top = top, left = math.floor(number() * (size.w - w + 1)), h = h, w = w}
    end
  end
end

-- What a step makes of a picture: {h, w, levels, at}, at(c, y, x) counting from 1. One for each kind, in their order.
local steps = {}

local function like(picture, at_place)
  return {h = picture.h, w = picture.w, levels = picture.levels, at = at_place}
end

steps[1] = function(x)
  local y = like(x, function(...) return x.levels and single(x.at(...) / 255) or x.at(...) end)
  y.levels = false
  return y
end

steps[2] = function(x, p)
  return like(x, function(c, ...)
    local k = p[1] > 1 and c or 1
    return single(single(x.at(c, ...) - single(p[1 + k])) / single(p[1 + p[1] + k]))
  end)
end

local function window(x, h, w, top, left, mode, fill)
  return {h = h, w = w, levels = x.levels, at = function(c, row, column)
    row, column = row + top, column + left
    if row < 1 or row > x.h then row = mode(row, x.h) end
    if column < 1 or column > x.w then column = mode(column, x.w) end
    return row and column and x.at(c, row, column) or x.levels and round(fill) & 255 or single(fill)
  end}
end

local mode_at = {[0] = modes.constant, modes.reflect, modes.symmetric, modes.edge}
steps[3] = function(x, p, number)
  local top = math.floor(number() * (x.h + p[3] + p[5] - p[1] + 1)) - p[3]
  local left = math.floor(number() * (x.w + p[4] + p[6] - p[2] + 1)) - p[6]
  return window(x, p[1], p[2], top, left, mode_at[p[7]], p[8])
end
steps[4] = function(x, p) return window(x, p[1], p[2], (x.h - p[1]) // 2, (x.w - p[2]) // 2) end
steps[6] = function(x, p) return window(x, x.h + p[1] + p[3], x.w + p[2] + p[4], -p[1], -p[4], mode_at[p[5]], p[6]) end

steps[7] = function(x, p, number)
  local flipped = number() < p[1]
  return like(x, function(c, row, column) return x.at(c, row, flipped and x.w + 1 - column or column) end)
end
steps[8] = function(x, p, number)
  local flipped = number() < p[1]
  return like(x, function(c, row, column) return x.at(c, flipped and x.h + 1 - row or row, column) end)
end

steps[11] = function(x, p, number, number_at, count)
  local box = box_of(p, x, number)
  if not box then return x end
  local first = count()
  return like(x, function(c, row, column)
    local y, z = row - 1 - box.top, column - 1 - box.left
    if y < 0 or y >= box.h or z < 0 or z >= box.w then return x.at(c, row, column) end
    if p[7] == 0 then return x.levels and round(p[6]) & 255 or single(p[6]) end
    local noise = number_at(first + ((c - 1) * box.h + y) * box.w + z)
    return x.levels and math.floor(256 * noise) or noise
  end)
end

return function(reference)
  function reference.augment(p)
    local size, made = p.images.size, {}
    local function picture(sample)
      local x = {h = size[3], w = size[4], levels = true}
      function x.at(c, row, column) return at(p.images, {sample, c, row, column}) end
      for k = 1, p.steps and p.steps.size[1] or 0 do
        local row = table.move(p.steps.data, (k - 1) * 44 + 1, k * 44, 1, {})
        x = steps[row[1] + 1](x, table.move(row, 5, 44, 1, {}), drawer(p, sample, k - 1))
      end
      return x
    end
    return build({#p.index.data, size[2], p.size[1], p.size[2]}, function(index)
      local sample = p.index.data[index[1]]
      made[sample] = made[sample] or picture(sample)
      return made[sample].at(index[2], index[3], index[4])
    end)
  end
end
