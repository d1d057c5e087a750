-- tensor_spec.lua - tensors as scripts see them: making, fields, indexing, arithmetic, printing.
local dlua = require "dlua"

local function i64(values) return dlua.tensor(values, {dtype = "i64"}) end
local function matrix() return dlua.range(1, 6):to("f32"):reshape(2, 3) end

describe("dlua.tensor", function()
  it("reads nested tables, numbers and booleans", function()
    assert.shape({2, 3}, dlua.tensor {{1, 2, 3}, {4, 5, 6}})
    assert.shape({}, dlua.tensor(5))
    assert.shape({0}, dlua.tensor {})
    assert.shape({2, 0}, dlua.tensor {{}, {}})
    assert.equal("f32", dlua.tensor({1, 2}).dtype)
    assert.equal("bool", dlua.tensor({true, false}).dtype)
    assert.equal("i64", i64({1, 2}).dtype)
    assert.is_true(dlua.tensor({1}, {requires_grad = true}).requires_grad)
  end)

  it("keeps exact integers", function()
    local big = (1 << 62) + 1
    assert.equal(big, i64({big}):totable()[1])
    assert.same({255, 0}, dlua.tensor({255, 0}, {dtype = "u8"}):totable())
  end)

  it("refuses what it could only keep by changing it", function()
    local function fails(text, ...)
      local ok, message = pcall(dlua.tensor, ...)
      assert.is_false(ok)
      assert.truthy(message:find(text, 1, true), message)
    end
    fails("element {2} is 300, which does not fit into u8", {1, 300}, {dtype = "u8"})
    fails("element {1,1} is 1099511627776, which does not fit into i32", {{1 << 40}}, {dtype = "i32"})
    fails("names", {a = 1})
    fails("got nil")
    fails("element {2} is a table but the first one is a number", {1, {2}})
    fails("dlua.stack", {dlua.ones(2), dlua.ones(2)})
    assert.same({1, 5}, dlua.tensor({true, 5}):totable())
  end)

  it("goes back to tables", function()
    for _, dtype in ipairs {"f32", "f64", "bf16", "f16", "i64", "i32", "u8"} do
      assert.same({{1, 2}, {3, 4}}, dlua.tensor({{1, 2}, {3, 4}}, {dtype = dtype}):totable())
    end
    assert.same({true, false}, dlua.tensor({true, false}):totable())
    assert.same({{1, 4}, {2, 5}, {3, 6}}, matrix():t():totable())
    assert.equal("float", math.type(dlua.tensor(1):item()))
    assert.equal("integer", math.type(i64(1):item()))
    assert.is_true(dlua.tensor(true):item())
  end)
end)

