-- progress.lua - one line that shows how far an epoch is.
--
-- On a terminal the line is drawn at most ten times a second, and only then are tensors among the values read: asking
-- for a number waits for the device. Elsewhere (logs, CI) only finish writes, one line per epoch.
local dlua = require "dlua"
local class = require "dlua.class"

local Progress = class "Progress"
local interval = 0.1

-- A line for total steps; label is what it starts with.
--   local progress = train.Progress(#batches, "epoch 1/30")
function Progress:init(total, label)
  if math.type(total) ~= "integer" or total < 0 then
    dlua.fail("train.Progress: total must be a whole number, such as #batches, not %s", tostring(total))
  end
  self.total, self.label, self.count, self.values = total, label or "", 0, {}
  self.start = dlua.time()
  self.drawn = self.start
  self.live = dlua.is_terminal()
end

local function text_of(value)
  if type(value) == "function" then value = value() end
  if dlua.is_tensor(value) then value = value:item() end
  if math.type(value) == "float" then return ("%.4g"):format(value) end
  return tostring(value)
end

local function texts_of(values)
  local names, parts = {}, {}
  for name in pairs(values) do names[#names + 1] = name end
  table.sort(names)
  for k, name in ipairs(names) do parts[k] = name .. " " .. text_of(values[name]) end
  return table.concat(parts, "  ")
end

local function clock(seconds)
  if seconds ~= seconds or seconds >= 360000 then return "--:--" end
  local whole = math.floor(seconds + 0.5)
  if whole < 3600 then return ("%d:%02d"):format(whole // 60, whole % 60) end
  return ("%d:%02d:%02d"):format(whole // 3600, whole // 60 % 60, whole % 60)
end

local function draw(self, now)
  local rate = self.count / (now - self.start)
  local left = clock((self.total - self.count) / rate)
  io.stdout:write(("\r%s  %d/%d  %.1f/s  %s left  %s\27[K"):format(self.label, self.count, self.total, rate, left,
    texts_of(self.values)))
  io.stdout:flush()
  self.drawn = now
end

-- Values to show later: tensors without the graph that made them.
local function kept(values)
  local copy = {}
  for name, value in pairs(values) do
    copy[name] = dlua.is_tensor(value) and dlua.lasting(value:detach()) or value
  end
  return copy
end

-- Counts a step and notes values to show: numbers, tensors of one element, or functions that give one of these.
--   progress:step {loss = loss, lr = opt.lr}
function Progress:step(values)
  self.count = self.count + 1
  if values then self.values = kept(values) end
  if not self.live then return end
  local now = dlua.time()
  if now - self.drawn >= interval then draw(self, now) end
end

-- Ends the line: label, steps, time, the last step's values and those given here.
--   progress:finish {val_loss = val.loss}
function Progress:finish(values)
  local all = {}
  for name, value in pairs(self.values) do all[name] = value end
  for name, value in pairs(values or {}) do all[name] = value end
  local line = ("%s  %d steps in %s  %s"):format(self.label, self.count, clock(dlua.time() - self.start), texts_of(all))
  line = line:gsub("%s+$", "")
  io.stdout:write(self.live and "\r" or "", line, self.live and "\27[K\n" or "\n")
  io.stdout:flush()
  self.values = {}
end

return Progress
