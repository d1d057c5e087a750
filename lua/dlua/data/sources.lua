-- sources.lua - where data sets come from: names, folders, and the places that are searched.
--
-- A name is looked for in $DLUA_DATA and then in the small subset shipped with dlua. One line on the standard error
-- stream says which was used, because results depend on it.
local core = require "dlua.core"
local dataset = require "dlua.data.dataset"
local io_ = core.io

local sources = {}

-- Each name: the folders that may hold it, the channels of its files, and how it is read (train: which split). A
-- folder of PNG files can be converted to other channels.
local readers = {
  cifar10 = {
    folders = {"cifar-10-batches-bin", "cifar10", "cifar10-small"},
    channels = 3,
    converts = function(path) return io_.is_folder(path .. "/train") end,
    read = function(path, train, channels)
      if io_.is_folder(path .. "/train") then return io_.folder(path .. (train and "/train" or "/test"), channels) end
      return io_.cifar(path, train)
    end,
  },
  mnist = {
    folders = {"mnist", "mnist-small"},
    channels = 1,
    converts = function() return false end,
    read = function(path, train) return io_.mnist(path, train) end,
  },
}

local function names()
  local list = {}
  for name in pairs(readers) do list[#list + 1] = name end
  table.sort(list)
  return list
end

-- Where dlua's own subset lies: examples/data beside lua/ in a checkout, share/dlua/data when installed.
local function shipped()
  local here = debug.getinfo(1, "S").source:match "^@(.*)/dlua/data/sources%.lua$" or "."
  return {here .. "/../examples/data", here .. "/../../dlua/data"}
end

local function search_path()
  local path = {}
  local wish = os.getenv "DLUA_DATA"
  if wish and wish ~= "" then path[1] = wish end
  return table.move(shipped(), 1, 2, #path + 1, path)
end

local function find(reader)
  for _, root in ipairs(search_path()) do
    for _, folder in ipairs(reader.folders) do
      local path = root .. "/" .. folder
      if io_.is_folder(path) then return path end
    end
  end
end

local function say(name, split, path, set)
  io.stderr:write(("data: %s %s: %d examples from %s\n"):format(name, split, #set, path))
end

-- A set of pictures, with the way to its training split for mean and std.
local function make(name, path, split, read)
  local set = dataset.Dataset(read(path, split == "train"), {name = name, path = path, split = split,
    has_pictures = true})
  if split ~= "train" then
    rawset(set, "train_split", function() return dataset.Dataset(read(path, true)) end)
  end
  return set
end

local function load_named(name, split, channels)
  local reader = readers[name]
  local path = find(reader)
  if not path then
    core.fail("data.load: %s was not found in %s (set DLUA_DATA to the folder that holds %s)", name,
      table.concat(search_path(), ", "), reader.folders[1])
  end
  if channels and channels ~= reader.channels and not reader.converts(path) then
    core.fail("data.load: %s in %s has %d channels and cannot be read with %d", name, path, reader.channels, channels)
  end
  local set = make(name, path, split, function(root, train)
    return reader.read(root, train, channels or reader.channels)
  end)
  say(name, split, path, set)
  return set
end

local function load_folder(path, split, channels)
  if not io_.is_folder(path .. "/" .. split) then
    core.fail("data.load: %s has no folder %s with one folder of PNG files per class", path, split)
  end
  local set = make(path, path, split, function(root, train)
    return io_.folder(root .. "/" .. (train and "train" or split), channels or 3)
  end)
  say(path:match "[^/]+/*$" or path, split, path, set)
  return set
end

local function unknown(name)
  local nearest = core.nearest(name, names())
  core.fail("data.load: there is no data set or folder %q (%s)", name,
    nearest and ("did you mean %s?"):format(nearest) or "known names: " .. table.concat(names(), ", "))
end

-- Loads a data set by name, or a folder with train/CLASS/*.png and test/CLASS/*.png.
--   sources.load("cifar10", "train", 3)
function sources.load(name, split, channels)
  if readers[name] then
    if split ~= "train" and split ~= "test" then
      core.fail("data.load: %s has the splits train and test, not %s", name, split)
    end
    return load_named(name, split, channels)
  end
  if io_.is_folder(name) then return load_folder(name, split, channels) end
  return unknown(name)
end

return sources
