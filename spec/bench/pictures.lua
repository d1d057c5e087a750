-- pictures.lua - CIFAR-10 as PNG files in one folder per class: dlua pictures.lua FOLDER [SPLIT] [MOST]. Prints their
-- number: 50 000 from the binary files of the training set, fewer where only the subset is at hand.
local dlua = require "dlua"

local folder, split = arg[1], arg[2] or "train"
local set = dlua.data.load("cifar10", {split = split})
local count = math.min(#set, math.tointeger(tonumber(arg[3])) or #set)
for _, class in ipairs(set.classes) do assert(os.execute(("mkdir -p '%s/%s'"):format(folder, class))) end
for i = 1, count do
  local x, y = set:get(i)
  dlua.image.save(("%s/%s/%05d.png"):format(folder, set.classes[y], i), x)
end
print(count)
