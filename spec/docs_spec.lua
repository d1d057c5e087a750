-- Every public function written in Lua has a comment with an example, and the examples run.
local dlua = require "dlua"
local help = require "dlua.help"
local nn, optim, train, metrics = dlua.nn, dlua.optim, dlua.train, dlua.metrics
local helpers = require "spec.helpers"
local lfs = require "lfs"
local loader = helpers.loader

-- What examples may name.
local function environment()
  local net = nn.Sequential {nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)}
  local x, y = dlua.randn(5, 4), dlua.tensor({1, 2, 3, 1, 2}, {dtype = "i64"})
  local opt = optim.Adam(net:parameters(), {lr = 0.01})
  local criterion = nn.CrossEntropyLoss()
  local batches = loader {{x, y}, {x, y}}
  local schedule = optim.StepLR(opt, {step_size = 2})
  local set = dlua.data.TensorDataset(dlua.rand(1000, 1, 2, 2), dlua.range(1, 1000))
  local stop = train.EarlyStopping {restore_best = true}
  stop:step(2, net)
  return setmetatable({
    dlua = dlua, nn = nn, optim = optim, train = train, metrics = metrics, help = help, net = net, x = x, y = y,
    opt = opt, criterion = criterion, batches = batches, val_batches = batches, schedule = schedule, stop = stop,
    copy = nn.Sequential {nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)}, loss = criterion(net(x), y),
    p = dlua.rand(3), target = dlua.rand(3), val = {loss = 1.0}, saved = opt:state_dict(), self = net,
    Net = nn.class "Net", data = dlua.data, image = dlua.image, T = dlua.transforms, transforms = dlua.transforms,
    set = set, frame = require "dlua.data.frame"({"HUFL", "OT", "Passengers"}, {x[1], x[2], x[3]}, 4),
    gradcheck = require "dlua.gradcheck",
    scaler = dlua.GradScaler(), progress = train.Progress(2, ""), accuracy = metrics.Accuracy(), print = function() end,
  }, {__index = _G})
end

-- All public functions by name: of module tables, and methods of classes.
local function public_functions()
  local found = {}
  local function add(path, owner)
    for name, value in next, owner do
      if type(name) == "string" and type(value) == "function" and name:sub(1, 2) ~= "__" then
        local source = debug.getinfo(value, "S").source
        if source:find("dlua/", 1, true) then found[path .. name] = value end
      end
    end
  end
  add("nn.", nn)
  add("optim.", optim)
  add("train.", train)
  add("metrics.", metrics)
  add("net:", nn.Module)
  found["net:append"] = nn.Sequential.append
  add("opt:", getmetatable(optim.Adam).__index)
  add("schedule:", getmetatable(optim.StepLR).__index)
  add("x:", dlua.methods)
  for _, name in ipairs {"Mean", "Accuracy", "TopK"} do add("metrics." .. name .. ":", metrics[name]) end
  for _, name in ipairs {"EarlyStopping", "Progress"} do add("train." .. name .. ":", train[name]) end
  add("data.", dlua.data)
  add("image.", dlua.image)
  add("T.", dlua.transforms)
  add("scaler:", dlua.GradScaler)
  add("batches:", dlua.data.DataLoader)
  add("frame:", require "dlua.data.frame")
  add("set:", require "dlua.data.dataset".Dataset)
  found["dlua.args"], found["gradcheck"] = dlua.args, require "dlua.gradcheck"
  return found
end

-- Functions that need no words: what they do is said once for their class, or they override a documented one.
local undocumented = {
  ["net:init"] = true, ["net:is"] = true, ["net:fresh"] = true, ["net:replace"] = true, ["opt:init"] = true,
  ["opt:is"] = true, ["schedule:init"] = true, ["schedule:is"] = true, ["schedule:apply"] = true,
}

-- Examples that name files which are not there: they compile.
local names_files = {["data.ImageFolder"] = true, ["data.idx"] = true, ["data.csv"] = true, ["image.load"] = true}

local function is_exempt(name)
  return undocumented[name] or name:find "^metrics%.%w+:" or name:find ":is$" or name:find ":init$"
    or name:find ":epoch_end$" or name:find ":train_end$" or name == "nn.in_eval_mode" or name == "nn.is_module"
end

local function example_of(text)
  local lines = {}
  for line in (text or ""):gmatch "[^\n]+" do
    if line:find "^   ?%S" or #lines > 0 and line:find "^  " then lines[#lines + 1] = line end
  end
  return #lines > 0 and table.concat(lines, "\n") or nil
end

-- Where an example's line says what comes out, a plain value, that is what must come out.
local function check_results(name, example)
  for line in example:gmatch "[^\n]+" do
    local code, promised = line:match "^%s*(.-)%s+%-%->%s+(.+)$"
    local expected = promised and load("return " .. promised, "=" .. name, "t", {})
    local chunk = code and load("return " .. code, "=" .. name, "t", environment())
    local ok, value = pcall(expected or error)
    if chunk and ok and value ~= nil then
      local actual = chunk()
      if math.type(value) == "float" then actual, value = ("%.10g"):format(actual), ("%.10g"):format(value) end
      assert.same(value, actual)
    end
  end
end

local names = {}
for name in pairs(public_functions()) do names[#names + 1] = name end
table.sort(names)

describe("documentation", function()
  local functions = public_functions()
  local folder, home = helpers.folder(), lfs.currentdir()
  setup(function()
    nn.Sequential({nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)}):save(folder:path "net.safetensors")
  end)
  teardown(function() folder:remove() end)
  after_each(function() assert(lfs.chdir(home)) end)

  for _, name in ipairs(names) do
    if not is_exempt(name) then
      it("of " .. name .. " has an example that runs", function()
        local text = help.comment(functions[name])
        assert(text, name .. " has no comment")
        local example = example_of(text)
        assert(example, name .. " has no example")
        local chunk, problem = load(example, "=" .. name, "t", environment())
        assert(chunk or load("return " .. example, "=" .. name, "t", environment()), problem)
        if not chunk then chunk = load("return " .. example, "=" .. name, "t", environment()) end
        if names_files[name] then return end
        assert(lfs.chdir(folder.root)) -- where examples may write
        chunk()
        check_results(name, example)
      end)
    end
  end

  it("of layers, optimisers and schedules comes from their descriptions", function()
    for path, module in pairs {nn = nn, optim = optim} do
      for name, value in next, module do
        if type(value) == "table" and rawget(value, "__name") and name ~= "Module" then
          local text = dlua.help(path .. "." .. name)
          assert(text and text:find(path .. "." .. name, 1, true), path .. "." .. name .. " has no help")
        end
      end
    end
  end)
end)
