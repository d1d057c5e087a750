-- program_spec.lua - the program from outside: options, exit codes, Ctrl-C, start.
local helpers = require "spec.helpers"

local dlua = os.getenv "DLUA" or arg[-1] or "build/dlua"

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- Output (both streams) and exit code of a shell command.
local function run(command)
  local pipe = assert(io.popen("(" .. command .. ") 2>&1; echo \" exit=$?\""))
  local text = pipe:read("a")
  pipe:close()
  local output, code = text:match "^(.*) exit=(%d+)\n$"
  return output, tonumber(code)
end

local function program(arguments) return run(dlua .. " " .. arguments) end

local function with_script(text, fn)
  local reserved = os.tmpname()
  local name = reserved .. ".lua"
  local file = assert(io.open(name, "w"))
  file:write(text)
  file:close()
  local ok, problem = pcall(fn, name)
  os.remove(name)
  os.remove(reserved)
  if not ok then error(problem, 0) end
end

describe("the program", function()
  it("runs a script with its arguments", function()
    with_script("#!/usr/bin/env dlua\nprint(arg[0] ~= nil, #arg, arg[2], ...)", function(name)
      local output, code = program(name .. " one two")
      assert.equal("true\t2\ttwo\tone\ttwo\n", output)
      assert.equal(0, code)
    end)
  end)

  it("runs code, libraries and the standard input", function()
    assert.equal("3\n", (program("-e " .. quote "print(1 + 2)")))
    assert.equal("function\n", (program("-l dlua -e " .. quote "print(type(dlua.ones))")))
    assert.equal("5\n", (run("echo 'print(5)' | " .. dlua .. " -")))
    assert.equal("6\n", (run("echo 'print(6)' | " .. dlua)))
  end)

  it("prints version, help and switches", function()
    assert.matches("^dlua %d+%.%d+ %(Lua 5%.4", (program "-v"))
    assert.matches("usage: dlua", (program "--help"))
    assert.matches("DLUA_REF", (program "--env"))
    local output, code = program "--nonsense"
    assert.matches("option '%-%-nonsense' is unknown", output)
    assert.equal(2, code)
  end)

  it("reports an error on one line and exits with 1", function()
    with_script('local dlua = require "dlua"\nlocal x = dlua.ones(2)\nprint(x + dlua.ones(3))', function(name)
      local output, code = program(name)
      assert.equal(1, code)
      assert.equal("dlua: add: shapes {2} and {3} do not broadcast  " .. name .. ":3\n", output)
      assert.matches("stack traceback", (run("DLUA_TRACEBACK=1 " .. dlua .. " " .. name)))
    end)
    local output, code = program "no_such_script.lua"
    assert.matches("no_such_script.lua", output)
    assert.equal(1, code)
  end)

  it("passes os.exit on", function()
    local _, code = program("-e " .. quote "os.exit(7)")
    assert.equal(7, code)
  end)

  it("gives its children every CPU", function()
    local output = program("-e " .. quote [[
      local function cpus(command)
        local pipe = io.popen(command)
        local text = pipe:read "a"
        pipe:close()
        return text
      end
      local before, bound = cpus "nproc", "grep Cpus_allowed: /proc/self/status"
      local own = io.open "/proc/self/status":read "a":match "Cpus_allowed:[^\n]*\n"
      assert(cpus(bound) == own)
      local x = require "dlua".ones(1000, 1000):exp()
      assert(cpus "nproc" == before and cpus(bound) == own)
      io.stdout:write(before):flush()
      os.execute "nproc"
      require "dlua".exp(x)
      local main = io.open "/proc/self/status":read "a":match "Cpus_allowed:[^\n]*\n"
      print(main ~= own or os.getenv "DLUA_BIND" == "0" or before == "1\n")
      print(pcall(io.popen, "true", "x"))
      print(pcall(function() os.execute {} end))]])
    local before, after, rest = output:match "^(%d+)\n(%d+)\n(.*)$"
    assert.equal(before, after, output)
    assert.equal("true\nfalse\tbad argument #2 to 'io.popen' (invalid option 'x')\n"
      .. "false\t(command line):18: bad argument #1 to 'execute' (string expected, got table)\n", rest)
  end)

  it("uses every CPU where OMP_PROC_BIND keeps its first thread on one", function()
    local count = "-e " .. quote "print(require('dlua').threads())"
    local free, bound = program(count), run("OMP_PROC_BIND=true " .. dlua .. " " .. count)
    assert.equal(free, bound)
  end)

  -- Runs code that calls begun() once it is where Ctrl-C shall reach it, and presses Ctrl-C then.
  local function interrupted(code)
    local folder = helpers.folder()
    local mark = folder:path "begun"
    local begin = ("local function begun() io.open(%q, 'w'):close() end "):format(mark)
    local output, status = run(("%s -e %s & child=$!; while [ ! -e '%s' ] && kill -0 $child; do sleep 0.01; done; "
      .. "kill -INT $child; wait $child"):format(dlua, quote(begin .. code), mark))
    folder:remove()
    return output, status
  end

  it("stops at Ctrl-C with 130", function()
    local output, code = interrupted 'local x = require "dlua".ones(100) begun() while true do x = x + 1 end'
    assert.equal(130, code)
    assert.matches("dlua: interrupted", output)
  end)

  it("stops coroutines at Ctrl-C, and raises it once", function()
    local output, code = interrupted "coroutine.wrap(function() begun() while true do end end)()"
    assert.matches("interrupted", output)
    assert.equal(130, code)
    output = interrupted [[local d = require "dlua" local x = d.ones(9)
      print(pcall(function() begun() while true do x = x + 1 end end))
      for _ = 1, 100 do x = x + 1 end
      print "went on"]]
    assert.matches("interrupted", output)
    assert.matches("went on", output)
    output = interrupted [[local co = coroutine.create(function() begun() while true do end end)
      print(coroutine.resume(co))
      local d = require "dlua" print(d.ones(1):item())]]
    assert.matches("false\tinterrupted.*\n1.0\n", output)
  end)

  it("leaves errors of coroutines as they are", function()
    local output = program("-e " .. quote [[
      print(pcall(coroutine.wrap(function(a) coroutine.yield(a) error {} end), 3))
      local f = coroutine.wrap(function() error "no" end)
      print(pcall(function() f() end))
      print(coroutine.resume(coroutine.create(function(...) return ... end), 1, 2))
      print(pcall(coroutine.resume, 5))]])
    assert.matches("true\t3\nfalse\t%(command line%):3: %(command line%):2: no\ntrue\t1\t2\nfalse\tbad argument",
      output)
  end)

  it("ends with an error where it cannot go on", function()
    local code = "setmetatable(_G, {__newindex = function() error('sealed', 0) end})"
    local output, status = program("-e " .. quote(code) .. " -l dlua.class")
    assert.equal("dlua: sealed\n", output)
    assert.equal(1, status)
    output, status = program("-e " .. quote "error(setmetatable({}, {__tostring = function() return 5 end}))")
    assert.matches("^dlua: ", output)
    assert.equal(1, status)
  end)

  it("finds the script line without package", function()
    for _, change in ipairs {"package.path = ''", "package = nil"} do
      local output = program("-e " .. quote(('local d = require "dlua" local layer = d.nn.Linear(3, 2) %s\n'
        .. 'print(pcall(function() return layer(d.ones(4, 4)) end))'):format(change)))
      assert.matches("linear.-  %(command line%):2\n", output)
    end
  end)

  it("starts in little memory", function()
    local script = 'for l in io.lines "/proc/self/status" do if l:match "VmHWM" then print(l) end end'
    local output = program("-e " .. quote(script))
    if os.getenv "DLUA_SANITIZED" then return end
    assert.is_true(tonumber(output:match "(%d+) kB") < 12 * 1024)
  end)
end)

describe("dlua test", function()
  it("exits with the outcome", function()
    with_script([[
      local dlua = require "dlua"
      it("passes", function()
        assert.shape({2, 3}, dlua.ones(2, 3))
        assert.close({1, 2}, dlua.tensor {1, 2})
        assert.finite(dlua.ones(2))
        assert.gradcheck(function(x) return x:square():sum() end, dlua.ones({2}, {dtype = "f64"}))
      end)]], function(name)
      local _, code = program("test -o plainTerminal " .. name)
      assert.equal(0, code)
    end)
    with_script([[
      local dlua = require "dlua"
      it("fails", function() assert.close({1, 3}, dlua.tensor {1, 2}) end)]], function(name)
      local output, code = program("test -o plainTerminal " .. name)
      assert.equal(1, code)
      assert.matches("most at element 2: expected 3, got 2", output, 1, true)
    end)
  end)
end)
