-- optimizer.lua - what all optimisers share: parameters in groups, state by parameter name, one fused pass per step.
--
--   local opt = optim.SGD(net:parameters(), {lr = 0.1, momentum = 0.9})
--   opt:zero_grad()
--   loss:backward()
--   opt:step()
--
-- A group is a plain table that holds its parameters and all options, so `opt.groups[2].lr = 0.01` just works and the
-- C pass reads it as it is. Groups are made by list, {{params = a}, {params = b, lr = 0.01}}, or by name:
-- {groups = {{match = "bias$", weight_decay = 0}}} moves the parameters whose dotted name matches the Lua pattern.
local dlua = require "dlua"
local class = require "dlua.class"
local Late = require "dlua.late"
local formulas = require "dlua.optim.formulas"
local options = require "dlua.options"
local shape_text = require "dlua.nn.module".shape_text

local Optimizer = class "Optimizer"

-- ---------------------------------------------------------------- groups

local function is_plain(value) return type(value) == "table" and getmetatable(value) == nil end

local function check_parameters(who, list)
  if not is_plain(list) then
    dlua.fail("%s: takes a list of parameters, such as net:parameters(), not a %s", who, type(list))
  end
  if #list == 0 then dlua.fail("%s: the list of parameters is empty", who) end
  for k, p in ipairs(list) do
    if not dlua.is_tensor(p) then dlua.fail("%s: parameters[%d] is a %s, not a tensor", who, k, type(p)) end
  end
end

local function copied(value)
  if not is_plain(value) then return value end
  local copy = {}
  for key, item in pairs(value) do copy[key] = item end
  return copy
end

-- The parameter of the signature that an option's name stands for, long names included, or nil.
local function option_named(self, name)
  local parameter = self.signature.by_name[name]
  local is_own = parameter and parameter[1] ~= "parameters" and parameter[1] ~= "groups" and parameter[1] ~= "guard"
  return is_own and parameter or nil
end

-- A group over parameters whose options are the given ones over the defaults.
local function new_group(self, params, names, given, defaults)
  local group = {params = params, names = names, slots = {{}, {}, {}}, steps = {}}
  for name, value in pairs(defaults) do group[name] = copied(value) end
  local is_given = {}
  for name, value in pairs(given) do
    if name ~= "params" and name ~= "match" then
      local option = option_named(self, name)
      if not option then dlua.fail("%s: a group has no option %s", self.signature.name, tostring(name)) end
      if is_given[option] then dlua.fail("%s: %s is given twice", self.signature.name, option[1]) end
      is_given[option], group[option[1]] = true, copied(self.signature:check(name, value))
    end
  end
  return group
end

local function names_of(list)
  local names = {}
  for k = 1, #list do names[k] = list.names and list.names[k] or tostring(k) end
  return names
end

