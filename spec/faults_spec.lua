-- Networks, losses, optimisers, loaders and files when the n-th allocation fails, the runtime's and Lua's own (R6).
-- What a call had allocated is free again, and the same call works afterwards. spec/ops_spec.lua does it for every op.
local dlua = require "dlua"
local helpers = require "spec.helpers"
local live = require "spec.live"
local gradcheck = require "dlua.gradcheck"
local data, image, nn, optim = dlua.data, dlua.image, dlua.nn, dlua.optim
local train, T = dlua.train, dlua.transforms

local folder, root

setup(function()
  folder = helpers.folder()
  root = folder.root
  folder:make "set/a"
  folder:make "cifar"
  for k = 1, 4 do image.save(("%s/set/a/%d.png"):format(root, k), dlua.rand(3, 6, 6)) end
  for k = 1, 5 do folder:write(("cifar/data_batch_%d.bin"):format(k), ("\3"):rep(3073)) end
  folder:write("x.csv", 'a,b\n1,x\n2,"say ""y"""\n')
  folder:write("plain-idx", (">BBBBI4"):pack(0, 0, 13, 1, 2) .. (">ff"):pack(1, 2))
  dlua.save(root .. "/x.safetensors", {a = dlua.ones(3), b = dlua.ones(2, 2)}, {metadata = {k = "v"}})
  dlua.save(root .. "/x.npy", dlua.ones(3))
end)

teardown(function()
  folder:remove()
  print(("%d allocations were made to fail"):format(live.injections))
end)

local function both(f)
  live.check(f)
  live.check_lua(f)
end

local function small_net()
  return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5),
    nn.Linear(16, 3))
end

-- One step of training a net made on the spot.
local function step_with(make)
  local x, y = dlua.randn(2, 2, 6, 6), dlua.tensor({1, 3}, {dtype = "i64"})
  return function()
    local net = small_net()
    local optimizer = make(net)
    nn.CrossEntropyLoss()(net(x), y):backward()
    nn.clip_grad_norm_(net:parameters(), 1)
    optimizer:step()
    optimizer:zero_grad()
  end
end

