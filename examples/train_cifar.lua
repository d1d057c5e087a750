-- train_cifar.lua - a convolutional network on CIFAR-10 images: dlua train_cifar.lua --epochs 10
local dlua = require "dlua"
local nn, optim, data, train, metrics, T = dlua.nn, dlua.optim, dlua.data, dlua.train, dlua.metrics, dlua.transforms

local args = dlua.args {
  description = "Train a convolutional network on CIFAR-10.",
  {"data",   default = "cifar10", help = "name of a data set, or a folder with train/CLASS/*.png and test/CLASS/*.png"},
  {"epochs", default = 10,        quick = 1,   help = "passes over the training images"},
  {"batch",  default = 128,       quick = 20,  help = "images per step"},
  {"lr",     default = 4e-3,      help = "highest learning rate of the one-cycle schedule"},
  {"limit",  default = 0,         quick = 100, help = "use only this many training images (0: all)"},
  {"device", default = "auto",    help = "cpu, cuda, or auto"},
  {"seed",   default = 1,         help = "random seed"},
  {"save",   default = "",        help = "file for the trained weights"},
  {"quick",  default = false,     help = "a few seconds on a hundred images, to see that it runs"},
}
dlua.seed(args.seed)
local device = dlua.device(args.device)

-- Data: nine tenths to learn from, one tenth to watch, the test images for the end.

local images = data.load(args.data, {split = "train"})
local test_images = data.load(args.data, {split = "test"})
if args.quick then test_images = data.subset(test_images, math.min(300, #test_images), {seed = args.seed}) end
if args.limit > 0 then images = data.subset(images, args.limit, {seed = args.seed}) end
local train_images, val_images = data.random_split(images, {0.9, 0.1}, {seed = args.seed, stratify = true})

local normalize = T.Normalize(images.mean, images.std)
local augment = T.Compose {T.RandomCrop(32, {padding = 4}), T.RandomHorizontalFlip(), T.ToFloat(), normalize}
local plain = T.Compose {T.ToFloat(), normalize}

local function in_order(set)
  return data.DataLoader(set, {batch_size = 250, transform = plain, device = device})
end
local batches = data.DataLoader(train_images, {
  batch_size = args.batch, shuffle = true, drop_last = true, transform = augment, num_workers = 2, device = device,
})
local val_batches, test_batches = in_order(val_images), in_order(test_images)

-- Network: three stages that halve the picture and widen it.

local function stage(cin, cout)
  return nn.Sequential {
    nn.Conv2d(cin, cout, 3, {padding = 1, bias = false}), nn.BatchNorm2d(cout), nn.ReLU(),
    nn.Conv2d(cout, cout, 3, {padding = 1, bias = false}), nn.BatchNorm2d(cout), nn.ReLU(),
    nn.MaxPool2d(2),
  }
end
local net = nn.Sequential {
  stage(3, 32), stage(32, 64), stage(64, 128),
  nn.Flatten(), nn.Dropout(0.2), nn.Linear(128 * 4 * 4, #images.classes),
}:to(device)
print(net:summary {3, 32, 32})

-- Training.

local criterion = nn.CrossEntropyLoss {label_smoothing = 0.1}
local opt = optim.AdamW(net:parameters(), {lr = args.lr, weight_decay = 1e-2})
local schedule = optim.OneCycleLR(opt, {max_lr = args.lr, total_steps = args.epochs * #batches})
local waited, began = 0, dlua.time()

local function train_epoch(epoch)
  net:train()
  local progress = train.Progress(#batches, ("epoch %d/%d"):format(epoch, args.epochs))
  local before = dlua.time()
  for x, y in batches:iter() do
    waited = waited + dlua.time() - before
    local loss = criterion(net(x), y)
    opt:zero_grad()
    loss:backward()
    opt:step()
    schedule:step()
    progress:step {loss = loss, lr = opt.lr}
    before = dlua.time()
  end
  return progress
end

local function accuracy(loader) return train.evaluate(net, loader, {accuracy = metrics.Accuracy()}).accuracy end

local validation
for epoch = 1, args.epochs do
  local progress = train_epoch(epoch)
  validation = accuracy(val_batches)
  progress:finish {val_accuracy = validation}
end
local seconds = dlua.time() - began

if args.save ~= "" then net:save(args.save) end
print(("%.0f s, of which %.1f %% waiting for images"):format(seconds, 100 * waited / seconds))
print(("validation accuracy %.2f %%"):format(100 * validation))
print(("test accuracy %.2f %%"):format(100 * accuracy(test_batches)))
