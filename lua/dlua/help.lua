-- help.lua - what `?name` says: a text per public name, made where the thing itself is described.
local core = require "dlua.core"

local texts = {}
local help = {}

-- Keeps the text of a public name such as "nn.Conv2d".
--   help.register("nn.Conv2d", "nn.Conv2d(cin, cout, kernel)\n  2-D convolution …")
function help.register(name, text) texts[name] = text end

-- An op's text from its own description, or nil.
local function op_text(name)
  local info = core.op_info and core.op_info(name)
  return info and info.usage and info.usage .. "\n  " .. (info.doc or "")
end

-- The help text of a name, or nil. Touches dlua's submodule first, because texts come with the code.
--   print(dlua.help "nn.Conv2d")
function help.text(name)
  name = name:gsub("^dlua%.", "")
  local submodule = name:match "^(%w+)%."
  if submodule then pcall(function() return core[submodule] end) end
  return texts[name] or op_text(name)
end

-- All registered names, sorted.
--   for _, name in ipairs(help.names()) do print(name) end
function help.names()
  local names = {}
  for name in pairs(texts) do names[#names + 1] = name end
  table.sort(names)
  return names
end

return help
