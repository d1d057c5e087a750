-- install_spec.lua - `cmake --install` gives a program and modules that work without the source tree, also from
-- plain lua5.4. The sanitized build is left out: lua5.4 would have to preload its runtime.
local lfs = require "lfs"

local function run(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read("a")
  return pipe:close() == true, text
end

describe("an installed dlua", function()
  local prefix = os.tmpname()
  local skip = os.getenv "DLUA_SANITIZED" or not lfs.attributes("build/CMakeCache.txt")

  setup(function()
    os.remove(prefix)
    if not skip then assert(run("cmake --install build --prefix " .. prefix)) end
  end)

  teardown(function() os.execute("rm -rf " .. prefix) end)

  local program = [[local dlua = require "dlua"; assert(dlua.nn.Linear(2, 3)); print(dlua.ones(2, 3):sum():item())]]

  it("runs from its own place", function()
    if skip then return end
    local ok, text = run(("cd / && env -u LUA_PATH -u LUA_CPATH %s/bin/dlua -e '%s'"):format(prefix, program))
    assert.is_true(ok, text)
    assert.matches("^6%.0", text)
  end)

  it("is a module of plain lua5.4", function()
    if skip then return end
    local path = ("LUA_PATH='%s/share/lua/5.4/?.lua;%s/share/lua/5.4/?/init.lua;;' LUA_CPATH='%s/lib/lua/5.4/?.so;;'")
      :format(prefix, prefix, prefix)
    local ok, text = run(("cd / && %s lua5.4 -e '%s'"):format(path, program))
    assert.is_true(ok, text)
    assert.matches("^6%.0", text)
  end)

  it("finds its second device", function()
    if skip then return end
    local script = [[print(require("dlua").ones(2):to("mock").device)]]
    local ok, text = run(("cd / && %s/bin/dlua -e '%s'"):format(prefix, script))
    assert.is_true(ok, text)
    assert.matches("^mock", text)
  end)
end)
