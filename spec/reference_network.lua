-- reference_network.lua - matrix products, convolution, pooling and normalisation.
local array = require "spec.array"
local at, build, count, huge = array.at, array.build, array.count, math.huge

local function pair(v, default)
  v = v or default
  if type(v) == "table" then return v[1], v[2] end
  return v, v
end

return function(reference)
  -- A vector counts as a row on the left and a column on the right, and its dimension goes again.
  function reference.matmul(p)
    local x, y = p.x, p.y
    local row, column = #x.size == 1, #y.size == 1
    if row then x = array.new({1, x.size[1]}, x.data) end
    if column then y = array.new({y.size[1], 1}, y.data) end
    local nx, ny = #x.size, #y.size
    local function batch(a, n) return {size = {table.unpack(a.size, 1, n - 2)}} end
    local size = array.broadcast_size(batch(x, nx), batch(y, ny))
    local nbatch = #size
    size[nbatch + 1], size[nbatch + 2] = x.size[nx - 1], y.size[ny]
    local out = build(size, function(index)
      local sum, left, right = 0, {table.unpack(index)}, {table.unpack(index)}
      for k = 1, x.size[nx] do
        left[nbatch + 2], right[nbatch + 1] = k, k
        sum = sum + array.broadcast_at(x, left) * array.broadcast_at(y, right)
      end
      return sum
    end)
    if column then table.remove(out.size, nbatch + 2) end
    if row then table.remove(out.size, nbatch + 1) end
    return out
  end
  reference.bmm, reference.dot = reference.matmul, reference.matmul
  function reference.linear(p)
    local w = reference.t {x = p.w}
    local out = reference.matmul {x = p.x, y = w}
    return p.b and array.zip(function(v, b) return v + b end, out, p.b) or out
  end

  function reference.linear_relu(p) return reference.relu {x = reference.linear(p)} end
  function reference.linear_gelu(p)
    return reference.gelu {x = reference.linear(p), approximate = p.approximate}
  end

  -- What an activation passes back, and its sums over all dimensions but the last.
  local function with_sums(gx)
    local n, sums = gx.size[#gx.size], {}
    for j = 1, n do sums[j] = 0.0 end
    for k, v in ipairs(gx.data) do sums[(k - 1) % n + 1] = sums[(k - 1) % n + 1] + v end
    return gx, array.new({n}, sums)
  end
  local function straight_slope(g, y) return y > 0 and g or 0.0 end
  function reference.relu_bias_grad(p) return with_sums(array.zip(straight_slope, p.g, p.y)) end
  local function normal_slope(x)
    local erf = reference.erf {x = array.new({1}, {x / math.sqrt(2)})}.data[1]
    return (1 + erf) / 2 + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
  end
  local function tanh_slope(x)
    local root = math.sqrt(2 / math.pi)
    local t = 1 - 2 / (math.exp(2 * root * (x + 0.044715 * x ^ 3)) + 1)
    return (1 + t) / 2 + x / 2 * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x)
  end
  local function curved_slope(p)
    local slope = p.approximate == "tanh" and tanh_slope or normal_slope
    return function(g, x) return g * slope(x) end
  end
  function reference.gelu_bias_grad(p) return with_sums(array.zip(curved_slope(p), p.g, p.x)) end

  -- On the way back through linear alone, and through what its input comes from.
  function reference.linear_weight_grad(p)
    local _, sums = with_sums(p.g)
    return reference.matmul {x = reference.t {x = p.g}, y = p.x}, sums
  end
  local function before(p) return reference.matmul {x = p.g, y = p.w} end
  function reference.relu_linear_grad(p) return array.zip(straight_slope, before(p), p.y) end
  function reference.gelu_linear_grad(p) return array.zip(curved_slope(p), before(p), p.z) end

  local function extent(n, kernel, stride, padding, dilation, up)
    local span = n + 2 * padding - dilation * (kernel - 1) - 1
    local length = (up and -(-span // stride) or span // stride) + 1
    if up and (length - 1) * stride >= n + padding then length = length - 1 end
    return length
  end

  function reference.conv2d(p)
    local x, w, groups = p.x, p.w, p.groups or 1
    local sh, sw = pair(p.stride, 1)
    local ph, pw = pair(p.padding, 0)
    local dh, dw = pair(p.dilation, 1)
    local per_in, per_out = w.size[2], w.size[1] // groups
    local size = {x.size[1], w.size[1], extent(x.size[3], w.size[3], sh, ph, dh),
      extent(x.size[4], w.size[4], sw, pw, dw)}
    return build(size, function(i)
      local sum, first = p.b and p.b.data[i[2]] or 0.0, (i[2] - 1) // per_out * per_in
      for c = 1, per_in do
        for kh = 1, w.size[3] do
          for kw = 1, w.size[4] do
            local h, v = (i[3] - 1) * sh - ph + (kh - 1) * dh + 1, (i[4] - 1) * sw - pw + (kw - 1) * dw + 1
            if h >= 1 and h <= x.size[3] and v >= 1 and v <= x.size[4] then
              sum = sum + at(x, {i[1], first + c, h, v}) * at(w, {i[2], c, kh, kw})
            end
          end
        end
      end
      return sum
    end)
  end

  -- finish(list of {value, place in the plane}, window area with padding) for each window.
  local function pool(p, finish)
    local x = p.x
    local kh, kw = pair(p.kernel)
    local sh, sw = pair(p.stride, p.kernel)
    local ph, pw = pair(p.padding, 0)
    local dh, dw = pair(p.dilation, 1)
    local size = {x.size[1], x.size[2], extent(x.size[3], kh, sh, ph, dh, p.ceil_mode),
      extent(x.size[4], kw, sw, pw, dw, p.ceil_mode)}
    return build(size, function(i)
      local top, left, values = (i[3] - 1) * sh - ph + 1, (i[4] - 1) * sw - pw + 1, {}
      for h = top, top + (kh - 1) * dh, dh do
        for v = left, left + (kw - 1) * dw, dw do
          if h >= 1 and h <= x.size[3] and v >= 1 and v <= x.size[4] then
            values[#values + 1] = at(x, {i[1], i[2], h, v})
          end
        end
      end
      local bottom, right = math.min(top + kh - 1, x.size[3] + ph), math.min(left + kw - 1, x.size[4] + pw)
      return finish(values, (bottom - top + 1) * (right - left + 1))
    end)
  end
  local function largest(values)
    local best = -huge
    for _, v in ipairs(values) do if v > best or v ~= v then best = v end end
    return best
  end
  local function sum(values)
    local total = 0.0
    for _, v in ipairs(values) do total = total + v end
    return total
  end
  function reference.max_pool2d(p) return pool(p, largest) end
  function reference.avg_pool2d(p)
    return pool(p, function(values, area) return sum(values) / (p.count_include_pad == false and #values or area) end)
  end
  local function adaptive(finish)
    return function(p)
      local x, h, w = p.x, pair(p.size)
      return build({x.size[1], x.size[2], h, w}, function(i)
        local values = {}
        for a = (i[3] - 1) * x.size[3] // h + 1, -(-i[3] * x.size[3] // h) do
          for b = (i[4] - 1) * x.size[4] // w + 1, -(-i[4] * x.size[4] // w) do
            values[#values + 1] = at(x, {i[1], i[2], a, b})
          end
        end
        return finish(values)
      end)
    end
  end
  reference.adaptive_max_pool2d = adaptive(largest)
  reference.adaptive_avg_pool2d = adaptive(function(values) return sum(values) / #values end)

  -- The running tensors are checked by norm's own specs; here the result alone.
  function reference.batch_norm(p)
    local x, eps = p.x, p.eps or 1e-5
    local channels, groups = x.size[2], {}
    for c = 1, channels do groups[c] = {} end
    array.each(x.size, function(i) table.insert(groups[i[2]], at(x, i)) end)
    local mean, var = {}, {}
    for c, values in ipairs(groups) do
      if p.training then
        mean[c], var[c] = sum(values) / #values, 0.0
        for _, v in ipairs(values) do var[c] = var[c] + (v - mean[c]) ^ 2 / #values end
      else
        mean[c], var[c] = p.running_mean.data[c], p.running_var.data[c]
      end
    end
    assert(count(x.size) == 0 or channels > 0)
    return build(x.size, function(i)
      local c = i[2]
      local v = (at(x, i) - mean[c]) / math.sqrt(var[c] + eps)
      v = v * (p.weight and p.weight.data[c] or 1) + (p.bias and p.bias.data[c] or 0)
      return p.relu and math.max(v, 0) or v
    end)
  end
end
