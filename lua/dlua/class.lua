-- class.lua - single inheritance on one page.
--
--   local class = require "dlua.class"
--   local Animal = class "Animal"
--   function Animal:init(name) self.name = name end
--   local Dog = class("Dog", Animal)
--   Dog("Rex").name                       --> Rex
--
-- A class is the metatable of its objects and its own __index, so a method costs one lookup per level. Lua reads
-- metamethods without __index, hence a subclass copies those its parent has when it is made. There are no mixins,
-- no multiple parents and no accessors: closures do those better.

-- Is the object an instance of the class or of a subclass?
--   Dog("Rex"):is(Animal)                 --> true
local function is(self, class)
  local c = getmetatable(self)
  while c do
    if c == class then return true end
    c = rawget(c, "__parent")
  end
  return false
end

local function construct(class, ...)
  local object = setmetatable(class.fresh and class.fresh() or {}, class)
  if class.init then object:init(...) end
  return object
end

local function describe(class) return "class " .. class.__name end

-- Makes a class. Calling it makes an object and hands the arguments to init; a class may give fresh(), the table
-- that a new object starts from.
--   local Counter = class "Counter"
local function class(name, parent)
  local new = {is = is}
  for key, value in pairs(parent or {}) do
    if type(key) == "string" and key:sub(1, 2) == "__" then new[key] = value end
  end
  new.__name, new.__parent, new.__index = name, parent or false, new
  return setmetatable(new, {__index = parent, __call = construct, __tostring = describe})
end

return class
