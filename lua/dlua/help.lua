-- help.lua - what `?name` says, made where the thing itself is described: layers and optimisers register the text of
-- their description, everything else in Lua is documented by the comment above it.
local core = require "dlua.core"

local texts = {}
local help = {}

-- Keeps the text of a public name such as "nn.Conv2d".
--   help.register("nn.Example", "nn.Example(x)\n  What it does.")
function help.register(name, text) texts[name] = text end

-- The comment above the first line of a source file that is_wanted(number, text), without its dashes, or nil.
local function comment_above(source, is_wanted)
  local file = source:sub(1, 1) == "@" and io.open(source:sub(2))
  if not file then return nil end
  local above, number = {}, 0
  for line in file:lines() do
    number = number + 1
    if is_wanted(number, line) then break end
    if line:find "^%s*%-%-" then above[#above + 1] = line:gsub("^%s*%-%- ?", "") else above = {} end
  end
  file:close()
  return #above > 0 and table.concat(above, "\n") or nil
end

-- The comment above a Lua function as text without its dashes, or nil where there is none.
--   print(help.comment(dlua.nn.class))
function help.comment(fn)
  local info = debug.getinfo(fn, "S")
  return comment_above(info.source, function(number) return number == info.linedefined end)
end

-- The comment above the line that makes a class, found through the file its init or update comes from.
local function class_comment(class)
  local method = rawget(class, "init") or rawget(class, "update")
  if not method then return nil end
  local head = "^local " .. rawget(class, "__name") .. " = "
  local text = comment_above(debug.getinfo(method, "S").source, function(_, line) return line:find(head) end)
  return text or help.comment(method)
end

-- "name(x, y)" from a Lua function's parameters; given is what options tables are called.
local function usage(name, fn)
  local parameters, k = {}, 1
  while debug.getlocal(fn, k) do
    local parameter = debug.getlocal(fn, k)
    if parameter ~= "self" then parameters[#parameters + 1] = parameter == "given" and "{options}" or parameter end
    k = k + 1
  end
  if debug.getinfo(fn, "u").isvararg then parameters[#parameters + 1] = "..." end
  return ("%s(%s)"):format(name, table.concat(parameters, ", "))
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
  local value, head, text = find(name), name, nil
  if type(value) == "function" then
    head, text = usage(name, value), help.comment(value)
  elseif type(value) == "table" then
    text = rawget(value, "doc") or rawget(value, "__name") and class_comment(value)
  end
  return text and (head .. "\n  " .. text:gsub("\n", "\n  ")) or nil
end

-- The help text of a name, or nil. Finding it loads the submodule, because texts come with the code.
--   print(dlua.help "nn.Conv2d")
function help.text(name)
  name = name:gsub("^dlua%.", "")
  find(name)
  return texts[name] or described(name)
end

return help
