-- options.lua - arguments that are checked where they are given.
--
--   local signature = options.signature {
--     "nn.Dropout", {"p", "fraction", 0.5}, doc = "Zeroes elements with probability p.",
--   }
--   signature:read(0.2).p                 --> 0.2
--   signature:read {p = 0.2}              -- the same by keyword
--   signature:read {q = 0.2}              -- error: nn.Dropout: unknown option q (did you mean p?)
--
-- One description per public constructor gives the checks, the defaults, the help text and the line that prints an
-- object; nothing is said twice. A table counts as options only if it is the last argument, is plain and has string
-- keys alone, so {3, 5} is a value and {stride = 2} is not.
local core = require "dlua.core"
local help = require "dlua.help"

local options = {}

-- ---------------------------------------------------------------- what a value may be

local function whole(value, least)
  local integer = math.type(value) and math.tointeger(value)
  if integer and integer >= least then return integer end
end

local function pair(value, least)
  if type(value) ~= "table" then return whole(value, least) end
  local h, w = whole(value[1], least), whole(value[2], least)
  if h and w and #value == 2 then return {h, w} end
end

local function number(value, low, high)
  if math.type(value) and value >= low and value <= high then return value end
end

-- Each kind: what it is in words, and a function that gives the value to keep or nil.
local kinds = {
  count = {"a whole number of at least 1", function(v) return whole(v, 1) end},
  natural = {"a whole number of at least 0", function(v) return whole(v, 0) end},
  integer = {"a whole number", function(v) return math.type(v) and math.tointeger(v) end},
  pair = {"a whole number of at least 1 or {h, w}", function(v) return pair(v, 1) end},
  padding = {"a whole number of at least 0 or {h, w}", function(v) return pair(v, 0) end},
  number = {"a number", function(v) return number(v, -math.huge, math.huge) end},
  positive = {"a number above 0", function(v) return math.type(v) and v > 0 and v < math.huge and v or nil end},
  nonnegative = {"a number of at least 0", function(v)
    return math.type(v) and v >= 0 and v < math.huge and v or nil
  end},
  fraction = {"a number from 0 to 1", function(v) return number(v, 0, 1) end},
  decay = {"a number from 0 up to, but not, 1", function(v) return math.type(v) and v >= 0 and v < 1 and v or nil end},
  boolean = {"true or false", function(v) if type(v) == "boolean" then return v end end},
  string = {"a string", function(v) return type(v) == "string" and v or nil end},
  ["function"] = {"a function", function(v)
    if type(v) == "function" or (getmetatable(v) or {}).__call then return v end
  end},
  table = {"a table", function(v) return type(v) == "table" and v or nil end},
  tensor = {"a tensor", function(v) return core.is_tensor(v) and v or nil end},
  any = {"anything", function(v) return v end},
}

local function one_of(words)
  local texts = {}
  for k, word in ipairs(words) do texts[k] = ("%q"):format(word) end
  return table.concat(texts, ", ")
end

-- A value as a script would write it, for messages.
--   options.shown({1, "a"})                                                      --> {1, "a"}
local function shown(value)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) ~= "table" or getmetatable(value) then return tostring(value) end
  local parts = {}
  for k, item in ipairs(value) do parts[k] = shown(item) end
  return "{" .. table.concat(parts, ", ") .. "}"
end
options.shown = shown

-- The value to keep for a parameter; raises when it is of another kind.
local function checked(name, parameter, value)
  if type(parameter[2]) == "table" then
    for _, word in ipairs(parameter[2]) do
      if value == word then return value end
    end
    core.fail("%s: %s must be one of %s, not %s", name, parameter[1], one_of(parameter[2]), shown(value))
  end
  local kind = kinds[parameter[2]]
  local kept = kind[2](value)
  if kept == nil then core.fail("%s: %s must be %s, not %s", name, parameter[1], kind[1], shown(value)) end
  return kept
end

local function unknown(name, key, known)
  local nearest = core.nearest(tostring(key), known)
  local hint = nearest and ("did you mean %s?"):format(nearest) or "it takes " .. table.concat(known, ", ")
  if #known == 0 then hint = "it takes none" end
  core.fail("%s: unknown option %s (%s)", name, tostring(key), hint)
end

-- ---------------------------------------------------------------- options

-- Does the value count as an options table?
--   options.is {stride = 2}               --> true
--   options.is {2, 2}                     --> false
function options.is(value)
  if type(value) ~= "table" or getmetatable(value) then return false end
  for key in pairs(value) do
    if type(key) ~= "string" then return false end
  end
  return true
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

