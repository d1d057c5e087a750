-- cuda_spec.lua - what holds for the CUDA module without a GPU, read from its tables, its sources and the files that
-- were built: a kernel for every op, one symbol, no library of CUDA's in a process that has not asked for it.
local dlua = require "dlua"

local program = os.getenv "DLUA" or arg[-1] or "build/dlua"
local top = debug.getinfo(1, "S").source:match "^@(.*)spec/cuda_spec.lua$"
if top == "" then top = "." end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "a"
  file:close()
  return text
end

local function lines_of(command)
  local pipe, lines = assert(io.popen(command)), {}
  for line in pipe:lines() do lines[#lines + 1] = line end
  pipe:close()
  return lines
end

local function exists(path)
  local file = io.open(path)
  return file ~= nil and file:close()
end

-- Runs a script in a process of its own; what it prints.
local function output_of(script)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(script)
  file:close()
  local lines = lines_of(("%s %s 2>&1"):format(program, path))
  os.remove(path)
  return table.concat(lines, "\n")
end

local sources = exists(top .. "/gpu/kernels.def")

describe("the table of CUDA kernels", function()
  if not sources then return end -- an installed dlua has none
  local rows = {}
  for name in read(top .. "/gpu/kernels.def"):gmatch "\n[HALF_]*KERNEL%(([%w_]+)%)" do rows[#rows + 1] = name end

  it("has a row for every op that is no view", function()
    local has, missing = {}, {}
    for _, name in ipairs(rows) do has[name] = true end
    for _, name in ipairs(dlua.op_info()) do
      if not dlua.op_info(name).view and not has[name] then missing[#missing + 1] = name end
    end
    assert.same({}, missing)
  end)

  it("has rows for ops that exist, each once", function()
    local known, wrong = {}, {}
    for _, name in ipairs(dlua.op_info()) do known[name] = true end
    for _, name in ipairs(rows) do
      if not known[name] then wrong[#wrong + 1] = name end
      known[name] = nil
    end
    assert.same({}, wrong)
    assert.is_true(#rows > 150)
  end)
end)

describe("the sources of the CUDA module", function()
  it("include nothing of Lua's or of the bindings'", function()
    if not sources then return pending "there are none" end
    local files = lines_of(("find %s/gpu -name '*.[ch]' -o -name '*.cpp' -o -name '*.cu'"):format(top))
    assert.is_true(#files > 50)
    for _, file in ipairs(files) do
      for header in read(file):gmatch '#%s*include%s*["<]([^">]+)' do
        assert.is_nil(header:find "bindings/" or header:match "^l?ua[%w]*%.h" or header:match "^lauxlib",
          file .. " includes " .. header)
      end
    end
  end)
end)

describe("what was built", function()
  local folder = program:match "^(.*)/" or "."
  local module = folder .. "/dlua_cuda.so"

  it("has one symbol in dlua_cuda.so and asks the runtime and Lua for none", function()
    if not exists(module) then return pending("there is no " .. module) end
    local defined, asked = lines_of("nm -D --defined-only " .. module), lines_of("nm -D --undefined-only " .. module)
    assert.equal(1, #defined, table.concat(defined, "\n"))
    assert.matches(" T dlua_module$", defined[1])
    assert.is_true(#asked > 20)
    for _, symbol in ipairs(asked) do assert.is_nil(symbol:match " (dlua_.*)" or symbol:match " (luaL?_.*)", symbol) end
  end)

  it("needs no library of CUDA's", function()
    local libraries = lines_of(("ldd %s 2>&1"):format(program))
    assert.is_true(#libraries > 0)
    for _, library in ipairs(libraries) do
      assert.is_nil(library:match "libcu[%w]*%.so" or library:match "libnv[%w-]*%.so", library)
    end
  end)
end)

describe("a process that only uses the CPU", function()
  it("loads nothing of CUDA's", function()
    local printed = output_of [[
      local dlua = require "dlua"
      local x = dlua.rand(4, 3):requires_grad_()
      dlua.nn.Linear(3, 2)(x):sum():backward()
      local maps = io.open "/proc/self/maps":read "a"
      print(maps:match "libcu[%w]*%.so" or maps:match "dlua_cuda" or maps:match "libnv[%w-]*%.so" or "nothing")]]
    assert.equal("nothing", printed)
  end)
end)

describe("asking for a GPU", function()
  it("is answered within a second, with a reason where there is none", function()
    local printed
    for _ = 1, 5 do -- what else the machine does makes it take longer, never shorter
      printed = output_of [[
        local dlua = require "dlua"
        local clock = dlua.time()
        local available, reason = dlua.cuda.available()
        local slow = dlua.time() - clock > 5 and "it took long" or os.clock() > 1 and "it computed long"
        assert(available == true and reason == nil or available == false and reason:find "^cuda is not available: .")
        assert(available == dlua.cuda.available())
        print(slow or available, dlua.device "auto")]]
      if not printed:find "^it " then break end
    end
    assert.is_truthy(printed == "true\tcuda" or printed == "false\tcpu", printed)
  end)
end)
