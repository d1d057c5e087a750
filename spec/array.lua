-- array.lua - nested loops over flat tables: what the references of reference.lua are written with.
--
-- An array is {size = {…}, data = {…}} in row-major order. Indices are lists that count from 1. Everything is slow and
-- plain on purpose: the runtime's kernels are checked against it, so it must be right at a glance.
local array = {}

function array.count(size)
  local n = 1
  for _, s in ipairs(size) do n = n * s end
  return n
end

function array.new(size, data) return {size = size, data = data} end

-- Place of an index in data.
local function place(size, index)
  local at = 0
  for k = 1, #size do at = at * size[k] + index[k] - 1 end
  return at + 1
end

function array.at(x, index) return x.data[place(x.size, index)] end

-- Calls f(index) for every index of a size, in order. The list is reused: copy what is kept.
function array.each(size, f)
  if array.count(size) == 0 then return end
  local index = {}
  for k = 1, #size do index[k] = 1 end
  while true do
    f(index)
    local k = #size
    while k >= 1 and index[k] == size[k] do
      index[k] = 1
      k = k - 1
    end
    if k < 1 then return end
    index[k] = index[k] + 1
  end
end

-- The array of a size whose elements are f(index).
function array.build(size, f)
  local data = {}
  array.each(size, function(index) data[#data + 1] = f(index) end)
  return {size = {table.unpack(size)}, data = data}
end

function array.map(x, f)
  local data = {}
  for k, v in ipairs(x.data) do data[k] = f(v) end
  return {size = {table.unpack(x.size)}, data = data}
end

-- Shape of operands broadcast against each other.
function array.broadcast_size(...)
  local size, ndim = {}, 0
  for _, x in ipairs {...} do ndim = math.max(ndim, #x.size) end
  for k = 1, ndim do
    size[k] = 1
    for _, x in ipairs {...} do
      local s = x.size[k - ndim + #x.size]
      if s and s ~= 1 then size[k] = s end
    end
  end
  return size
end

-- The element of x that a broadcast index reads.
function array.broadcast_at(x, index)
  local own, skip = {}, #index - #x.size
  for k, s in ipairs(x.size) do own[k] = s == 1 and 1 or index[k + skip] end
  return array.at(x, own)
end

local function operand(x) return type(x) == "table" and x or {size = {}, data = {x}} end

-- f over operands that broadcast; numbers stand for 0-d arrays.
function array.zip(f, ...)
  local operands = {}
  for k = 1, select("#", ...) do operands[k] = operand((select(k, ...))) end
  return array.build(array.broadcast_size(table.unpack(operands)), function(index)
    local values = {}
    for k, x in ipairs(operands) do values[k] = array.broadcast_at(x, index) end
    return f(table.unpack(values))
  end)
end

-- A dimension counted from 1, whichever end it was counted from.
function array.dim(x, d, extra) return d > 0 and d or #x.size + (extra or 0) + 1 + d end

-- Which dimensions a D argument names: a set. None means all.
local function chosen(x, dims)
  local set = {}
  if type(dims) == "number" then dims = {dims} end
  if dims and #dims > 0 then
    for _, d in ipairs(dims) do set[array.dim(x, d)] = true end
  else
    for k = 1, #x.size do set[k] = true end
  end
  return set
end

-- f(list of the values that fall together) for each remaining index.
function array.reduce(x, dims, keepdim, f)
  local set, kept, groups, order = chosen(x, dims), {}, {}, {}
  for k, s in ipairs(x.size) do
    if not set[k] then kept[#kept + 1] = s elseif keepdim then kept[#kept + 1] = 1 end
  end
  array.each(kept, function(index)
    local key = table.concat(index, ",")
    groups[key] = {}
    order[#order + 1] = key
  end)
  array.each(x.size, function(index)
    local own = {}
    for k = 1, #index do
      if not set[k] then own[#own + 1] = index[k] elseif keepdim then own[#own + 1] = 1 end
    end
    local group = groups[table.concat(own, ",")]
    group[#group + 1] = array.at(x, index)
  end)
  local data = {}
  for k, key in ipairs(order) do data[k] = f(groups[key]) end
  return {size = kept, data = data}
end

-- Replaces each line along a dimension by f(line), which may have another length.
function array.along(x, d, f)
  d = array.dim(x, d)
  if #x.size == 0 then return {size = {}, data = f(x.data)} end
  local lines, length = {}, nil
  local function key_of(index)
    local key = {table.unpack(index)}
    key[d] = 0
    return table.concat(key, ",")
  end
  array.each(x.size, function(index)
    local key = key_of(index)
    lines[key] = lines[key] or {}
    table.insert(lines[key], array.at(x, index))
  end)
  for key, line in pairs(lines) do
    lines[key] = f(line)
    length = #lines[key]
  end
  local size = {table.unpack(x.size)}
  size[d] = length or size[d]
  return array.build(size, function(index) return lines[key_of(index)][index[d]] end)
end

-- An index with one entry replaced.
function array.with(index, d, value)
  local other = {table.unpack(index)}
  other[d] = value
  return other
end

return array
