-- huge.lua - numbers far beyond any size, in every number of every op and constructor. Run by arguments_spec in a
-- process of its own with little memory: dlua spec/huge.lua ops, or constructors. Names each call on the error stream
-- before it is made, so that the last line says what crashed, and prints a line for each answer that is none.
local dlua = require "dlua"
local derived = require "spec.derived"
local soon = require "spec.helpers".soon

local nn, optim, data, T, train, metrics = dlua.nn, dlua.optim, dlua.data, dlua.transforms, dlua.train, dlua.metrics

-- Seconds of processor time: some calls fill a gigabyte before they answer.
local SLOW = os.getenv "DLUA_SANITIZED" and 20 or 5

local huge = {}
for _, v in ipairs {(1 << 31) - 1, 1 << 31, 1 << 40, 1 << 53, 1 << 62, math.maxinteger, 1e19, 1e300} do
  huge[#huge + 1], huge[#huge + 2] = v, -v
end
for _, v in ipairs {math.mininteger, math.huge, -math.huge, 0 / 0, 0, 1 << 20} do huge[#huge + 1] = v end

local calls, wrong = 0, 0

local function complain(label, what)
  wrong = wrong + 1
  print(("WRONG %s: %s"):format(label, what))
end

-- Runs fn, which must raise one line of dlua's own or have an answer at once.
local function try(label, fn)
  calls = calls + 1
  io.stderr:write(label, "\n")
  local ok, message
  local fast, why = pcall(soon, SLOW, function()
    ok, message = pcall(fn)
    return true
  end)
  if not fast then complain(label, why) end
  if ok then return end
  if type(message) ~= "string" or message:find "\n" or message:find "attempt to" or message:find "bad argument" then
    complain(label, tostring(message))
  end
end

local function text(v)
  if type(v) == "table" and v.is then return v.is end
  if type(v) ~= "table" then return type(v) == "number" and ("%.17g"):format(v) or tostring(v) end
  local parts = {}
  for key, entry in pairs(v) do parts[#parts + 1] = (type(key) == "string" and key .. "=" or "") .. text(entry) end
  return "{" .. table.concat(parts, ",") .. "}"
end

-- A copy of a nested table; the number at path (a list of keys), or every number in the table there, is value.
local function replaced(t, path, value, depth)
  if type(t) == "number" and depth > #path then return value end
  if type(t) ~= "table" or t.is or getmetatable(t) then return t end
  local copy = {}
  for key, entry in pairs(t) do
    local inside = depth > #path or path[depth] == key
    copy[key] = inside and replaced(entry, path, value, depth + 1) or entry
  end
  return copy
end

-- Paths to every number in t and to every table that holds several.
local function paths_of(t, path, list)
  local numbers = 0
  for key, entry in pairs(t) do
    local own = {table.unpack(path)}
    own[#own + 1] = key
    if type(entry) == "number" then
      numbers = numbers + 1
      list[#list + 1] = own
    elseif type(entry) == "table" and not getmetatable(entry) and not (entry.is and not entry.values) then
      if entry.is then own[#own + 1] = "values" end
      paths_of(entry.is and entry.values or entry, own, list)
    end
  end
  if numbers > 1 then list[#list + 1] = path end
  return list
end

-- Calls fn with a list of arguments, each number of which is huge in turn, and all of one table at once.
local function each_number(name, arguments, fn)
  for _, path in ipairs(paths_of(arguments, {}, {})) do
    for _, value in ipairs(huge) do
      local changed = replaced(arguments, path, value, 1)
      try(("%s %s"):format(name, text(changed)), function() return fn(changed) end)
    end
  end
end

-- ---------------------------------------------------------------- ops

-- Arguments by name for every number that the sample leaves to its default.
local function with_defaults(op, sample)
  local full = {n = #op.params}
  for k, param in ipairs(op.params) do
    local v = sample[k]
    local last = sample[#sample]
    if type(last) == "table" and not last.is and type(next(last)) == "string" then
      if k == #sample then v = nil end
      v = v or last[param.name]
    end
    local number = ("ifnd"):find(param.kind, 1, true)
    if v == nil and number then v = 1 end
    if v == nil and (param.kind == "s" or param.kind == "D") then v = param.exactly and {1, 1} or {1} end
    full[k] = v
  end
  return full
end

-- Placeholders of index tensors become tables of integers, which an op takes as well and which may be huge.
local function plain(sample, op)
  local copy = {n = sample.n}
  for k = 1, sample.n do
    local v = sample[k]
    local index = type(v) == "table" and v.is == "I" and op.params[k].kind == "I" and #v.size == 1
    copy[k] = index and {table.unpack(v.values)} or v
  end
  return copy
end

local function convert(v)
  if type(v) ~= "table" or getmetatable(v) then return v end
  if v.is then return (derived.arguments({v}, {dtype = "f32"}))[1] end
  local copy = {}
  for key, entry in pairs(v) do copy[key] = convert(entry) end
  return copy
end

local function run_op(name)
  local op = dlua.op_info(name)
  local samples = derived.samples(op) or {{}}
  for _, base in ipairs {samples[1], samples[#samples]} do
    local sample = plain(with_defaults(op, base), op)
    each_number(name, sample, function(changed)
      local arguments = {n = sample.n}
      for k = 1, sample.n do arguments[k] = convert(changed[k]) end
      return dlua.ops[name](table.unpack(arguments, 1, arguments.n))
    end)
  end
end

-- ---------------------------------------------------------------- constructors

-- What required parameters have when they are not huge, by name.
local usual = {cin = 4, cout = 4, kernel = 3, features = 4, size = 2, T_max = 3, gamma = 0.5, step_size = 2,
  max_lr = 0.1, milestones = {1, 2}, total_steps = 5, batch_size = 2, degrees = 10, mean = {0.5, 0.5}, std = {0.5, 0.5}}

local function picture() return dlua.rand(1, 4, 6, 6) end

local function use_layer(layer)
  local x = layer.signature.name:find "2d" and picture() or dlua.rand(3, 4)
  if layer.signature.name:find "Loss" then return end
  return layer(x)
end

local function parameters()
  local p = dlua.rand({3}, {requires_grad = true})
  dlua.clear_gradients {p};
  (p * p):sum():backward()
  return {p}
end

local function use_optimizer(optimizer) optimizer:step() end

local function use_schedule(schedule)
  for _ = 1, 4 do schedule:step(0.5) end
end

-- Every numeric parameter of a class with a signature. Those that are no number have what `given` says.
local function run_class(class, given, use)
  local options = {}
  for _, p in ipairs(class.signature.parameters) do
    local required = p[3] == nil and not p.optional
    local value = usual[p[1]]
    if value == nil then value = p[3] end
    if value == nil and (p[2] == "count" or p[2] == "pair" or p[2] == "natural") then value = 2 end
    if required or type(value) == "number" or type(value) == "table" then options[p[1]] = value end
  end
  each_number(class.signature.name, options, function(changed)
    local filled = {}
    for key, value in pairs(changed) do filled[key] = value end
    for key, make in pairs(given or {}) do filled[key] = make() end
    return use(class(filled))
  end)
end

local function optimizer() return optim.SGD(parameters(), {lr = 0.1}) end

local families = {
  {nn, {}, use_layer, {Module = true, ModuleDict = true, ModuleList = true, Sequential = true, init = true}},
  {optim, {parameters = parameters, groups = function() end}, use_optimizer, {LambdaLR = true, SequentialLR = true}},
}

local function run_constructors()
  for _, family in ipairs(families) do
    local module, given, use, without = table.unpack(family)
    for name, class in pairs(module) do
      if type(class) == "table" and not without[name] then
        assert(rawget(class, "signature"), name .. " has no signature")
        local schedule = name:find "LR"
        run_class(class, schedule and {optimizer = optimizer} or given, schedule and use_schedule or use)
      end
    end
  end
  local set = data.TensorDataset(dlua.rand(10, 2))
  local x = dlua.rand(3, 6, 6)
  local list = {
    DataLoader = {{batch_size = 2, prefetch_factor = 1, num_workers = 1}, function(o)
      for batch in data.DataLoader(set, o):iter() do assert(batch) end
    end},
    subset = {{3, {seed = 1}}, function(o) data.subset(set, o[1], o[2]) end},
    ["subset of a list"] = {{1, 2}, function(o) data.subset(set, o):get(1) end},
    random_split = {{{5, 1, 2, 2}, {seed = 1}}, function(o) data.random_split(set, o[1], o[2]) end},
    ImageFolder = {{channels = 3, cache = 10}, function(o) data.ImageFolder("spec/fixtures", o) end},
    get = {{1}, function(o) return set:get(o[1]) end},
    CenterCrop = {{{2, 2}}, function(o) return T.CenterCrop(o[1])(x) end},
    Resize = {{{2, 2}}, function(o) return T.Resize(o[1])(x) end},
    ["Resize of one"] = {{2}, function(o) return T.Resize(o[1])(x) end},
    Pad = {{{1, 1}, {fill = 1}}, function(o) return T.Pad(o[1], o[2])(x) end},
    RandomCrop = {{{2, 2}, {padding = 1, fill = 1}}, function(o) return T.RandomCrop(o[1], o[2])(x) end},
    RandomHorizontalFlip = {{0.5}, function(o) return T.RandomHorizontalFlip(o[1])(x) end},
    RandomVerticalFlip = {{0.5}, function(o) return T.RandomVerticalFlip(o[1])(x) end},
    RandomRotation = {{{-10, 10}, {fill = 1}}, function(o) return T.RandomRotation(o[1], o[2])(x) end},
    RandomAffine = {{10, {translate = {0.1, 0.1}, scale = {0.5, 2}, shear = 3, fill = 0}}, function(o)
      return T.RandomAffine(o[1], o[2])(x)
    end},
    ColorJitter = {{brightness = 0.1, contrast = 0.1, saturation = 0.1, hue = 0.1}, function(o)
      return T.ColorJitter(o)(x)
    end},
    RandomErasing = {{1, {scale = {0.1, 0.2}, ratio = {0.5, 2}, value = 1}}, function(o)
      return T.RandomErasing(o[1], o[2])(x)
    end},
    Normalize = {{{0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}}, function(o) return T.Normalize(o[1], o[2])(x) end},
    EarlyStopping = {{patience = 2, min_delta = 0.1}, function(o) return train.EarlyStopping(o):step(1) end},
    ConfusionMatrix = {{3}, function(o) return metrics.ConfusionMatrix(o[1]):value() end},
    TopK = {{2}, function(o) return metrics.TopK(o[1]):update(dlua.rand(2, 3), dlua.tensor {1, 2}) end},
    SequentialLR = {{2}, function(o)
      local sgd = optimizer()
      use_schedule(optim.SequentialLR(sgd, {optim.StepLR(sgd, 2), optim.StepLR(sgd, 3)}, o))
    end},
    grid = {{columns = 2, padding = 1}, function(o) return dlua.image.grid(picture():narrow(2, 1, 3), o) end},
    clip_grad_norm = {{1}, function(o) return nn.clip_grad_norm_(parameters(), o[1]) end},
    seed = {{1}, function(o) dlua.seed(o[1]) end},
    tensor = {{1, 2}, function(o) return dlua.tensor(o, {dtype = "i32"}), dlua.tensor(o) end},
    index = {{1}, function(o) return x[o[1]] end},
    range = {{{1, 2, 1}, 1}, function(o) return x[o] end},
    assignment = {{{1, 2, 1}, 1}, function(o) x:clone()[o] = 1 end},
    size = {{1}, function(o) return x:size(o[1]) end},
    fail_allocation = {{1}, function(o)
      dlua.test.fail_allocation(o[1])
      dlua.test.fail_allocation(0)
    end},
    threads = {{1}, function(o)
      local before = dlua.threads()
      local ok, message = pcall(dlua.threads, o[1])
      dlua.threads(before)
      if not ok then error(message, 0) end
    end},
  }
  for name, case in pairs(list) do each_number(name, case[1], case[2]) end
end

if arg[1] == "ops" then
  for _, name in ipairs(dlua.op_info()) do run_op(name) end
else
  run_constructors()
end
print(("%d calls, %d wrong"):format(calls, wrong))
