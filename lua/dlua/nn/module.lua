-- module.lua - what every layer and model is made of.
--
--   local Net = nn.class "Net"
--   function Net:init(hidden) self.first, self.second = nn.Linear(4, hidden), nn.Linear(hidden, 2) end
--   function Net:forward(x) return self.second(self.first(x):relu()) end
--   local net = Net(16)
--   net(dlua.randn(5, 4))                                    --> {5,2}
--
-- A module is a plain table: fields are read at Lua's own speed. Only the first assignment of a field passes
-- through here, which notes its name; what a field is (module, parameter, buffer or the program's own business) is
-- decided when somebody asks, by looking at its value. So order is the order of assignment, a field can be replaced,
-- and nothing depends on `pairs`. Refused: names of methods as fields, and modules hidden in plain tables, whose
-- parameters nobody would train.
local dlua = require "dlua"
local class = require "dlua.class"

local Module = class "Module"
Module.is_module = true
Module.doc = "What every layer and model is made of; nn.class makes one's own."

-- ---------------------------------------------------------------- parameters

local is_parameter = setmetatable({}, {__mode = "k"})

-- A tensor that a module trains: a leaf of its own that requires gradient, over the elements of the tensor given.
--   self.scale = nn.Parameter(dlua.ones(1))
local function Parameter(tensor, requires_grad)
  if not dlua.is_tensor(tensor) then dlua.fail("nn.Parameter: takes a tensor, not a %s", type(tensor)) end
  local parameter = dlua.lasting(tensor:detach())
  parameter.requires_grad = requires_grad ~= false
  is_parameter[parameter] = true
  return parameter
end

local function is_module(value)
  if type(value) ~= "table" then return false end
  local metatable = getmetatable(value)
  return type(metatable) == "table" and metatable.is_module == true
end

-- ---------------------------------------------------------------- fields

-- The table a new module starts from: its own state, none of it visible to registration.
function Module.fresh() return {training = true, _fields = {}, _parameters = {}, _buffers = {}, _hooks = false} end

-- Plain tables that were found to hold no modules: how many entries each had.
local searched = setmetatable({}, {__mode = "k"})
local small = 64

-- Need a plain table be searched (again)? Small ones always; a large one, such as a vocabulary, when its list grows.
local function needs_search(value)
  local before = searched[value]
  return not before or before.entries <= small or before.length ~= rawlen(value)
end

local function refuse_hidden(module, key, value)
  if module._parameters[key] and dlua.is_tensor(value) then
    dlua.fail("%s: field %s was a parameter and is now a plain tensor, which would not be trained (use nn.Parameter, "
      .. "or write into the parameter inside dlua.no_grad)", getmetatable(module).__name, key)
  end
  if type(value) ~= "table" or getmetatable(value) or not needs_search(value) then return end
  local entries = 0
  for _, item in next, value do
    entries = entries + 1
    if is_module(item) or is_parameter[item] then
      dlua.fail("%s: field %s is a plain table that holds modules or parameters, which would not be trained "
        .. "(use nn.ModuleList or nn.ModuleDict)", getmetatable(module).__name, key)
    end
  end
  searched[value] = {entries = entries, length = rawlen(value)}
end

local function listed(fields, key)
  if type(key) == "string" then return fields[key] end
  for _, name in ipairs(fields) do
    if name == key then return true end
  end
  return false
end

function Module:__newindex(key, value)
  if value == nil then return end
  if Module[key] ~= nil then
    dlua.fail("%s: field %s would hide the method of that name", getmetatable(self).__name, tostring(key))
  end
  local fields = self._fields
  if not listed(fields, key) then
    fields[#fields + 1] = key
    if type(key) == "string" then fields[key] = true end
  end
  if is_parameter[value] then self._parameters[key] = true end
  rawset(self, key, value)
end

-- Keeps a tensor that is saved and moved with the module but not trained.
--   self:register_buffer("mean", dlua.zeros(3))
function Module:register_buffer(name, tensor)
  if not dlua.is_tensor(tensor) then
    dlua.fail("register_buffer: %s must be a tensor, not a %s", tostring(name), type(tensor))
  end
  self[name] = dlua.lasting(tensor)
  self._buffers[name] = true
end

-- Puts a parameter or buffer where the option of that name stood (bias = true becomes the bias itself).
function Module:replace(name, value)
  rawset(self, name, nil)
  self[name] = value
end

-- Goes through the module and everything in it, depth first, in order of assignment: enter(module, prefix) for each
-- module, field(module, prefix, key, value) for each field that is none. Either may be nil.
local function visit(module, enter, field, prefix, open)
  prefix, open = prefix or "", open or {}
  if open[module] then dlua.fail("%s: the module at %s contains itself", getmetatable(module).__name, prefix) end
  open[module] = true
  if enter then enter(module, prefix) end
  for _, key in ipairs(module._fields) do
    local value = rawget(module, key)
    if is_module(value) then
      visit(value, enter, field, prefix .. key .. ".", open)
    elseif field and value ~= nil then
      field(module, prefix, key, value)
    end
  end
  open[module] = nil
end

-- Every parameter (or buffer) with its dotted name as {name, tensor}, all names of shared ones included.
local function collect(module, buffers)
  local found = {}
  visit(module, nil, function(owner, prefix, key, value)
    local is_buffer = owner._buffers[key]
    if not is_parameter[value] and not is_buffer then return refuse_hidden(owner, key, value) end
    if (is_buffer or false) == buffers then found[#found + 1] = {prefix .. key, value} end
  end)
  return found
end

local function once(found)
  local seen, kept = {}, {}
  for _, entry in ipairs(found) do
    if not seen[entry[2]] then
      seen[entry[2]] = true
      kept[#kept + 1] = entry
    end
  end
  return kept
end

local function iterate(list)
  local k = 0
  return function()
    k = k + 1
    if list[k] then return list[k][1], list[k][2] end
  end
end

local function tensors_and_names(found)
  local list = {names = {}}
  for k, entry in ipairs(found) do list.names[k], list[k] = entry[1], entry[2] end
  return list
end

-- ---------------------------------------------------------------- looking inside

-- The parameters in order, shared ones once; list.names holds their dotted names.
--   for _, p in ipairs(net:parameters()) do print(p.shape[1]) end
function Module:parameters() return tensors_and_names(once(collect(self, false))) end

-- The same as an iterator over name and tensor.
--   for name, p in net:named_parameters() do print(name, p) end
function Module:named_parameters() return iterate(once(collect(self, false))) end

-- Tensors that are saved but not trained, with their names as in parameters().
--   local statistics = net:buffers()
function Module:buffers() return tensors_and_names(once(collect(self, true))) end

-- The same as an iterator over name and tensor.
--   for name, b in net:named_buffers() do print(name, b) end
function Module:named_buffers() return iterate(once(collect(self, true))) end

-- Direct children with their names, in order.
--   for name, child in net:named_children() do print(name, child) end
function Module:named_children()
  local list = {}
  for _, key in ipairs(self._fields) do
    local value = rawget(self, key)
    if is_module(value) then list[#list + 1] = {tostring(key), value} end
  end
  return iterate(list)
end

-- Direct children as a list.
--   local first = net:children()[1]
function Module:children()
  local list = {}
  for _, child in self:named_children() do list[#list + 1] = child end
  return list
end

-- The module itself ("") and everything in it with dotted names, shared modules once.
--   for name, m in net:named_modules() do print(name, m:is(nn.Conv2d)) end
function Module:named_modules()
  local list = {}
  visit(self, function(module, prefix) list[#list + 1] = {prefix:sub(1, -2), module} end)
  return iterate(once(list))
end

-- The same without names, as a list.
--   print(#net:modules())
function Module:modules()
  local list = {}
  for _, module in self:named_modules() do list[#list + 1] = module end
  return list
end

-- How many numbers the parameters hold.
--   assert(nn.Linear(3, 2):num_parameters() == 8)
function Module:num_parameters()
  local count = 0
  for _, p in self:named_parameters() do count = count + p:numel() end
  return count
end

-- ---------------------------------------------------------------- changing

-- Calls fn with every module inside, then with the module itself; returns the module.
--   net:apply(function(m) if m:is(nn.Linear) then nn.init.zeros_(m.bias) end end)
function Module:apply(fn)
  for _, child in self:named_children() do child:apply(fn) end
  fn(self)
  return self
end

-- Training mode (dropout drops, batch norm looks at the batch) on, or off with false; returns the module.
--   net:train()
function Module:train(mode)
  mode = mode ~= false
  visit(self, function(module) rawset(module, "training", mode) end)
  return self
end

-- Evaluation mode; returns the module.
--   net:eval()
function Module:eval() return self:train(false) end

-- Lets the parameters collect gradients, or freezes them with false; returns the module.
--   net[1]:requires_grad_(false)
function Module:requires_grad_(flag)
  for _, p in self:named_parameters() do p.requires_grad = flag ~= false end
  return self
end

-- Forgets the gradients: grad becomes nil.
--   net:zero_grad()
function Module:zero_grad() dlua.clear_gradients(self:parameters()) end

local function moved(tensor, target)
  if dlua.is_dtype(target) and not tensor.dtype:find "^b?f%d" then return tensor end
  return tensor:to(target)
end

-- Moves parameters and buffers to a device, or turns the floating ones into another dtype. Parameters stay the same
-- tensors, so an optimiser made before goes on working. Returns the module.
--   net:to("f64")
function Module:to(...)
  local targets = table.pack(...)
  if targets.n == 0 then dlua.fail("to: a dtype or a device is missing: net:to(\"f64\"), net:to(\"cuda\")") end
  for k = 1, targets.n do
    local target = targets[k]
    if target == nil then dlua.fail("to: a module takes a floating dtype or a device, not nil") end
    if dlua.is_dtype(target) and not target:find "^b?f%d" then
      dlua.fail("to: a module takes a floating dtype or a device, not %s", target)
    end
    for _, list in ipairs {once(collect(self, false)), once(collect(self, true))} do
      for _, entry in ipairs(list) do
        local tensor = entry[2]
        local grad = tensor.grad
        tensor.grad = nil
        dlua.set_data(tensor, moved(tensor:detach(), target))
        if grad then tensor.grad = moved(grad, target) end
      end
    end
  end
  return self
end

-- ---------------------------------------------------------------- state by name

-- Parameters and buffers by dotted name: detached, sharing their elements with the module.
--   dlua.save("net.safetensors", net:state_dict())
function Module:state_dict()
  local state = {}
  for _, list in ipairs {collect(self, false), collect(self, true)} do
    for _, entry in ipairs(list) do state[entry[1]] = entry[2]:detach() end
  end
  return state
end

local function shape_text(tensor) return "{" .. table.concat(tensor.shape, ",") .. "}" end

local function described(tensor) return shape_text(tensor) .. " " .. tensor.dtype end

local function mismatches(own, state)
  local missing, wrong, extra, expected = {}, {}, {}, {}
  for _, entry in ipairs(own) do
    local name, tensor, given = entry[1], entry[2], state[entry[1]]
    expected[name] = true
    if not dlua.is_tensor(given) then
      missing[#missing + 1] = name
    elseif described(tensor) ~= described(given) then
      wrong[#wrong + 1] = ("%s is %s here but %s in the table"):format(name, described(tensor), described(given))
    end
  end
  for name in pairs(state) do
    if not expected[name] then extra[#extra + 1] = tostring(name) end
  end
  table.sort(extra)
  return missing, wrong, extra
end

-- Copies a table from state_dict into the module; returns the module. Every name, shape and dtype is checked first and
-- one error lists all that differ. {strict = false} lets names be missing or left over.
--   copy:load_state_dict(net:state_dict())
function Module:load_state_dict(state, given)
  local o = dlua.options("load_state_dict", given, {strict = true})
  if type(state) ~= "table" then dlua.fail("load_state_dict: takes a table of tensors, not a %s", type(state)) end
  local own = collect(self, false)
  for _, entry in ipairs(collect(self, true)) do own[#own + 1] = entry end
  local missing, problems, extra = mismatches(own, state)
  if o.strict and #missing > 0 then problems[#problems + 1] = "missing: " .. table.concat(missing, ", ") end
  if o.strict and #extra > 0 then problems[#problems + 1] = "not in the model: " .. table.concat(extra, ", ") end
  if #problems > 0 then dlua.fail("load_state_dict: %s", table.concat(problems, "; ")) end
  dlua.no_grad(function()
    for _, entry in ipairs(own) do
      if state[entry[1]] then entry[2]:copy_(state[entry[1]]) end
    end
  end)
  return self
end

-- Writes parameters and buffers to a safetensors file; raises when that fails.
--   net:save("net.safetensors")
function Module:save(path, given) return dlua.save(path, self:state_dict(), given) end

-- Reads such a file into the module; raises when file or names do not fit. Returns the module.
--   net:load("net.safetensors")
function Module:load(path, given)
  local state, message = dlua.load(path)
  if not state then dlua.fail("load: %s", message) end
  return self:load_state_dict(state, given)
end

-- ---------------------------------------------------------------- calling

local watcher -- function(module, inputs, outputs) while somebody watches every call

-- Runs fn while watch(module, inputs, outputs) sees every module's call, innermost first; for summary and diagnosis.
-- Nothing that may run out of memory stands between the call and putting the old watcher back.
local function watching(watch, fn)
  local before = watcher
  watcher = watch
  local ok, problem = pcall(fn)
  watcher = before
  if not ok then error(problem, 0) end
end

local function is_watched() return watcher ~= nil end

local function observed(self, inputs, ...)
  local outputs = table.pack(...)
  for _, entry in ipairs(self._hooks or {}) do
    local replaced = table.pack(entry[1](self, inputs, table.unpack(outputs, 1, outputs.n)))
    if replaced.n > 0 and replaced[1] ~= nil then outputs = replaced end
  end
  if watcher then watcher(self, inputs, outputs) end
  return table.unpack(outputs, 1, outputs.n)
end

local function pass(...) return ... end

local function name_within(parent, module)
  for name, child in parent:named_children() do
    if child == module then return name end
  end
  for name, child in parent:named_modules() do
    if child == module then return name end
  end
end

-- The dotted path of the innermost of the modules that are running, given outermost first: what messages show.
local function layer_path(running)
  local parts = {}
  for k = 2, #running do parts[#parts + 1] = name_within(running[k - 1], running[k]) end
  return table.concat(parts, ".")
end

-- net(x): the frame of this function stays on the stack while forward runs (no tail call), because error messages read
-- the path of layers from these frames.
function Module:__call(...)
  if watcher or self._hooks then return observed(self, table.pack(...), self:forward(...)) end
  return pass(self:forward(...))
end

-- What a module computes; each class gives its own.
--   function Net:forward(x) return self.second(self.first(x):relu()) end
function Module:forward() dlua.fail("%s: has no forward method", getmetatable(self).__name) end

-- A list of hooks without one of them. The list itself is never changed: a call may be going through it.
local function without(hooks, entry)
  local rest = {}
  for _, other in ipairs(hooks or {}) do
    if other ~= entry then rest[#rest + 1] = other end
  end
  return rest
end

-- Calls hook(module, inputs, output, …) after every forward; what it returns, if anything, replaces the outputs.
-- Returns a function that takes the hook away again.
--   local remove = net[1]:register_forward_hook(function(m, inputs, y) print(y:mean():item()) end)
function Module:register_forward_hook(hook)
  local entry = {hook}
  local hooks = without(self._hooks, entry)
  hooks[#hooks + 1] = entry
  rawset(self, "_hooks", hooks)
  return function()
    local rest = without(self._hooks, entry)
    rawset(self, "_hooks", #rest > 0 and rest)
  end
end

-- ---------------------------------------------------------------- showing

local function own_tensors(module)
  local parts = {}
  for _, key in ipairs(module._fields) do
    local value = rawget(module, key)
    if value ~= nil and is_parameter[value] then parts[#parts + 1] = key .. " " .. shape_text(value) end
  end
  return #parts > 0 and "  " .. table.concat(parts, ", ") or ""
end

local function tree(module, label, indent, lines)
  lines[#lines + 1] = indent .. label .. module:describe() .. own_tensors(module)
  for name, child in module:named_children() do tree(child, name .. ": ", indent .. "  ", lines) end
  return lines
end

-- One line that says what the module is; layers show the call that makes them.
--   nn.Linear(4, 2):describe()                               --> Linear(4, 2)
function Module:describe()
  local signature = getmetatable(self).signature
  return signature and signature:show(self) or getmetatable(self).__name
end

function Module:__tostring() return table.concat(tree(self, "", "", {}), "\n") end

return {
  Module = Module, Parameter = Parameter, is_module = is_module, watching = watching,
  is_watched = is_watched, call = Module.__call,
  layer_path = layer_path,
  shape_text = shape_text,
}
