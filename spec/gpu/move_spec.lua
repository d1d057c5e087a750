-- move_spec.lua - ops that move, index, sort and scan on the GPU against the CPU, where kernels take another way than
-- on the small samples of parity_spec.lua: long and ragged shapes, other layouts, many writers of one place, several
-- blocks. What only moves must be equal bit by bit. DLUA_MODULES=build/emulated runs it without a GPU.
local dlua = require "dlua"
local ops = dlua.ops

if not dlua.cuda.available() then
  describe("moving on the GPU", function() pending("no GPU") end)
  return
end

-- The same numbers on every call, in a dtype.
local function values(size, dtype)
  dlua.seed(3)
  if dtype == "bool" then return dlua.rand(size):gt(0.5) end
  return (dlua.randn(size) * 50):to(dtype or "f32")
end

local function indices(most, size)
  dlua.seed(5)
  return dlua.randint(1, most, size)
end

-- Runs call(on) on both devices, where on moves a tensor to the device; results must be equal, or as close as said.
local function check(call, closeness)
  local wanted = table.pack(call(function(x) return x end))
  local got = table.pack(call(function(x) return x:to("cuda") end))
  assert.equal(wanted.n, got.n)
  for k = 1, wanted.n do
    local a, b = got[k], wanted[k]
    assert.equal("cuda", a.device)
    assert.equal(b.dtype, a.dtype)
    assert.same(b.shape, a.shape)
    a = a:to("cpu")
    if closeness then
      local error = (a - b):abs():max():item()
      assert.is_true(error <= closeness * (1 + b:abs():max():item()), ("result %d is off by %g"):format(k, error))
    else
      assert.is_true(a:eq(b):logical_or(a:ne(a):logical_and(b:ne(b))):all():item(), ("result %d differs"):format(k))
    end
  end
end

-- Without the lines of the script: an error found later names the one that waited, too.
local function text_of(message) return (message:gsub("  %S+:%d+", "")) end

local function fails_alike(call)
  local fine, wanted = pcall(call, function(x) return x end)
  local works, got = pcall(function()
    call(function(x) return x:to("cuda") end)
    dlua.cuda.synchronize()
  end)
  assert.is_false(fine)
  assert.is_false(works)
  assert.equal(text_of(wanted), text_of(got))
end

local widths = {"u8", "f16", "f32", "f64"}

describe("copies", function()
  for _, dtype in ipairs(widths) do
    it("turn matrices of " .. dtype, function()
      check(function(on) return on(values({3, 70, 45}, dtype)):transpose(2, 3):clone() end)
      check(function(on) return on(values({9, 10, 33}, dtype)):permute(3, 1, 2):clone() end)
      check(function(on) return on(values({40, 90}, dtype)):t():narrow(1, 3, 60):clone() end)
    end)
    it("take the widest unit that fits rows of " .. dtype, function()
      for _, part in ipairs {{1, 32}, {2, 32}, {3, 30}, {5, 12}, {9, 7}} do
        check(function(on) return on(values({6, 48}, dtype)):narrow(2, part[1], part[2]):clone() end)
      end
      check(function(on) return on(values({1, 20}, dtype)):expand(7, 20):clone() end)
      check(function(on) return on(values({6, 20}, dtype)):narrow(1, 1, 5):clone() end)
    end)
  end
  it("convert whole and ragged arrays", function()
    local pairs_of = {{"f32", "bf16"}, {"bf16", "f32"}, {"f32", "f16"}, {"f16", "f32"}, {"f32", "u8"}, {"i64", "bf16"}}
    for _, pair in ipairs(pairs_of) do
      for _, n in ipairs {1, 3, 64, 1027} do
        check(function(on) return on(values({n}, pair[1])):to(pair[2]) end)
      end
    end
    check(function(on) return on(indices(255, {1027}):to("u8")):to("f32") end)
    check(function(on) return on(values({64})):narrow(1, 2, 60):to("bf16") end)
  end)
  it("saturate where integers end", function()
    local x = dlua.tensor({0 / 0, 1 / 0, -1 / 0, 1e30, -1e30, 255.5, 256, -0.5, -1, 2147483647.5, -2147483649, 0.9},
      {dtype = "f64"})
    for _, dtype in ipairs {"i64", "i32", "u8", "bool", "bf16"} do
      check(function(on) return on(x):to(dtype) end)
      check(function(on) return on(x:to("f32")):to(dtype) end)
    end
  end)
  it("put numbers and views in places", function()
    check(function(on)
      local x = on(values {6, 8})
      x[{{2, 4}, {3, 7}}] = 5
      x[1] = on(values {8}) * 2
      local y = on(values({6, 8}, "bf16"))
      y[{{}, {1, 8, 3}}] = 0.5
      return x, y
    end)
  end)
end)

