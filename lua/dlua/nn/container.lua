-- container.lua - modules made of modules.
local dlua = require "dlua"
local class = require "dlua.class"
local help = require "dlua.help"
local activations = require "dlua.nn.activation"
local layers = require "dlua.nn.layers"
local module = require "dlua.nn.module"

local Module, is_module = module.Module, module.is_module
local containers = {}

-- The modules given as one list {a, b} or as arguments a, b; raises where an item is none.
local function modules_of(name, ...)
  local given = {...}
  if #given == 1 and type(given[1]) == "table" and not is_module(given[1]) then given = given[1] end
  local count = 0
  for key in pairs(given) do
    if math.type(key) ~= "integer" then
      dlua.fail("%s: takes a list of modules, not the key %s", name, tostring(key))
    end
    count = math.max(count, key)
  end
  for k = 1, count do
    if not is_module(given[k]) then
      dlua.fail("%s: item %d is %s, not a module", name, k, given[k] == nil and "nil" or "a " .. type(given[k]))
    end
  end
  return given
end

-- ---------------------------------------------------------------- Sequential

-- Layers one after the other: nn.Sequential {nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)}. net[1] is the first layer,
-- #net how many there are.
local Sequential = class("Sequential", Module)
containers.Sequential = Sequential
Sequential.builtin = true
Sequential.doc = "nn.Sequential {layer, …}\n  Layers one after the other; net[1] is the first, #net how many there are."
  .. " nn.ReLU runs in one call with the nn.Linear or batch norm before it, nn.GELU with nn.Linear."

function Sequential:init(...)
  for k, layer in ipairs(modules_of("nn.Sequential", ...)) do self[k] = layer end
end

-- Adds a layer at the end; returns the module.
--   net:append(nn.ReLU())
function Sequential:append(layer)
  if not is_module(layer) then
    dlua.fail("%s:append: takes a module, not %s", getmetatable(self).__name,
      layer == nil and "nil" or "a " .. type(layer))
  end
  self[rawlen(self) + 1] = layer
  return self
end

function Sequential:__len() return rawlen(self) end

-- Can no Lua code outside dlua get hold of what this layer is given and gives?
local function is_sealed(layer)
  if layer._hooks then return false end
  local metatable = getmetatable(layer)
  if metatable == Sequential then
    for k = 1, rawlen(layer) do
      if not is_sealed(layer[k]) then return false end
    end
    return true
  end
  return rawget(metatable, "builtin") == true
end

-- Classes that run in one call with an activation after them, and those activations, with what dlua's forward is.
local after = {
  [layers.Linear] = {activations.ReLU, activations.GELU}, [layers.BatchNorm1d] = {activations.ReLU},
  [layers.BatchNorm2d] = {activations.ReLU},
}
local forward_of = {}
for class_of_first, seconds in pairs(after) do
  forward_of[class_of_first] = class_of_first.forward
  for _, class_of_second in ipairs(seconds) do
    seconds[class_of_second], forward_of[class_of_second] = true, class_of_second.forward
  end
end

-- May a layer and the one after it run as one call? They may while they are what dlua made them and no hook and no
-- watcher wants to see what passes between them.
local function are_one(first, second)
  local class_of_first, class_of_second = getmetatable(first), getmetatable(second)
  local seconds = after[class_of_first]
  return seconds ~= nil and class_of_second ~= nil and seconds[class_of_second] ~= nil
    and class_of_first.forward == forward_of[class_of_first] and class_of_second.forward == forward_of[class_of_second]
    and not first._hooks and not second._hooks and not module.is_watched()
end

-- What lies between two sealed layers nobody else can see: its box is emptied as soon as the second has read it. The
-- tape keeps what backward needs, everything else is free for reuse while still warm in the cache.
function Sequential:forward(x, extra)
  if extra ~= nil then dlua.fail("Sequential: takes one input") end
  local given, sealed_before, k = x, false, 1
  while k <= rawlen(self) do
    local layer, y = self[k]
    if are_one(layer, self[k + 1]) then
      y, k = layer(x, self[k + 1]), k + 2
    else
      y, k = layer(x), k + 1
    end
    local sealed = is_sealed(layer)
    if sealed_before and sealed and not rawequal(x, y) and not rawequal(x, given) then x:release() end
    x, sealed_before = y, sealed
  end
  return x
end

-- ---------------------------------------------------------------- lists

-- A list of modules that are trained and saved with its owner, called as the owner likes.
--   self.blocks = nn.ModuleList {nn.Linear(4, 4), nn.Linear(4, 4)}
--   for _, block in ipairs(self.blocks) do x = block(x) end
local ModuleList = class("ModuleList", Module)
containers.ModuleList = ModuleList
ModuleList.doc = "nn.ModuleList {module, …}\n  A list of modules that are trained and saved with its owner."

function ModuleList:init(...)
  for k, item in ipairs(modules_of("nn.ModuleList", ...)) do self[k] = item end
end

ModuleList.append, ModuleList.__len = Sequential.append, Sequential.__len

-- Modules by name, kept in alphabetical order.
--   self.heads = nn.ModuleDict {age = nn.Linear(8, 1), class = nn.Linear(8, 10)}
local ModuleDict = class("ModuleDict", Module)
containers.ModuleDict = ModuleDict
ModuleDict.doc = "nn.ModuleDict {name = module, …}\n  Modules by name, in alphabetical order."

function ModuleDict:init(given)
  local names = {}
  for name, item in pairs(given or {}) do
    if type(name) ~= "string" or not is_module(item) then
      dlua.fail("nn.ModuleDict: takes {name = module, …}, but %s is a %s", tostring(name), type(item))
    end
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do self[name] = given[name] end
end

for name, container in pairs(containers) do help.register("nn." .. name, container.doc) end

return containers
