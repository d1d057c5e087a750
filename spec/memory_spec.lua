-- memory_spec.lua - who frees what, and when.
local dlua = require "dlua"
local failing = require "spec.live"

local MIB = 1 << 20

local function live()
  collectgarbage()
  collectgarbage()
  return dlua.memory().live
end

-- Live bytes, from which growth counts: specs before this one may have held more, and until blocks are given back
-- garbage may climb to where they were.
local function start()
  local bytes = live()
  dlua.empty_cache()
  dlua.reset_peak_memory()
  return bytes
end

-- Calls f, and gives by how many MiB live bytes rose above those before at most.
local function rise(f)
  local before = start()
  f()
  return (dlua.memory().peak - before) / MIB
end

local function drop_temporaries()
  for _ = 1, 1000 do local _ = dlua.zeros(512, 512) + 1 end
end

describe("memory", function()
  it("counts live bytes", function()
    local before = live()
    local x = dlua.zeros(512, 512)
    assert.is_true(dlua.memory().live - before >= MIB)
    x:release()
    assert.is_true(live() - before < 4096)
  end)

  it("stays small in a loop of dropped temporaries", function() assert.is_true(rise(drop_temporaries) < 100) end)

  it("stays small when old values hold new ones", function()
    local holder = {}
    local mib = rise(function()
      for i = 1, 1000 do holder[i % 4] = dlua.zeros(512, 512) end
    end)
    assert.equal(4, #holder + 1)
    assert.is_true(mib < 150)
  end)

  it("stays small after much was live", function()
    local many = {}
    for k = 1, 300 do many[k] = dlua.zeros(512, 512) end
    for _, x in ipairs(many) do x:release() end
    assert.is_true(rise(drop_temporaries) < 100)
  end)

  it("collects cycles through Lua and C", function()
    local before = live()
    for _ = 1, 10000 do
      local cycle = {x = dlua.ones({16}, {requires_grad = true})}
      cycle.self, cycle.y = cycle, cycle.x * 2
      assert(cycle.self.y)
    end
    assert.is_true(live() - before < MIB)
  end)

  it("releases a graph of many nodes without recursion", function()
    local x = dlua.ones({1}, {requires_grad = true})
    for _ = 1, 100000 do x = x + 1 end
    x = nil -- luacheck: ignore
    live()
  end)
end)

describe("release", function()
  it("closes a variable and may be repeated", function()
    local inner
    do
      local x <close> = dlua.ones(2)
      inner = x
    end
    assert.equal("a released tensor", tostring(inner))
    inner:release()
  end)

  it("leaves views their storage", function()
    local x = dlua.ones(2, 2)
    local row = x[1]
    x:release()
    assert.same({1, 1}, row:totable())
  end)
end)

describe("scope", function()
  it("releases what was made in it", function()
    local outside = dlua.ones(2)
    local inside, kept
    do
      local scope <close> = dlua.scope()
      inside = outside + 1
      kept = scope:keep(outside + 2)
    end
    assert.equal("a released tensor", tostring(inside))
    assert.same({3, 3}, kept:totable())
    assert.same({1, 1}, outside:totable())
  end)

  it("spares parameters", function()
    local parameter
    do
      local _ <close> = dlua.scope()
      parameter = dlua.ones({2}, {requires_grad = true})
    end
    assert.same({1, 1}, parameter:totable())
  end)

  it("nests", function()
    local a, b
    do
      local _ <close> = dlua.scope()
      do
        local inner <close> = dlua.scope()
        a = inner:keep(dlua.ones(1))
      end
      assert.same({1}, a:totable())
      b = a + 1
    end
    assert.equal("a released tensor", tostring(a))
    assert.equal("a released tensor", tostring(b))
  end)

  it("says how it is used", function()
    local scope = dlua.scope()
    assert.error_matches(function() scope.close() end, "close: call it as scope:close%(%)")
    scope:close()
    assert.error_matches(function() scope:keep(dlua.ones(1)) end, "keep: the scope is closed")
    scope:close()
  end)

  it("keeps tables of any depth, with back references, in linear time", function()
    local root, deepest = {}
    local _ <close> = dlua.scope()
    do
      local inner <close> = dlua.scope()
      local at = root
      for _ = 1, 30 do
        at.next, at.again, at.root = {}, {}, root
        at.again.next, at = at.next, at.next
      end
      at.x = dlua.ones(1)
      deepest = at
      inner:keep(root)
    end
    assert.same({1}, deepest.x:totable())
  end)
end)

describe("a box", function()
  it("locks its metatable", function()
    assert.equal("locked", getmetatable(dlua.ones(1)))
    assert.equal("locked", getmetatable(dlua.scope()))
  end)

  it("may be made by a finalizer, in a coroutine that is dead afterwards", function()
    local function elsewhere()
      setmetatable({}, {__gc = function() coroutine.wrap(function() return dlua.ones(1) + 1 end)() end})
    end
    local was = dlua.test.collect_always(true)
    local x = dlua.ones({1}, {requires_grad = true})
    local y = x
    for _ = 1, 20 do
      elsewhere()
      y = y * 1
    end
    elsewhere()
    y:backward()
    dlua.test.collect_always(was)
    assert.equal(1, x.grad:item())
  end)

  it("survives finalizers called by hand and resurrection", function()
    local meta = debug.getmetatable(dlua.ones(1))
    meta.__gc()
    meta.__gc(5)
    meta.__gc(io.stdout)
    local back
    do
      local x = dlua.ones(1)
      setmetatable({x = x}, {__gc = function(holder) back = holder.x end})
    end
    collectgarbage()
    collectgarbage()
    dlua.lasting(back)
    assert.is_false(dlua.is_tensor(back))
    back = nil -- luacheck: ignore
    collectgarbage()
    assert.same({1}, dlua.ones(1):totable())
  end)
end)

describe("tidy", function()
  it("keeps what the function returns", function()
    local lost
    local sum, list = dlua.tidy(function(x)
      lost = x * 2
      return lost + 1, {x + 5}
    end, dlua.ones(2))
    assert.equal("a released tensor", tostring(lost))
    assert.same({3, 3}, sum:totable())
    assert.same({6, 6}, list[1]:totable())
  end)

  it("passes errors on", function()
    local ok, message = pcall(dlua.tidy, function() error("stop", 0) end)
    assert.is_false(ok)
    assert.equal("stop", message)
  end)
end)

describe("a failing allocation", function()
  it("leaks nothing, for every n", function()
    local x, w = dlua.ones(4, 4), dlua.ones({4, 4}, {requires_grad = true})
    failing.check(function() local _ = x + 1 end)
    failing.check(function() dlua.tensor {{1, 2}, {3, 4}} end)
    failing.check(function() dlua.cat({x, x, x, x, x, x, x, x, x}, 1) end)
    failing.check(function() local _, _ = x[{ {}, {1, 2} }], x[x:gt(0)] end)
    failing.check(function() dlua.grad((w * x):sum(), {w}) end)
  end)
end)
