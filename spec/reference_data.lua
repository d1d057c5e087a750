-- reference_data.lua - what augment makes of a data set: the draws of a loader's transforms and the places they show.
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

-- The box that is erased of a picture {h, w}, and a function of channel, row and column in it for the noise there.
local function box_of(erase, draw, size)
  local count, drawn = 0, nil
  local function number()
    if count % 4 == 0 then drawn = draw(count // 4) end
    count = count + 1
    return drawn[(count - 1) % 4 + 1]
  end
  local function between(lo, hi) return lo + (hi - lo) * number() end
  local function round(x)
    local whole = math.floor(x)
    local up = x - whole > 0.5 or x - whole == 0.5 and whole % 2 == 1
    return up and whole + 1 or whole
  end
  if number() >= erase[1] then return nil end
  for _ = 1, 10 do
    local area = size[1] * size[2] * between(erase[2], erase[3])
    local ratio = math.exp(between(erase[4], erase[5]))
    local h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if h >= 1 and h < size[1] and w >= 1 and w < size[2] then
      local top = math.floor(number() * (size[1] - h + 1))
      local left, first = math.floor(number() * (size[2] - w + 1)), count
      return {top = top, left = left, h = h, w = w, noise = function(c, row, column)
        local k = first + ((c - 1) * h + row) * w + column
        return draw(k // 4)[k % 4 + 1]
      end}
    end
  end
end

return function(reference)
  function reference.augment(p)
    local n, height, width = #p.index.data, p.window[1], p.window[2]
    local mode = modes[p.mode or "constant"]
    -- Where place i of the result lies before step `from` of the list.
    local function place(sample, axis, i, from)
      local size, length = p.images.size[2 + axis], p.window[axis]
      local step = p.draw[2 + axis]
      local chance = axis == 1 and p.vertical or axis == 2 and p.horizontal or 0
      local flipped = draws(p.key or 0, p.draw[1], sample - 1, step)[1] < chance
      local corner = draws(p.key or 0, p.draw[1], sample - 1, p.draw[2])[axis]
      corner = p.window[2 + axis] + math.floor(corner * p.window[4 + axis])
      if flipped and step >= p.draw[2] and step >= from then i = length + 1 - i end
      if p.draw[2] >= from then
        i = corner + i
        if i < 1 or i > size then i = mode(i, size) end
      end
      if i and flipped and step < p.draw[2] and step >= from then i = size + 1 - i end
      return i
    end
    local erase, boxes = p.erase and p.erase.data, {}
    local function box(sample)
      if boxes[sample] == nil then
        local size = p.draw[2] > p.draw[5] and table.pack(table.unpack(p.images.size, 3)) or p.window
        boxes[sample] = box_of(erase, function(block)
          return draws(p.key or 0, p.draw[1], sample - 1, p.draw[5], block)
        end, size) or false
      end
      return boxes[sample]
    end
    -- What is erased at a place of the result, or nil.
    local function erased(sample, c, y, x)
      local b = erase and box(sample)
      if not b then return nil end
      local row, column = place(sample, 1, y, p.draw[5] + 1), place(sample, 2, x, p.draw[5] + 1)
      if not row or not column then return nil end
      row, column = row - 1 - b.top, column - 1 - b.left
      if row < 0 or row >= b.h or column < 0 or column >= b.w then return nil end
      local value = erase[7] ~= 0 and b.noise(c, row, column) or erase[6]
      if p.draw[6] > 0 then return single(value) end
      return erase[7] ~= 0 and math.floor(256 * value) or math.floor(value + 0.5) & 255
    end
    return build({n, p.images.size[2], height, width}, function(index)
      local sample, c = p.index.data[index[1]], index[2]
      local row, column = place(sample, 1, index[3], 0), place(sample, 2, index[4], 0)
      local value = erased(sample, c, index[3], index[4])
      local stage = value and p.draw[6] or 0
      value = value or row and column and at(p.images, {sample, c, row, column}) or p.fill or 0
      if stage == 0 then value = single(value / 255) end
      if not p.mean or stage == 2 then return value end
      local k = #p.mean.data > 1 and c or 1
      return single(single(value - single(p.mean.data[k])) / single(p.std.data[k]))
    end)
  end
end
