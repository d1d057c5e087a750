-- Training helpers: fit, evaluate, early stopping, progress, metrics.
local dlua = require "dlua"
local nn, optim, train, metrics = dlua.nn, dlua.optim, dlua.train, dlua.metrics
local helpers = require "spec.helpers"

local fails, near, loader = helpers.fails, helpers.near, helpers.loader

local function silently(fn)
  local write = io.stdout
  local file = io.tmpfile()
  io.stdout = file -- luacheck: ignore 122
  local result = table.pack(pcall(fn))
  io.stdout = write -- luacheck: ignore 122
  file:seek "set"
  local text = file:read "a"
  file:close()
  if not result[1] then error(result[2], 0) end
  return text, table.unpack(result, 2, result.n)
end

describe("metrics", function()
  it("mean weighs", function()
    local mean = metrics.Mean()
    mean:update(2)
    mean:update(dlua.tensor(5), 3)
    near(4.25, mean:value())
    mean:reset()
    fails(function() mean:value() end, "Mean: no value, as no sample was counted")
    for _, metric in ipairs {metrics.Accuracy(), metrics.TopK(1)} do
      fails(function() metric:value() end, getmetatable(metric).__name .. ": no value")
    end
  end)

  it("accuracy and top k count samples", function()
    local scores = dlua.tensor {{3, 2, 1}, {1, 2, 3}, {3, 2, 1}}
    local classes = dlua.tensor({1, 2, 3}, {dtype = "i64"})
    local accuracy, top = metrics.Accuracy(), metrics.TopK(2)
    accuracy:update(scores, classes)
    top:update(scores, classes)
    near(1 / 3, accuracy:value())
    near(2 / 3, top:value())
    accuracy:update(dlua.tensor {{0, 0, 1}}, dlua.tensor({3}, {dtype = "i64"}))
    near(2 / 4, accuracy:value())
    fails(function() accuracy:update(scores, scores) end, "Accuracy", "{3,3}")
    fails(function() metrics.TopK(5):update(scores, classes) end, "TopK", "5")
  end)

  it("are not changed by an empty batch", function()
    local scores, classes = dlua.tensor {{1, 2}}, dlua.tensor({2}, {dtype = "i64"})
    for _, metric in ipairs {metrics.Accuracy(), metrics.TopK(1)} do
      metric:update(dlua.zeros(0, 2), dlua.zeros({0}, {dtype = "i64"}))
      metric:update(scores, classes)
      assert.equal(1, metric:value())
    end
  end)

  it("the confusion matrix has true classes in rows", function()
    local matrix = metrics.ConfusionMatrix(2)
    matrix:update(dlua.tensor {{1, 0}, {0, 1}, {1, 0}}, dlua.tensor({1, 1, 2}, {dtype = "i64"}))
    assert.same({{1, 1}, {1, 0}}, matrix:value():totable())
    assert.same({0.5, 0}, matrix:recall())
    fails(function() matrix:update(dlua.tensor({3}), dlua.tensor {1}) end, "3", "1..2")
  end)
end)

describe("evaluate", function()
  local function net() return nn.Sequential {nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)} end

  it("weighs by sample and leaves everything as it was", function()
    local m = net()
    m[3]:eval()
    local x, y = dlua.randn(5, 2), dlua.tensor({1, 2, 1, 2, 2}, {dtype = "i64"})
    local batches = loader {{x[{ {1, 4} }], y[{ {1, 4} }]}, {x[{ {5, 5} }], y[{ {5, 5} }]}}
    dlua.seed(1)
    local expected = dlua.rand(1):item()
    dlua.seed(1)
    local result = train.evaluate(m, batches, {loss = nn.CrossEntropyLoss(), accuracy = metrics.Accuracy()})
    assert.equal(expected, dlua.rand(1):item())
    assert.is_true(m[1].training)
    assert.is_false(m[3].training)
    assert.equal(0, m[2].num_batches_tracked:item())
    m:eval()
    near(m(x):cross_entropy(y):item(), result.loss, 1e-5)
    near(m(x):argmax(2):eq(y):sum():item() / 5, result.accuracy)
  end)

  it("gives the mean over samples of a loss that sums", function()
    local x, y = dlua.randn(4, 2), dlua.randn(4, 2)
    local m = nn.Identity()
    local whole = train.evaluate(m, loader {{x, y}}, {loss = nn.MSELoss {reduction = "sum"}}).loss
    near((x - y):square():sum():item() / 4, whole, 1e-4)
  end)

  it("gives all but the last value of a batch to the model", function()
    local Add = nn.class "Add"
    function Add.forward(_, a, b) return a + b end
    local a, b = dlua.ones(3), dlua.ones(3)
    near(0, train.evaluate(Add(), loader {{a, b, a + b}}, {loss = nn.MSELoss()}).loss)
  end)

  it("puts modes back after an error", function()
    local m = net()
    fails(function() train.evaluate(m, loader {{dlua.ones(1, 3), dlua.ones(1)}}, {loss = nn.MSELoss()}) end, "linear")
    assert.is_true(m.training)
    fails(function() train.evaluate(m, loader {}, {loss = 3}) end, "loss", "number")
  end)

  it("puts the generator back after an error", function()
    local Noise = nn.class "Noise"
    function Noise.forward(_, x) return x + dlua.randn(x.shape) end
    dlua.seed(1)
    local expected = dlua.rand(1):item()
    dlua.seed(1)
    fails(function() train.evaluate(Noise(), loader {{dlua.ones(1), dlua.ones(2)}}, {loss = nn.MSELoss()}) end, "mse")
    assert.equal(expected, dlua.rand(1):item())
  end)
