-- helpers.lua - what several specs say the same way.
local helpers = {}

-- fn raises one line that contains every given part.
function helpers.fails(fn, ...)
  local ok, message = pcall(fn)
  message = tostring(message)
  assert(not ok, "nothing was raised")
  assert(not message:find "\n", message)
  for _, part in ipairs {...} do assert(message:find(part, 1, true), ("%q is not in: %s"):format(part, message)) end
end

-- Two numbers are at most tolerance apart.
function helpers.near(expected, actual, tolerance, what)
  local label = what and what .. ": " or ""
  assert(math.abs(expected - actual) <= (tolerance or 1e-6),
    ("%sexpected %.17g, got %.17g"):format(label, expected, actual))
end

-- The same, with a tolerance that grows with numbers above 1.
function helpers.near_relative(expected, actual, tolerance, what)
  helpers.near(expected, actual, tolerance * math.max(1, math.abs(expected)), what)
end

-- A loader over a list of batches.
function helpers.loader(batches)
  return setmetatable({iter = function()
    local k = 0
    return function()
      k = k + 1
      if batches[k] then return table.unpack(batches[k]) end
    end
  end}, {__len = function() return #batches end})
end

return helpers
