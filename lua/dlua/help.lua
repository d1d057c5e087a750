-- help.lua - what `?name` says, made where the thing itself is described: layers and optimisers register the text of
-- their description, everything else in Lua is documented by the comment above it.
local core = require "dlua.core"

local texts = {}
local help = {}

-- Keeps the text of a public name such as "nn.Conv2d".
--   help.register("nn.Example", "nn.Example(x)\n  What it does.")
function help.register(name, text) texts[name] = text end

-- The comment above a Lua function as text without its dashes, or nil where there is none.
--   print(help.comment(dlua.nn.class))
function help.comment(fn)
  local info = debug.getinfo(fn, "S")
  local file = info.source:sub(1, 1) == "@" and io.open(info.source:sub(2))
  if not file then return nil end
  local above, count = {}, 0
  for line in file:lines() do
    count = count + 1
    if count == info.linedefined then break end
    if line:find "^%s*%-%-" then above[#above + 1] = line:gsub("^%s*%-%- ?", "") else above = {} end
  end
  file:close()
  return #above > 0 and table.concat(above, "\n") or nil
end

-- The value of a dotted name inside dlua, or nil.
local function find(name)
  local value = core
  for part in name:gmatch "[^.]+" do
    if type(value) ~= "table" then return nil end
    local ok, field = pcall(function() return value[part] end)
    if not ok or field == nil then return nil end
    value = field
  end
  return value
end

local function described(name)
  local value = find(name)
  local text = type(value) == "function" and help.comment(value)
    or type(value) == "table" and (rawget(value, "doc") or rawget(value, "init") and help.comment(value.init))
  return text and (name .. "\n  " .. text:gsub("\n", "\n  ")) or nil
end

-- The help text of a name, or nil. Finding it loads the submodule, because texts come with the code.
--   print(dlua.help "nn.Conv2d")
function help.text(name)
  name = name:gsub("^dlua%.", "")
  find(name)
  return texts[name] or described(name)
end

return help
