-- prompt.lua - the interactive prompt. Lines are read by dlua.terminal; an expression prints its values, a trailing ;
-- keeps it quiet, a statement that is not complete goes on in the next line, ?name explains.
local terminal = require "dlua.terminal"
local dlua = require "dlua"

local chunk_name = "=prompt"
local history = os.getenv "HOME" and os.getenv "HOME" .. "/.dlua_history"

-- Lazy globals: a module loads when it is first named.
local lazy = {nn = true, optim = true, data = true, image = true}
_G.dlua = dlua
setmetatable(_G, {__index = function(globals, name)
  if not lazy[name] then return nil end
  local module = dlua[name]
  rawset(globals, name, module)
  return module
end})

-- ---------------------------------------------------------------- completion

-- The names that may follow value. or value:, from the value and the chain of its __index tables.
local function names_of(value)
  local names = {}
  local function add(t)
    for name in next, t do
      if type(name) == "string" and name:match "^[%a_][%w_]*$" and not name:match "^_" then names[name] = true end
    end
  end
  if dlua.is_tensor(value) then
    add(dlua.methods)
    add(dlua.fields)
  end
  local seen = {}
  while type(value) == "table" and not seen[value] do
    seen[value] = true
    add(value)
    local meta = getmetatable(value)
    value = type(meta) == "table" and rawget(meta, "__index")
  end
  return names
end

-- The value that a path such as net.layers names, without calling anything but __index of modules.
local function value_of(path)
  local value = _G
  for name in path:gmatch "[%a_][%w_]*" do
    local ok, inner = pcall(function() return value[name] end)
    if not ok or inner == nil then return nil end
    value = inner
  end
  return value
end

local function completions(word)
  local path, separator, start = word:match "^(.-)([.:]?)([%a_]?[%w_]*)$"
  local owner = _G
  if separator ~= "" then owner = value_of(path) end
  local names, found = names_of(owner), {}
  if owner == _G then
    for name in next, lazy do names[name] = true end
  end
  for name in next, names do
    if name:sub(1, #start) == start then
      local ok, value = pcall(function() return owner[name] end)
      local call = ok and type(value) == "function" and "(" or ""
      found[#found + 1] = path .. separator .. name .. call
    end
  end
  table.sort(found)
  return found
end

local last_word, last_found
terminal.set_completer(function(word, k)
  if k == 1 or word ~= last_word then last_word, last_found = word, completions(word) end
  return last_found[k]
end)

-- ---------------------------------------------------------------- one entry

local function explain(name)
  local text = require "dlua.describe" (name)
  print(text or ("no help for '%s'"):format(name))
end

-- The compiled chunk of an entry, or nil and whether more lines would complete it, and the error.
local function compile(text)
  local chunk = load("return " .. text, chunk_name)
  if chunk then return chunk end
  local problem
  chunk, problem = load(text, chunk_name)
  if chunk then return chunk end
  return nil, problem:match "<eof>$" ~= nil, problem
end

-- What stands for an entry that did not come: nil ends the prompt, "" asks again.
local function nothing(cancelled)
  if not cancelled then return nil end
  io.stdout:write("\n")
  return ""
end

-- Reads lines until they make an entry; nil at the end of input, "" when it was cancelled.
local function read_entry()
  local text, cancelled = terminal.read "> "
  if not text then return nothing(cancelled) end
  if text:match "^%s*%?" then
    terminal.remember(text)
    return text
  end
  local _, incomplete = compile(text)
  while incomplete do
    local line
    line, cancelled = terminal.read ".. "
    if not line then return nothing(cancelled) end
    text = text .. "\n" .. line
    _, incomplete = compile(text)
  end
  if text:match "%S" then terminal.remember((text:gsub("\n", " "))) end
  return text
end

-- A plain table as {1, 2, name = value}, one level deep and cut after some entries; anything else as it is.
local function shown(value)
  if type(value) ~= "table" or getmetatable(value) then return value end
  local most, parts, keys = 20, {}, {}
  for k = 1, math.min(#value, most) do parts[k] = tostring(value[k]) end
  for key in next, value do
    if math.type(key) ~= "integer" or key < 1 or key > #value then keys[#keys + 1] = key end
  end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for k = 1, math.min(#keys, most - #parts) do parts[#parts + 1] = ("%s = %s"):format(keys[k], value[keys[k]]) end
  local rest = #value + #keys - #parts
  if rest > 0 then parts[#parts + 1] = ("… %d more"):format(rest) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function print_values(...)
  local values = table.pack(...)
  for k = 1, values.n do values[k] = shown(values[k]) end
  print(table.unpack(values, 1, values.n))
end

-- Prints the message of a call that failed; gives everything on.
local function complain(ok, ...)
  if not ok then io.stdout:write((tostring((...)):gsub("^prompt:%d+: ", "")), "\n") end
  return ok, ...
end

-- Printing runs code of values too, so it can fail or be stopped as the entry itself.
local function print_results(quiet, ok, ...)
  if ok and not quiet and select("#", ...) > 0 then complain(terminal.call(print_values, ...)) end
end

local function run(text)
  local name = text:match "^%s*%?%s*([%w_.:]+)"
  if name then return complain(terminal.call(explain, name)) end
  if text:match "^%s*%?" then return print "?name explains a function, a method or a layer: ?nn.Conv2d, ?sum" end
  if not text:match "%S" then return end
  local quiet = text:match ";%s*$" ~= nil
  local chunk, _, problem = compile((text:gsub(";%s*$", "")))
  if not chunk then
    io.stdout:write((problem:gsub("^prompt:%d+: ", "")), "\n")
    return
  end
  print_results(quiet, complain(terminal.call(chunk)))
end

-- ---------------------------------------------------------------- the loop

return function()
  print(("dlua %s (%s, %s: %d threads)   ?name for help, Ctrl-D to leave"):format(dlua.version, _VERSION, "cpu",
    dlua.threads()))
  if history then terminal.load_history(history) end
  for text in read_entry do
    run(text)
    io.stdout:flush()
  end
  if history then terminal.save_history(history, 1000) end
  print()
end
