-- Data sets, splits and loaders.
local dlua = require "dlua"
local data, image, T = dlua.data, dlua.image, dlua.transforms
local helpers = require "spec.helpers"
local fails = helpers.fails

local shipped = "examples/data/cifar10-small"

local function quietly(fn, ...)
  local stderr = io.stderr
  local sink = io.tmpfile()
  io.stderr = sink -- luacheck: ignore 122
  local result = table.pack(pcall(fn, ...))
  io.stderr = stderr -- luacheck: ignore 122
  sink:seek "set"
  local text = sink:read "a"
  sink:close()
  assert(result[1], result[2])
  return result[2], text
end

local function load(split) return (quietly(data.load, shipped, {split = split})) end

local function counts(set)
  local list = {}
  for i = 1, #set do
    local y = select(2, set:get(i))
    list[y] = (list[y] or 0) + 1
  end
  return list
end

before_each(function() dlua.seed(1) end)

describe("data.load", function()
  it("reads a folder of classes and says what it used", function()
    local set, text = quietly(data.load, shipped, {split = "train"})
    assert.equal(1000, #set)
    assert.same({"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}, set.classes)
    local x, y = set:get(101)
    assert.same({3, 32, 32}, x.shape)
    assert.equal("u8", x.dtype)
    assert.equal(2, y)
    assert.equal(2, set[101][2])
    assert.is_truthy(text:find("1000 examples", 1, true) and text:find(shipped, 1, true))
    assert.equal(1, select(2, text:gsub("\n", "")))
  end)

  it("gives mean and std of the training split to every part", function()
    local set = load "train"
    local sum = dlua.zeros(3)
    for i = 1, #set do sum:add_((set:get(i)):to("f32"):mean({2, 3})) end
    for c = 1, 3 do assert.is_true(math.abs(sum[c]:item() / 255 / #set - set.mean[c]) < 1e-5) end
    assert.same(set.mean, data.subset(load "train", 10).mean)
    assert.same(set.std, load("test").std)
    assert.same(set.classes, data.subset(set, 10).classes)
  end)

  it("names what is missing", function()
    fails(function() data.load "cifar11" end, "cifar11", "cifar10")
    fails(function() data.load "no/such/folder" end, "no/such/folder")
    fails(function() data.load("mnist", {split = "val"}) end, "val", "train")
    fails(function() data.load(shipped, {split = "val"}) end, "val")
    fails(function() data.load(shipped, {spit = "val"}) end, "spit", "split")
    fails(function() data.ImageFolder "examples/data/mnist-small" end, "mnist-small")
  end)

  it("converts channels or says that it cannot", function()
    local set = quietly(data.load, shipped, {split = "test", channels = 1})
    assert.same({1, 32, 32}, (set:get(1)).shape)
    fails(function() data.load("mnist", {channels = 3}) end, "mnist", "1 channels", "3")
    fails(function() data.load("mnist", {channels = 2}) end, "channels", "2")
    fails(function() data.load("mnist", {channels = "x"}) end, "channels", "x")
  end)

  it("is one of a fixed set of names", function()
    fails(function() return data.Dataloader end, "data.Dataloader", "DataLoader")
    fails(function() return image.lod end, "image.lod", "image.load")
    fails(function() return T.Lamda end, "transforms.Lamda", "Lambda")
  end)

  it("counts digits from 1", function()
    local set = quietly(data.load, "mnist", {split = "test"})
    local x, y = set:get(1)
    assert.same({1, 28, 28}, x.shape)
    assert.equal(8, y)
    assert.equal("7", set.classes[y])
  end)

  it("raises at the batch for a picture that cannot be read, whoever reads it", function()
    local folder = helpers.folder()
    local root = folder.root
    folder:make "a"
    for k = 1, 6 do image.save(("%s/a/%d.png"):format(root, k), dlua.zeros(3, 4, 4)) end
    folder:write("a/5.png", "no picture")
    for workers = 0, 2 do
      local loader = data.DataLoader(data.ImageFolder(root), {batch_size = 2, num_workers = workers})
      local seen = 0
      fails(function()
        for _ in loader:iter() do seen = seen + 1 end
      end, "5.png", "not a PNG")
      assert.equal(2, seen)
    end
    os.remove(root .. "/a/5.png")
    image.save(root .. "/a/5.png", dlua.zeros(3, 5, 4))
    local loader = data.DataLoader(data.ImageFolder(root), {batch_size = 6})
    fails(function() loader:iter()() end, "{3,4,4}", "{3,5,4}", "Resize")
    local resized = data.DataLoader(data.ImageFolder(root), {batch_size = 6, transform = T.Resize({2, 2})})
    assert.same({6, 3, 2, 2}, (resized:iter()()).shape)
    folder:remove()
  end)
end)

describe("parts", function()
  it("random_split deals every example once, the same way for a seed", function()
    local set = data.TensorDataset(dlua.range(1, 101))
    local function positions(part)
      local list = {}
      for i = 1, #part do list[i] = (part:get(i)) end
      return list
    end
    local a, b = data.random_split(set, {0.7, 0.3}, {seed = 4})
    local c = data.random_split(set, {0.7, 0.3}, {seed = 4})
    assert.equal(71, #a)
    assert.equal(30, #b)
    assert.same(positions(a), positions(c))
    local seen = {}
    for _, part in ipairs {a, b} do
      for _, i in ipairs(positions(part)) do
        assert.is_nil(seen[i])
        seen[i] = true
      end
    end
    assert.not_same(positions(a), positions((data.random_split(set, {0.7, 0.3}, {seed = 5}))))
    fails(function() data.random_split(set, {100, 2}) end, "102", "101")
    fails(function() data.random_split(set, {0.5, 0.2}) end, "0.7")
    fails(function() data.random_split(data.TensorDataset(dlua.ones(3, 2)), {2, 1}, {stratify = true}) end, "labels")
  end)

  it("random_split keeps the share of each class", function()
    local a, b = data.random_split(load "train", {0.9, 0.1}, {seed = 1, stratify = true})
    for y = 1, 10 do
      assert.equal(90, counts(a)[y])
      assert.equal(10, counts(b)[y])
    end
  end)

  it("subset takes counts, drawn counts and positions", function()
    local set = data.TensorDataset(dlua.range(1, 20))
    assert.equal(3, (data.subset(set, 3):get(3)))
    assert.equal(5, #data.subset(set, 5, {seed = 1}))
    local picked = data.subset(data.subset(set, {20, 3, 7}), {2, 1})
    assert.same({3, 20}, {(picked:get(1)), (picked:get(2))})
    fails(function() data.subset(set, 21) end, "21", "20")
    fails(function() data.subset(set, {0}) end, "0", "1..20")
    fails(function() return set[21] end, "21", "1..20")
    fails(function() data.subset(data.TensorDataset(dlua.ones(3)), 2, {seed = "abc"}) end, "seed", "abc")
  end)

  it("work for data sets written in Lua", function()
    local squares = setmetatable({}, {
      __len = function() return 10 end,
      __index = function(_, i) return {i * i, i % 2 + 1} end,
    })
    local a, b = data.random_split(squares, {6, 4}, {seed = 2, stratify = true})
    assert.equal(6, #a)
    assert.equal(2, counts(b)[1])
    local own = {size = function() return 4 end, get = function(_, i) return dlua.full({2}, i), i end}
    local x, y = data.DataLoader(own, {batch_size = 4}):iter()()
    assert.same({{1, 1}, {2, 2}, {3, 3}, {4, 4}}, x:totable())
    assert.same({1, 2, 3, 4}, y:totable())
  end)
end)

describe("DataLoader", function()
  it("decodes again what the cache has no room for", function()
    local set = data.ImageFolder(shipped .. "/test", {cache = 10000})
    local before = dlua.memory().live
    local loader = data.DataLoader(set, {batch_size = 50, num_workers = 2})
    local sums = {0, 0}
    for epoch = 1, 2 do
      for x in loader:iter() do sums[epoch] = sums[epoch] + x:to("f64"):sum():item() end
    end
    collectgarbage()
    collectgarbage()
    assert.equal(sums[1], sums[2])
    assert.is_true(dlua.memory().live - before < 20000)
  end)

  local augment = T.Compose {T.RandomCrop(32, {padding = 4}), T.RandomHorizontalFlip(), T.ColorJitter(0.2), T.ToFloat()}

  local function epochs(set, given, count)
    dlua.seed(7)
    local loader, batches = data.DataLoader(set, given), {}
    for _ = 1, count or 2 do
      for x, y in loader:iter() do batches[#batches + 1] = {x, y} end
    end
    return batches
  end

  it("gives the same batches for any number of workers", function()
    local set = data.subset(load "train", 210, {seed = 1})
    local want = epochs(set, {batch_size = 32, shuffle = true, transform = augment})
    assert.equal(14, #want)
    assert.is_false(want[1][1]:eq(want[8][1]):all():item())
    for _, workers in ipairs {1, 2, 4} do
      local got = epochs(set, {batch_size = 32, shuffle = true, transform = augment, num_workers = workers})
      for k, batch in ipairs(want) do
        assert.is_true(batch[1]:eq(got[k][1]):all():item())
        assert.is_true(batch[2]:eq(got[k][2]):all():item())
      end
    end
  end)

  it("transforms the same in C and step by step from Lua", function()
    local set = data.subset(load "train", 40)
    local in_c = epochs(set, {batch_size = 16, shuffle = true, transform = augment})
    local in_lua_set = {size = function() return #set end, get = function(_, i) return set:get(i) end}
    for k, batch in ipairs(epochs(in_lua_set, {batch_size = 16, shuffle = true, transform = augment})) do
      assert.is_true(batch[1]:equal(in_c[k][1]))
      assert.is_true(batch[2]:equal(in_c[k][2]))
    end
    local nothing = T.Lambda(function(x) return x end)
    for _, mixed in ipairs {T.Compose {nothing, augment}, T.Compose {augment, nothing}} do
      local shifted = mixed.parts[1] == nothing
      local in_lua = epochs(set, {batch_size = 16, shuffle = true, transform = mixed, num_workers = 1})
      for k, batch in ipairs(in_c) do
        assert.is_true(batch[2]:eq(in_lua[k][2]):all():item())
        if not shifted then assert.is_true(batch[1]:eq(in_lua[k][1]):all():item()) end
      end
    end
  end)

  it("shows every example once an epoch, in another order each time", function()
    local set = data.TensorDataset(dlua.range(1, 50))
    local batches = epochs(set, {batch_size = 8, shuffle = true})
    local orders = {{}, {}}
    for k, batch in ipairs(batches) do
      for _, v in ipairs(batch[1]:totable()) do table.insert(orders[(k - 1) // 7 + 1], v) end
    end
    assert.not_same(orders[1], orders[2])
    for _, order in ipairs(orders) do
      table.sort(order)
      for i = 1, 50 do assert.equal(i, order[i]) end
    end
    assert.same({1, 2, 3, 4, 5, 6, 7, 8}, epochs(set, {batch_size = 8})[1][1]:totable())
  end)

  it("counts batches and drops the last one on request", function()
    local set = data.TensorDataset(dlua.zeros(10, 2), dlua.ones({10}, {dtype = "i64"}))
    assert.equal(4, #data.DataLoader(set, {batch_size = 3}))
    assert.equal(3, #data.DataLoader(set, {batch_size = 3, drop_last = true}))
    assert.same({1, 2}, epochs(set, {batch_size = 3}, 1)[4][1].shape)
    fails(function() data.DataLoader(set, {batch_size = 11, drop_last = true}):iter() end, "10", "11", "drop_last")
    fails(function() data.DataLoader(set, {batch = 3}) end, "batch", "batch_size")
    fails(function() data.DataLoader(set, {batch_size = 0}) end, "batch_size", "0")
    fails(function() data.DataLoader(3) end, "number")
    fails(function() data.TensorDataset(dlua.zeros(2, 1), dlua.zeros(3)) end, "{2,1}", "{3}")
  end)

  it("may be left early, and an older loop ends with an error", function()
    local loader = data.DataLoader(data.TensorDataset(dlua.range(1, 100)), {batch_size = 1, num_workers = 2})
    for _ = 1, 30 do
      for x in loader:iter() do
        assert.equal(1, x[1]:item())
        if x.ndim == 1 then break end
      end
    end
    local old = loader:iter()
    old()
    loader:iter()
    fails(function() old() end, "newer iter")
    assert.equal(32, loader.epoch)
  end)

  it("stops its workers when it is collected", function()
    local function threads()
      for line in io.lines "/proc/self/status" do
        local count = line:match "^Threads:%s*(%d+)"
        if count then return tonumber(count) end
      end
    end
    collectgarbage()
    collectgarbage()
    local before = threads()
    for _ = 1, 20 do
      data.DataLoader(load "train", {batch_size = 10, num_workers = 2, transform = augment}):iter()()
    end
    collectgarbage()
    collectgarbage()
    -- A thread that was joined may still be on its way out.
    helpers.eventually(function() return threads() <= before + dlua.threads() end, "the end of all workers")
  end)

  it("makes batches of booleans and of mixed numbers in Lua", function()
    local function parts(i) return i % 2 == 0, i == 1 and 1 or 0.5 end
    local set = {size = function() return 2 end, get = function(_, i) return parts(i) end}
    local flags, numbers = data.DataLoader(set, {batch_size = 2}):iter()()
    assert.same({"bool", {false, true}}, {flags.dtype, flags:totable()})
    assert.same({"f32", {1, 0.5}}, {numbers.dtype, numbers:totable()})
    local stored = data.TensorDataset(dlua.rand(2, 1, 2, 2), dlua.tensor {false, true})
    local nothing = T.Lambda(function(x) return x end)
    local _, kept = data.DataLoader(stored, {batch_size = 2, transform = nothing}):iter()()
    assert.same({"bool", {false, true}}, {kept.dtype, kept:totable()})
  end)

  it("calls collate with the samples of a batch", function()
    local set = data.TensorDataset(dlua.range(1, 4):to("f32"):reshape(4, 1), dlua.range(1, 4))
    local loader = data.DataLoader(set, {batch_size = 2, collate = function(samples)
      return #samples, samples[1][1]:item() + samples[2][2]
    end})
    local n, sum = loader:iter()()
    assert.same({2, 3}, {n, sum})
  end)

  it("says how much of the time it kept one waiting", function()
    local loader = data.DataLoader(load "train", {batch_size = 100, num_workers = 2, transform = augment})
    for _ in loader:iter() do end -- luacheck: ignore 542
    local stats = loader.stats()
    assert.equal(10, stats.batches)
    assert.is_true(stats.wait >= 0 and stats.wait <= 1 and stats.elapsed >= stats.waited)
    assert.same(stats, loader:stats())
  end)

  it("transforms tensors that are pictures, and refuses others", function()
    local x = dlua.rand(6, 1, 4, 4)
    local set = data.TensorDataset(x, dlua.range(1, 6))
    local batch = data.DataLoader(set, {batch_size = 6, transform = T.CenterCrop(2)})
    local y = batch:iter()()
    assert.is_true(x[{ {}, {}, {2, 3}, {2, 3} }]:eq(y):all():item())
    local flat = data.DataLoader(data.TensorDataset(dlua.rand(6, 4)), {batch_size = 6, transform = T.CenterCrop(2)})
    fails(function() flat:iter()() end, "{6,4}")
  end)
end)

describe("dlua.io", function()
  local io = dlua.io
  local set = data.TensorDataset(dlua.rand(6, 2), dlua.range(1, 6))

  it("gives what a batch has, whatever is asked", function()
    local loader = data.DataLoader(set, {batch_size = 2})
    loader:iter()
    assert.equal(2, select("#", io.next(loader.native, 0)))
    assert.error_matches(function() io.examples(loader.native, 1000000, 10) end, "outside 1..6")
    assert.error_matches(function() io.examples(loader.native, 1, 1 << 40) end, "outside 1..6")
  end)

  it("checks parts and labels of a split", function()
    assert.error_matches(function() io.split(1, 6, dlua.ones(2), {6}) end,
      "labels must be i64 {6} on the cpu, not f32 {2}")
    assert.error_matches(function() io.split(1, 6, nil, {4, 3}) end, "part 2 of 3 does not fit into the 2 left")
    assert.error_matches(function() io.split(1, 6, nil, {-1}) end, "part 1 of %-1")
  end)

  it("checks channels, transforms and argument types", function()
    assert.error_matches(function() io.folder("spec", 99) end, "channels must be 1 to 4, not 99")
    local empty = io.transform("RandomCrop", {})
    assert.error_matches(function() io.apply({empty}, dlua.zeros(3, 4, 4), 1, 1, 1, 1) end,
      "RandomCrop: a picture of 0x0 is empty")
    assert.error_matches(function() io.apply({}, dlua.zeros(3, 4, 4), 1, 1, 1, 1) end, "the list is empty")
    assert.error_matches(function() io.apply({5}, dlua.zeros(3, 4, 4), 1, 1, 1, 1) end, "item 1 is no transform")
    assert.error_matches(function() io.split("x", 6, nil, {6}) end,
      "data.random_split: seed must be an integer, got string")
  end)
end)
