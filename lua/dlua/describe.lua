-- describe.lua - the text behind ?name at the prompt: registered help first, then an op's signature and sentence,
-- then what kind of value the name stands for.
local dlua = require "dlua"
local core = require "dlua.core"
local manual = require "dlua.manual"

local function default_text(param) return param.optional and param.name .. "?" or param.name end

-- "sum(x, dim?, keepdim?) -> y" from an op's description.
local function signature(info)
  local names = {}
  for k, param in ipairs(info.params) do names[k] = default_text(param) end
  return ("%s(%s) -> %s"):format(info.name, table.concat(names, ", "), table.concat(info.results, ", "))
end

-- The op behind a function's name: itself, its form in place (add_), or one that has another name too (clip).
local function op_of(name)
  local info = core.op_info(name) or core.op_info((name:gsub("_$", "")))
  if info then return info end
  local fn = rawget(core, name)
  for op, other in next, core.ops do
    if fn and other == fn then return core.op_info(op) end
  end
end

local function op_text(name)
  local info = op_of(name)
  if not info or info.hidden then return nil end
  local prefix = info.params[1] and info.params[1].kind == "T" and "x:" or "dlua."
  return ("dlua.%s\n  %s\n  signature: %s%s"):format(signature(info), info.doc, info.sig,
    info.inplace and ("\n  in place: %s%s_"):format(prefix, info.name) or "")
end

-- The help text of a name as one writes it: "sum", "x:sum", "dlua.sum", "nn.Conv2d"; nil when there is none.
--   print(require "dlua.describe" "sum")
return function(name)
  local bare, last = name:gsub("^dlua%.", ""), name:match "([%w_]+)$"
  if not last then return nil end
  local plain = not bare:find "%."
  return manual[bare] or plain and (manual[last] or op_text(last)) or dlua.help(bare)
end
