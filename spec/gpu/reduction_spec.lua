-- reduction_spec.lua - reductions on the GPU whose shapes take every way through the kernels: lanes, blocks, columns,
-- cut into pieces, with and without 16-byte loads. What the derived samples are too small for.
local dlua = require "dlua"

local available, reason = dlua.cuda.available()
if not available then
  describe("reductions on the GPU", function() pending(reason) end)
  return
end

-- Values of x that differ from place to place, with as many large as small ones, exact in bf16.
local function numbers(size, dtype)
  local n = 1
  for _, s in ipairs(size) do n = n * s end
  local x = (dlua.range(1, n):to("f32") * 0.7391):sin() * 16
  return x:floor():reshape(size):to(dtype)
end

local function close(got, wanted, tolerance, what)
  got, wanted = got:to("cpu"):to("f64"):flatten(), wanted:to("f64"):flatten()
  assert.equal(wanted:numel(), got:numel(), what)
  if wanted:numel() == 0 then return end
  local gap, scale = (got - wanted):abs(), wanted:abs()
  local allowed = (scale + scale:max():item()) * tolerance + 1e-12
  assert.is_true(gap:le(allowed):all():item(), what)
end

local shapes = {
  {size = {200003}}, -- odd, in pieces
  {size = {262144}},
  {size = {3, 40000}, dim = 2}, -- a block per result, in pieces
  {size = {40, 2500}, dim = 2},
  {size = {5, 4099}, dim = 2},
  {size = {999, 7}, dim = 2}, -- some lanes per result
  {size = {1000, 16}, dim = 2},
  {size = {30000, 3}, dim = 1}, -- narrow columns, in pieces
  {size = {20000, 32}, dim = 1},
  {size = {700, 300}, dim = 1},
  {size = {17, 65, 24}, dim = 2},
  {size = {8, 3, 1024}, dim = {1, 3}}, -- two dimensions that are not neighbours
  {size = {6, 5, 333}, dim = {1, 3}},
  {size = {40, 6, 50}, dim = {2}},
}

-- What the ops share is looked at with sum; the others go through a few shapes.
local others = {"mean", "prod", "var", "std", "logsumexp", "norm", "all", "any"}
local few = {{size = {20001}}, {size = {3, 5000}, dim = 2}, {size = {3000, 5}, dim = 1}}

local function call(name, x, dim)
  if name == "norm" then return dim and dlua.ops.norm(x, 2, dim) or dlua.ops.norm(x) end
  return dim and dlua.ops[name](x, dim) or dlua.ops[name](x)
end

local function compare(name, shape, dtype)
  local tolerance = dtype == "f64" and 1e-10 or dtype == "f32" and 1e-5 or 2 ^ -8
  local x = numbers(shape.size, dtype)
  if name == "prod" then x = (x:abs() * 0.01 + 0.9):clamp(0.5, 1.05) end
  local what = name .. " of " .. dtype .. " {" .. table.concat(shape.size, ",") .. "}"
  close(call(name, x:to("cuda"), shape.dim), call(name, x, shape.dim), tolerance, what)
end

describe("reductions on the GPU", function()
  for _, dtype in ipairs {"f32", "f64", "bf16"} do
    it("agree with the CPU on large " .. dtype .. " tensors", function()
      for _, shape in ipairs(shapes) do compare("sum", shape, dtype) end
      for _, shape in ipairs(few) do
        for _, name in ipairs(others) do compare(name, shape, dtype) end
      end
    end)
  end

  it("find the first of equal extremes", function()
    for _, shape in ipairs(few) do
      local x = numbers(shape.size, "f32")
      for _, name in ipairs {"argmax", "argmin"} do
        local got, wanted = dlua.ops[name](x:to("cuda"), shape.dim), dlua.ops[name](x, shape.dim)
        assert.is_true(got:to("cpu"):eq(wanted):all():item(), name .. " {" .. table.concat(shape.size, ",") .. "}")
      end
    end
  end)

  it("let the first nan win", function()
    local x = numbers({20000}, "f32")
    x[7001], x[9001], x[3] = 0 / 0, 0 / 0, math.huge
    assert.equal(7001, x:to("cuda"):argmax():item())
    assert.equal(7001, x:to("cuda"):argmin():item())
    local largest = x:to("cuda"):max():item()
    assert.is_true(largest ~= largest)
  end)

  it("give the same bits each time", function()
    local x = numbers({20003}, "f32"):to("cuda") * 0.1
    local first = x:sum():item()
    for _ = 1, 3 do assert.equal(first, x:sum():item()) end
  end)

  it("lose nothing in a long sum", function()
    local y = dlua.full({400000}, 0.1):to("cuda")
    assert.is_true(math.abs(y:sum():item() - 40000) < 0.001)
  end)
end)
