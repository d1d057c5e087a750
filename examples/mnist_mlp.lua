-- mnist_mlp.lua - a small fully connected network on handwritten digits, with train.fit: dlua mnist_mlp.lua
local dlua = require "dlua"
local nn, optim, data, train, metrics, T = dlua.nn, dlua.optim, dlua.data, dlua.train, dlua.metrics, dlua.transforms

local args = dlua.args {
  description = "Train a network with two hidden layers on MNIST.",
  {"data",   default = "mnist", help = "name of a data set of small grey pictures, or a folder of PNG files"},
  {"epochs", default = 5,       quick = 2, help = "passes over the training images"},
  {"lr",     default = 0.05,    help = "learning rate"},
  {"device", default = "auto",  help = "cpu, cuda, or auto"},
  {"seed",   default = 1,       help = "random seed"},
  {"quick",  default = false,   help = "two passes over a thousand digits, to see that it runs"},
}
dlua.seed(args.seed)
local device = dlua.device(args.device)

local digits = data.load(args.data, {split = "train"})
if args.quick then digits = data.subset(digits, math.min(1000, #digits), {seed = args.seed}) end
local train_set, val_set = data.random_split(digits, {0.9, 0.1}, {seed = args.seed})
local pipeline = T.Compose {T.ToFloat(), T.Normalize(digits.mean, digits.std)}
local pixels = (digits:get(1)):numel()

local net = nn.Sequential {
  nn.Flatten(),
  nn.Linear(pixels, 64), nn.ReLU(),
  nn.Linear(64, 32), nn.ReLU(),
  nn.Linear(32, #digits.classes),
}:to(device)
local opt = optim.SGD(net:parameters(), {lr = args.lr, momentum = 0.9})

local history = train.fit {
  net = net, optimizer = opt, loss = nn.CrossEntropyLoss(),
  train = data.DataLoader(train_set, {batch_size = 64, shuffle = true, transform = pipeline, device = device}),
  val = data.DataLoader(val_set, {batch_size = 500, transform = pipeline, device = device}),
  epochs = args.epochs, metrics = {accuracy = metrics.Accuracy()},
  schedule = optim.StepLR(opt, {step_size = 1, gamma = 0.7}), schedule_every = "epoch",
}
print(("validation accuracy %.2f %%"):format(100 * history.val_accuracy[#history.val_accuracy]))
