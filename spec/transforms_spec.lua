-- Transforms against slow references in Lua, and what their mistakes say.
local dlua = require "dlua"
local T = dlua.transforms
local fails = require "spec.helpers".fails

local function picture(c, h, w, dtype)
  if dtype == "u8" then return dlua.randint(0, 255, {c, h, w}):to("u8") end
  return dlua.rand(c, h, w)
end

local function near(want, got, tolerance)
  assert.close(want, got, {rtol = 0, atol = tolerance})
end

-- A picture made value by value: f(c, y, x), all from 1.
local function build(c, h, w, f)
  local values = {}
  for k = 1, c do
    values[k] = {}
    for y = 1, h do
      values[k][y] = {}
      for x = 1, w do values[k][y][x] = f(k, y, x) end
    end
  end
  return dlua.tensor(values, {dtype = "f64"})
end

before_each(function() dlua.seed(5) end)

describe("values", function()
  it("ToFloat divides u8 by 255 and passes f32", function()
    local x = picture(3, 4, 5, "u8")
    near(x:to("f32") / 255, T.ToFloat()(x), 0)
    local f = picture(1, 2, 2)
    near(f, T.ToFloat()(f), 0)
  end)

  it("Normalize works per channel", function()
    local x = picture(3, 4, 5)
    local y = T.Normalize({0.1, 0.2, 0.3}, {1, 2, 4})(x)
    for c = 1, 3 do near((x[c] - c / 10) / 2 ^ (c - 1), y[c], 1e-6) end
    near((x - 0.5) / 0.25, T.Normalize(0.5, 0.25)(x), 1e-6)
    fails(function() T.Normalize({1, 2}, {1, 2})(x) end, "2", "3")
    fails(function() T.Normalize({0.5}, {0.5})(picture(1, 2, 2, "u8")) end, "ToFloat")
    fails(function() T.Normalize({0.5}, {0}) end, "std")
    fails(function() T.Normalize({0.5}, {1, 2}) end, "1", "2")
  end)
end)

describe("places", function()
  local function at(values, n, i, mode, fill)
    if i >= 1 and i <= n then return values(i) end
    if mode == "constant" then return fill end
    if mode == "edge" then return values(i < 1 and 1 or n) end
    if mode == "symmetric" then return values(i < 1 and 1 - i or 2 * n + 1 - i) end
    return values(i < 1 and 2 - i or 2 * n - i)
  end

  for _, mode in ipairs {"constant", "reflect", "symmetric", "edge"} do
    for _, dtype in ipairs {"u8", "f32"} do
      it(("Pad continues a picture of %s by %s"):format(dtype, mode), function()
        local x = picture(2, 4, 5, dtype)
        local table_of = x:totable()
        local want = build(2, 8, 11, function(c, y, z)
          return at(function(row)
            return at(function(column) return table_of[c][row][column] end, 5, z - 3, mode, 7)
          end, 4, y - 2, mode, 7)
        end)
        near(want, T.Pad({2, 3}, {padding_mode = mode, fill = 7})(x), 0)
      end)
    end
  end

  it("CenterCrop takes the middle", function()
    local x = picture(3, 7, 8, "u8")
    near(x[{ {}, {3, 5}, {3, 6} }], T.CenterCrop({3, 4})(x), 0)
    fails(function() T.CenterCrop(9)(x) end, "9x9", "{3,7,8}")
  end)

  it("RandomCrop finds every place of the padded picture, evenly", function()
    local x = dlua.range(1, 9):to("f32"):reshape(1, 3, 3)
    local seen, count = {}, 4000
    local crop = T.RandomCrop(3, {padding = 1})
    local padded = T.Pad(1)(x)
    for _ = 1, count do
      local y = crop(x)
      local key = table.concat(y:reshape(-1):totable(), " ")
      seen[key] = (seen[key] or 0) + 1
    end
    for top = 1, 3 do
      for left = 1, 3 do
        local want = padded[{ {}, {top, top + 2}, {left, left + 2} }]
        local times = seen[table.concat(want:contiguous():reshape(-1):totable(), " ")]
        assert.is_true(times and math.abs(times - count / 9) < 100, tostring(times))
      end
    end
  end)

  it("RandomCrop says what does not fit", function()
    fails(function() T.RandomCrop(40)(picture(3, 32, 32, "u8")) end, "RandomCrop", "40", "{3,32,32}")
    fails(function() T.RandomCrop(3, {padding = 4, padding_mode = "reflect"})(picture(1, 3, 3)) end, "4", "3x3")
    fails(function() T.RandomCrop(3, {pading = 4}) end, "pading", "padding")
    fails(function() T.RandomCrop(0) end, "size", "0")
    fails(function() T.RandomCrop((1 << 24) + 1) end, "RandomCrop", "16777217", "0..16777216")
    fails(function() T.Resize(1 << 62) end, "Resize", "4611686018427387904")
    fails(function() T.RandomCrop(3)(dlua.zeros(3, 3)) end, "{3,3}")
    fails(function() T.RandomCrop(3)(dlua.zeros({1, 3, 3}, {dtype = "i64"})) end, "i64")
    fails(function() T.RandomCrop(3)("x") end, "tensor")
  end)

  it("flips mirror with their probability", function()
    for _, dtype in ipairs {"u8", "f32"} do
      local x = picture(3, 4, 5, dtype)
      near(x:flip(3), T.RandomHorizontalFlip(1)(x), 0)
      near(x:flip(2), T.RandomVerticalFlip {p = 1}(x), 0)
      near(x, T.RandomVerticalFlip(0)(x), 0)
    end
    local x, flips = dlua.tensor({{{0, 1}}}), 0
    for _ = 1, 2000 do flips = flips + T.RandomHorizontalFlip(0.25)(x)[{1, 1, 1}]:item() end
    assert.is_true(math.abs(flips - 500) < 90)
  end)
end)

