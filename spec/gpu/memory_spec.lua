-- memory_spec.lua - a GPU whose memory runs out: the error says what lies there, smaller calls go on, and nothing stays
-- behind; a loop of training asks for no more once it has what it needs. DLUA_MODULES=build/emulated runs it without a
-- GPU: the emulator's devices have a gibibyte each.
local dlua = require "dlua"
local nn, optim = dlua.nn, dlua.optim

local available, reason = dlua.cuda.available()
if not available then
  describe("the GPU's memory", function() pending(reason) end)
  return
end

local MIB = 1 << 20

local function settle()
  for _ = 1, 3 do collectgarbage() end
  dlua.cuda.empty_cache()
  return dlua.cuda.memory()
end

local function block(bytes) return dlua.empty({bytes}, {dtype = "u8", device = "cuda"}) end

-- A step of training that needs products and convolutions, which ask for memory of their own.
local function training()
  dlua.seed(2)
  local net = nn.Sequential {
    nn.Conv2d(3, 8, 3, {padding = 1}), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    nn.Linear(8 * 4 * 4, 3),
  }:to "cuda"
  local opt = optim.Adam(net:parameters(), {lr = 1e-3})
  local x, y = dlua.randn(8, 3, 8, 8):to "cuda", dlua.randint(1, 3, {8}):to "cuda"
  return function()
    local _ <close> = dlua.scope()
    local loss = net(x):cross_entropy(y)
    opt:zero_grad()
    loss:backward()
    opt:step()
  end, net
end

-- Takes memory in pieces, ever smaller ones, until the device has less than `rest` bytes; what pcall said at the last
-- refusal. The pieces end up in held.
local function fill(held, rest)
  local message
  local bytes = dlua.cuda.devices()[1].free // 8
  while bytes >= rest do
    local ok, result = pcall(block, bytes)
    if ok then
      held[#held + 1] = result
    else
      message, bytes = result, bytes // 2
    end
  end
  return message
end

local function let_go(held)
  for _, piece in ipairs(held) do piece:release() end
end

describe("a full GPU", function()
  it("is an error that names the op, the bytes and the largest tensors", function()
    local base = settle().live
    local held = {}
    local message = fill(held, 32 * MIB)
    let_go(held)
    assert.is_true(#held >= 7)
    assert.equal("string", type(message))
    assert.is_nil(message:find "\n", message)
    assert.matches("^empty: cudaMalloc: out of memory %(2%): %d+%.%d MiB more on cuda, where %d+%.%d MiB are in use",
      message)
    assert.matches("largest tensors: u8{%d+} %d+%.%d MiB", message)
    assert.matches("memory_spec.lua:%d+$", message)
    assert.equal(base, settle().live)
  end)

  it("goes on with smaller calls, and a step of training fails whole or not at all", function()
    local step, net = training()
    local function small()
      local x <close> = dlua.ones(1000):to "cuda"
      return (x + x):sum():item()
    end
    step()
    small() -- a driver loads kernels when they are first called, into the same memory
    local base = settle().live
    local held = {}
    fill(held, 16 * MIB)
    assert.equal(2000, small())
    local ok, message = pcall(step)
    if not ok then
      assert.matches("out of memory", message)
      assert.matches("memory_spec.lua:%d+$", message)
    end
    for _, p in ipairs(net:parameters()) do assert.finite(p) end
    let_go(held)
    step()
    net:zero_grad()
    step()
    assert.equal(base, settle().live)
  end)

  it("refuses what could never fit, and holds nothing of it", function()
    local base = settle()
    local all = dlua.cuda.devices()[1].memory
    for _ = 1, 20 do
      local ok, message = pcall(block, 2 * all)
      assert.is_false(ok)
      assert.matches("^empty: cudaMalloc: out of memory", message)
    end
    assert.equal(base.live, settle().live)
    assert.equal(3, dlua.ones(3):to "cuda":sum():item())
  end)

  it("gives cached blocks of other sizes back before it refuses", function()
    settle()
    local part = dlua.cuda.devices()[1].free // 4
    for _, piece in ipairs {block(part), block(part), block(part)} do piece:release() end
    local whole = block(3 * part)
    assert.equal(3 * part, whole:numel())
    whole:release()
    settle()
  end)
end)

describe("training on the GPU", function()
  it("holds as much after each step, and soon asks for nothing more", function()
    settle()
    local step = training()
    step()
    step()
    collectgarbage()
    local before = dlua.cuda.memory()
    for _ = 1, 15 do
      step()
      assert.equal(before.live, dlua.cuda.memory().live)
    end
    local after = dlua.cuda.memory()
    assert.is_true(after.allocations > before.allocations + 100)
    if os.getenv "DLUA_CACHE" ~= "0" then
      assert.equal(before.system, after.system)
      assert.equal(before.segments, after.segments)
    end
  end)

  it("holds as much after each step in f16, with a scaler and dropout", function()
    dlua.seed(2)
    local net = nn.Sequential {
      nn.Conv2d(3, 8, 3, {padding = 1}), nn.ReLU(), nn.Dropout2d(0.2), nn.Flatten(), nn.Linear(8 * 8 * 8, 16),
      nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3),
    }:to "cuda"
    local opt, scaler = optim.Adam(net:parameters(), {lr = 1e-3}), dlua.GradScaler {growth_interval = 3}
    local x, y = dlua.randn(8, 3, 8, 8):to "cuda", dlua.randint(1, 3, {8}):to "cuda"
    local function step(k)
      local _ <close> = dlua.scope()
      local loss = dlua.autocast("f16", function() return net(x):cross_entropy(y) end)
      opt:zero_grad()
      scaler:scale(k % 5 == 0 and loss * math.huge or loss):backward()
      if k % 2 == 0 then
        scaler:unscale_(opt)
        nn.clip_grad_norm_(net:parameters(), 1)
      end
      scaler:step(opt)
      scaler:update()
    end
    for k = 1, 5 do step(k) end
    collectgarbage()
    collectgarbage "stop"
    local before = dlua.cuda.memory()
    for k = 6, 20 do
      step(k)
      assert.equal(before.live, dlua.cuda.memory().live)
    end
    collectgarbage "restart"
    assert.equal(before.system, dlua.cuda.memory().system)
  end)

  it("gives everything back when it is over", function()
    local base = settle().live
    do
      local step = training()
      step()
      step()
    end
    assert.equal(base, settle().live)
  end)
end)
