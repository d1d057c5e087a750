-- optim - optimisers and learning rate schedules.
--
--   local opt = optim.AdamW(net:parameters(), {lr = 1e-3})
--   local schedule = optim.OneCycleLR(opt, {max_lr = 1e-3, total_steps = 1000})
local strict = require "dlua.strict"

local optim = {}
for _, family in ipairs {"algorithms", "schedule"} do
  for name, class in pairs(require("dlua.optim." .. family)) do optim[name] = class end
end

return strict("optim", optim)