describe("Resize", function()
  -- The weight of input k for output i: a triangle around the middle of i, wider when the line shrinks.
  local function weights(i, from, to)
    local scale = from / to
    local support, center, total, list = math.max(scale, 1), (i - 0.5) * scale, 0, {}
    for k = 1, from do
      list[k] = math.max(0, 1 - math.abs(k - 0.5 - center) / support)
      total = total + list[k]
    end
    for k = 1, from do list[k] = list[k] / total end
    return list
  end

  for _, size in ipairs {{4, 4}, {3, 7}, {13, 9}, {1, 1}} do
    it(("gives the weighted means for {%d,%d}"):format(size[1], size[2]), function()
      local x = picture(2, 8, 7)
      local values = x:totable()
      local want = build(2, size[1], size[2], function(c, y, z)
        local rows, columns, sum = weights(y, 8, size[1]), weights(z, 7, size[2]), 0
        for i = 1, 8 do
          for j = 1, 7 do sum = sum + rows[i] * columns[j] * values[c][i][j] end
        end
        return sum
      end)
      near(want, T.Resize(size)(x), 1e-5)
      near(want * 255, T.Resize(size)((x * 255):round():to("u8")), 1.01)
    end)
  end

  it("keeps the proportion when one number is given", function()
    assert.same({3, 4, 8}, T.Resize(4)(picture(3, 10, 20)).shape)
    assert.same({3, 8, 4}, T.Resize(4)(picture(3, 20, 10)).shape)
  end)
end)

describe("RandomAffine and RandomRotation", function()
  it("turn by quarters exactly", function()
    local x = picture(2, 5, 5, "u8")
    near(x:transpose(2, 3):flip(2), T.RandomRotation({90, 90})(x), 0)
    near(x:flip({2, 3}), T.RandomRotation({180, 180}, {interpolation = "bilinear"})(x), 0)
    near(x:transpose(2, 3):flip(2), T.RandomRotation({-270, -270}, {interpolation = "bilinear"})(x), 0)
    near(x:transpose(2, 3):flip(3), T.RandomAffine({90, 90})(x), 0)
    near(x, T.RandomAffine(0)(x), 0)
  end)

  it("sample as the inverse map says", function()
    local x = picture(1, 6, 7)
    local values = x:totable()[1]
    local angle, scale, shear = math.rad(30), 1.25, math.tan(math.rad(10))
    -- output = center + A (input - center), A = rotation * shear * scale; solved for the input
    local a, b = math.cos(angle), -math.cos(angle) * shear - math.sin(angle)
    local c, d = math.sin(angle), -math.sin(angle) * shear + math.cos(angle)
    local want = build(1, 6, 7, function(_, y, z)
      local oy, ox = (y - 3.5) / scale, (z - 4) / scale
      local det = a * d - b * c
      local ix, iy = (d * ox - b * oy) / det + 4, (a * oy - c * ox) / det + 3.5
      local function at(row, column)
        local line = values[row]
        return line and line[column] or 0.5
      end
      local top, left = math.floor(iy), math.floor(ix)
      local fy, fx = iy - top, ix - left
      return (at(top, left) * (1 - fx) + at(top, left + 1) * fx) * (1 - fy)
        + (at(top + 1, left) * (1 - fx) + at(top + 1, left + 1) * fx) * fy
    end)
    near(want, T.RandomAffine({30, 30}, {scale = {scale, scale}, shear = {10, 10}, interpolation = "bilinear",
      fill = 0.5})(x), 1e-5)
  end)

  it("fill what comes from farther away than an integer counts", function()
    local x = dlua.ones(1, 3, 3)
    local one = dlua.tensor {{{0, 0, 0}, {0, 1, 0}, {0, 0, 0}}}
    for _, interpolation in ipairs {"nearest", "bilinear"} do
      near(one, T.RandomAffine({0, 0}, {scale = {1e-300, 1e-300}, interpolation = interpolation})(x), 0)
    end
  end)

  it("check their ranges", function()
    fails(function() T.RandomAffine(10, {translate = 2}) end, "translate")
    fails(function() T.RandomAffine(10, {scale = {0, 1}}) end, "scale")
    fails(function() T.RandomRotation("x") end, "degrees")
    fails(function() T.RandomRotation(10, {interpolation = "cubic"}) end, "cubic", "bilinear")
  end)
end)