end)

describe("early stopping", function()
  local function stops_at(options, values)
    local stop = train.EarlyStopping(options)
    for epoch, value in ipairs(values) do
      if stop:step(value) then return epoch, stop end
    end
    return nil, stop
  end

  it("stops after exactly patience epochs without improvement", function()
    assert.equal(5, (stops_at({patience = 3}, {5, 4, 4, 4, 4, 3})))
    assert.is_nil((stops_at({patience = 3}, {5, 4, 4.5, 4, 3, 3, 3})))
    assert.equal(2, (stops_at({patience = 1}, {5, 5})))
  end)

  it("knows both directions and a least difference", function()
    assert.equal(4, (stops_at({mode = "max", patience = 2}, {0.1, 0.2, 0.2, 0.1})))
    assert.equal(3, (stops_at({patience = 2, min_delta = 0.5}, {2, 1.8, 1.6})))
    assert.equal("max", train.EarlyStopping({monitor = "val_accuracy"}).mode)
    local _, stop = stops_at({patience = 9}, {3, 1, 2})
    assert.equal(1, stop.best)
    assert.equal(2, stop.best_epoch)
  end)

  it("counts what is not a number as no better", function()
    assert.equal(3, (stops_at({patience = 2}, {1, 0 / 0, 0 / 0})))
  end)

  it("keeps them through scopes, and modules their buffers", function()
    local stop = train.EarlyStopping {restore_best = true}
    local net = dlua.tidy(function()
      local made = nn.Sequential {nn.Linear(2, 2), nn.BatchNorm1d(2)}
      made:requires_grad_(false)
      stop:step(1, made)
      return made
    end)
    stop:restore(net)
    assert.shape({3, 2}, net(dlua.ones(3, 2)))
  end)

  it("restores the best weights", function()
    local net, stop = nn.Linear(1, 1), train.EarlyStopping {restore_best = true}
    for _, value in ipairs {3, 1, 2} do
      nn.init.constant_(net.weight, value)
      stop:step(value, net)
    end
    stop:restore(net)
    assert.equal(1, net.weight:item())
    fails(function() train.EarlyStopping():restore(net) end, "restore_best")
    fails(function() train.EarlyStopping({restore_best = true}):step(1) end, "net")
  end)
end)

