-- init.lua - require "dlua": the C core plus everything written in Lua, one table.
--
-- Submodules load when they are first touched, so `dlua -e ''` reads three small files. A field that does not exist
-- raises and names the nearest one: a misspelt function is found at its own line.
local core = require "dlua.core"
local help = require "dlua.help"
local options = require "dlua.options"

local submodules = {"args", "data", "image", "metrics", "nn", "optim", "train", "transforms"}
local file_of = {GradScaler = "dlua.scaler"}
for _, name in ipairs(submodules) do file_of[name] = "dlua." .. name end

core.class = require "dlua.class"
core.options = options.check
core.help = help.text
require "dlua.tensor"

local function known_names()
  local names = {}
  for name in next, file_of do names[#names + 1] = name end
  for name in next, core do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

local function find(self, name)
  if file_of[name] then
    local module = require(file_of[name])
    rawset(self, name, module)
    return module
  end
  local nearest = type(name) == "string" and core.nearest(name, known_names())
  core.fail("dlua.%s does not exist%s", tostring(name), nearest and (" (did you mean dlua.%s?)"):format(nearest) or "")
end

return setmetatable(core, {__index = find})
