-- Command line options of scripts.
local dlua = require "dlua"

local description = {
  description = "Test.",
  {"epochs", default = 30, help = "passes"},
  {"rate", default = 0.5, help = "speed"},
  {"data", default = "cifar10", help = "what to read"},
  {"batch_size", default = 8},
  {"quick", default = false, help = "short"},
  {"shuffle", default = true},
  {"save"},
  {"mode", default = "fast", choices = {"fast", "slow"}},
}

local function fails(given, ...)
  local ok, message = pcall(dlua.args, description, given)
  assert.is_false(ok)
  for _, part in ipairs {...} do assert.truthy(tostring(message):find(part, 1, true), tostring(message)) end
end

describe("dlua.args", function()
  it("gives defaults of their types", function()
    assert.same({epochs = 30, rate = 0.5, data = "cifar10", batch_size = 8, quick = false, shuffle = true,
      mode = "fast"}, dlua.args(description, {}))
  end)

  it("reads values and flags", function()
    local args = dlua.args(description, {"--epochs", "2", "--rate=1e-2", "--quick", "--no-shuffle", "--batch-size", "4",
      "--save", "x.safetensors", "--mode", "slow"})
    assert.equal(2, args.epochs)
    assert.equal("integer", math.type(args.epochs))
    assert.equal(0.01, args.rate)
    assert.is_true(args.quick)
    assert.is_false(args.shuffle)
    assert.equal(4, args.batch_size)
    assert.equal("x.safetensors", args.save)
    assert.equal("slow", args.mode)
    assert.equal(5, dlua.args(description, {"--batch_size", "5"}).batch_size)
  end)

  it("takes what is no option as a list", function()
    local files = {{"quick", default = false}, {"files", rest = true}}
    assert.same({quick = true, files = {"a", "b"}}, dlua.args(files, {"a", "--quick", "b"}))
    assert.same({quick = false, files = {}}, dlua.args(files, {}))
    local short = {{"epochs", default = 9, quick = 2}, {"quick", default = false}}
    assert.equal(9, dlua.args(short, {}).epochs)
    assert.equal(2, dlua.args(short, {"--quick"}).epochs)
    assert.equal(5, dlua.args(short, {"--quick", "--epochs", "5"}).epochs)
    assert.has_error(function() dlua.args({{"files", rest = true, required = true}}, {}) end)
    assert.has_error(function() dlua.args({{"files", rest = true, default = "a"}}, {}) end)
    assert.has_error(function() dlua.args({{"files", rest = true, choices = {"a"}}}, {"c"}) end)
  end)

  it("says what is wrong", function()
    fails({"--epohcs", "2"}, "--epohcs", "--epochs")
    fails({"--epochs", "two"}, "two", "whole number")
    fails({"--epochs", "2.5"}, "2.5", "whole number")
    fails({"--rate", "fast"}, "fast", "number")
    fails({"--mode", "medium"}, "fast", "slow")
    fails({"--epochs"}, "epochs")
    local ok, message = pcall(dlua.args, {{"data", required = true}}, {})
    assert.is_false(ok)
    assert.truthy(tostring(message):find("--data", 1, true))
    ok, message = pcall(dlua.args, {{"data", defualt = 1}}, {})
    assert.is_false(ok)
    assert.truthy(tostring(message):find("defualt", 1, true))
  end)
end)
