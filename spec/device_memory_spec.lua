-- device_memory_spec.lua - memory of a device: blocks are cut from segments, and running out of it is a Lua error.
local dlua = require "dlua"
local nn, optim = dlua.nn, dlua.optim

local MIB = 1 << 20
local uncached = os.getenv "DLUA_CACHE" == "0"

local function settle()
  for _ = 1, 3 do collectgarbage() end
  dlua.empty_cache "mock"
  return dlua.memory "mock"
end

local function zeros(...) return dlua.zeros({...}, {device = "mock"}) end

if not uncached then
  describe("memory of a device", function()
    it("comes from segments and goes back whole", function()
      local before = settle()
      local x, y = zeros(100), zeros(3, MIB)
      local during = dlua.memory "mock"
      assert.equal(before.live + 512 + 12 * MIB, during.live)
      assert.equal(before.segments + 2, during.segments)
      assert.equal(2 * MIB - 512 + 8 * MIB, during.cached - before.cached)
      assert.is_true(during.largest >= 8 * MIB)
      x:release()
      y:release()
      local after = settle()
      assert.equal(before.live, after.live)
      assert.equal(before.segments, after.segments)
    end)

    it("is reused at once, so that a loop asks the device for nothing", function()
      local net = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5)):to "mock"
      local optimizer = optim.Adam(net:parameters(), {lr = 0.01})
      local x = dlua.randn(8, 20):to "mock"
      local function step()
        local _ <close> = dlua.scope()
        local loss = (net(x) ^ 2):mean()
        optimizer:zero_grad()
        loss:backward()
        optimizer:step()
      end
      for _ = 1, 3 do step() end
      collectgarbage()
      local before = dlua.memory "mock"
      for _ = 1, 20 do step() end
      local after = dlua.memory "mock"
      assert.equal(before.system, after.system)
      assert.equal(before.segments, after.segments)
      assert.is_true(after.allocations > before.allocations + 200)
    end)
  end)
end

describe("a full device", function()
  local function with_limit(bytes, fn)
    settle()
    dlua.test.fault("mock", "limit", bytes)
    local ok, message = pcall(fn)
    dlua.test.fault("mock", "limit", 0)
    return ok, message
  end

  it("is an error that names op, bytes, the device and its largest tensors", function()
    local live = settle().live
    local ok, message = with_limit(12 * MIB, function()
      local big, small, host = zeros(1024, 1024), zeros(16, 1024), dlua.zeros(5, MIB)
      local _ = (big + 1) + (big + 2) + small:sum() + host
    end)
    assert.is_false(ok)
    assert.matches("^add: mock: out of memory: %d+ bytes more than %d+: 4.0 MiB more on mock, where %d+.%d MiB are"
      .. " in use and %d+.%d MiB free between them; a smaller batch needs less %(largest tensors: f32{1024,1024} 4%.0",
      message)
    assert.is_nil(message:find("5,1048576", 1, true))
    assert.matches("device_memory_spec.lua:%d+$", message)
    assert.equal(live, settle().live)
  end)

  it("collects garbage before it gives up", function()
    local ok, message = with_limit(64 * MIB, function()
      local x = zeros(1024, 1024)
      local keep
      for k = 1, 40 do keep = x + k end
      assert.equal(40, keep[1][1]:item())
    end)
    assert.is_true(ok, message)
  end)

  it("gives cached segments back before it gives up", function()
    local ok, message = with_limit(30 * MIB, function()
      zeros(6, MIB):release() -- a segment of 24 MiB stays in the cache
      local x = zeros(7, MIB)
      assert.equal(0, x[1][1]:item())
    end)
    assert.is_true(ok, message)
  end)

  it("leaves tensors usable, and a smaller call works", function()
    local x, host = zeros(1024, 1024), dlua.ones(3)
    local ok = with_limit(9 * MIB, function() return zeros(9, MIB) end)
    assert.is_false(ok)
    assert.equal(3, host:sum():item())
    assert.equal(0, x:sum():item())
    assert.same({2, 2, 2}, (host:to "mock" * 2):totable())
  end)

  it("is an error in backward and in to, too", function()
    local live = settle().live
    local ok, message = with_limit(20 * MIB, function()
      local x = dlua.ones({1024, 1024}, {device = "mock", requires_grad = true})
      local y = x:exp():exp():exp():exp()
      y:sum():backward()
    end)
    assert.is_false(ok)
    assert.matches("out of memory", message)
    assert.equal(live, settle().live)
    ok, message = with_limit(2 * MIB, function() return dlua.ones(MIB):to "mock" end)
    assert.is_false(ok)
    assert.matches("^to: mock: out of memory.+4.0 MiB more on mock", message)
  end)
end)