describe("progress", function()
  local now
  local time = dlua.time
  before_each(function()
    now = 0
    dlua.time = function() return now end
  end)
  after_each(function() dlua.time = time end)

  it("writes one line at the end where there is no terminal", function()
    local text = silently(function()
      local progress = train.Progress(3, "epoch 1/2")
      progress.live = false
      for k = 1, 3 do progress:step {loss = dlua.tensor(k / 2), lr = 0.1} end
      now = now + 61.7
      progress:finish {val_loss = 2.0}
    end)
    assert.equal("epoch 1/2  3 steps in 1:02  loss 1.5  lr 0.1  val_loss 2\n", text)
  end)

  it("keeps no graph", function()
    local progress = train.Progress(1, "")
    progress.live = false
    local w = dlua.ones(1)
    w.requires_grad = true
    progress:step {loss = w * 2}
    assert.is_false(progress.values.loss.requires_grad)
    assert.equal(2, progress.values.loss:item())
  end)

  it("redraws rarely on a terminal", function()
    local reads = 0
    silently(function()
      local progress = train.Progress(1000, "")
      progress.live = true
      local value = setmetatable({}, {__tostring = function()
        reads = reads + 1
        return "?"
      end})
      for _ = 1, 1000 do
        now = now + 1 / 512
        progress:step {loss = value}
      end
    end)
    assert.equal(1000 // 52, reads) -- ten times a second
  end)
end)

describe("fit", function()
  local x = dlua.tensor {{0, 0}, {0, 1}, {1, 0}, {1, 1}}
  local y = dlua.tensor({1, 2, 2, 1}, {dtype = "i64"})

  local function setup(options)
    dlua.seed(4)
    local net = nn.Sequential {nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)}
    local o = {
      net = net, optimizer = optim.Adam(net:parameters(), {lr = 0.05}), loss = nn.CrossEntropyLoss(),
      train = loader {{x, y}, {x, y}}, epochs = 3, progress = false,
    }
    for key, value in pairs(options or {}) do o[key] = value end
    return o
  end

  it("learns and keeps a history", function()
    local o = setup {epochs = 60, val = loader {{x, y}}, metrics = {accuracy = metrics.Accuracy()}}
    local history = train.fit(o)
    assert.equal(60, #history.loss)
    assert.equal(60, #history.val_loss)
    assert.equal(1, history.val_accuracy[60])
    assert.is_true(history.loss[60] < history.loss[1])
    assert.equal(0.05, history.lr[60])
  end)

  it("tells callbacks what happens", function()
    local events = {}
    local object = {epoch_end = function(_, state) events[#events + 1] = "object " .. state.epoch end}
    train.fit(setup {epochs = 2, callbacks = {object, function(event, state)
      events[#events + 1] = event
      assert.equal(2, state.epochs)
      if event == "epoch_end" then assert.truthy(state.loss) end
    end}})
    assert.same({"train_begin", "epoch_begin", "batch_end", "batch_end", "object 1", "epoch_end",
      "epoch_begin", "batch_end", "batch_end", "object 2", "epoch_end", "train_end"}, events)
  end)

  it("lets a callback end it", function()
    local history = train.fit(setup {callbacks = {function(event, state) state.stop = event == "epoch_end" end}})
    assert.equal(1, #history.loss)
  end)

  it("stops early and restores the best", function()
    local o = setup {epochs = 9, val = loader {{x, y}}}
    local weights = {}
    o.optimizer.lr = 0
    local stop = train.EarlyStopping {patience = 2, restore_best = true}
    o.callbacks = {stop, function(event, state)
      if event ~= "epoch_end" then return end
      weights[state.epoch] = state.net[1].weight:detach():clone()
      dlua.no_grad(function() state.net[1].weight:add_(1) end)
    end}
    local history = train.fit(o)
    assert.is_true(#history.loss < 9)
    assert.is_true(o.net[1].weight:equal(weights[stop.best_epoch]))
  end)

  it("begins anew with callbacks that were in another run", function()
    local stop = train.EarlyStopping {monitor = "loss", patience = 2}
    local first = setup {epochs = 9, callbacks = {stop}}
    first.optimizer.lr = 0
    assert.equal(3, #train.fit(first).loss)
    local second = setup {epochs = 4, callbacks = {stop}}
    second.loss = function(output, target) return output:cross_entropy(target) + 10 end
    assert.equal(4, #train.fit(second).loss)
    assert.is_true(stop.best > 10)
  end)

  it("gives the mean over samples of a loss that sums", function()
    local o = setup {epochs = 1, loss = nn.CrossEntropyLoss {reduction = "sum"}, val = loader {{x, y}}}
    o.optimizer.lr = 0
    local history = train.fit(o)
    near(history.val_loss[1], history.loss[1], 1e-6)
    near(o.net(x):cross_entropy(y):item(), history.loss[1], 1e-6)
  end)

  it("steps schedules per step or per epoch", function()
    local o = setup {epochs = 2}
    o.schedule = optim.StepLR(o.optimizer, {step_size = 1, gamma = 0.5})
    train.fit(o)
    near(0.05 / 16, o.optimizer.lr, 1e-12)
    o = setup {epochs = 2, schedule_every = "epoch"}
    o.schedule = optim.StepLR(o.optimizer, {step_size = 1, gamma = 0.5})
    local history = train.fit(o)
    near(0.05 / 4, o.optimizer.lr, 1e-12)
    near(0.025, history.lr[2], 1e-12)
  end)

  it("shows a schedule the result it follows", function()
    local o = setup {epochs = 4, val = loader {{x, y}}}
    o.optimizer.lr = 0
    o.schedule = optim.ReduceLROnPlateau(o.optimizer, {patience = 1})
    train.fit(o)
    assert.equal(4, o.schedule.count)
    near(o.schedule.best, train.evaluate(o.net, o.val, {loss = o.loss}).loss, 1e-6)
  end)

  it("names the first layer that is not finite", function()
    local o = setup()
    nn.init.constant_(o.net[3].weight, math.huge)
    fails(function() train.fit(o) end, "epoch 1", "batch 1", "output of 3")
    o.guard = false
    train.fit(o)
    assert.is_true(o.optimizer.guard)
    o.callbacks = {function() error("stop here", 0) end}
    fails(function() train.fit(o) end, "stop here")
    assert.is_true(o.optimizer.guard)
  end)

  it("says what it lacks", function()
    fails(function() train.fit {net = nn.Linear(1, 1)} end, "train.fit", "is missing")
    fails(function() train.fit(setup {epohcs = 1}) end, "epohcs", "epochs")
    fails(function() train.fit(setup {net = 1}) end, "net", "module")
    fails(function() train.fit(setup {optimizer = {}}) end, "optimizer", "step")
    fails(function() train.fit(setup {train = {}}) end, "train", "iter")
    fails(function() train.fit(setup {val = 3}) end, "val", "iter", "number")
    for _, name in ipairs {"stop", "history", "net", "optimizer", "epoch", "epochs", "batch", "val_loss", "lr"} do
      fails(function() train.fit(setup {metrics = {[name] = metrics.Mean()}}) end, "metric", name)
    end
  end)
end)
