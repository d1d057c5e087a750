-- layer.lua - built-in layers from one description each.
--
--   local ELU = layer {"ELU", {"alpha", "number", 1.0}, doc = "x where x > 0, alpha * (exp(x) - 1) elsewhere."}
--   function ELU:forward(x) return dlua.elu(x, self.alpha) end
--
-- The description gives argument checks, help text, the printed line and init, which stores the options as fields
-- and then calls the layer's own build, where it makes its parameters.
local class = require "dlua.class"
local options = require "dlua.options"
local Module = require "dlua.nn.module".Module

local function init(self, ...)
  for name, value in pairs(self.signature:read(...)) do rawset(self, name, value) end
  if self.build then self:build() end
end

-- Makes the class of a layer. builtin tells Sequential that no Lua code keeps what the layer is given or gives.
local function layer(description)
  local new = class(description[1], Module)
  description[1] = "nn." .. description[1]
  new.signature = options.signature(description)
  new.doc = new.signature:help()
  new.init = init
  new.builtin = true
  return new
end

return layer
