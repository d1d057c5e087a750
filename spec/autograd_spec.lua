-- autograd_spec.lua - gradients as scripts ask for them.
local dlua = require "dlua"

local function leaf(values) return dlua.tensor(values, {requires_grad = true, dtype = "f64"}) end

describe("backward", function()
  it("adds up until grad is cleared", function()
    local x = leaf {1, 2}
    for _ = 1, 2 do (x * x):sum():backward() end
    assert.close({4, 8}, x.grad)
    x.grad = nil
    local again = (x * 3):sum()
    again:backward()
    assert.close({3, 3}, x.grad)
  end)

  it("takes a gradient for more than one element", function()
    local x = leaf {1, 2}
    local y = x * x
    y:backward(dlua.tensor({1, 10}, {dtype = "f64"}))
    assert.close({2, 40}, x.grad)
    assert.error_matches(function() (x * x):backward() end, "backward")
  end)

  it("frees the graph unless told otherwise", function()
    local x = leaf {2}
    local y = (x * x):sum()
    y:backward {retain_graph = true}
    y:backward()
    assert.close({8}, x.grad)
    assert.error_matches(function() y:backward() end, "backward")
  end)
end)

describe("dlua.grad", function()
  it("gives one result per input and leaves grad alone", function()
    local x, y = leaf {2}, leaf {3}
    local gx, gy = dlua.grad(x * y, {x, y})
    assert.close({3}, gx)
    assert.close({2}, gy)
    assert.is_nil(x.grad)
  end)

  it("goes to higher orders", function()
    local x = leaf {2}
    local first = dlua.grad(x ^ 3, x, {create_graph = true})
    local second = dlua.grad(first, x, {create_graph = true})
    local third = dlua.grad(second, x)
    assert.same({12, 12, 6}, {first:item(), second:item(), third:item()})
  end)

  it("names an input that was not used", function()
    local x, y = leaf {2}, leaf {3}
    assert.error_matches(function() dlua.grad(x * 2, {x, y}) end, "input 2 was not used")
    local gx, gy = dlua.grad(x * 2, {x, y}, {allow_unused = true})
    assert.close({2}, gx)
    assert.is_nil(gy)
  end)
end)

describe("no_grad", function()
  it("does not record, passes results and arguments", function()
    local x = leaf {1}
    local y, z = dlua.no_grad(function(a) return a * 2, 7 end, x)
    assert.is_false(y.requires_grad)
    assert.equal(7, z)
    assert.is_true(dlua.is_grad_enabled())
  end)

  it("restores the mode on errors", function()
    local ok, message = pcall(dlua.no_grad, function() error("stop", 0) end)
    assert.is_false(ok)
    assert.equal("stop", message)
    assert.is_true(dlua.is_grad_enabled())
  end)

  it("cannot be yielded across", function()
    local co = coroutine.create(function() dlua.no_grad(coroutine.yield) end)
    local ok, message = coroutine.resume(co)
    assert.is_false(ok)
    assert.matches("yield", message)
    assert.is_true(dlua.is_grad_enabled())
  end)
end)

describe("changes in place", function()
  it("of what backward needs are errors that name the op and the line", function()
    local w = leaf {1, 1}
    local v = w * 2
    local loss = (v * v):sum()
    v:add_(1)
    local ok, message = pcall(loss.backward, loss)
    assert.is_false(ok)
    assert.matches("mul", message)
    assert.matches("in place", message)
    assert.matches("autograd_spec.lua:%d+", message)
  end)

  it("of a leaf need no_grad", function()
    local w = leaf {1}
    assert.has_error(function() w:add_(1) end)
    dlua.no_grad(function() w:add_(1) end)
    assert.equal(2, w:item())
  end)
end)

