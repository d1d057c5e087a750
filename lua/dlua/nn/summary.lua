-- summary.lua - net:summary {3, 32, 32}: what flows through a model, found by sending one blank sample through it.
--
-- The sample runs in eval mode, unrecorded; modes, buffers and the random generator are as before afterwards, also
-- when the model raises.
local dlua = require "dlua"
local module = require "dlua.nn.module"

local Module, shape_text = module.Module, module.shape_text

-- Calls fn with the whole module in eval mode and puts back every module's own mode, whatever happens.
local function in_eval_mode(net, fn)
  local modes = {}
  for _, m in ipairs(net:modules()) do modes[m] = m.training end
  local ok, problem = pcall(function()
    net:eval()
    dlua.no_grad(fn)
  end)
  for m, mode in pairs(modes) do rawset(m, "training", mode) end
  if not ok then error(problem, 0) end
end

local function with_commas(number)
  local text = tostring(number):reverse():gsub("(%d%d%d)", "%1,"):reverse()
  return (text:gsub("^,", ""))
end

local function blank_inputs(net, sizes)
  local first = net:parameters()[1]
  local inputs = {}
  for k, size in ipairs(sizes) do
    local batch = {1, table.unpack(size)}
    inputs[k] = dlua.zeros(batch, {dtype = first and first.dtype, device = first and first.device})
  end
  return inputs
end

local function shape_of(outputs)
  local shapes = {}
  for k = 1, outputs.n do
    local output = outputs[k]
    if dlua.is_tensor(output) then
      local text = shape_text(output):gsub("^{1,", "{n,"):gsub("^{1}", "{n}")
      shapes[#shapes + 1] = text
    end
  end
  return table.concat(shapes, " ")
end

local function own_count(m)
  local count = 0
  for _, key in ipairs(m._fields) do
    local value = rawget(m, key)
    if dlua.is_tensor(value) and not m._buffers[key] then count = count + value:numel() end
  end
  return count
end

-- Lines {name and description, output shape, parameters}; only modules that hold parameters or have no children.
local function rows_of(net, shapes)
  local rows = {}
  for name, m in net:named_modules() do
    local count, is_leaf = own_count(m), #m:children() == 0
    if name ~= "" and (is_leaf or count > 0) or name == "" and is_leaf then
      rows[#rows + 1] = {(name == "" and "" or name .. ": ") .. m:describe(), shapes[m] or "not called",
        count > 0 and with_commas(count) or ""}
    end
  end
  return rows
end

local function layout(rows, total)
  local widths = {#"layer", #"output"}
  for _, row in ipairs(rows) do
    for k = 1, 2 do widths[k] = math.max(widths[k], utf8.len(row[k])) end
  end
  local format = ("%%-%ds  %%-%ds  %%12s"):format(math.min(widths[1], 99), math.min(widths[2], 99))
  local lines = {format:format("layer", "output", "parameters")}
  for _, row in ipairs(rows) do lines[#lines + 1] = (format:format(table.unpack(row)):gsub("%s+$", "")) end
  lines[#lines + 1] = with_commas(total) .. " parameters"
  return table.concat(lines, "\n")
end

-- A table as text: layers, the shapes they give for one sample of the sizes given (without the batch dimension, one
-- table per input), and how many parameters they hold.
--   print(nn.Sequential {nn.Flatten(), nn.Linear(12, 2)}:summary {3, 2, 2})
function Module:summary(...)
  local sizes = {...}
  if #sizes == 0 then dlua.fail("summary: takes the size of one sample, such as net:summary {3, 32, 32}") end
  local shapes, state = {}, dlua.rng_state()
  local ok, problem = pcall(in_eval_mode, self, function()
    local function note(m, _, outputs) shapes[m] = shape_of(outputs) end
    module.watching(note, function() self(table.unpack(blank_inputs(self, sizes))) end)
  end)
  dlua.set_rng_state(state)
  if not ok then error(problem, 0) end
  return layout(rows_of(self, shapes), self:num_parameters())
end

-- The dotted name of the first module whose output is not finite for these inputs, or nil. Runs unrecorded in the
-- modules' present modes and puts buffers and generator back.
--   local culprit = nn.first_not_finite(net, {x})
local function first_not_finite(net, inputs)
  local names, culprit, state, kept = {}, nil, dlua.rng_state(), {}
  for name, m in net:named_modules() do names[m] = name end
  for _, buffer in ipairs(net:buffers()) do kept[buffer] = buffer:clone() end
  pcall(dlua.no_grad, function()
    local function check(m, _, outputs)
      local y = outputs[1]
      if not culprit and dlua.is_tensor(y) and not y:isfinite():all():item() then culprit = m end
    end
    module.watching(check, function() net(table.unpack(inputs)) end)
  end)
  dlua.no_grad(function()
    for buffer, value in pairs(kept) do buffer:copy_(value) end
  end)
  dlua.set_rng_state(state)
  return culprit and (names[culprit] ~= "" and names[culprit] or culprit:describe())
end

return {in_eval_mode = in_eval_mode, first_not_finite = first_not_finite}
