-- errors_spec.lua - what mistakes say: the words are part of the product, so they are written down here.
local dlua = require "dlua"
local soon = require "spec.helpers".soon

-- The message of a failing call without the script line, which it must end with.
local function message_of(fn)
  local ok, message = pcall(fn)
  assert.is_false(ok)
  assert.equal("string", type(message))
  local text, line = message:match "^(.-)  %S*errors_spec%.lua:(%d+)$"
  assert.is_truthy(line, "no script line in: " .. message)
  return text
end

local ones = dlua.ones

local function i64(values) return dlua.tensor(values, {dtype = "i64"}) end

local cases = {
  {"add: shapes {2,3} and {4} do not broadcast", function() return ones(2, 3) + ones(4) end},
  {"add: y must be a tensor or a number, got string", function() return ones(2) + "a" end},
  {"add: y must be a tensor or a number, got nil", function() return ones(2):add(nil, {}) end, "add: y is missing"},
  {"add_: x must be a tensor, got number", function() return dlua.add_(1, 2) end},
  {"add: takes at most 2 arguments, got 3", function() return ones(2):add(1, 2) end},
  {"sum: dimension 3 is outside 1..2 (x {2,3})", function() return ones(2, 3):sum(3) end},
  {"sum: dim is 0, but dimensions count from 1", function() return ones(2, 3):sum(0) end},
  {"sum: unknown option 'keepdims' (did you mean 'keepdim'?)", function() return ones(2):sum {keepdims = true} end},
  {"sum: keepdim must be a boolean, got number", function() return ones(2):sum(1, 1) end},
  {"sum: dim is given twice", function() return ones(2):sum(1, {dim = 1}) end},
  {"gelu: approximate 'tanhh' is unknown (did you mean tanh? known: none, tanh)",
    function() return ones(2):gelu("tanhh") end},
  {"cat: xs must be a table of tensors, got tensor", function() return dlua.cat(ones(2)) end},
  {"cat: item 2 of xs must be a tensor, got number", function() return dlua.cat {ones(2), 3} end},
  {"cat: xs is an empty list", function() return dlua.cat({}, 1) end},
  {"zeros: size is missing", function() return dlua.zeros() end},
  {"zeros: size must be integers, got string", function() return dlua.zeros("a") end},
  {"zeros: size must be integers, got number", function() return dlua.zeros(1.5) end},
  {"zeros: a tensor has at most 8 dimensions, got 9", function() return dlua.zeros(1, 1, 1, 1, 1, 1, 1, 1, 1) end},
  {"zeros: unknown option 'dtyp' (did you mean 'dtype'?)", function() return dlua.zeros(2, {dtyp = "f32"}) end},
  {"zeros: only float tensors can require a gradient, not i64 (x {2})",
    function() return dlua.zeros(2, {dtype = "i64", requires_grad = true}) end},
  {"index: 3 is outside 1..2 (dimension 1 of x {2,3})", function() return ones(2, 3)[3] end},
  {"index: 0 is outside 1..2 (dimension 1 of x {2,3})", function() return ones(2, 3)[0] end},
  {"index: -4 is outside 1..3 (dimension 2 of x {2,3})", function() return ones(2, 3)[{1, -4}] end},
  {"index: range 2..4 is outside 1..3 (dimension 2 of x {2,3})", function() return ones(2, 3)[{ {}, {2, 4} }] end},
  {"index: 3 entries for 2 dimensions (x {2,3})", function() return ones(2, 3)[{1, 1, 1}] end},
  {"index: a table in x[…] is {} or {first, last} or {first, last, step} (dimension 1 of x {4}); to list indices use "
    .. "a tensor of dtype i64", function() return ones(4)[{ {1, 2, 3, 4} }] end},
  {"index: the mask's shape is not x's (x {2,3}, mask {3})", function() return ones(2, 3)[ones(3):gt(0)] end},
  {"index: x has no dimensions (x {}); x:item() gives its number", function() return dlua.tensor(1)[1] end},
  {"x[key] = value: value must be a tensor or a number, got string", function() ones(2)[1] = "a" end},
  {"x[key] = value: 1.5 does not fit into an i64 tensor", function() dlua.zeros({2}, {dtype = "i64"})[1] = 1.5 end},
  {"x[key] = value: value {5} does not fit the part {3} of x {2,3}", function() ones(2, 3)[1] = ones(5) end},
  {"x[key] = value: value {7} does not fit the part {2,2} of x {2,3}",
    function() ones(2, 3)[{ {}, i64 {1, 2} }] = ones(7) end},
  {"x[key] = value: x is a leaf that requires gradient; change it in place inside dlua.no_grad (x {2})",
    function() ones({2}, {requires_grad = true})[1] = 0 end},
  {"x[key] = value: x is on cpu but value is on mock", function() ones(3)[i64 {1}] = ones(1):to "mock" end},
  {"x[key] = value: mask is true at 3 positions but value has 2 elements (x {3}, mask {3})",
    function() local x = ones(3) x[x:gt(0)] = ones(2) end},
  {"index: index 3 at position 1 is outside 1..2", function() return ones(2)[i64 {3}] end},
  {"#: x has no dimensions (x {}); x:item() gives its number", function() return #dlua.tensor(1) end},
  {"tensor: row 2 has 1 element but row 1 has 2", function() return dlua.tensor {{1, 2}, {3}} end},
  {"tensor: element {2} must be a number, got string", function() return dlua.tensor {1, "a"} end},
  {"tensor: element {2} is number but the first one is a table", function() return dlua.tensor {{1}, 2} end},
  {"tensor: element {1} is 1.5, which is no integer", function() return dlua.tensor({1.5}, {dtype = "i64"}) end},
  {"tensor: expected a number, a boolean or a table of them, got function", function() return dlua.tensor(print) end},
  {"tensor: no field or method 'summ' (did you mean 'sum'?)", function() return ones(2).summ end},
  {"tensor: field 'dtype' cannot be assigned (only grad and requires_grad can)", function() ones(2).dtype = "f64" end},
  {"grad: the gradient's shape is not x's (x {2}, gradient {3})", function() ones(2).grad = ones(3) end},
  {"lt: < compares tensors as a whole; use x:lt(y) or x:gt(y) for each element",
    function() return ones(2) < ones(2) end},
  {"le: <= compares tensors as a whole; use x:le(y) or x:ge(y) for each element",
    function() return ones(2) <= ones(2) end},
  {"to: 'f31' is neither a dtype (f32 f64 bf16 f16 i64 i32 u8 bool) nor a device",
    function() return ones(2):to("f31") end},
  {"size: dimension 3 is outside 1..1 (x {2})", function() return ones(2):size(3) end},
  {"requires_grad_: only float tensors can require a gradient, not bool (x {2})",
    function() return ones(2):gt(0):requires_grad_() end},
  {"no_grad: fn must be a function, got number", function() return dlua.no_grad(1) end},
  {"grad: y must be a tensor or a list of tensors, got number", function() return dlua.grad(1, ones(2)) end},
  {"Function: backward must be a function", function() return dlua.Function {forward = print} end},
  {"ones: unknown dtype 'f31' (did you mean 'f32'?)", function() return ones(2, {dtype = "f31"}) end},
  {"matmul: x has 3 columns but y has 2 rows (x {2,3}, y {2,3})", function() return ones(2, 3):matmul(ones(2, 3)) end},
  {"linear: x has 3 features but w expects 4 (x {5,3}, w {2,4})", function() return ones(5, 3):linear(ones(2, 4)) end},
  {"conv2d: x has 1 channel but w expects 3 (x {1,1,8,8}, w {8,3,3,3})",
    function() return ones(1, 1, 8, 8):conv2d(ones(8, 3, 3, 3)) end},
  {"cross_entropy: target 0 at position 1 is outside 1..3 (class labels start at 1)",
    function() return ones(2, 3):cross_entropy(i64 {0, 1}) end},
  {"mse_loss: shapes {2} and {2,1} differ; losses never broadcast",
    function() return ones(2):mse_loss(ones(2, 1)) end},
  {"reshape: cannot make {4,2} (8 elements) from {2,3} (6 elements)", function() return ones(2, 3):reshape(4, 2) end},
  {"item: x has 2 elements, needs exactly 1 (x {2})", function() return ones(2):item() end},
  {"backward: x does not require gradient: nothing it was made from does (x {2})",
    function() return (ones(2) * 2):backward() end},
  {"index_select: index 3 at position 1 is outside 1..2", function() return ones(2, 3):index_select(1, {3}) end},
  {"permute: dimension 1 is given twice", function() return ones(2, 3):permute(1, 1) end},
  {"relu: takes at most 1 argument, got 2", function() return ones(2):relu(1) end},
  {"add_: x is a leaf that requires gradient; change it in place inside dlua.no_grad (x {2})",
    function() return ones({2}, {requires_grad = true}):add_(1) end},
  {"where: condition must be a bool tensor, got f32 {2}", function() return dlua.where(ones(2), 1, 2) end},
  {"clamp: min must be a number, got string", function() return ones(2):clamp("a") end},
  {"pow_: y must be a tensor or a number, got string", function() return ones(2):pow_("a") end},
  {"eye: n must be an integer, got string", function() return dlua.eye("x") end},
  {"conv2d: unknown option 'paddin' (did you mean 'padding'?)",
    function() return ones(1, 1, 4, 4):conv2d(ones(2, 1, 3, 3), {paddin = 1}) end},
  {"threads: n must be at least 1, got 0", function() return dlua.threads(0) end},
  {"seed: n must be an integer, got string", function() return dlua.seed("a") end},
  {"expand: {1099511627776,1099511627776} has too many elements",
    function() return ones(1):expand(1 << 40, 1 << 40) end},
  {"range: {9223372036854775807} has too many elements",
    function() return dlua.range(math.mininteger, math.maxinteger) end},
  {"bce_loss: x 4 at position 2 is outside 0..1; bce_with_logits takes scores (x {2})",
    function() return dlua.tensor({0.5, 4}):bce_loss(ones(2)) end},
  {"ToFloat: x must be a tensor, got string", function() return (dlua.transforms.ToFloat()("a")) end},
  {"transforms.RandmCrop does not exist (did you mean transforms.RandomCrop?)",
    function() return dlua.transforms.RandmCrop end},
  {"data.lod does not exist (did you mean data.load?)", function() return dlua.data.lod end},
  {"image.laod does not exist (did you mean image.load?)", function() return dlua.image.laod end},
}

describe("a message", function()
  for _, case in ipairs(cases) do
    it("is: " .. case[1], function() assert.equal(case[3] or case[1], message_of(case[2])) end)
  end

  it("names released tensors", function()
    local x = ones(2)
    x:release()
    assert.equal("add: x must be a tensor or a number, got a released tensor", message_of(function() return x + 1 end))
    assert.equal("a released tensor", tostring(x))
  end)

  it("is one line that names what is missing on dlua", function()
    assert.equal("dlua.zeroes does not exist (did you mean dlua.zeros?)", message_of(function() return dlua.zeroes end))
  end)

  it("names devices that are not there", function()
    local available, reason = dlua.cuda.available()
    if available then return end
    assert.matches("^cuda is not available: ", reason)
    assert.matches("cuda is not available", message_of(function() return ones(2):to("cuda") end))
    assert.matches("devices count from 1", message_of(function() return ones(2):to("cuda:0") end))
  end)

  it("carries the path of the layer", function()
    local nn = dlua.nn
    local net = nn.Sequential {nn.Linear(4, 3), nn.Sequential {nn.ReLU(), nn.Linear(4, 2)}}
    local text = message_of(function() return net(ones(5, 4)) end)
    assert.matches("^linear: .*  %[2%.2%]$", text)
  end)
end)

describe("functions beside ops", function()
  it("name themselves and the argument", function()
    assert.equal("device: name must be a string, got number", message_of(function() return dlua.device(5) end))
    assert.equal("op_info: name must be a string, got table", message_of(function() return dlua.op_info {} end))
    assert.equal("image.load: path must be a string, got nil", message_of(function() return dlua.io.png_read(nil) end))
    assert.equal("nearest: word must be a string, got nil", message_of(function() return dlua.nearest(nil) end))
    assert.equal("step: rule 'lion' is unknown (sgd, adam, rmsprop, adagrad)",
      message_of(function() return dlua.optim_step("lion", {}) end))
  end)
end)

describe("an error deep in a recursion", function()
  it("is raised soon", function()
    local function descend(depth)
      if depth == 0 then return ones(2) + ones(3) end
      return (descend(depth - 1))
    end
    local message = soon(1, function() return message_of(function() return descend(60000) end) end)
    assert.equal("add: shapes {2} and {3} do not broadcast", message)
  end)
end)
