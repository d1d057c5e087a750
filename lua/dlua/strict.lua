-- strict.lua - tables that raise on fields they do not have, naming the nearest, so that a misspelt name is found at
-- its own line.
local core = require "dlua.core"

local function nearest_field(fields, name)
  local names = {}
  for known in next, fields do
    if type(known) == "string" then names[#names + 1] = known end
  end
  table.sort(names)
  return type(name) == "string" and core.nearest(name, names)
end

-- Makes a module's table strict and returns it; path is how a script calls it.
--   return strict("dlua.metrics", metrics)
local function strict(path, fields)
  return setmetatable(fields, {__index = function(_, name)
    local nearest = nearest_field(fields, name)
    local hint = nearest and (" (did you mean %s.%s?)"):format(path, nearest) or ""
    core.fail("%s.%s does not exist%s", path, tostring(name), hint)
  end})
end

return strict