describe("garbage on a full device", function()
  local LIMIT = 64 * MIB

  before_each(function()
    settle()
    dlua.test.fault("mock", "limit", LIMIT)
  end)
  after_each(function() dlua.test.fault("mock", "limit", 0) end)

  -- Fills the device with garbage that has grown old, so that only a full collection finds it.
  local function fill()
    local kept = {}
    repeat
      local ok, x = pcall(zeros, 256, 1024)
      kept[#kept + 1] = x
    until not ok
    assert.matches("out of memory", kept[#kept])
    assert.is_true(#kept > 20)
    collectgarbage()
    return dlua.memory "mock".live
  end

  local function garbage(finalizer, ...) setmetatable({...}, {__gc = finalizer}) end

  local function assert_freed(live, fn)
    local result = fn()
    assert.is_true(dlua.memory "mock".live < live - 10 * MIB)
    return result
  end

  -- A step of training that meets a full device before `full`: the loss and the new weights.
  local function train(full)
    dlua.seed(3)
    local net = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256)):to "mock"
    local optimizer = optim.Adam(net:parameters(), {lr = 0.01})
    local x = dlua.randn(256, 256):to "mock"
    local live
    local function before(stage)
      if stage == full then live = fill() end
    end
    before "forward"
    local loss = (net(x) ^ 2):mean()
    before "backward"
    loss:backward()
    before "step"
    optimizer:step()
    if live then assert.is_true(dlua.memory "mock".live < live - 10 * MIB) end
    return {loss:item(), net:parameters()[1]:totable()}
  end

  it("is collected in forward, in backward and in a step", function()
    local base = settle().live
    local expected = train()
    for _, stage in ipairs {"forward", "backward", "step"} do
      assert.same(expected, train(stage), stage)
      assert.equal(base, settle().live)
    end
  end)

  it("is collected by a coroutine, and when another was the last to compute", function()
    coroutine.wrap(function() return zeros(1):sum() end)()
    local live = fill()
    assert_freed(live, function() return zeros(1):expand(256, 1024):contiguous() end)
    live = fill()
    assert_freed(live, coroutine.wrap(function() return zeros(256, 1024) end))
  end)

  it("is freed by finalizers, which may release tensors but not compute", function()
    local refused, released
    local live = fill()
    garbage(function() refused = select(2, pcall(dlua.ones, 1)) end)
    garbage(function(held) released = pcall(held[1].release, held[1]) end, dlua.ones(1))
    assert_freed(live, function() return zeros(256, 1024) end)
    assert.matches("^memory is out: a finalizer that frees some cannot compute", refused)
    assert.is_true(released)
  end)

  it("does not take what a call was given in a table that a finalizer empties", function()
    local list = {zeros(256, 1024) + 1, zeros(256, 1024) + 2}
    local live = fill()
    garbage(function() list[1], list[2] = nil, nil end)
    local joined = assert_freed(live, function() return dlua.cat(list) end)
    assert.same({}, list)
    assert.equal(3 * 256 * 1024, joined:sum():item())
  end)
end)

describe("a device module whose libraries are missing", function()
  it("names the library", function()
    local folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder))
    local source = assert(io.open("build/dlua_mock.so", "rb"))
    local image = source:read("a"):gsub("libc%.so%.6", "libz.so.9") -- of the same length, so nothing moves
    source:close()
    local copy = assert(io.open(folder .. "/dlua_cuda.so", "wb"))
    copy:write(image)
    copy:close()
    local program = os.getenv "DLUA" or arg[-1] or "build/dlua"
    local script = [[-e 'print(require "dlua".cuda.available())']]
    local run = io.popen(("DLUA_MODULES=%s %s %s 2>&1"):format(folder, program, script))
    local text = run:read "a"
    run:close()
    os.execute("rm -r " .. folder)
    assert.matches("^false\tcuda is not available: libz.so.9: cannot open shared object file", text)
  end)
end)