describe("ColorJitter", function()
  local function luma(v) return 0.299 * v[1] + 0.587 * v[2] + 0.114 * v[3] end

  it("changes brightness, contrast and saturation by their factor", function()
    local x = picture(3, 3, 4)
    near((x * 1.5):clamp(0, 1), T.ColorJitter {brightness = {1.5, 1.5}}(x), 1e-6)
    local grey = luma(x)
    near((x * 0.5 + grey:mean() * 0.5):clamp(0, 1), T.ColorJitter {contrast = {0.5, 0.5}}(x), 1e-5)
    near((x * 2 - grey):clamp(0, 1), T.ColorJitter {saturation = {2, 2}}(x), 1e-5)
    near(x, T.ColorJitter()(x), 1e-6)
  end)

  it("turns the hue", function()
    local x = dlua.tensor {{{1}}, {{0.25}}, {{0}}}
    near(dlua.tensor {{{0}}, {{1}}, {{0.25}}}, T.ColorJitter {hue = {1 / 3, 1 / 3}}(x), 1e-5)
    near(x, T.ColorJitter {hue = {0.5, 0.5}}(T.ColorJitter {hue = {0.5, 0.5}}(x)), 1e-5)
    fails(function() T.ColorJitter {hue = 0.7} end, "hue")
    fails(function() T.ColorJitter {hue = 0.1}(picture(2, 2, 2)) end, "2")
  end)

  it("keeps u8 within 0..255", function()
    local y = T.ColorJitter {brightness = 0.9, contrast = 0.9, saturation = 0.9, hue = 0.5}(picture(3, 8, 8, "u8"))
    assert.equal("u8", y.dtype)
  end)
end)

describe("RandomErasing", function()
  it("fills one box whose area and ratio are as asked", function()
    for _ = 1, 50 do
      local y = T.RandomErasing {p = 1, scale = {0.1, 0.3}, ratio = {0.5, 2}, value = -1}(dlua.zeros(2, 20, 20))
      local hit = y:eq(-1)
      local area = hit[1]:to("f32"):sum():item()
      assert.is_true(hit[1]:eq(hit[2]):all():item())
      assert.is_true(area >= 20 and area <= 160, tostring(area))
      local rows, columns = hit[1]:any(2):to("f32"):sum():item(), hit[1]:any(1):to("f32"):sum():item()
      assert.equal(area, rows * columns)
    end
  end)

  it("leaves pictures alone with p = 0 and makes noise on request", function()
    local x = dlua.zeros(1, 16, 16)
    near(x, T.RandomErasing(0)(x), 0)
    local y = T.RandomErasing {p = 1, value = "random"}(x)
    assert.is_true(y:gt(0):any():item() and y:lt(1):all():item())
    fails(function() T.RandomErasing {value = "noise"} end, "value")
    fails(function() T.RandomErasing {ratio = {0.5, math.huge}} end, "ratio must be finite", "{0.5, inf}")
    fails(function() T.ColorJitter(2, {hue = 3}) end, "hue must lie in -0.5..0.5, got 3")
    fails(function() T.ColorJitter {-1, 2} end, "brightness", "-1")
    fails(function() T.RandomRotation("a") end, "degrees must be a number", 'not "a"')
    fails(function() T.RandomErasing {value = "some"} end, "value must be a number", 'not "some"')
    near(x, T.RandomErasing {p = 1, ratio = {1e300, 1e308}}(x), 0) -- no such box fits
  end)
end)

describe("Compose and Lambda", function()
  it("run in order, nested or not", function()
    local x = picture(1, 4, 4, "u8")
    local inner = T.Compose {function(v) return v * 2 end, T.Pad(1)}
    local t = T.Compose {T.ToFloat(), inner, T.Lambda(function(v) return v + 1 end)}
    near(T.Pad(1)(x:to("f32") / 255 * 2) + 1, t(x), 1e-6)
    assert.is_truthy(tostring(t):find("ToFloat", 1, true))
    fails(function() T.Compose {3} end, "number")
    fails(function() T.Lambda(3) end, "function")
  end)

  it("draw from the global generator when called directly", function()
    local x, t = picture(3, 9, 9), T.RandomCrop(4)
    dlua.seed(9)
    local a, b = t(x), t(x)
    dlua.seed(9)
    near(a, t(x), 0)
    near(b, t(x), 0)
  end)
end)
