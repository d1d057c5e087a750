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

-- DLUA_SHARE=1/2 is the first of two processes that share the work: is the k-th piece its own? Also how many there are.
function helpers.is_mine(k)
  local share, shares = (os.getenv "DLUA_SHARE" or "1/1"):match "^(%d+)/(%d+)$"
  return (k - share) % shares == 0, math.tointeger(shares)
end

-- The pairs of a table in the order of its keys, for specs and random numbers made in a loop: pairs gives them in
-- another order in every process.
function helpers.sorted(t)
  local keys, k = {}, 0
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return function()
    k = k + 1
    return keys[k], t[keys[k]]
  end
end

-- fn within this many seconds of processor time, if not at once then in one of a few tries: what else a machine does
-- makes a call take longer, never shorter. Gives what fn gives.
function helpers.soon(seconds, fn)
  local took
  for _ = 1, 5 do
    local start = os.clock()
    local result = fn()
    took = os.clock() - start
    if took < seconds then return result end
  end
  error(("took %.2f s, not less than %g"):format(took, seconds), 0)
end

-- Waits until a condition holds and gives what it gives. What takes a minute does not come.
function helpers.eventually(condition, what)
  local start = os.time()
  repeat
    local result = condition()
    if result then return result end
    os.execute "sleep 0.01"
  until os.time() - start > 60
  error(("%s did not come within a minute"):format(what), 0)
end

-- The bytes of a file.
function helpers.read(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read "a"
  file:close()
  return bytes
end

local Folder = {}
Folder.__index = Folder

-- An empty folder; what is in it goes with folder:remove().
function helpers.folder()
  local root = os.tmpname()
  os.remove(root)
  assert(os.execute(("mkdir -p '%s'"):format(root)))
  return setmetatable({root = root}, Folder)
end

-- The path of a file or folder in it.
function Folder:path(name) return self.root .. "/" .. name end

-- Makes a folder in it; its path.
function Folder:make(name)
  assert(os.execute(("mkdir -p '%s'"):format(self:path(name))))
  return self:path(name)
end

-- Writes a file; its path.
function Folder:write(name, bytes)
  local file = assert(io.open(self:path(name), "wb"))
  assert(file:write(bytes))
  file:close()
  return self:path(name)
end

-- The bytes of a file in it.
function Folder:read(name) return helpers.read(self:path(name)) end

function Folder:remove() os.execute(("rm -r '%s'"):format(self.root)) end

return helpers
