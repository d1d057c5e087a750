-- nn - layers, losses, containers and what they are made of. See `?nn.Conv2d` at the prompt for any of them.
--
--   local net = nn.Sequential {nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)}
--   local loss = nn.CrossEntropyLoss()(net(x), y)
local dlua = require "dlua"
local class = require "dlua.class"
local module = require "dlua.nn.module"
local strict = require "dlua.strict"
local summary = require "dlua.nn.summary"

local nn = {
  Module = module.Module, Parameter = module.Parameter, is_module = module.is_module,
  init = require "dlua.nn.initial", in_eval_mode = summary.in_eval_mode, first_not_finite = summary.first_not_finite,
}

for _, family in ipairs {"container", "layers", "activation", "loss", "gradients"} do
  for name, value in pairs(require("dlua.nn." .. family)) do nn[name] = value end
end

-- Makes a module class; give it init and forward. A second argument names the class it extends.
--   local Net = nn.class "Net"
function nn.class(name, parent)
  if type(name) ~= "string" then dlua.fail("nn.class: takes a name, not a %s", type(name)) end
  return class(name, parent or module.Module)
end

dlua.set_module_call(module.call)
dlua.set_layer_path(module.layer_path)

return strict("nn", nn)
