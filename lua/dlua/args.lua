-- args.lua - command line options of a script, on lua-argparse.
--
--   local args = dlua.args {
--     description = "Train something.",
--     {"epochs", default = 30, help = "passes over the data"},
--     {"quick", default = false, help = "a short run"},
--   }
--   print(args.epochs)                                       -- script.lua --epochs 5 prints 5
--
-- An option takes its type from its default: whole number, number, string; a boolean is a flag (--quick, and
-- --no-quick where the default is true). Without a default it is a string that may be missing, or must not be with
-- required = true. With quick = 2 the default under the flag --quick is another. A positional argument has rest = true:
-- {"files", rest = true} takes every argument that is no option, as a list.
-- --help lists all of them.
local dlua = require "dlua"

local function whole(text)
  local value = math.tointeger(tonumber(text))
  if value then return value end
  return nil, ("%q is not a whole number"):format(text)
end

local function number(text)
  local value = tonumber(text)
  if value then return value end
  return nil, ("%q is not a number"):format(text)
end

local converters = {integer = whole, float = number}

-- --batch-size and --batch_size are the same.
local function flags_of(prefix, name)
  local dashed = prefix .. name:gsub("_", "-")
  local plain = prefix .. name
  return dashed == plain and plain or plain .. " " .. dashed
end

local function add_flag(parser, name, entry)
  if entry.default then
    parser:flag(flags_of("--no-", name), "not: " .. (entry.help or name)):target(name):action("store_false")
  end
  parser:flag(flags_of("--", name), entry.help):target(name):action("store_true")
end

local function add_option(parser, name, entry)
  local default = entry.default
  local help = entry.help or ""
  if default ~= nil then help = ("%s (default: %s)"):format(help, tostring(default)) end
  local option = parser:option(flags_of("--", name), help):target(name)
  local convert = converters[math.type(default) or "text"]
  if convert then option:convert(convert) end
  option:argname("<" .. (math.type(default) and "number" or type(default) == "string" and "text" or "value") .. ">")
  if entry.choices then option:choices(entry.choices) end
end

-- Whatever is no option, as a list.
local function add_rest(parser, name, entry)
  local argument = parser:argument(name, entry.help):args(entry.required and "+" or "*")
  if entry.choices then argument:choices(entry.choices) end
end

local known = {
  [1] = true, default = true, help = true, choices = true, required = true, rest = true, quick = true,
}

local function check_entry(entry)
  local name = type(entry) == "table" and entry[1]
  if type(name) ~= "string" then dlua.fail("dlua.args: each option is a table such as {\"epochs\", default = 30}") end
  for key in pairs(entry) do
    if not known[key] then
      dlua.fail("dlua.args: option %s has an unknown key %s (known: default, help, choices, required, rest, quick)",
        name, tostring(key))
    end
  end
  if entry.rest and entry.default ~= nil then
    dlua.fail("dlua.args: %s takes the rest, which without arguments is an empty list: it has no default", name)
  end
  return name
end

local function fill_defaults(description, values)
  for _, entry in ipairs(description) do
    local name = entry[1]
    if values[name] == nil and values.quick then values[name] = entry.quick end
    if values[name] == nil then values[name] = entry.default end
    if values[name] == nil and entry.required then return nil, ("option '--%s' is missing"):format(name) end
  end
  return values
end

-- Reads the script's arguments (or the list given) by a description and returns a table of values. Wrong arguments end
-- a script with a usage message; with a list given they raise.
--   local args = dlua.args({{"epochs", default = 30, help = "passes over the data"}}, {"--epochs", "5"})
local function args(description, given)
  local ok, argparse = pcall(require, "argparse")
  if not ok then dlua.fail("dlua.args: needs lua-argparse (package lua-argparse)") end
  local script = _G.arg and _G.arg[0] or "script"
  local parser = argparse(script:match "[^/]*$", description.description)
  for _, entry in ipairs(description) do
    local name = check_entry(entry)
    if entry.rest then
      add_rest(parser, name, entry)
    elseif type(entry.default) == "boolean" then
      add_flag(parser, name, entry)
    else
      add_option(parser, name, entry)
    end
  end
  local success, values = parser:pparse(given or _G.arg or {})
  local problem = not success and values
  if success then values, problem = fill_defaults(description, values) end
  if not problem then return values end
  if given then dlua.fail("dlua.args: %s", problem) end
  io.stderr:write(parser:get_usage(), "\n\n", script, ": ", problem, "\n")
  os.exit(2, true)
end

return args
