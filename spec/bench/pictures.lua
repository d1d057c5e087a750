-- pictures.lua - CIFAR-10's training set as PNG files in one folder per class: dlua pictures.lua FOLDER. Prints their
-- number: 50 000 from the binary files, fewer where only the subset is at hand.
local dlua = require "dlua"

local folder = arg[1]
local set = dlua.data.load("cifar10", {split = "train"})
for _, class in ipairs(set.classes) do assert(os.execute(("mkdir -p '%s/%s'"):format(folder, class))) end
for i = 1, #set do
  local x, y = set:get(i)
  dlua.image.save(("%s/%s/%05d.png"):format(folder, set.classes[y], i), x)
end
print(#set)