describe("joining", function()
  it("takes more tensors than one launch", function()
    for _, dtype in ipairs {"u8", "f32"} do
      for _, dim in ipairs {1, 2} do
        check(function(on)
          local list = {}
          for k = 1, 70 do list[k] = on(values({dim == 1 and k % 5 or 4, dim == 2 and k % 3 or 8}, dtype) + k % 7) end
          return ops.cat(list, dim), ops.stack({list[1], list[1 + 15]}, dim)
        end)
      end
    end
  end)
  it("takes views", function()
    check(function(on)
      local x, y = on(values {5, 6}), on(values {6, 5}):t()
      return ops.cat({x, y}, 2), ops.cat({y, x}, 1), ops.stack({x, y}, 2), ops.stack({y, x}, 3)
    end)
  end)
  it("shows elements elsewhere", function()
    check(function(on)
      local x = on(values {3, 4, 5}):permute(3, 1, 2)
      return x:tile {2, 1, 3, 2}, ops.repeat_interleave(x, 3, 2), ops.roll(x, {7}), ops.roll(x, {-9, 4}, {3, 1}),
        ops.flip(x, {1, 3}), ops.flip(x), ops.tril(x, 1), ops.triu(x, -1)
    end)
  end)
  it("pads and its gradient", function()
    for _, mode in ipairs {"constant", "reflect", "replicate", "circular"} do
      for _, pad in ipairs {{2, 1, 3, 4}, {-1, 2, 0, 3}, {4, 4}, {-2, -1, 1, -1}, {0, 0, 4, 0}} do
        check(function(on)
          local x = on(values({5, 5, 6}, "f64")):transpose(1, 2)
          local y = ops.pad(x, pad, {mode = mode, value = 3})
          return y, ops.pad_grad(on(values(y.shape, "f64")), x.shape, pad, mode)
        end, 1e-12)
      end
    end
    check(function(on) return ops.pad(on(values({1, 3}, "f64")), {4, 5}, "replicate"), ops.pad_grad(
      on(values({1, 10}, "f64")), {1, 1}, {4, 5}, "replicate") end, 1e-12)
  end)
end)

describe("indexing", function()
  it("selects along every dimension", function()
    for _, dtype in ipairs(widths) do
      for dim = 1, 3 do
        check(function(on)
          local x, index = on(values({6, 8, 16}, dtype)), on(indices(6, {90}))
          return ops.index_select(x, dim, index), ops.index_select(x:permute(3, 1, 2), dim, index)
        end)
      end
    end
  end)
  it("gives the last of many writers", function()
    for _, dtype in ipairs(widths) do
      for dim = 1, 2 do
        for _, n in ipairs {9, 200} do
          check(function(on)
            local size = dim == 1 and {n, 6} or {6, n}
            local x, index, source = on(values({7, 7}, dtype)), on(indices(7, size)), on(values({200, 200}, dtype) * 2)
            local list = index:select(3 - dim, 1)
            local part = source:narrow(dim, 1, n):narrow(3 - dim, 1, 7)
            return ops.scatter(x, dim, index, source), ops.scatter(x:t(), dim, index, source:t()),
              ops.gather_last(x, dim, index), ops.gather(x, dim, index), ops.index_copy(x, dim, list, part)
          end)
        end
      end
    end
  end)
  it("adds in the order of the index", function()
    for _, dtype in ipairs {"f32", "f64", "bf16", "i64", "i32", "u8", "bool"} do
      for dim = 1, 2 do
        for _, n in ipairs {9, 200} do
          check(function(on)
            local size = dim == 1 and {n, 6} or {6, n}
            local x, index, source = on(values({7, 7}, dtype)), on(indices(7, size)), on(values({200, 200}, dtype))
            local list = index:select(3 - dim, 1)
            local part = source:narrow(dim, 1, n):narrow(3 - dim, 1, 7)
            return ops.scatter_add(x, dim, index, source), ops.scatter_add(x:t(), dim, index, source:t()),
              ops.index_add(x, dim, list, part), ops.index_add(x:t(), dim, list, part)
          end)
        end
      end
    end
  end)
  it("works in place, with itself as the source", function()
    for _, n in ipairs {5, 100} do
      check(function(on)
        local x, y, z = on(values {n}), on(values {n}), on(values {n, 3})
        ops.index_add_(x, 1, on(indices(n, {n})), x)
        ops.scatter_(y, 1, on(indices(n, {n})), y)
        ops.index_copy_(z:t(), 2, on(indices(n, {n})), z:t())
        return x, y, z
      end)
    end
  end)
  it("names bad indices and leaves them out", function()
    local index = indices(5, {80})
    for _, bad in ipairs {0, 6, -3} do
      index[77] = bad
      for _, name in ipairs {"gather", "gather_last", "index_select"} do
        fails_alike(function(on) return ops[name](on(values {5}), 1, on(index)) end)
      end
      for _, name in ipairs {"scatter", "scatter_add", "index_add", "index_copy"} do
        fails_alike(function(on) return ops[name](on(values {5}), 1, on(index), on(values {80})) end)
        fails_alike(function(on) return ops[name](on(values {5}), 1, on(index:narrow(1, 70, 9)), on(values {9})) end)
      end
      fails_alike(function(on) return ops.one_hot(on(index), 5) end)
    end
    index[77] = 1000000
    local x = dlua.zeros({5}):to("cuda")
    ops.index_add_(x, 1, index:to("cuda"), dlua.ones({80}):to("cuda"))
    assert.is_false(pcall(dlua.cuda.synchronize))
    assert.equal(79, x:to("cpu"):sum():item())
  end)
end)