describe("dlua.Function", function()
  local square = dlua.Function {
    forward = function(ctx, x)
      ctx.x = x
      return x * x
    end,
    backward = function(ctx, g) return g * 2 * ctx.x end,
  }
  local exp = dlua.Function {
    forward = function(ctx, x)
      ctx.y = x:exp()
      return ctx.y
    end,
    backward = function(ctx, g) return g * ctx.y end,
  }

  it("has right gradients, also second ones", function()
    local x = dlua.tensor({0.5, -1.5}, {dtype = "f64"})
    assert.gradcheck(function(v) return square(v) end, x, {second_order = true})
    assert.gradcheck(function(v) return exp(v) end, x, {second_order = true})
  end)

  it("runs without recording when nobody asks", function()
    assert.is_false(square(dlua.ones(2)).requires_grad)
    local x = leaf {1}
    assert.is_false(dlua.no_grad(square, x).requires_grad)
  end)

  it("gives several inputs their gradients and skips nil", function()
    local pick = dlua.Function {
      forward = function(_, a, _, b) return a + b, a * 1 end,
      backward = function(_, g, h) return g + h, nil, g * 10 end,
    }
    local a, b = leaf {1}, leaf {2}
    local sum, copy = pick(a, "text", b)
    local total = sum + copy
    total:backward()
    assert.equal(2, a.grad:item())
    assert.equal(10, b.grad:item())
  end)

  it("refuses gradients that are missing or of another shape", function()
    local function fails(text, backward)
      local f = dlua.Function {forward = function(_, a, b) return (a * b):sum() end, backward = backward}
      local y = f(leaf {1, 2}, leaf {3, 4})
      assert.error_matches(function() y:backward() end, text, 1, true)
    end
    fails("gave 1 gradient but argument 2 needs one too", function(_, g) return g:expand(2) end)
    fails("gave a gradient {} for argument 1 of shape {2}", function(_, g) return g, g end)
  end)

  it("passes errors of backward on as they are", function()
    local broken = dlua.Function {
      forward = function(_, x) return x * 1 end,
      backward = function() error("my own words", 0) end,
    }
    local x = leaf {1}
    local y = broken(x)
    local ok, message = pcall(y.backward, y)
    assert.is_false(ok)
    assert.equal("my own words", message)
    local again = square(x)
    again:backward()
    assert.equal(2, x.grad:item())
  end)

  it("notices changed tensors in ctx", function()
    local x = leaf {1}
    local v = x * 1
    local y = square(v)
    v:add_(1)
    assert.error_matches(function() y:backward() end, "ctx.x was changed in place")
  end)

  it("survives coroutines that end inside it", function()
    local function elsewhere() return coroutine.wrap(function() return dlua.ones(1) + 1 end)() end
    local f = dlua.Function {
      forward = function(_, x)
        elsewhere()
        return x * 2
      end,
      backward = function(_, g)
        elsewhere()
        collectgarbage()
        collectgarbage()
        return g * 2
      end,
    }
    local x = leaf {1}
    f(f(f(x))):sum():backward()
    assert.equal(8, x.grad:item())
  end)

  it("refuses what forward released", function()
    local f = dlua.Function {
      forward = function(_, x)
        local y = x * 1
        x:release()
        return y
      end,
      backward = function(_, g) return g end,
    }
    assert.error_matches(function() f(leaf {1}) end, "Function: forward released argument 1")
  end)

  it("refuses more results and tensors than it can record", function()
    local many = dlua.Function {
      forward = function(_, x) return x * 1, x * 2, x * 3, x * 4, x * 5 end,
      backward = function(_, g) return g end,
    }
    assert.error_matches(function() many(leaf {1}) end, "Function: forward returns at most 4 tensors, got 5")
    local given = {}
    for k = 1, 65 do given[k] = leaf {1} end
    assert.error_matches(function() square(table.unpack(given)) end, "Function: takes at most 64 tensors")
  end)

  it("keeps ctx through scopes", function()
    local x = leaf {3}
    local f = dlua.Function {
      forward = function(ctx, v)
        ctx.saved = {doubled = v * 2}
        return v * v
      end,
      backward = function(ctx, g) return g * ctx.saved.doubled end,
    }
    dlua.tidy(function() return f(x):sum() end):backward()
    assert.equal(6, x.grad:item())
  end)

  it("is collected with outputs in tables of ctx", function()
    local f = dlua.Function {
      forward = function(ctx, v)
        ctx.saved = {v:exp()}
        return ctx.saved[1]
      end,
      backward = function(ctx, g) return g * ctx.saved[1] end,
    }
    local function settled()
      for _ = 1, 3 do collectgarbage() dlua.ones(1):add_(1) end
      return dlua.memory().live
    end
    local before = settled()
    for _ = 1, 100 do f(dlua.ones({1000}, {requires_grad = true})) end
    assert.is_true(settled() - before < 100000)
    assert.gradcheck(function(v) return f(v) end, dlua.tensor({0.5}, {dtype = "f64"}), {second_order = true})
  end)

  it("is collected, in cycles too", function()
    collectgarbage()
    collectgarbage()
    local before = dlua.memory().live
    for _ = 1, 100 do
      local x = dlua.ones({1000}, {requires_grad = true})
      exp(square(x)):sum()
    end
    for _ = 1, 3 do collectgarbage() dlua.ones(1) end
    assert.is_true(dlua.memory().live - before < 100000)
  end)
end)

describe("what would lose a gradient", function()
  local function fails(text, fn) assert.error_matches(fn, text, 1, true) end

  it("is refused: a recorded source for a view", function()
    local base, p = dlua.zeros(2, 3), leaf {1, 2, 3}
    fails("add_: y requires gradient but x is a view", function() base[1]:add_(p) end)
    fails("value requires gradient but x is a view", function()
      local row = base[1]
      row[1] = p[1]
    end)
    base[1] = p * 2
    base:sum():backward()
    assert.same({2, 2, 2}, p.grad:totable())
  end)

  it("is refused: a first gradient on another device", function()
    local y = leaf {1, 2} * 2
    fails("backward: x is on cpu but the gradient is on mock",
      function() y:backward(dlua.ones({2}, {device = "mock"})) end)
  end)
end)
