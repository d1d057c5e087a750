-- augment_spec.lua - loaders whose data set lives on a device: batches made there are those of the CPU, bit by bit, and
-- what cannot be made there still comes out the same. Runs on the mock device, and on the GPU where there is one.
local dlua = require "dlua"
local data, T = dlua.data, dlua.transforms
local helpers = require "spec.helpers"
local fails, sorted = helpers.fails, helpers.sorted
local live = require "spec.live"

local devices = {}
for _, name in ipairs {"mock", "cuda"} do
  if pcall(dlua.device, name) then devices[#devices + 1] = name end
end
assert(devices[1], "there is no module of a device")

local normalize = T.Normalize({0.5, 0.25, 0.125}, {0.25, 0.3, 0.7})
local jitter = T.ColorJitter(0.4, {contrast = 0.5, saturation = 0.6, hue = 0.3})
local flips = {}
for k = 1, 16 do flips[k] = T.RandomHorizontalFlip() end

-- n pictures {3,9,8} with labels, and one more part of every example.
local function pictures(n)
  dlua.seed(11)
  local x = dlua.randint(0, 255, {n, 3, 9, 8}):to("u8")
  return data.TensorDataset(x, dlua.range(1, n), dlua.rand(n, 2)), x
end

-- All batches of some epochs of a loader with the same key each time, as tensors on the CPU.
local function epochs(set, given, device, count)
  local options = {device = device}
  for key, value in pairs(given) do options[key] = value end
  dlua.seed(5)
  local loader, batches = data.DataLoader(set, options), {}
  for _ = 1, count or 2 do
    for x, y, z in loader:iter() do
      if device then assert.equal(device, x.device) end
      batches[#batches + 1] = {x:to("cpu"), y and y:to("cpu"), z and z:to("cpu")}
    end
  end
  return batches, loader
end

local function assert_equal_batches(want, got)
  assert.equal(#want, #got)
  for k, batch in ipairs(want) do
    assert.equal(#batch, #got[k])
    for j, part in ipairs(batch) do
      assert.equal(part.dtype, got[k][j].dtype)
      assert.is_true(part:equal(got[k][j]), ("part %d of batch %d differs"):format(j, k))
    end
  end
end

-- The loader gives on every device what it gives on the CPU; at_home: its batches are made on the device.
local function check(set, given, at_home)
  local want = epochs(set, given)
  for _, device in ipairs(devices) do
    local got, loader = epochs(set, given, device)
    assert.equal(at_home, loader.home ~= nil, device)
    assert_equal_batches(want, got)
  end
end

local function loading(transform)
  return {batch_size = 7, shuffle = true, transform = transform}
end

describe("a loader with a device", function()
  it("names a device that is not there when it is made", function()
    local set = data.TensorDataset(dlua.ones(2, 1))
    fails(function() data.DataLoader(set, {device = "gpu"}) end, "unknown device 'gpu'")
    fails(function() data.DataLoader(set, {device = 3}) end, "device must be a string, not 3")
  end)

  local set = pictures(17)

  for name, transform in sorted {
    ["crop, flip, to float, normalise"] =
      T.Compose {T.RandomCrop({9, 8}, {padding = 4}), T.RandomHorizontalFlip(), T.ToFloat(), normalize},
    ["only to float"] = T.ToFloat(),
    ["one mean"] = T.Compose {T.ToFloat(), T.Normalize(0.5, 0.25)},
    ["flips before the crop"] = T.Compose {
      T.RandomHorizontalFlip(), T.RandomVerticalFlip(0.3), T.RandomCrop({4, 7}), T.ToFloat(),
    },
    ["flips around the crop and after the floats"] = T.Compose {
      T.RandomVerticalFlip(), T.RandomCrop({7, 9}, {padding = {1, 3}, fill = 77}), T.ToFloat(),
      T.RandomHorizontalFlip(0.7), normalize,
    },
    ["mirrored borders"] = T.Compose {
      T.RandomCrop(9, {padding = {8, 7}, padding_mode = "reflect"}), T.ToFloat(),
    },
    ["symmetric borders"] = T.Compose {
      T.RandomCrop(5, {padding = {9, 8}, padding_mode = "symmetric"}), T.ToFloat(), normalize,
    },
    ["borders of the edge"] = T.Compose {T.RandomCrop(20, {padding = 12, padding_mode = "edge"}), T.ToFloat()},
    ["a border"] = T.Compose {T.Pad({2, 1}, {fill = 9}), T.RandomHorizontalFlip(), T.ToFloat()},
    ["the middle"] = T.Compose {T.CenterCrop {4, 5}, T.ToFloat(), normalize},
    ["erasing at the end"] = T.Compose {
      T.RandomCrop({9, 8}, {padding = 2}), T.RandomHorizontalFlip(), T.ToFloat(), normalize, T.RandomErasing(0.7),
    },
    ["erasing with noise at the end"] = T.Compose {
      T.RandomCrop(6, {padding = 2}), T.ToFloat(), normalize, T.RandomErasing(0.7, {value = "random"}),
    },
    ["erasing of floats"] = T.Compose {
      T.ToFloat(), T.RandomErasing {p = 1, value = 0.3}, T.RandomHorizontalFlip(), normalize, T.RandomVerticalFlip(),
    },
    ["erasing with noise of floats"] = T.Compose {
      T.RandomHorizontalFlip(), T.ToFloat(), T.RandomErasing {p = 1, value = "random"}, normalize,
    },
    ["erasing of levels before the crop and the flips"] = T.Compose {
      T.RandomErasing {p = 0.8, value = 17.5, scale = {0.2, 0.6}}, T.RandomCrop({8, 9}, {padding = 3, fill = 5}),
      T.RandomHorizontalFlip(), T.ToFloat(), normalize,
    },
    ["erasing with noise of levels between the flips"] = T.Compose {
      T.RandomVerticalFlip(), T.RandomErasing {p = 1, value = "random"}, T.RandomCrop(7), T.RandomHorizontalFlip(),
      T.ToFloat(),
    },
    ["erasing of levels beyond u8"] = T.Compose {T.RandomErasing {p = 1, value = -3}, T.ToFloat()},
    ["erasing that hardly ever fits"] = T.Compose {
      T.ToFloat(), T.RandomErasing {p = 1, scale = {0.5, 1.5}, ratio = {0.05, 20}},
    },
    ["erasing with levels that are no numbers of a byte"] = T.Compose {
      T.RandomErasing {p = 1, value = 1e10}, T.ToFloat(), T.RandomErasing {p = 0.5, value = -1e300},
    },
    ["two erasings"] = T.Compose {T.RandomErasing(0.8), T.ToFloat(), T.RandomErasing {p = 0.8, value = "random"}},
    ["two crops, with borders of levels and of floats"] = T.Compose {
      T.RandomCrop(7, {padding = 1, fill = 9.5}), T.ToFloat(), normalize, T.RandomCrop(8, {padding = 3, fill = 0.25}),
    },
    ["flips over and over"] = T.Compose {
      T.RandomHorizontalFlip(), T.CenterCrop(5), T.RandomHorizontalFlip(), T.RandomVerticalFlip(), T.Pad(1),
      T.RandomVerticalFlip(), T.ToFloat(), T.RandomHorizontalFlip(),
    },
    ["two normalisations"] = T.Compose {T.ToFloat(), normalize, T.Normalize(0.1, 3)},
    ["floats once more"] = T.Compose {T.ToFloat(), T.ToFloat()},

    ["brightness"] = T.Compose {T.ColorJitter {brightness = 0.8}, T.ToFloat()},
    ["contrast"] = T.Compose {T.ColorJitter {contrast = 0.8}, T.ToFloat()},
    ["saturation"] = T.Compose {T.ColorJitter {saturation = 2}, T.ToFloat()},
    ["hue"] = T.Compose {T.ColorJitter {hue = 0.5}, T.ToFloat()},
    ["colours that stay"] = T.Compose {T.ColorJitter(), T.ToFloat()},
    ["colours of levels"] = T.Compose {jitter, T.RandomHorizontalFlip(), T.ToFloat(), normalize},
    ["colours of floats"] = T.Compose {T.ToFloat(), T.RandomCrop(6, {padding = 2, fill = 0.7}), jitter, normalize},
    ["colours beyond 0 and 1"] = T.Compose {T.ToFloat(), normalize, jitter},
    ["colours, and colours of those"] = T.Compose {
      jitter, T.RandomErasing {p = 0.9, value = 200}, T.ToFloat(), T.ColorJitter {contrast = 0.9, brightness = 0.5},
      T.RandomVerticalFlip(), T.ColorJitter {contrast = {2, 3}},
    },

    ["turning"] = T.Compose {T.RandomRotation(40), T.ToFloat()},
    ["turning by quarters"] = T.Compose {T.RandomRotation({90, 90}), T.ToFloat(), T.RandomRotation({180, 180})},
    ["turning levels, and what is between them"] = T.Compose {
      T.RandomRotation(170, {interpolation = "bilinear", fill = 300}), T.ToFloat(),
    },
    ["turning floats, and what is between them"] = T.Compose {
      T.ToFloat(), T.RandomRotation(170, {interpolation = "bilinear", fill = 0.3}), normalize,
    },
    ["affine maps"] = T.Compose {
      T.RandomAffine(20, {translate = 0.3, scale = {0.5, 2}, shear = 30, fill = -7}), T.ToFloat(),
      T.RandomAffine(400, {translate = {0, 1}, fill = 0.5}),
    },
    ["an affine map of what has been cut, erased and coloured"] = T.Compose {
      T.RandomCrop({11, 7}, {padding = 3, padding_mode = "edge"}), T.RandomErasing {p = 1, value = "random"}, jitter,
      T.RandomAffine(30, {translate = 0.1, scale = {0.7, 1.2}, shear = 10, interpolation = "bilinear"}),
      T.RandomHorizontalFlip(), T.ToFloat(), T.RandomAffine(15), T.ColorJitter {contrast = 0.5}, normalize,
    },
    ["places farther than an integer counts"] = T.Compose {
      T.ToFloat(), T.RandomAffine(0, {scale = {1e-300, 1e-300}, interpolation = "bilinear"}),
      T.RandomAffine(0, {scale = {1e-300, 1e-300}, fill = 2}),
    },

    ["larger pictures"] = T.Compose {T.Resize {21, 17}, T.RandomCrop(16), T.ToFloat(), normalize},
    ["smaller pictures"] = T.Compose {T.Resize {4, 3}, T.ToFloat()},
    ["pictures of the same size"] = T.Compose {
      T.Resize {9, 8}, T.Resize(8), T.RandomRotation(9, {interpolation = "bilinear"}), T.ToFloat(),
    },
    ["a shorter side, of floats with colours"] = T.Compose {
      T.RandomHorizontalFlip(), T.ToFloat(), T.RandomCrop({9, 6}), jitter, T.Resize(5), jitter, T.RandomErasing(0.5),
    },
    ["higher and narrower"] = T.Compose {T.RandomErasing {p = 1}, T.Resize {12, 5}, T.CenterCrop(5), T.ToFloat()},

    ["nothing"] = T.Compose {},
    ["pictures that stay u8"] = T.Compose {T.RandomCrop(8), T.RandomHorizontalFlip(), jitter, T.RandomErasing()},
  } do
    it("augments there: " .. name, function() check(set, loading(transform), true) end)
  end

  for name, transform in sorted {
    ["a Lua function"] = T.Compose {T.ToFloat(), T.Lambda(function(x) return x * 2 end)},
    ["two steps that sample between pixels"] = T.Compose {
      T.Resize(12), T.RandomRotation(15, {interpolation = "bilinear"}), T.ToFloat(),
    },
    ["more steps than augment takes"] = T.Compose {T.Compose(flips), T.ToFloat()},
  } do
    it("uploads batches: " .. name, function() check(set, loading(transform), false) end)
  end

  it("augments grey pictures, pictures with more channels than colours, large and small ones", function()
    local colours = T.ColorJitter(0.5, {contrast = 0.6, saturation = 0.4, hue = 0.2})
    local turn = T.RandomRotation(30, {interpolation = "bilinear", fill = 9})
    for c, transform in sorted {
      [1] = T.Compose {T.RandomCrop(11, {padding = 3}), colours, turn, T.ToFloat(), T.Normalize(0.4, 0.3)},
      [2] = T.Compose {T.RandomErasing {p = 0.9, value = "random"}, turn, T.ToFloat(), T.Normalize({0, 1}, {1, 2})},
      [4] = T.Compose {T.Resize {6, 40}, T.RandomVerticalFlip(), T.ToFloat()},
      [7] = T.Compose {
        T.RandomErasing {p = 0.9, value = "random"}, T.ToFloat(), T.RandomAffine(9, {fill = 0.5}),
        T.Normalize({0, 1, 2, 3, 4, 5, 6}, {1, 2, 3, 4, 5, 6, 7}),
      },
    } do
      local x = dlua.randint(0, 255, {5, c, 13, 21}):to "u8"
      check(data.TensorDataset(x), {batch_size = 2, shuffle = true, transform = transform}, true)
    end
    local wide = data.TensorDataset(dlua.randint(0, 255, {3, 3, 70, 61}):to "u8")
    check(wide, {batch_size = 3, transform = T.Compose {T.RandomAffine(30), colours, turn, T.ToFloat()}}, true)
    local dot = data.TensorDataset(dlua.randint(0, 255, {3, 3, 1, 1}):to "u8")
    check(dot, {batch_size = 3, transform = T.Compose {colours, turn, T.Pad(1), T.ToFloat(), colours}}, true)
  end)

  it("augments parts of data sets, in order and shuffled, with a last batch that is not whole", function()
    local transform = T.Compose {T.RandomCrop(6, {padding = 2}), T.RandomHorizontalFlip(), T.ToFloat()}
    local part = data.subset(set, {3, 17, 1, 8, 8, 2, 5})
    for _, options in ipairs {{}, {shuffle = true}, {drop_last = true}} do
      options.batch_size, options.transform = 3, transform
      check(part, options, true)
    end
  end)

  it("augments pictures of folders and of files", function()
    local transform = T.Compose {T.RandomCrop(32, {padding = 4}), T.RandomHorizontalFlip(), T.ToFloat(), normalize}
    local folder = data.subset(data.ImageFolder "examples/data/cifar10-small/test", 70, {seed = 2})
    check(folder, {batch_size = 32, shuffle = true, transform = transform}, true)
    local stderr = io.stderr
    io.stderr = assert(io.open("/dev/null", "w")) -- luacheck: ignore 122
    local digits = data.load("mnist", {split = "test"})
    io.stderr:close()
    io.stderr = stderr -- luacheck: ignore 122
    transform = T.Compose {T.RandomCrop(28, {padding = 2}), T.ToFloat()}
    check(data.subset(digits, 40), {batch_size = 16, transform = transform}, true)
  end)

  it("leaves pictures of several sizes, and their errors, to the CPU", function()
    local root = os.tmpname()
    os.remove(root)
    os.execute(("mkdir -p '%s/a'"):format(root))
    for k = 1, 4 do dlua.image.save(("%s/a/%d.png"):format(root, k), dlua.zeros(3, 4, 3 + k // 4)) end
    check(data.ImageFolder(root), {batch_size = 2, transform = T.Compose {T.CenterCrop(2), T.ToFloat()}}, false)
    local wide = data.TensorDataset(dlua.zeros({4, 3, 4, 4}, {dtype = "u8"}))
    for _, device in ipairs(devices) do
      local function first(transform, of)
        return data.DataLoader(of, {batch_size = 4, transform = transform, device = device}):iter()()
      end
      fails(function() first(T.ToFloat(), data.ImageFolder(root)) end, "{3,4,3}", "{3,4,4}", "Resize")
      fails(function() first(T.Compose {T.RandomCrop(9), T.ToFloat()}, wide) end, "RandomCrop", "9x9", "{3,4,4}")
      fails(function() first(T.Compose {normalize, T.ToFloat()}, wide) end, "Normalize", "ToFloat")
      fails(function() first(T.Compose {T.ToFloat(), T.Normalize({1, 2}, {1, 2})}, wide) end, "2 means", "3 channels")
      local beyond = T.RandomCrop(4, {padding = 4, padding_mode = "reflect"})
      fails(function() first(T.Compose {beyond, T.ToFloat()}, wide) end, "padding of 4 cannot mirror")
    end
    os.execute(("rm -r '%s'"):format(root))
  end)

  it("begins any epoch where another loader with its key would", function()
    local transform = T.Compose {T.RandomCrop(8, {padding = 2}), T.RandomHorizontalFlip(), jitter, T.RandomRotation(20),
      T.ToFloat()}
    local want = epochs(set, {batch_size = 6, shuffle = true, transform = transform, num_workers = 2}, nil, 3)
    for _, device in ipairs(devices) do
      dlua.seed(5)
      local loader = data.DataLoader(set, {batch_size = 6, shuffle = true, transform = transform, device = device})
      loader.epoch = 2
      for x, y in loader:iter() do
        local batch = table.remove(want, 7)
        assert.is_true(batch[1]:equal(x:to "cpu") and batch[2]:equal(y:to "cpu"))
        want[#want + 1] = batch
      end
      assert.equal(3, loader.epoch)
    end
  end)

  it("turns pictures into the dtype it is given, wherever they are made", function()
    local crop = T.RandomCrop(8, {padding = 2})
    for _, dtype in ipairs {"bf16", "f16"} do
      for at_home, transform in sorted {
        [true] = T.Compose {crop, T.ToFloat(), normalize},
        [false] = T.Compose {T.Resize(9), crop, T.ToFloat(), T.Resize(7), normalize},
      } do
        local given = loading(transform)
        local plain = epochs(set, given)
        given.dtype = dtype
        check(set, given, at_home)
        for k, batch in ipairs(epochs(set, given)) do
          assert.equal(dtype, batch[1].dtype)
          assert.is_true(batch[1]:equal(plain[k][1]:to(dtype)))
        end
      end
    end
    assert.equal("u8", epochs(set, {batch_size = 4, dtype = "bf16"})[1][1].dtype)
    fails(function() data.DataLoader(set, {dtype = "f64"}) end, "dtype", "f64", "bf16")
  end)

  it("uploads a data set once for all loaders, and anew when it was written to", function()
    local own, x = pictures(12)
    for _, device in ipairs(devices) do
      local options = {batch_size = 12, transform = T.ToFloat(), device = device}
      local one, two = data.DataLoader(own, options), data.DataLoader(own, options)
      local before = one:iter()()
      two:iter()
      assert.is_true(rawequal(one.home.parts, two.home.parts))
      x[1] = dlua.full({3, 9, 8}, 255):to("u8") - x[1]
      local after = one:iter()()
      assert.is_false(before[1]:equal(after[1]))
      assert.is_true(before[2]:equal(after[2]))
      assert.is_true(after:equal((epochs(own, {batch_size = 12, transform = T.ToFloat()})[1][1]):to(device)))
    end
  end)

  it("waits for nothing", function()
    local transform = T.Compose {T.RandomCrop(8, {padding = 2}), T.RandomHorizontalFlip(), T.ToFloat(), normalize}
    for _, device in ipairs(devices) do
      local loader = data.DataLoader(set, {batch_size = 4, shuffle = true, transform = transform, device = device})
      local before, batches = dlua.test.waits(device), 0
      for _ = 1, 2 do
        for _ in loader:iter() do batches = batches + 1 end
      end
      assert.same({10, before}, {batches, dlua.test.waits(device)})
    end
  end)

  it("survives failing allocations", function()
    local small = data.subset(data.ImageFolder("examples/data/cifar10-small/test", {cache = 0}), 3)
    local transform = T.Compose {T.RandomCrop(8, {padding = 4}), T.ToFloat(), normalize}
    for _, from in ipairs {small, (pictures(3))} do
      local function first() -- a new part of the set each time, which has not been uploaded yet
        data.DataLoader(data.subset(from, 3), {batch_size = 2, transform = transform, device = devices[1]}):iter()()
      end
      live.check(first)
      live.check(first, true)
      live.check_lua(first)
    end
  end)

  it("counts its batches and ends older loops", function()
    for _, device in ipairs(devices) do
      local loader = data.DataLoader(set, {batch_size = 5, transform = T.ToFloat(), device = device, num_workers = 2})
      local old = loader:iter()
      old()
      for _ in loader:iter() do end -- luacheck: ignore 542
      fails(function() old() end, "newer iter")
      local stats = loader.stats()
      assert.equal(4, stats.batches)
      assert.is_true(stats.wait >= 0 and stats.wait <= 1 and stats.elapsed >= stats.waited)
    end
  end)
end)

describe("augment", function()
  local augment = dlua.ops.augment
  local x = dlua.zeros({4, 3, 5, 5}, {dtype = "u8"})
  local index = dlua.tensor({1, 2}, {dtype = "i64"})
  local function row(...)
    local numbers = {...}
    for k = #numbers + 1, 44 do numbers[k] = 0 end
    return dlua.tensor({numbers}, {dtype = "f64"})
  end
  local size, float = {5, 5}, row(0, 5, 5, 1)

  it("says what is wrong with a call", function()
    for why, call in pairs {
      ["images must be u8"] = {x:to "f32", index, {size = size}},
      ["index must have one dimension"] = {x, index:reshape(1, 2), {size = size}},
      ["the pictures are empty"] = {dlua.zeros({4, 3, 0, 5}, {dtype = "u8"}), index, {size = size}},
      ["steps must be 1..16 rows of 44 numbers of f64, got f32"] = {x, index, float:to "f32", size},
      ["steps must be 1..16 rows"] = {x, index, float:expand(17, 44), size},
      ["size {0,5}: sides lie in 1..16777216"] = {x, index, float, {0, 5}},
      ["epoch -1 is outside 0..4294967295"] = {x, index, float, size, {epoch = -1}},
      ["11 is no kind of transform, 0..10"] = {x, index, row(11, 5, 5, 1), size},
      ["size or padding of -1 is outside"] = {x, index, row(3, 5, 5, 1, -1), size},
      ["steps make pictures f32 {3,5,5}, not f32 {3,5,6}"] = {x, index, float, {5, 6}},
      ["steps make pictures f32 {3,5,5}, not u8 {3,5,5}"] = {x, index, float, size, {dtype = "u8"}},
      ["steps make pictures u8 {3,5,5}, not f32 {3,5,5}"] = {x, index, {size = size}},
    } do
      local ok, message = pcall(augment, table.unpack(call))
      assert.is_false(ok, why)
      assert.is_truthy(message:find(why, 1, true), message)
    end
  end)

  it("reads nothing at a bad index and says which it was", function()
    local bad = dlua.tensor({1, 5}, {dtype = "i64"})
    for _, device in ipairs {"cpu", table.unpack(devices)} do
      for _, contrast in ipairs {false, true} do
        fails(function()
          augment(x:to(device), bad:to(device), float:to(device), size, {contrast = contrast}):to("cpu")
        end, "augment: index 5 at position 2 is outside 1..4")
      end
    end
  end)
end)