describe("masks", function()
  it("keep row-major order over many blocks", function()
    for _, dtype in ipairs(widths) do
      check(function(on)
        local x, mask = on(values({50, 130}, dtype)), on(values({50, 130}, "bool"))
        local column = on(values({50, 1}, "bool"))
        local few = x:narrow(1, 1, 3)
        return ops.masked_select(x, mask), ops.masked_select(x, column),
          ops.masked_select(few, column:narrow(1, 4, 3)),
          ops.masked_scatter(x, mask, x:t()), ops.masked_fill(x, column, 3), ops.nonzero(mask), ops.nonzero(mask:t()),
          ops.masked_select(x:t(), mask:t())
      end)
    end
  end)
  it("say when the source is too short", function()
    local mask = values({3, 4}, "bool")
    fails_alike(function(on) return ops.masked_scatter(on(values {3, 4}), on(mask), on(values {2})) end)
  end)
  it("say when an assignment has too few values or too many", function()
    local mask = values({3, 4}, "bool")
    local count = mask:sum():item()
    for _, n in ipairs {2, count - 1, count + 1, 40} do
      fails_alike(function(on) return ops.masked_scatter(on(values {3, 4}), on(mask), on(values {n}), true) end)
      local x = values({3, 4}):to "cuda"
      local ok, message = pcall(function()
        x[mask:to "cuda"] = values({n}):to "cuda"
        dlua.cuda.synchronize()
      end)
      assert.is_false(ok)
      assert.matches(("mask is true at %d positions but source has %d elements"):format(count, n), message)
      assert.matches("move_spec.lua:%d+$", message)
    end
    local x = values({3, 4}):to "cuda"
    x[mask:to "cuda"] = values({count}):to "cuda"
    dlua.cuda.synchronize()
  end)
end)

describe("sorting", function()
  local shapes = {{3, 2500}, {2, 300}, {1, 20000}}
  for _, dtype in ipairs {"f32", "f64", "bf16", "f16", "i64", "i32", "u8", "bool"} do
    it("orders lanes of " .. dtype .. " stably", function()
      for _, size in ipairs(shapes) do
        for _, descending in ipairs {false, true} do
          check(function(on)
            local x = on(values(size, dtype))
            local v, at = ops.sort(x, 2, descending)
            local w, where = ops.sort(x:t(), 1, descending)
            return v, at, w, where, ops.argsort(x, 2, descending)
          end)
        end
      end
    end)
  end
  it("knows nan, zeros and infinities", function()
    local x = values {2600}
    for k, v in ipairs {0 / 0, 1 / 0, -1 / 0, 0, -0.0, 0 / 0, 0, -0.0} do x[k * 300] = v end
    for _, n in ipairs {100, 2600} do
      for _, dtype in ipairs {"f32", "f64", "bf16"} do
        check(function(on)
          local y = on(x:narrow(1, 1, n):to(dtype))
          local a, b = ops.sort(y)
          local c, d = ops.topk(y, 7)
          local e, f = ops.topk(y, 7, 1, false)
          return a, b, c, d, e, f
        end)
      end
    end
  end)
  it("finds the first few", function()
    local rising = dlua.range(1, 6000)
    for _, k in ipairs {1, 5, 512, 600} do
      check(function(on)
        local a, b = ops.topk(on(rising), k)
        local c, d = ops.topk(on(values {2, 5000}), k, 2, false)
        return a, b, c, d
      end)
    end
  end)
end)

describe("scans", function()
  local shapes = {{{2, 9000}, 2}, {{9000, 2}, 1}, {{3, 40}, 2}, {{3, 1100, 4}, 2}, {{70, 33}, 1}, {{1, 5000}, 2}}
  it("carry over chunks", function()
    for _, c in ipairs(shapes) do
      for _, dtype in ipairs {"f32", "f64", "i32", "u8", "bool"} do
        check(function(on)
          return ops.cumsum(on(values(c[1], dtype)), c[2])
        end, dtype == "f32" and 1e-6 or 1e-13)
      end
      check(function(on) return ops.cumprod(on(values(c[1], "f64") * 1e-4 + 1), c[2]) end, 1e-12)
      check(function(on) return ops.cumprod(on(values(c[1], "i64")), c[2]) end, 0)
      for _, reverse in ipairs {false, true} do
        check(function(on)
          return ops.linear_scan(on(values(c[1], "f64") * 0.01), on(values(c[1], "f64")), c[2], reverse)
        end, 1e-12)
      end
    end
  end)
end)
