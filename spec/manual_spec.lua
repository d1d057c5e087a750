-- manual_spec.lua - every function that C gives to scripts has a help text.
local dlua = require "dlua"
local explain = require "dlua.describe"

local function undocumented(prefix, functions)
  local missing = {}
  for name, value in next, functions do
    local is_c = type(value) == "function" and debug.getinfo(value, "S").what == "C"
    if is_c and not explain(prefix .. name) then missing[#missing + 1] = prefix .. name end
  end
  table.sort(missing)
  return missing
end

describe("the manual", function()
  it("has every function", function()
    assert.same({}, undocumented("", dlua))
    assert.same({}, undocumented("cuda.", dlua.cuda))
  end)

  it("has every method", function() assert.same({}, undocumented("x:", dlua.methods)) end)

  it("knows ops in place and by their other names", function()
    assert.matches("in place: x:add_", explain "x:add_")
    assert.matches("^dlua.clamp", explain "clip")
    assert.is_nil(explain "no_such_name")
  end)
end)
