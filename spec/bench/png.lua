-- Time to decode 50 000 pictures of 32x32 pixels, and of an epoch from memory: build/dlua spec/bench/png.lua [count]
-- The files are written from CIFAR-10's binary files into a temporary folder first, so the page cache is warm.
local dlua = require "dlua"
local data, image, T = dlua.data, dlua.image, dlua.transforms

local count = math.tointeger(arg[1]) or 50000
local root = os.tmpname()
os.remove(root)

local set = data.load("cifar10", {split = "train"})
count = math.min(count, #set)
for _, name in ipairs(set.classes) do os.execute(("mkdir -p '%s/train/%s'"):format(root, name)) end
for i = 1, count do
  local x, y = set:get(i)
  image.save(("%s/train/%s/%05d.png"):format(root, set.classes[y], i), x)
end

local folder = data.ImageFolder(root .. "/train")
local plain = data.DataLoader(folder, {batch_size = 256, num_workers = 2})
local augment = T.Compose {T.RandomCrop(32, {padding = 4}), T.RandomHorizontalFlip(), T.ToFloat(),
  T.Normalize({0.49, 0.48, 0.45}, {0.25, 0.24, 0.26})}
local warm = data.DataLoader(folder, {batch_size = 256, shuffle = true, transform = augment, num_workers = 2})

local function epoch(loader, what)
  local start = dlua.time()
  for _ in loader:iter() do end
  local seconds = dlua.time() - start
  print(("%-34s %6.2f s  %8.0f images/s"):format(what, seconds, count / seconds))
end

epoch(plain, "decode PNG, 2 threads")
epoch(plain, "from memory, 2 threads")
epoch(warm, "crop, flip, normalise, 2 threads")
os.execute(("rm -r '%s'"):format(root))
