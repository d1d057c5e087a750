-- seeds.lua - what busted runs before the specs (.busted names it): random numbers are the same in every run, whichever
-- files come before a file. Draws in loops over tables need helpers.sorted too.
local busted = require "busted"
local dlua = require "dlua"

local SEED = 271828 -- none that a spec uses, whose draws would be those of its file

busted.subscribe({"file", "start"}, function()
  dlua.seed(SEED)
  math.randomseed(SEED)
  return nil, true -- others hear of it too
end)
