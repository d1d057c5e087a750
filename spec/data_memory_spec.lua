-- Every reader, writer, transform and loader when the n-th allocation fails: a clean error or the right result, and
-- nothing left behind.
local dlua = require "dlua"
local live = require "spec.live"
local data, image, T = dlua.data, dlua.image, dlua.transforms

local root

setup(function()
  root = os.tmpname()
  os.remove(root)
  assert(os.execute("mkdir -p '" .. root .. "/set/a'"))
  for k = 1, 4 do image.save(("%s/set/a/%d.png"):format(root, k), dlua.rand(3, 6, 6)) end
  dlua.save(root .. "/x.safetensors", {a = dlua.ones(3), b = dlua.ones(2, 2)}, {metadata = {k = "v"}})
  dlua.save(root .. "/x.npy", dlua.ones(3))
  local csv = assert(io.open(root .. "/x.csv", "w"))
  csv:write("a,b\n1,x\n2,y\n")
  csv:close()
end)

teardown(function() os.execute("rm -r '" .. root .. "'") end)

describe("a failing allocation in", function()
  it("reading and writing pictures", function()
    live.check(function() image.load(root .. "/set/a/1.png") end)
    live.check(function() image.load("spec/fixtures/png/rgb16_interlaced.png") end)
    local x = dlua.rand(3, 5, 5)
    live.check(function() image.save(root .. "/out.png", x) end)
  end)

  it("reading and writing tensors", function()
    local x = dlua.rand(3, 4)
    live.check(function() dlua.load(root .. "/x.safetensors") end)
    live.check(function() dlua.load(root .. "/x.npy") end)
    live.check(function() dlua.save(root .. "/y.safetensors", {x = x:t(), tied = x, same = x}) end)
    live.check(function() dlua.save(root .. "/y.npy", x:t()) end)
  end)

  it("reading tables and data sets", function()
    live.check(function() data.csv(root .. "/x.csv") end)
    live.check(function() data.idx "examples/data/mnist-small/t10k-labels-idx1-ubyte.gz" end)
    live.check(function() dlua.io.mnist("examples/data/mnist-small", false) end)
    live.check(function()
      local set = data.ImageFolder(root .. "/set")
      data.random_split(set, {2, 2}, {seed = 1, stratify = true})
      set:get(2)
      return set.mean
    end)
  end)

  it("transforms", function()
    local x = dlua.rand(3, 8, 8)
    local all = T.Compose {T.RandomCrop(8, {padding = 2}), T.Resize({5, 6}), T.RandomAffine(10), T.ColorJitter(0.1),
      T.RandomErasing(1), T.Normalize(0.5, 0.5)}
    live.check(function() all(x) end)
  end)

  it("loaders with and without workers", function()
    for workers = 0, 2, 2 do
      live.check(function()
        local loader = data.DataLoader(data.ImageFolder(root .. "/set"), {batch_size = 2, shuffle = true,
          num_workers = workers, transform = T.Compose {T.RandomCrop(4), T.ToFloat()}})
        for _ in loader:iter() do end -- luacheck: ignore 542
      end)
    end
  end)
end)