describe("a tensor's fields", function()
  it("say what it is", function()
    local x = matrix()
    assert.same({2, 3}, x.shape)
    assert.same({2, 3}, {x:size()})
    assert.equal(3, x:size(-1))
    assert.equal(2, #x)
    assert.equal(6, x:numel())
    assert.equal("cpu", x.device)
    assert.is_true(x.is_leaf)
    assert.is_true(x:is_contiguous())
    assert.is_false(x:t():is_contiguous())
  end)

  it("compare by identity", function()
    local x = dlua.ones({2}, {requires_grad = true})
    x:sum():backward()
    assert.is_true(x.grad == x.grad)
    assert.is_true(x:add(0) ~= x)
    x.grad = nil
    assert.is_nil(x.grad)
  end)

  it("change dtype by to and by name", function()
    local x = matrix()
    assert.is_true(x:to("f32") == x)
    assert.equal("f64", x:double().dtype)
    assert.equal("i64", x:to({dtype = "i64"}).dtype)
    assert.equal("u8", x:to(dlua.zeros({1}, {dtype = "u8"})).dtype)
  end)
end)

describe("indexing", function()
  it("counts from 1, negative from the end, and gives views", function()
    local x = matrix()
    assert.same({4, 5, 6}, x[2]:totable())
    assert.equal(6, x[-1][-1]:item())
    assert.equal(5, x[{2, 2}]:item())
    x[1][2] = 20
    assert.equal(20, x[{1, 2}]:item())
  end)

  it("takes ranges with both ends, steps and empty ranges", function()
    local x = matrix()
    assert.same({{2, 3}, {5, 6}}, x[{ {}, {2, 3} }]:totable())
    assert.same({{1, 3}, {4, 6}}, x[{ {}, {1, -1, 2} }]:totable())
    assert.shape({0, 3}, x[{ {2, 1} }])
    assert.shape({0, 3}, x[{ {3, 2} }])
    assert.same({4, 5, 6}, x[{ {2, 2} }]:reshape(-1):totable())
  end)

  it("takes masks and index tensors", function()
    local x = matrix()
    assert.same({4, 5, 6}, x[x:gt(3)]:totable())
    assert.same({{4, 5, 6}}, x[dlua.tensor {false, true}]:totable())
    assert.same({{4, 5, 6}, {1, 2, 3}}, x[i64({2, 1})]:totable())
    assert.same({{3, 1}, {6, 4}}, x[{ {}, i64({3, 1}) }]:totable())
    assert.shape({2, 2, 3}, x[i64({{1, 2}, {2, 1}})])
  end)

  it("writes numbers and tensors", function()
    local x = matrix()
    x[{ {}, 1 }] = 0
    assert.same({{0, 2, 3}, {0, 5, 6}}, x:totable())
    x[2] = dlua.tensor {7, 8, 9}
    assert.same({7, 8, 9}, x[2]:totable())
    x[x:gt(7)] = -1
    assert.same({7, -1, -1}, x[2]:totable())
    x[i64({1})] = 5
    assert.same({5, 5, 5}, x[1]:totable())
    x[x:eq(5)] = dlua.tensor {1, 2, 3}
    assert.same({1, 2, 3}, x[1]:totable())
    local whole = i64({1, 2})
    whole[1] = 9
    assert.same({9, 2}, whole:totable())
  end)

  it("writes where a list of positions or a mask inside the key says", function()
    local x = matrix()
    x[{ {}, i64({3, 1}) }] = dlua.tensor {8, 9}
    assert.same({{9, 2, 8}, {9, 5, 8}}, x:totable())
    x[{ 2, dlua.tensor {true, false, true} }] = 0
    assert.same({{9, 2, 8}, {0, 5, 0}}, x:totable())
    x[{ {1, 2}, i64({{1, 2}}) }] = dlua.tensor {{{1, 2}}, {{3, 4}}}
    assert.same({{1, 2, 8}, {3, 4, 0}}, x:totable())
    x[i64({{2, 1}})] = dlua.ones(1, 2, 3)
    assert.same({{1, 1, 1}, {1, 1, 1}}, x:totable())
  end)

  it("spreads one value over a mask, and drops leading ones", function()
    local x, big = matrix(), (1 << 62) + 1
    x[x:gt(4)] = dlua.tensor(-1)
    assert.same({{1, 2, 3}, {4, -1, -1}}, x:totable())
    x[1] = dlua.ones(1, 3)
    assert.same({1, 1, 1}, x[1]:totable())
    local whole = i64({1, 2})
    whole[dlua.tensor {true, false}] = big
    assert.equal(big, whole[1]:item())
  end)

  it("takes as many values as a mask has places", function()
    local x = matrix()
    for _, n in ipairs {0, 1, 3, 4, 6} do
      local y = x:clone()
      local ok, message = pcall(function() y[y:gt(3)] = dlua.range(11, 10 + n) end)
      assert.equal(n == 1 or n == 3, ok)
      if not ok then
        assert.matches(("mask is true at 3 positions but value has %d elements"):format(n), message)
        assert.same(x:totable(), y:totable())
      end
    end
    x[x:gt(3)] = dlua.range(11, 13)
    assert.same({{1, 2, 3}, {11, 12, 13}}, x:totable())
    x[x:gt(13)] = dlua.zeros(0)
    -- The op of PyTorch leaves over what the mask has no place for.
    assert.same({21, 2, 22}, dlua.masked_scatter(dlua.range(1, 3), dlua.tensor {true, false, true},
      dlua.range(21, 25)):totable())
  end)

  it("refuses keys that do not say what they mean", function()
    local x = matrix()
    local function fails(key, text)
      local ok, message = pcall(function() return x[key] end)
      assert.is_false(ok)
      assert.truthy(message:find(text, 1, true), message)
      assert.is_false(pcall(function() x[key] = 0 end))
    end
    fails({row = 1}, "without key 'row'")
    fails({nil, 2}, "without holes")
    fails({{}, dlua.tensor {true, false}}, "mask {2} does not fit dimension 2")
    fails({{}, x:gt(1)}, "a mask inside x[{…}] has one dimension")
    fails(dlua.tensor {true, false, true}, "mask {3}")
  end)

  it("records reading and writing", function()
    local x = dlua.tensor({{1, 2}, {3, 4}}, {requires_grad = true, dtype = "f64"})
    assert.gradcheck(function(v) return v[{ {}, 2 }]:square():sum() + v[1]:sum() end, x:detach())
    assert.gradcheck(function(v)
      local y = v * 1
      y[{1, 1}] = v[{2, 2}] * 3
      return (y * y):sum()
    end, x:detach())
    assert.gradcheck(function(v)
      local y = v * 1
      y[{ {}, i64({2}) }] = v[{ {}, {1, 1} }] * 3
      y[y:gt(8)] = v[{1, 1}] * 2
      return (y * y):sum()
    end, x:detach())
  end)
end)

describe("arithmetic", function()
  it("takes numbers on either side and broadcasts", function()
    local x = matrix()
    assert.same({{0, -1, -2}, {-3, -4, -5}}, (1 - x):totable())
    assert.same({{11, 12, 13}, {24, 25, 26}}, (x + dlua.tensor {{10}, {20}}):totable())
    assert.same({{0, 1, 1}, {2, 2, 3}}, (x // 2):totable())
    assert.same({{1, 0, 1}, {0, 1, 0}}, (x % 2):totable())
    assert.equal("i64", (i64({1}) + 1).dtype)
    assert.equal("f32", (i64({1}) / 2).dtype)
    assert.equal("f32", (i64({1}) + 0.5).dtype)
    assert.equal("f64", (dlua.zeros({1}, {dtype = "f64"}) + 1).dtype)
    assert.same({-1}, (-i64({1})):totable())
  end)

  it("changes tensors in place and gives them back", function()
    local x = dlua.zeros(2)
    assert.is_true(x:add_(1) == x)
    assert.same({5, 5}, x:mul_(5):totable())
  end)

  it("takes options by name", function()
    local x = matrix()
    assert.shape({2, 1}, x:sum {dim = 2, keepdim = true})
    assert.shape({2, 1}, x:sum(2, {keepdim = true}))
    assert.shape({2, 1}, x:sum(2, true))
    assert.shape({}, x:sum({1, 2}))
    assert.shape({}, x:sum {dim = {1, 2}})
    assert.shape({3, 2}, x:permute(2, 1))
    assert.shape({3, 2}, x:permute {2, 1})
    assert.shape({2, 2}, dlua.zeros({2, 2}, {dtype = "f64"}))
    assert.shape({2, 2}, dlua.full {size = {2, 2}, value = 7})
    assert.shape({4, 3}, x["repeat"](x, 2, 1))
  end)
end)

describe("a number that an integer tensor cannot hold", function()
  local bytes, flags = dlua.tensor({0, 44}, {dtype = "u8"}), dlua.tensor {true, false}
  local function fails(text, fn, ...)
    local ok, message = pcall(fn, ...)
    assert.is_false(ok)
    assert.truthy(message:find(text, 1, true), message)
  end

  it("is an error where the answer would be wrong", function()
    for _, op in ipairs {"eq", "lt", "maximum", "floor_div", "pow", "fill", "full_like"} do
      fails(op .. ": 300 does not fit into u8 (0..255)", dlua[op], bytes, 300)
    end
    fails("2.5 does not fit into i64", dlua.full, {2}, 2.5, {dtype = "i64"})
    fails("2.5 does not fit into u8", dlua.masked_fill, bytes, flags, 2.5)
    fails("-1 does not fit into u8", dlua.pad, bytes, {1, 1}, {value = -1})
    fails("300 does not fit into u8", dlua.randint, 1, 300, {2}, {dtype = "u8"})
    fails("300 does not fit into u8", function() bytes[1] = 300 end)
    fails("300 does not fit into u8", dlua.clamp, bytes, 300)
  end)

  it("wraps around in sums and products, and is a float where it has a fraction", function()
    assert.same({44, 88}, (bytes + 300):totable())
    assert.same({255, 43}, (bytes - 1):totable())
    assert.same({0, 44}, bytes:clamp(-1, 300):totable())
    assert.same({1.5, 2.5}, i64({1, 3}):clamp(1.5, 2.5):totable())
    assert.equal("f32", i64({1, 3}):clamp(1.5, 2.5).dtype)
  end)
end)

describe("printing", function()
  it("aligns columns", function()
    assert.equal("f32[2x2]\n -1.5  0\n  1.5  3", tostring(dlua.tensor {{-1.5, 0}, {1.5, 3}}))
    assert.equal("f32[]  4.5", tostring(dlua.tensor(4.5)))
    assert.equal("i64[3]  1  2  3", tostring(i64({1, 2, 3})))
    assert.equal("bool[2]  true  false", tostring(dlua.tensor {true, false}))
    assert.equal("f32[0]", tostring(dlua.tensor {}))
    assert.equal("f32[3]  nan  inf  -inf", tostring(dlua.tensor {0 / 0, 1 / 0, -1 / 0}))
    assert.equal("f32[2x1x2]\n 1  1\n\n 1  1", tostring(dlua.ones(2, 1, 2)))
  end)

  it("shows the ends of what is long", function()
    assert.equal("f32[2000]  1  1  1  …  1  1  1", tostring(dlua.ones(2000)))
    local _, lines = tostring(dlua.ones(100, 100)):gsub("\n", "")
    assert.equal(7, lines)
  end)
end)

describe("what looks right and is not", function()
  it("an in-place call by name gives the tensor", function()
    local x = dlua.ones(2)
    assert.is_true(rawequal(x, dlua.add_ {x = x, y = 1}))
    assert.is_true(rawequal(x, dlua.add_(x, {y = 1})))
    assert.same({3, 3}, x:totable())
  end)

  it("a linspace of integers ends where they do", function()
    local low, high = math.mininteger, math.maxinteger
    assert.same({0, 255, 255}, dlua.linspace(0, 1e30, 3, {dtype = "u8"}):totable())
    assert.same({low, 0, high}, dlua.linspace(-1e30, 1e30, 3, {dtype = "i64"}):totable())
  end)

  it("a range with names is refused", function()
    local x = dlua.ones(3)
    assert.error_matches(function() return x[{ {first = 1} }] end, "without key 'first'")
    assert.error_matches(function() return x[{ {1, 2, stride = 2} }] end, "without key 'stride'")
  end)

  it("requires_grad takes booleans alone", function()
    local x = dlua.ones(2)
    assert.error_matches(function() x.requires_grad = "no" end, "requires_grad must be a boolean, got string")
    assert.error_matches(function() x:requires_grad_ "no" end, "on must be a boolean, got string")
    assert.is_false(x.requires_grad)
  end)
end)

describe("sizes that cannot be addressed", function()
  it("are refused, also where there are no elements or none of their own", function()
    local huge = 1 << 40
    for _, make in ipairs {
      function() return dlua.zeros(0, huge, huge) end, function() return dlua.zeros(0):reshape(0, huge, huge) end,
      function() return dlua.zeros(1):expand(huge, huge) end,
    } do
      local ok, message = pcall(make)
      assert.is_false(ok)
      assert.is_truthy(tostring(message):find("1099511627776", 1, true), message)
    end
  end)
end)

describe("settings", function()
  it("give what they were", function()
    for name, other in pairs {threads = 1, winograd = false, autotune = false} do
      local before = dlua[name]()
      assert.equal(before, dlua[name](other))
      assert.equal(other, dlua[name](before))
      assert.equal(before, dlua[name]())
    end
    assert.is_false(dlua.cuda.tf32(true))
    assert.is_true(dlua.cuda.tf32(false))
    assert.error_matches(function() dlua.cuda.tf32(1) end, "tf32: on must be a boolean, got number")
  end)
end)
