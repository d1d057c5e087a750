-- arguments_spec.lua - no number from Lua crashes the process, hangs it or makes it take all memory: huge.lua's
-- calls, in processes with 2 GiB of address space, two threads' stacks included, and ten minutes of processor time.
local program = os.getenv "DLUA" or arg[-1] or "build/dlua"

-- A sanitizer needs all of the address space, so single blocks are held down instead.
local limit = "export OMP_NUM_THREADS=2; ulimit -t 600; " .. (os.getenv "DLUA_SANITIZED"
  and "export ASAN_OPTIONS=$ASAN_OPTIONS:max_allocation_size_mb=1024;" or "ulimit -v 2097152;")

local function answers(what)
  local log = os.tmpname()
  local pipe = assert(io.popen(("(%s %s spec/huge.lua %s) 2>'%s'"):format(limit, program, what, log)))
  local output = pipe:read "a"
  local _, how, code = pipe:close()
  local last
  for line in io.lines(log) do last = line end
  os.remove(log)
  local calls, wrong = output:match "(%d+) calls, (%d+) wrong\n$"
  assert(calls, ("%s %s in: %s\n%s"):format(how, code, last, output))
  assert.equal("0", wrong, output)
  return tonumber(calls)
end

describe("huge numbers have an answer in", function()
  it("every op", function() assert.is_true(answers "ops" > 30000) end)
  it("every constructor", function() assert.is_true(answers "constructors" > 4000) end)
end)
