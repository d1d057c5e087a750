-- files.lua - pictures: decoding them, and an epoch from memory. peer.py has the twins. DLUA_BENCH_PNG names the folder
-- of PNG files that pictures.lua wrote; a step goes over all of them.
local dlua = require "dlua"
local data, T = dlua.data, dlua.transforms

local function folder() return os.getenv "DLUA_BENCH_PNG" or error "DLUA_BENCH_PNG names no folder of pictures" end

local function all_batches(loader)
  for _ in loader:iter() do end
end

return {
  ["png-decode"] = function()
    return function()
      local set = data.ImageFolder(folder())
      all_batches(data.DataLoader(set, {batch_size = 500, num_workers = dlua.threads()}))
    end
  end,

  ["warm-epoch"] = function()
    local augment = T.Compose {T.RandomCrop(32, {padding = 4}), T.RandomHorizontalFlip(), T.ToFloat(),
      T.Normalize({0.49, 0.48, 0.45}, {0.25, 0.24, 0.26})}
    local loader = data.DataLoader(data.ImageFolder(folder()), {batch_size = 128, shuffle = true, transform = augment,
      num_workers = dlua.threads()})
    return function() all_batches(loader) end
  end,
}
