-- reference_data.lua - what augment makes of a data set: the draws of a loader's transforms and the places they show.
local array = require "spec.array"
local at, build = array.at, array.build

-- Four numbers from 0 to 1 of Philox4x32-10 with key (key, 1) and counter (epoch, sample, step).
local function draws(key, epoch, sample, step)
  local c0, c1, c2, c3 = sample & 0xffffffff, sample >> 32, step << 24, epoch
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

return function(reference)
  function reference.augment(p)
    local n, height, width = #p.index.data, p.window[1], p.window[2]
    local mode = modes[p.mode or "constant"]
    local function place(sample, axis, i)
      local size, length = p.images.size[2 + axis], p.window[axis]
      local step = p.draw[2 + axis]
      local chance = axis == 1 and p.vertical or axis == 2 and p.horizontal or 0
      local flipped = draws(p.key or 0, p.draw[1], sample - 1, step)[1] < chance
      local corner = draws(p.key or 0, p.draw[1], sample - 1, p.draw[2])[axis]
      corner = p.window[2 + axis] + math.floor(corner * p.window[4 + axis])
      if flipped and step >= p.draw[2] then i = length + 1 - i end
      i = corner + i
      if i < 1 or i > size then i = mode(i, size) end
      if i and flipped and step < p.draw[2] then i = size + 1 - i end
      return i
    end
    return build({n, p.images.size[2], height, width}, function(index)
      local sample, c = p.index.data[index[1]], index[2]
      local row, column = place(sample, 1, index[3]), place(sample, 2, index[4])
      local value = row and column and at(p.images, {sample, c, row, column}) or p.fill or 0
      value = single(value / 255)
      if not p.mean then return value end
      local k = #p.mean.data > 1 and c or 1
      return single(single(value - single(p.mean.data[k])) / single(p.std.data[k]))
    end)
  end
end