-- Splits one list by the patterns of groups; the first that matches takes a parameter, the rest come first.
local function matched(self, list, patterns, defaults)
  local who, parts = self.signature.name, {{params = {}, names = {}, given = {}}}
  for k, given in ipairs(patterns) do
    if not is_plain(given) or type(given.match) ~= "string" then
      dlua.fail("%s: groups[%d] needs match, a Lua pattern for parameter names", who, k)
    end
    parts[k + 1] = {params = {}, names = {}, given = given}
  end
  for k, name in ipairs(names_of(list)) do
    local part = parts[1]
    for j = #parts, 2, -1 do
      if name:find(parts[j].given.match) then part = parts[j] end
    end
    part.params[#part.params + 1], part.names[#part.names + 1] = list[k], name
  end
  for k = 2, #parts do
    if #parts[k].params == 0 then dlua.fail("%s: no parameter matches %q", who, parts[k].given.match) end
  end
  local groups = {}
  for _, part in ipairs(parts) do
    if #part.params > 0 then
      groups[#groups + 1] = new_group(self, part.params, part.names, part.given, defaults)
    end
  end
  return groups
end

local function listed(self, list, defaults)
  local groups = {}
  for k, given in ipairs(list) do
    if not is_plain(given) or given.params == nil then
      dlua.fail("%s: group %d needs params, a list of parameters", self.signature.name, k)
    end
    check_parameters(self.signature.name, given.params)
    groups[k] = new_group(self, {table.unpack(given.params)}, names_of(given.params), given, defaults)
  end
  return groups
end

-- Every parameter once, every name once: names that lists from different modules share get their group's number.
local function check_unique(self, groups)
  local names, seen = {}, {}
  for g, group in ipairs(groups) do
    for k, p in ipairs(group.params) do
      local name = group.names[k]
      if names[name] then name = ("group%d.%s"):format(g, name) end
      if seen[p] or names[name] then
        dlua.fail("%s: parameter %s is given twice", self.signature.name, group.names[k])
      end
      seen[p], names[name], group.names[k] = true, true, name
    end
  end
end

-- Reads (parameters, {options}); parameters is a list, or a list of groups {params = list, options…}.
function Optimizer:init(parameters, given, ...)
  local who = self.signature.name
  if select("#", ...) > 0 or given ~= nil and not options.is(given) then
    dlua.fail("%s: takes parameters and one table of options: %s", who, self.signature:usage())
  end
  if is_plain(parameters) and parameters.params then parameters = {parameters} end
  local grouped = is_plain(parameters) and is_plain(parameters[1])
  if not grouped then check_parameters(who, parameters) end
  local values = self.signature:read(parameters, given)
  local patterns = values.groups
  rawset(self, "guard", values.guard)
  values.parameters, values.groups, values.guard = nil, nil, nil
  local groups
  if grouped then
    if #patterns > 0 then dlua.fail("%s: takes groups either as a list or by match, not both", who) end
    groups = listed(self, parameters, values)
  else
    groups = matched(self, parameters, patterns, values)
  end
  check_unique(self, groups)
  rawset(self, "groups", groups)
  if self.check then
    for _, group in ipairs(groups) do self.check(group) end
  end
end

-- ---------------------------------------------------------------- steps

-- Steps that a device left out, for a verdict that the host has not seen, do not count. It counts them itself, in the
-- tensor group.skipped: the last parameter's first. Takes them off the host's numbers, which waits.
local function settle_steps(group)
  if not group.skipped then return end
  local skipped, last = group.skipped:totable(), #group.params
  for k = 1, last do
    local taken = (group.steps[k] or 0) - skipped[last + 1 - k]
    group.steps[k] = taken > 0 and taken or nil
  end
  group.skipped = nil
end

-- The number of the step that parameter k is about to take; a tensor of f64 where a device left out some.
local function number_of_step(group, k)
  local step, skipped = (group.steps[k] or 0) + 1, group.skipped
  return skipped and step - skipped[#group.params + 1 - k]:to(group.params[k].device, "f64") or step
end

-- The state tensor in slot n of parameter k, made when it meets its first gradient.
local function state_tensor(group, n, k)
  local list, p = group.slots[n], group.params[k]
  if not list[k] then
    list[k] = dlua.lasting(dlua.full_like(p:detach(), group.initial_accumulator_value or 0))
  elseif list[k].device ~= p.device or list[k].dtype ~= p.dtype then -- the parameter was moved
    list[k] = dlua.lasting(list[k]:to(p.device, p.dtype))
  end
  return list[k]
end

-- A parameter's step by the formulas in Lua. Where bad, a bool tensor, is true, nothing changes.
local function step_parameter(self, group, k, bad)
  local p, work = group.params[k], {}
  local d, w = p.grad, p
  if group.maximize then d = -d end
  if group.weight_decay ~= 0 and group.decoupled then
    w = p * (1 - group.lr * group.weight_decay)
  elseif group.weight_decay ~= 0 then
    d = d + p * group.weight_decay
  end
  local function slot(n)
    local state = state_tensor(group, n, k)
    if bad and not work[n] then work[n] = state:clone() end
    return bad and work[n] or state
  end
  local new = w - formulas[self.rule](d, slot, group, number_of_step(group, k))
  p:copy_(bad and dlua.where(bad, p, new) or new)
  for n, state in pairs(work) do
    local list = group.slots[n]
    list[k]:copy_(dlua.where(bad, list[k], state))
  end
end

-- A group's step by the formulas in Lua, for parameters that the fused pass does not take.
local function step_in_lua(self, group, bad)
  local stepped, last = {}, #group.params
  for k, p in ipairs(group.params) do
    stepped[last + 1 - k] = p.grad and 1 or 0
    if p.grad then
      step_parameter(self, group, k, bad and bad:to(p.device))
      group.steps[k] = (group.steps[k] or 0) + 1
    end
  end
  if bad and group.skipped then
    local skipped = group.skipped
    skipped:add_(bad:to(skipped.device, "i64") * dlua.tensor(stepped, {dtype = "i64", device = skipped.device}))
  end
end

local function raise_not_finite(self, group, position, written)
  dlua.fail("%s: the gradient of %s is not finite, %s (guard = false steps anyway)", getmetatable(self).__name,
    group.names[position], written and "nothing was written from it, but the step had begun" or "nothing was changed")
end

-- On a device nothing waits for the verdict. It is computed there: 0, or the higher the earlier the first parameter
-- with a bad gradient stands, and it lasts: from then on no gradient of the group reaches a parameter. The step that
-- finds it on the host raises.
local function watch_of(self, group)
  local watch = group.watch
  if not watch then
    watch = {late = Late(), worst = dlua.lasting(dlua.zeros({}, {device = group.params[1].device}))}
    group.watch = watch
  end
  local found = watch.late:take()
  if found and found ~= 0 then
    group.watch = nil
    local name = group.names[#group.params + 1 - math.tointeger(found)]
    dlua.fail("%s: the gradient of %s was not finite in an earlier step, nothing was written from it or any later one "
      .. "(guard = false steps anyway)", getmetatable(self).__name, name)
  end
  return watch
end

-- The verdict by ops; gives whether gradients count for nothing, a bool tensor.
local function verdict_by_ops(self, group)
  local watch = watch_of(self, group)
  local worst = watch.worst
  for k, p in ipairs(group.params) do
    if p.grad then
      local bad = p.grad:isfinite():all():logical_not():to "f32" * (#group.params + 1 - k)
      worst = worst:maximum(bad:to(worst.device))
    end
  end
  watch.worst = dlua.lasting(worst)
  watch.late:offer(worst)
  return worst:gt(0)
end

-- Raises when a gradient of a group is not finite; on a device, gives a tensor that says so, or true where the fused
-- step will look.
local function check_gradients(self, group)
  local position = dlua.find_bad_gradient(group.params)
  if position == true then return true end
  if position then raise_not_finite(self, group, position) end
  if position == nil then return end
  if group.params[1].device ~= "cpu" then return dlua.no_grad(verdict_by_ops, self, group) end
  for k, p in ipairs(group.params) do
    if p.grad and not p.grad:isfinite():all():item() then raise_not_finite(self, group, k) end
  end
end

-- One step of a group; with guard its gradients are looked at first. found: a tensor that stands, as step_unless
-- takes it.
local function step_group(self, group, guard, bad, found)
  if group.skipped and group.skipped.device ~= group.params[1].device then settle_steps(group) end
  local watch = guard and group.params[1].device ~= "cpu" and watch_of(self, group) or nil
  local done, written = dlua.optim_step(self.rule, group, guard, found or watch and watch.worst, found ~= nil)
  if done == true then
    if watch then watch.late:offer(watch.worst) end
    return
  end
  if done then raise_not_finite(self, group, done, written) end
  if guard then bad = check_gradients(self, group) end
  dlua.no_grad(function() step_in_lua(self, group, found and found:ne(0) or bad) end)
end

-- Changes every parameter that has a gradient. With guard (the default) a gradient that is not finite raises and names
-- the parameter, which is not written from it. Gradients of up to 4096 elements are looked at before anything is
-- changed; larger ones as the step comes to them, so that guarding costs no second pass over memory. On a device the
-- error comes one or a few steps later, as nothing waits for it; no gradient has reached a parameter since.
--   opt:step()
function Optimizer:step()
  local groups, guard = self.groups, self.guard
  if not groups[2] then return step_group(self, groups[1], guard) end
  local bad = {}
  for k, group in ipairs(guard and groups or {}) do bad[k] = check_gradients(self, group) end -- before any changes
  for k, group in ipairs(groups) do step_group(self, group, bad[k] == true, bad[k] ~= true and bad[k] or nil) end
end

-- Steps unless found is not 0, without looking at the gradients: then nothing changes, and no step is counted. found is
-- a number, or a tensor of no dimensions; a device where it lies with all the parameters decides, and nothing waits.
--   opt:step_unless(0)
function Optimizer:step_unless(found)
  if dlua.is_tensor(found) and found.device == "cpu" then found = found:item() end
  if found == 0 then found = nil elseif not dlua.is_tensor(found) then return end
  for _, group in ipairs(self.groups) do
    if found and not group.skipped then
      group.skipped = dlua.lasting(dlua.zeros({#group.params}, {dtype = "i64", device = found.device}))
    end
    step_group(self, group, false, nil, found)
  end
end

-- Forgets the gradients: grad becomes nil.
--   opt:zero_grad()
function Optimizer:zero_grad()
  for _, group in ipairs(self.groups) do dlua.clear_gradients(group.params) end
end

-- ---------------------------------------------------------------- state

-- Everything a checkpoint needs: {state = {name = {step =, state tensors…}}, groups = {{options…, names =}}}. Waits for
-- the device where steps were left out.
--   local saved = opt:state_dict()
function Optimizer:state_dict()
  local saved = {state = {}, groups = {}}
  for g, group in ipairs(self.groups) do
    settle_steps(group)
    saved.groups[g] = {names = copied(group.names), initial_lr = group.initial_lr}
    for _, parameter in ipairs(self.signature.parameters) do
      local name = parameter[1]
      if option_named(self, name) then saved.groups[g][name] = copied(group[name]) end
    end
    for k, name in ipairs(group.names) do
      if group.steps[k] then
        local state = {step = group.steps[k]}
        for j, slot in ipairs(self.slots) do
          state[slot] = group.slots[j][k] and group.slots[j][k]:clone()
        end
        saved.state[name] = state
      end
    end
  end
  return saved
end

local function text_of_names(names)
  local texts = {}
  for k, name in ipairs(is_plain(names) and names or {}) do texts[k] = tostring(name) end
  return table.concat(texts, ", ")
end

local function check_names(self, saved)
  local who = "load_state_dict"
  if type(saved) ~= "table" or type(saved.groups) ~= "table" or type(saved.state) ~= "table" then
    dlua.fail("%s: takes a table from state_dict, with groups and state", who)
  end
  if #saved.groups ~= #self.groups then
    dlua.fail("%s: %d groups here but %d in the table", who, #self.groups, #saved.groups)
  end
  for g, group in ipairs(self.groups) do
    if type(saved.groups[g]) ~= "table" then
      dlua.fail("%s: group %d is a %s, not a table", who, g, type(saved.groups[g]))
    end
    local here, there = table.concat(group.names, ", "), text_of_names(saved.groups[g].names)
    if here ~= there then
      dlua.fail("%s: group %d has the parameters %s here but %s in the table", who, g, here, there)
    end
  end
end

-- The options that a group gets from a table: what the table lacks stays as it is, what it has beyond is not looked at.
local function saved_options(self, group, given)
  local read = {}
  for _, parameter in ipairs(self.signature.parameters) do
    local name = parameter[1]
    if option_named(self, name) then
      local value = given[name]
      if value == nil then value = group[name] else value = self.signature:check(name, value) end
      read[name] = copied(value)
    end
  end
  local start = given.initial_lr
  if start ~= nil and not math.type(start) then
    dlua.fail("load_state_dict: initial_lr must be a number, not %s", tostring(start))
  end
  if self.check then self.check(read) end
  read.initial_lr = start
  return read
end

local function check_state(self, name, parameter, state)
  local who = "load_state_dict"
  if type(state) ~= "table" then dlua.fail("%s: the state of %s is a %s, not a table", who, name, type(state)) end
  local step = math.type(state.step) and math.tointeger(state.step)
  if not step or step < 1 then
    dlua.fail("%s: the step of %s must be a whole number of at least 1, not %s", who, name, tostring(state.step))
  end
  for _, slot in ipairs(self.slots) do
    local tensor = state[slot]
    if tensor ~= nil and not dlua.is_tensor(tensor) then
      dlua.fail("%s: %s of %s is a %s, not a tensor", who, slot, name, type(tensor))
    end
    if tensor and (not tensor.dtype:find "^b?f%d" or shape_text(tensor) ~= shape_text(parameter)) then
      dlua.fail("%s: %s of %s is %s %s but the parameter %s %s", who, slot, name, shape_text(tensor), tensor.dtype,
        shape_text(parameter), parameter.dtype)
    end
  end
end

-- Takes over a table from state_dict of an optimiser over parameters with the same names. All of it is checked before
-- anything is changed.
--   opt:load_state_dict(saved)
function Optimizer:load_state_dict(saved)
  check_names(self, saved)
  local read = {}
  for g, group in ipairs(self.groups) do
    read[g] = saved_options(self, group, saved.groups[g])
    for k, name in ipairs(group.names) do
      if saved.state[name] ~= nil then check_state(self, name, group.params[k], saved.state[name]) end
    end
  end
  for g, group in ipairs(self.groups) do
    for name, value in pairs(read[g]) do group[name] = value end
    group.skipped = nil
    for k, name in ipairs(group.names) do
      local state = saved.state[name] or {}
      group.steps[k] = state.step and math.tointeger(state.step)
      for j, slot in ipairs(self.slots) do
        group.slots[j][k] = state[slot] and dlua.lasting(state[slot]:to(group.params[k].device):clone())
      end
    end
  end
end

-- ---------------------------------------------------------------- making optimisers

-- opt.lr and the other options read group 1.
local function read_option(class_)
  return function(self, name)
    local method = class_[name]
    if method ~= nil then return method end
    local option = option_named(class_, name)
    if option then return rawget(self, "groups")[1][option[1]] end
  end
end

-- opt.lr = 0.1 sets all groups, or none when one of them would have options that do not go together. Other fields
-- are refused: a misspelt option would change nothing.
local function write_option(self, name, value)
  local option = option_named(self, name)
  if not option then
    self.signature:parameter(name)
    dlua.fail("%s: %s cannot be assigned", self.signature.name, name)
  end
  value = self.signature:check(name, value)
  for _, group in ipairs(self.check and self.groups or {}) do
    self.check(setmetatable({[option[1]] = value}, {__index = group}))
  end
  for _, group in ipairs(self.groups) do group[option[1]] = copied(value) end
end

-- An optimiser class from its description: a signature's, plus rule (the fused pass), slots (names of its state) and
-- check (a function that refuses options that do not go together).
local function optimizer(description)
  local new = class(description[1], Optimizer)
  local parameters = {"optim." .. description[1], {"parameters", "table"}, doc = description.doc}
  for k = 2, #description do parameters[k + 1] = description[k] end
  parameters[#parameters + 1] = {"maximize", "boolean", false}
  parameters[#parameters + 1] = {"guard", "boolean", true}
  parameters[#parameters + 1] = {"groups", "table", {}}
  new.signature = options.signature(parameters)
  new.rule, new.slots, new.check = description.rule, description.slots, description.check
  new.doc = new.signature:help()
  new.__index, new.__newindex = read_option(new), write_option
  return new
end

return optimizer