describe("a failing allocation in", function()
  for name, given in helpers.sorted {
    SGD = {lr = 0.1, momentum = 0.9}, Adam = {lr = 0.1}, AdamW = {lr = 0.1}, RMSprop = {lr = 0.1, momentum = 0.9},
    Adagrad = {lr = 0.1},
  } do
    it("a step of " .. name, function()
      both(step_with(function(net) return optim[name](net:parameters(), given) end))
    end)
  end

  it("every layer and loss", function()
    local x, rows, target = dlua.randn(2, 3, 4, 4), dlua.randn(2, 3), dlua.tensor({1, 2}, {dtype = "i64"})
    both(function()
      nn.Conv2d(3, 2, 3, {padding = 1})(x)
      nn.AvgPool2d(2)(x)
      nn.AdaptiveAvgPool2d(1)(x)
      nn.BatchNorm2d(3)(x)
      local small = {nn.BatchNorm1d(3), nn.Linear(3, 2), nn.GELU(), nn.Sigmoid(), nn.Softmax(2), nn.Identity()}
      for _, layer in ipairs(small) do layer(rows) end
    end)
    both(function()
      for _, loss in ipairs {nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(), nn.BCEWithLogitsLoss()} do loss(rows, rows) end
      nn.CrossEntropyLoss()(rows, target)
      nn.NLLLoss()(rows, target)
    end)
  end)

  it("copying, printing and naming a net", function()
    local net = small_net()
    both(function() net:load_state_dict(net:state_dict()) end)
    both(function() return tostring(net) end)
    both(function() return nn.first_not_finite(net, {dlua.zeros(2, 2, 6, 6)}) end)
  end)

  it("second derivatives and functions of one's own", function()
    local x = dlua.randn({3}, {requires_grad = true})
    both(function()
      local g = dlua.grad((x ^ 3):sum(), x, {create_graph = true})
      dlua.grad(g:sum(), x)
    end)
    both(function() gradcheck(function(v) return v:tanh() end, {dlua.randn({2}, {dtype = "f64"})}) end)
  end)

  it("indexing, tables and text", function()
    local x = dlua.randn(3, 4)
    both(function()
      local y = x[{ {1, 2}, 3}]
      local z = x:clone()
      z[{ {1, 2} }] = 0
      z[x:gt(0)] = 1
      return y:totable(), tostring(z), dlua.tensor {{1, 2}, {3, 4}}
    end)
    both(function() return dlua.tidy(function() return {x + 1, x * 2} end) end)
  end)

  it("schedules and a short fit", function()
    local x, y = dlua.randn(4, 3), dlua.randn(4, 2)
    local loader = {iter = function()
      local given = false
      return function()
        if not given then given = true return x, y end
      end
    end}
    both(function()
      local net = nn.Linear(3, 2)
      local optimizer = optim.SGD(net:parameters(), {lr = 0.01})
      train.fit {net = net, optimizer = optimizer, loss = nn.MSELoss(), train = loader, epochs = 1,
        progress = false, schedule = optim.OneCycleLR(optimizer, {max_lr = 0.1, total_steps = 4})}
    end)
  end)

  it("loaders with and without workers", function()
    for workers = 0, 2, 2 do
      both(function()
        local loader = data.DataLoader(data.ImageFolder(root .. "/set"), {batch_size = 2, shuffle = true,
          num_workers = workers, transform = T.Compose {T.RandomCrop(4), T.ToFloat()}})
        for _ in loader:iter() do end -- luacheck: ignore 542
      end)
    end
    both(function()
      local loader = data.DataLoader(data.TensorDataset(dlua.rand(5, 2), dlua.rand(5)), {batch_size = 2})
      for _ in loader:iter() do end -- luacheck: ignore 542
    end)
  end)

  -- More pictures than one thread decodes alone; the other threads cannot collect garbage.
  it("reading all pictures of a data set, which loses none", function()
    assert(os.execute("mkdir -p '" .. root .. "/many/a'"))
    for k = 1, 120 do
      assert(os.execute(("ln -f '%s/set/a/%d.png' '%s/many/a/%d.png'"):format(root, k % 4 + 1, root, k)))
    end
    local threads = dlua.threads(2)
    local function read()
      local set <const> = data.ImageFolder(root .. "/many")
      local x = dlua.io.fields(set.handle, "mock")
      return {x:sum():item(), set.mean[1]}
    end
    local wanted = read()
    assert.is_true(wanted[1] > 0)
    local before = dlua.test.allocation_count()
    read()
    local count = dlua.test.allocation_count() - before
    local unnoticed = 0
    for n = 1, count, 11 * live.step do
      for _, on in ipairs {false, true} do
        local ok, found = live.short(n, on, read)
        if ok then
          unnoticed = unnoticed + 1
          assert.same(wanted, found)
        else
          assert.matches("^[^\n]*out of memory[^\n]*$", found)
        end
      end
    end
    assert.is_true(unnoticed > count / (11 * live.step) / 2)
    dlua.threads(threads)
  end)

  it("the threads of a loader, whose batches are what they would have been", function()
    local loader = data.DataLoader(data.ImageFolder(root .. "/set"), {batch_size = 1, num_workers = 2,
      transform = T.Compose {T.Resize({5, 5}), T.RandomHorizontalFlip(), T.ToFloat()}})
    local function sums()
      local list = {}
      loader.epoch = 0
      for x in loader:iter() do list[#list + 1] = x:sum():item() end
      return list
    end
    local wanted, before = sums(), dlua.test.allocation_count()
    sums()
    local count, unnoticed = dlua.test.allocation_count() - before, 0
    assert.equal(4, #wanted)
    for n = 1, count, live.step do
      for _, on in ipairs {false, true} do
        local ok, list = live.short(n, on, sums)
        if ok then unnoticed = unnoticed + 1 else assert.matches("^[^\n]*out of memory[^\n]*$", list) end
        assert.same(wanted, ok and list or sums())
      end
    end
    assert.is_true(unnoticed > 0)
  end)

  it("reading and writing pictures", function()
    local x = dlua.rand(3, 5, 5)
    both(function() image.load(root .. "/set/a/1.png") end)
    both(function() image.load("spec/fixtures/png/rgb16_interlaced.png") end)
    both(function() image.save(root .. "/out.png", x) end)
  end)

  it("reading and writing tensors", function()
    local x = dlua.rand(3, 4)
    both(function() dlua.load(root .. "/x.safetensors") end)
    both(function() dlua.load(root .. "/x.npy") end)
    both(function()
      dlua.save(root .. "/y.safetensors", {x = x:t(), tied = x, same = x}, {metadata = {k = "v"}})
    end)
    both(function() dlua.save(root .. "/y.npy", x:t()) end)
  end)

  it("reading tables and data sets", function()
    both(function() data.csv(root .. "/x.csv"):column "a" end)
    both(function() data.csv(root .. "/x.csv", {header = false}) end)
    both(function() data.idx(root .. "/plain-idx") end)
    both(function() data.idx "examples/data/mnist-small/t10k-labels-idx1-ubyte.gz" end)
    both(function() dlua.io.mnist("examples/data/mnist-small", false) end)
    both(function() dlua.io.cifar(root .. "/cifar", true) end)
    both(function()
      local set = data.ImageFolder(root .. "/set")
      data.random_split(set, {2, 2}, {seed = 1, stratify = true})
      set:get(2)
      return set.mean
    end)
  end)

  it("transforms", function()
    local x = dlua.rand(3, 8, 8)
    local all = T.Compose {T.RandomCrop(8, {padding = 2}), T.Resize({5, 6}), T.RandomAffine(10), T.ColorJitter(0.1),
      T.RandomErasing(1), T.Normalize(0.5, 0.5)}
    both(function() all(x) end)
    both(function() T.Compose {T.Pad(1), T.RandomHorizontalFlip(), T.CenterCrop(4), T.ToFloat()} end)
  end)

  it("saving and loading a net", function()
    local net = small_net()
    both(function() net:save(root .. "/net.safetensors") end)
    both(function() net:load(root .. "/net.safetensors") end)
    both(function() return net:summary {2, 6, 6} end)
  end)

  it("a whole script", function()
    local script = assert(loadfile("spec/fixtures/small_script.lua", "t"))
    both(function() script(root) end)
  end)

  it("metrics and early stopping", function()
    local scores, target = dlua.randn(4, 3), dlua.tensor({1, 3, 2, 2}, {dtype = "i64"})
    both(function()
      for _, metric in ipairs {dlua.metrics.Accuracy(), dlua.metrics.TopK(2), dlua.metrics.ConfusionMatrix(3)} do
        metric:update(scores, target)
        metric:value()
      end
    end)
    both(function()
      local net, stopping = nn.Linear(2, 2), train.EarlyStopping {patience = 1, restore_best = true}
      stopping:step(1, net)
      stopping:restore(net)
    end)
  end)

  it("functions of one's own and long lists", function()
    local x, many = dlua.randn({3}, {requires_grad = true}), {}
    for k = 1, 40 do many[k] = x end
    both(function()
      local double = dlua.Function {
        forward = function(ctx, v) ctx.kept = v return v * 2 end, backward = function(_, g) return g * 2 end,
      }
      dlua.grad(double(x):sum(), x)
    end)
    both(function() dlua.grad(dlua.cat(many):sum(), x) end)
  end)

  -- With ops_spec's own floor these are the 20 000 of a whole run.
  it("happens often enough", function()
    assert.is_true(live.injections * live.step >= 8000, live.injections .. " allocations were made to fail")
  end)
end)
