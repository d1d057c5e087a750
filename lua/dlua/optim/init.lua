-- optim - optimisers and learning rate schedules.
--
--   local opt = optim.AdamW(net:parameters(), {lr = 1e-3})
--   local schedule = optim.OneCycleLR(opt, {max_lr = 1e-3, total_steps = 1000})
local dlua = require "dlua"

local optim = {}
for _, family in ipairs {"algorithms", "schedule"} do
  for name, class in pairs(require("dlua.optim." .. family)) do optim[name] = class end
end

return setmetatable(optim, {__index = function(_, name)
  local names = {}
  for known in next, optim do names[#names + 1] = known end
  table.sort(names)
  local nearest = type(name) == "string" and dlua.nearest(name, names)
  dlua.fail("optim.%s does not exist%s", tostring(name), nearest and (" (did you mean optim.%s?)"):format(nearest) or "")
end})
