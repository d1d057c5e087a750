-- reference_reduce.lua - reductions, scans and softmax.
local array = require "spec.array"
local map, reduce, along, each = array.map, array.reduce, array.along, array.each
local exp, log, sqrt, abs, huge = math.exp, math.log, math.sqrt, math.abs, math.huge

local function total(values)
  local sum = 0
  for _, v in ipairs(values) do sum = sum + (v == true and 1 or v == false and 0 or v) end
  return sum
end
local function mean(values) return total(values) / #values end
local function variance(values, unbiased)
  local center, sum = mean(values), 0.0
  for _, v in ipairs(values) do sum = sum + (v - center) ^ 2 end
  return sum / (#values - (unbiased == false and 0 or 1))
end
local function truth(v) return v ~= 0 and v ~= false end
local function best_of(better)
  return function(values)
    local best, place
    for k, v in ipairs(values) do
      if not best or (best == best and (v ~= v or better(v, best))) then best, place = v, k end
    end
    return best, place
  end
end
local largest = best_of(function(a, b) return a > b end)
local smallest = best_of(function(a, b) return a < b end)
local function logsumexp(values)
  local top = largest(values) or -huge
  if abs(top) == huge then return top end
  local sum = 0.0
  for _, v in ipairs(values) do sum = sum + exp(v - top) end
  return top + log(sum)
end
local function norm(values, p)
  if p == huge then return largest(values) and largest(map({size = {}, data = values}, abs).data) or 0.0 end
  local sum = 0.0
  for _, v in ipairs(values) do sum = sum + (p == 0 and (v ~= 0 and 1 or 0) or abs(v) ^ p) end
  return p == 0 and sum or p == 2 and sqrt(sum) or sum ^ (1 / p)
end

return function(reference)
  local function reduction(f)
    return function(p) return reduce(p.x, p.dim, p.keepdim, function(values) return f(values, p) end) end
  end
  reference.sum, reference.mean = reduction(total), reduction(mean)
  reference.prod = reduction(function(values)
    local product = 1
    for _, v in ipairs(values) do product = product * v end
    return product
  end)
  reference.var = reduction(function(values, p) return variance(values, p.unbiased) end)
  reference.std = reduction(function(values, p) return sqrt(variance(values, p.unbiased)) end)
  reference.all = reduction(function(values)
    for _, v in ipairs(values) do if not truth(v) then return false end end
    return true
  end)
  reference.any = reduction(function(values)
    for _, v in ipairs(values) do if truth(v) then return true end end
    return false
  end)
  reference.norm = reduction(function(values, p) return norm(values, p.p or 2) end)
  reference.logsumexp = reduction(logsumexp)

  function reference.channel_sum(p)
    local dims = {1}
    for k = 3, #p.x.size do dims[#dims + 1] = k end
    return reduce(p.x, dims, false, total)
  end

  local function extreme(best)
    local function place(values) return (select(2, best(values))) end
    return function(p)
      local values = reduce(p.x, p.dim, p.keepdim, function(list) return (best(list)) end)
      if p.dim then return values, reduce(p.x, p.dim, p.keepdim, place) end
      return values
    end, reduction(place)
  end
  reference.max, reference.argmax = extreme(largest)
  reference.min, reference.argmin = extreme(smallest)

  local function scan(start, f)
    return function(p)
      return along(p.x, p.dim, function(line)
        local so_far, out = start, {}
        for k, v in ipairs(line) do
          so_far = f(so_far, v)
          out[k] = so_far
        end
        return out
      end)
    end
  end
  reference.cumsum = scan(0, function(sum, v) return sum + v end)
  reference.cumprod = scan(1, function(product, v) return product * v end)
  -- y[k] = b[k] + x[k] y[k-1]; from the end y[k] = b[k] + x[k+1] y[k+1].
  function reference.linear_scan(p)
    local d, out = array.dim(p.x, p.dim), {size = p.x.size, data = {}}
    local order = {}
    each(p.x.size, function(index) order[#order + 1] = {table.unpack(index)} end)
    local known = {}
    for k = 1, #order do
      local index = order[p.reverse and #order + 1 - k or k]
      local neighbour = array.with(index, d, index[d] + (p.reverse and 1 or -1))
      local before = known[table.concat(neighbour, ",")]
      local carried = before and before * array.at(p.x, p.reverse and neighbour or index) or 0
      known[table.concat(index, ",")] = array.at(p.b, index) + carried
    end
    for k, index in ipairs(order) do out.data[k] = known[table.concat(index, ",")] end
    return out
  end

  function reference.log_softmax(p)
    return along(p.x, p.dim, function(line)
      local sum, out = logsumexp(line), {}
      for k, v in ipairs(line) do out[k] = v - sum end
      return out
    end)
  end
  function reference.softmax(p) return map(reference.log_softmax(p), exp) end
end