-- Fills an options table up with defaults and raises on keys that have none. A value must have the type of its
-- default; options without a default have their kind in optional, a word as in signatures.
--   dlua.options("rotate", {angle = 30}, {angle = 0, fill = 0})      --> {angle = 30, fill = 0}
--   dlua.options("rotate", {angel = 30}, {angle = 0, fill = 0})      -- error that mentions angle
--   dlua.options("deal", {seed = 3}, {}, {seed = "integer"})         --> {seed = 3}
function options.check(name, given, defaults, optional)
  if given ~= nil and not options.is(given) then
    core.fail("%s: options must be a table with named keys, not %s", name, shown(given))
  end
  optional = optional or {}
  local known = sorted_keys(defaults)
  for _, key in ipairs(sorted_keys(optional)) do known[#known + 1] = key end
  local merged, is_known = {}, {}
  for _, key in ipairs(known) do
    merged[key], is_known[key] = defaults[key], true
  end
  for _, key in ipairs(sorted_keys(given or {})) do
    local value, default = given[key], defaults[key]
    if not is_known[key] then unknown(name, key, known) end
    if default ~= nil and type(default) ~= "table" and type(value) ~= type(default) then
      core.fail("%s: %s must be a %s, not %s", name, key, type(default), shown(value))
    end
    if optional[key] then value = checked(name, {key, optional[key]}, value) end
    merged[key] = value
  end
  return merged
end

-- ---------------------------------------------------------------- signatures

local Signature = {}
Signature.__index = Signature

-- Describes a constructor: {"nn.Name", {"parameter", kind, default, long = "its PyTorch name"}, …, doc = text}.
-- kind is one of the words above or a list of allowed words. A parameter without default is required unless it says
-- optional = true.
--   options.signature {"nn.ELU", {"alpha", "number", 1.0}, doc = "…"}
function options.signature(description)
  local self = setmetatable({name = description[1], doc = description.doc, parameters = {}, known = {}, by_name = {}},
    Signature)
  for k = 2, #description do
    local parameter = description[k]
    self.parameters[k - 1] = parameter
    self.known[#self.known + 1] = parameter[1]
    self.by_name[parameter[1]] = parameter
    if parameter.long then
      self.known[#self.known + 1] = parameter.long
      self.by_name[parameter.long] = parameter
    end
  end
  help.register(self.name, self:help())
  return self
end

local function required(parameter) return parameter[3] == nil and not parameter.optional end

-- The usage line: required parameters by position, the others with their defaults.
--   signature:usage()                     --> nn.ELU({alpha = 1.0})
function Signature:usage()
  local positional, named = {}, {}
  for _, parameter in ipairs(self.parameters) do
    if required(parameter) then
      positional[#positional + 1] = parameter[1]
    elseif parameter[3] ~= nil then
      named[#named + 1] = parameter[1] .. " = " .. shown(parameter[3])
    else
      named[#named + 1] = parameter[1]
    end
  end
  if #named > 0 then positional[#positional + 1] = "{" .. table.concat(named, ", ") .. "}" end
  return ("%s(%s)"):format(self.name, table.concat(positional, ", "))
end

-- The help text: usage and, indented, what it does.
--   print(signature:help())
function Signature:help() return self:usage() .. "\n  " .. self.doc end

-- Checks one value for a parameter, as read does, and returns what to keep.
--   signature:check("lr", 0.1)            --> 0.1
function Signature:check(name, value) return checked(self.name, self.by_name[name], value) end

-- The parameter that an option's name, short or long, stands for; raises on one that there is not.
--   signature:parameter "lr"
function Signature:parameter(name)
  return self.by_name[name] or unknown(self.name, name, self.known)
end

local function set(self, values, parameter, value)
  if values[parameter[1]] ~= nil then core.fail("%s: %s is given twice", self.name, parameter[1]) end
  values[parameter[1]] = checked(self.name, parameter, value)
end

-- Checks the arguments of a call and returns a table from parameter names to values, defaults filled in.
--   signature:read(3, 8, {padding = 1})
function Signature:read(...)
  local count, values = select("#", ...), {}
  local named = count > 0 and select(count, ...) or nil
  if count > 0 and options.is(named) then count = count - 1 else named = {} end
  if count > #self.parameters then
    core.fail("%s: takes %d arguments, not %d: %s", self.name, #self.parameters, count, self:usage())
  end
  for k = 1, count do
    local value = select(k, ...)
    if value ~= nil then set(self, values, self.parameters[k], value) end
  end
  for _, key in ipairs(sorted_keys(named)) do
    set(self, values, self:parameter(key), named[key])
  end
  for _, parameter in ipairs(self.parameters) do
    if values[parameter[1]] == nil then
      if required(parameter) then core.fail("%s: %s is missing: %s", self.name, parameter[1], self:usage()) end
      values[parameter[1]] = parameter[3]
    end
  end
  return values
end

-- The call that would make an object with these values: what print shows.
--   signature:show {cin = 3, cout = 8, kernel = 3, padding = 1}      --> Conv2d(3, 8, 3, {padding = 1})
function Signature:show(values)
  local positional, named = {}, {}
  for k, parameter in ipairs(self.parameters) do
    local value = values[parameter[1]]
    local is_default = value == nil or core.is_tensor(value) or shown(value) == shown(parameter[3])
    if required(parameter) or k == 1 and not is_default then
      positional[#positional + 1] = shown(value)
    elseif not is_default then
      named[#named + 1] = parameter[1] .. " = " .. shown(value)
    end
  end
  if #named > 0 then positional[#positional + 1] = "{" .. table.concat(named, ", ") .. "}" end
  return ("%s(%s)"):format(self.name:match "[^.]+$", table.concat(positional, ", "))
end

return options
