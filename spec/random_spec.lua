-- random_spec.lua - what the random ops draw. The bits are those of Philox4x32-10, calculated here once more in Lua;
-- from them follows that threads, layout and device do not matter, which is checked all the same. Distributions are
-- judged with fixed seeds: a bound that holds today holds always.
local dlua = require "dlua"
local helpers = require "spec.helpers"

local N = 20000

-- ---------------------------------------------------------------- the generator

-- Four words of 32 bits for a key and a counter of 64 bits each (Salmon et al., 2011).
local function philox(key, counter)
  local c0, c1, c2, c3 = counter & 0xffffffff, counter >> 32, 0, 0
  local k0, k1 = key & 0xffffffff, key >> 32
  for _ = 1, 10 do
    local p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
    c0, c1, c2, c3 = (p1 >> 32) ~ c1 ~ k0, p1 & 0xffffffff, (p0 >> 32) ~ c3 ~ k1, p0 & 0xffffffff
    k0, k1 = (k0 + 0x9E3779B9) & 0xffffffff, (k1 + 0xBB67AE85) & 0xffffffff
  end
  return {c0, c1, c2, c3}
end

-- Words first, first + 1, … of a generator's range.
local function words(seed, first, count)
  local list = {}
  for k = first, first + count - 1 do list[#list + 1] = philox(seed, k // 4)[k % 4 + 1] end
  return list
end

describe("the generator", function()
  it("gives the known answers", function()
    assert.same({0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, philox(0, 0))
    dlua.seed(0)
    assert.same({0x6627e8 / 2 ^ 24, 0xe169c5 / 2 ^ 24, 0xbc57ac / 2 ^ 24, 0x9b00db / 2 ^ 24}, dlua.rand(4):totable())
  end)

  it("gives each element its word, call after call", function()
    for _, seed in ipairs {1, 12345, 0x299f31d0a4093822} do
      dlua.seed(seed)
      local got = dlua.rand(9):totable() -- takes three blocks whole
      for _, v in ipairs(dlua.rand(5):totable()) do got[#got + 1] = v end
      local wanted = words(seed, 0, 9)
      for _, w in ipairs(words(seed, 12, 5)) do wanted[#wanted + 1] = w end
      for k, w in ipairs(wanted) do assert.equal((w >> 8) / 2 ^ 24, got[k]) end
    end
  end)

  it("gives each f64 two words", function()
    dlua.seed(99)
    local got, w = dlua.rand({7}, {dtype = "f64"}):totable(), words(99, 0, 14)
    for k, v in ipairs(got) do assert.equal(((w[2 * k - 1] << 32 | w[2 * k]) >> 11) / 2.0 ^ 53, v) end
  end)
end)

-- ---------------------------------------------------------------- the same numbers

-- Every random op as a function of a tensor of the given shape, and of a device.
local function like(x) return {dtype = x.dtype, device = x.device} end
local draws = {
  rand = function(x) return dlua.rand(x.shape, like(x)) end,
  randn = function(x) return dlua.randn(x.shape, like(x)) end,
  randint = function(x) return dlua.randint(-5, 1000, x.shape, {device = x.device}) end,
  randperm = function(x) return dlua.randperm(x:numel(), {device = x.device}) end,
  bernoulli = function(x) return dlua.bernoulli(x) end,
  uniform = function(x) return dlua.uniform(x, -1, 3) end,
  normal = function(x) return dlua.normal(x, 2, 3) end,
  dropout = function(x) return dlua.dropout(x, 0.3) end,
  dropout2d = function(x) return dlua.dropout2d(x, 0.3) end,
}

-- A tensor of probabilities {4,6,n,5}; strided: the same values with the dimensions in another order and gaps.
local function input(n, dtype, strided)
  local x = dlua.linspace(0.05, 0.95, 4 * 6 * n * 5, {dtype = dtype}):reshape(4, 6, n, 5)
  if not strided then return x end
  local wide = dlua.zeros({5, n, 6, 4, 2}, {dtype = dtype})
  local y = wide:select(5, 1):permute(4, 3, 2, 1)
  y[{}] = x
  return y
end

local function drawn(draw, x, seed)
  dlua.seed(seed or 5)
  return draw(x):to("cpu"):contiguous()
end

local function equal(one, two) return one.dtype == two.dtype and one:eq(two):all():item() end

-- DLUA_MODULES may name a folder without the mock; then the emulated GPU is there.
local devices = {}
if dlua.cuda.available() then devices[1] = "cuda" end
if #devices == 0 or pcall(dlua.zeros, {1}, {device = "mock"}) then devices[#devices + 1] = "mock" end

for name, draw in helpers.sorted(draws) do
  describe("random op " .. name, function()
    for _, dtype in ipairs {"f32", "f64"} do
      local x = input(11, dtype)

      it("repeats itself with the seed alone, in " .. dtype, function()
        local one = drawn(draw, x)
        assert.is_true(equal(one, drawn(draw, x)))
        assert.is_false(equal(one, drawn(draw, x, 6)))
        dlua.seed(5)
        draw(x)
        assert.is_false(equal(one, draw(x)), "the next call draws other numbers")
      end)

      it("does not look at strides, in " .. dtype, function()
        assert.is_true(equal(drawn(draw, x), drawn(draw, input(11, dtype, true))))
      end)

      for _, device in ipairs(devices) do
        it("draws alike on " .. device .. ", in " .. dtype, function()
          assert.is_true(equal(drawn(draw, x), drawn(draw, x:to(device))))
          assert.is_true(equal(drawn(draw, x), drawn(draw, input(11, dtype, true):to(device))))
          local odd = input(11, dtype):narrow(4, 1, 3):contiguous() -- a last block that is not full
          assert.is_true(equal(drawn(draw, odd), drawn(draw, odd:to(device))))
        end)
      end

      it("draws alike with plain kernels, in " .. dtype, function()
        local fast, before = drawn(draw, x), dlua.test.reference(true)
        local ok, plain = pcall(drawn, draw, x)
        dlua.test.reference(before)
        assert.is_true(ok and equal(fast, plain))
      end)

      it("draws alike on one thread and two, in " .. dtype, function()
        local large, before = input(1000, dtype), dlua.threads()
        dlua.threads(1)
        local one = drawn(draw, large)
        dlua.threads(2)
        local two = drawn(draw, large)
        dlua.threads(before)
        assert.is_true(equal(one, two))
      end)
    end
  end)
end

describe("drawing in place", function()
  local inplace = {
    uniform = function(x) return x:uniform_(-1, 3) end,
    normal = function(x) return x:normal_(2, 3) end,
    bernoulli = function(x) return x:bernoulli_() end,
  }
  for name, draw in helpers.sorted(inplace) do
    it(name .. "_ writes what " .. name .. " gives, with gaps too", function()
      local wanted = drawn(draws[name], input(11, "f32"))
      assert.is_true(equal(wanted, drawn(draw, input(11, "f32"))))
      assert.is_true(equal(wanted, drawn(draw, input(11, "f32", true))))
    end)
  end
end)

-- ---------------------------------------------------------------- distributions

-- sqrt(n) times the largest distance of the empirical from the given distribution function (Kolmogorov, Smirnov);
-- above 1.95 once in a thousand seeds.
local function distance(x, distribution)
  local n = x:numel()
  local sorted = dlua.ops.cast(x, "f64"):flatten():sort(1)
  local above = dlua.range(1, n, 1, {dtype = "f64"}) / n
  local below = above - 1 / n
  local expected = distribution(sorted)
  return math.sqrt(n) * math.max((above - expected):max():item(), (expected - below):max():item())
end

-- Within four deviations of the mean of n draws, and the variance within as many of its own.
local function moments(x, mean, variance, kurtosis)
  local n, wide = x:numel(), dlua.ops.cast(x, "f64")
  local m, v = wide:mean():item(), wide:var():item()
  assert.is_true(math.abs(m - mean) <= 4 * math.sqrt(variance / n), ("mean %g, not %g"):format(m, mean))
  assert.is_true(math.abs(v - variance) <= 4 * variance * (math.sqrt((kurtosis - 1) / n) + 1 / n),
    ("variance %g, not %g"):format(v, variance))
end

local function even(low, high) return function(x) return (x - low) / (high - low) end end
local function bell(mean, std)
  return function(x) return ((x - mean) / (std * math.sqrt(2))):erf() * 0.5 + 0.5 end
end

describe("the distribution of", function()
  for _, dtype in ipairs {"f32", "f64"} do
    local options = {dtype = dtype}

    it("rand in " .. dtype, function()
      dlua.seed(1)
      local x = dlua.rand({N}, options)
      assert.is_true(x:ge(0):all():item() and x:lt(1):all():item())
      moments(x, 0.5, 1 / 12, 1.8)
      assert.is_true(distance(x, even(0, 1)) < 1.95)
    end)

    it("uniform in " .. dtype, function()
      dlua.seed(2)
      local x = dlua.zeros({N}, options):uniform_(-3, 5)
      assert.is_true(x:ge(-3):all():item() and x:le(5):all():item())
      moments(x, 1, 64 / 12, 1.8)
      assert.is_true(distance(x, even(-3, 5)) < 1.95)
    end)

    it("randn in " .. dtype, function()
      dlua.seed(3)
      local x = dlua.randn({N}, options)
      assert.is_true(x:isfinite():all():item())
      moments(x, 0, 1, 3)
      assert.is_true(distance(x, bell(0, 1)) < 1.95)
      local first, second = x:narrow(1, 1, N - 1), x:narrow(1, 2, N - 1)
      assert.is_true(math.abs((first * second):mean():item()) < 4 / math.sqrt(N), "neighbours are related")
    end)

    it("normal in " .. dtype, function()
      dlua.seed(4)
      local x = dlua.zeros({N}, options):normal_(-2, 0.5)
      moments(x, -2, 0.25, 3)
      assert.is_true(distance(x, bell(-2, 0.5)) < 1.95)
    end)

    it("bernoulli in " .. dtype, function()
      dlua.seed(5)
      local p = dlua.full({N}, 0.3, options)
      local x = p:bernoulli()
      assert.is_true(x:eq(0):logical_or(x:eq(1)):all():item())
      assert.equal(dtype, x.dtype)
      moments(x, 0.3, 0.21, 1 / 0.21 - 3)
      assert.equal(0, dlua.zeros({N}, options):bernoulli():sum():item())
      assert.equal(N, dlua.ones({N}, options):bernoulli():sum():item())
    end)
  end
end)

-- ---------------------------------------------------------------- integers

describe("randint", function()
  it("draws both ends and all between alike often", function()
    dlua.seed(6)
    local x = dlua.randint(-2, 4, {N})
    assert.equal("i64", x.dtype)
    assert.equal(-2, x:min():item())
    assert.equal(4, x:max():item())
    local square, expected = 0, N / 7
    for v = -2, 4 do square = square + (x:eq(v):sum():item() - expected) ^ 2 / expected end
    assert.is_true(square < 22.5, "chi square of 6 degrees is " .. square) -- above it once in a thousand
  end)

  it("takes one number and the whole range", function()
    assert.is_true(dlua.randint(7, 7, {100}):eq(7):all():item())
    local x = dlua.randint(math.mininteger, math.maxinteger, {1000})
    local negative = x:lt(0):sum():item()
    assert.is_true(negative > 400 and negative < 600)
  end)
end)

describe("randperm", function()
  it("is a permutation", function()
    for _, n in ipairs {0, 1, 2, 5, 1000} do
      dlua.seed(n)
      local sorted = dlua.randperm(n):sort(1)
      assert.is_true(sorted:eq(dlua.range(1, n)):all():item())
    end
  end)

  it("gives every order of three alike often", function()
    dlua.seed(8)
    local counts, times = {}, 3000
    for _ = 1, times do
      local order = table.concat(dlua.randperm(3):totable(), " ")
      counts[order] = (counts[order] or 0) + 1
    end
    local square, orders = 0, 0
    for _, count in pairs(counts) do
      square, orders = square + (count - times / 6) ^ 2 / (times / 6), orders + 1
    end
    assert.equal(6, orders)
    assert.is_true(square < 20.5, "chi square of 5 degrees is " .. square) -- above it once in a thousand
  end)
end)

-- ---------------------------------------------------------------- dropout

describe("dropout", function()
  it("drops a share p and scales the others by 1 / (1 - p)", function()
    for _, p in ipairs {0.1, 0.5, 0.75} do
      dlua.seed(9)
      local x = dlua.rand(N) + 1
      local y = dlua.dropout(x, p)
      local kept = y:ne(0)
      assert.is_true(y:allclose(x * kept / (1 - p)))
      moments(dlua.ops.cast(kept, "f64"), 1 - p, p * (1 - p), 1 / (p * (1 - p)) - 3)
    end
  end)

  it("is nothing at p = 0 and outside training, and everything at p = 1", function()
    local x = dlua.randn(100)
    assert.is_true(equal(x, dlua.dropout(x, 0)))
    assert.is_true(equal(x, dlua.dropout(x, 0.5, false)))
    assert.equal(0, dlua.dropout(x, 1):abs():sum():item())
  end)

  it("passes the gradient through the places it kept", function()
    local x = (dlua.rand(1000) + 1):requires_grad_()
    local y = dlua.dropout(x, 0.4)
    y:sum():backward()
    assert.is_true(x.grad:allclose(y:detach():ne(0) / 0.6))
  end)

  it("passes any gradient as the product with the mask and the scale does, twice", function()
    for _, dtype in ipairs {"f32", "f64", "bf16", "f16"} do
      for name, size in helpers.sorted {dropout = {37, 11}, dropout2d = {5, 7, 3, 5}} do
        local x, g = dlua.randn(size):to(dtype):requires_grad_(), dlua.randn(size):to(dtype):requires_grad_()
        local y = dlua[name](x + 10, 0.3)
        local mask, scale = y:detach():ne(0), 1 / 0.7
        local gx = dlua.grad(y, x, {grad_outputs = g, create_graph = true})
        assert.is_true(gx:detach():equal(g:detach() * mask * scale))
        local back = dlua.grad(gx, g, {grad_outputs = dlua.ones_like(g:detach())})
        assert.is_true(back:equal(dlua.ones_like(g:detach()) * mask * scale))
      end
    end
  end)

  it("of channels keeps or drops them whole", function()
    dlua.seed(10)
    local y = dlua.dropout2d(dlua.ones(40, 50, 3, 4), 0.25)
    local kept = y:mean({3, 4})
    assert.is_true(kept:eq(0):logical_or((kept - 4 / 3):abs():lt(1e-6)):all():item())
    moments(dlua.ops.cast(kept:ne(0), "f64"), 0.75, 0.1875, 1 / 0.1875 - 3)
  end)
end)
