-- reference_index.lua - indexing, masks and sorting.
local array = require "spec.array"
local at, build, along, with, dim_of, each = array.at, array.build, array.along, array.with, array.dim, array.each

return function(reference)
  function reference.index_select(p)
    local d = dim_of(p.x, p.dim)
    return build(with(p.x.size, d, #p.index.data), function(i) return at(p.x, with(i, d, p.index.data[i[d]])) end)
  end

  -- x with change(old, new) at the places that where(index) names, for each element of the source.
  local function written(x, source, where, change)
    local values = build(x.size, function(i) return at(x, i) end)
    each(source.size, function(i)
      local place, offset = where(i), 0
      for k, s in ipairs(x.size) do offset = offset * s + place[k] - 1 end
      values.data[offset + 1] = change(values.data[offset + 1], at(source, i))
    end)
    return values
  end
  local function put(_, new) return new end
  local function sum(old, new) return old + new end

  local function by_list(change)
    return function(p)
      local d = dim_of(p.x, p.dim)
      return written(p.x, p.source, function(i) return with(i, d, p.index.data[i[d]]) end, change)
    end
  end
  reference.index_copy, reference.index_add = by_list(put), by_list(sum)

  local function by_element(change)
    return function(p)
      local d = dim_of(p.x, p.dim)
      local source = build(p.index.size, function(i) return at(p.source, i) end)
      return written(p.x, source, function(i) return with(i, d, at(p.index, i)) end, change)
    end
  end
  reference.scatter, reference.scatter_add = by_element(put), by_element(sum)

  function reference.gather(p)
    local d = dim_of(p.x, p.dim)
    return build(p.index.size, function(i) return at(p.x, with(i, d, at(p.index, i))) end)
  end

  local function masked(p)
    local places = {}
    each(p.x.size, function(i)
      if array.broadcast_at(p.mask, i) then places[#places + 1] = {table.unpack(i)} end
    end)
    return places
  end
  function reference.masked_select(p)
    local data = {}
    for k, i in ipairs(masked(p)) do data[k] = at(p.x, i) end
    return array.new({#data}, data)
  end
  function reference.masked_scatter(p)
    local places = masked(p)
    local values = {}
    for k, i in ipairs(places) do values[table.concat(i, ",")] = p.source.data[k] end
    return build(p.x.size, function(i) return values[table.concat(i, ",")] or at(p.x, i) end)
  end
  function reference.nonzero(p)
    local data, rows = {}, 0
    each(p.x.size, function(i)
      local v = at(p.x, i)
      if v ~= 0 and v ~= false then
        rows = rows + 1
        for _, entry in ipairs(i) do data[#data + 1] = entry end
      end
    end)
    return array.new({rows, #p.x.size}, data)
  end
  function reference.one_hot(p)
    local classes = p.classes or math.max(0, table.unpack(p.index.data))
    local size = {table.unpack(p.index.size)}
    size[#size + 1] = classes
    return build(size, function(i)
      local own = {table.unpack(i, 1, #i - 1)}
      return at(p.index, own) == i[#i] and 1 or 0
    end)
  end

  -- The places of a line in sorted order; equal values keep their order, NaN counts as largest.
  local function order_of(line, descending)
    local places = {}
    for k = 1, #line do places[k] = k end
    local function before(a, b)
      local x, y = line[a], line[b]
      if x ~= x or y ~= y then
        if (x ~= x) == (y ~= y) then return a < b end
        return (x ~= x) == descending
      end
      if x == y then return a < b end
      if descending then return x > y end
      return x < y
    end
    table.sort(places, before)
    return places
  end
  local function picked(line, places)
    local values = {}
    for k, place in ipairs(places) do values[k] = line[place] end
    return values
  end

  function reference.argsort(p)
    return along(p.x, p.dim or -1, function(line) return order_of(line, p.descending or false) end)
  end
  function reference.sort(p)
    return along(p.x, p.dim or -1, function(line) return picked(line, order_of(line, p.descending or false)) end),
      reference.argsort(p)
  end
  function reference.topk(p)
    local function first(line) return {table.unpack(order_of(line, p.largest ~= false), 1, p.k)} end
    return along(p.x, p.dim or -1, function(line) return picked(line, first(line)) end), along(p.x, p.dim or -1, first)
  end
end
