# peer.py - the PyTorch twin of row.lua: peer.py NAME THREADS BATCH SECONDS DEVICE DTYPE [MODE], MODE being contiguous,
# channels_last or compile.
#
# Same networks, data shapes, optimisers, warm-up and output line. run.lua starts it.
import math
import os
import sys
import time

import torch
from torch import nn
import torch.nn.functional as F

name, threads, batch, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
device, dtype = sys.argv[5], {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[sys.argv[6]]
mode = sys.argv[7] if len(sys.argv) > 7 else "contiguous"
mixed = torch.autocast(device, dtype, enabled=dtype != torch.float32)
torch.set_num_threads(threads)
torch.manual_seed(1)
rows = {}


def row(name):
    def add(function):
        rows[name] = function
        return function
    return add


def randn(*size):
    return torch.randn(*size).to(device)


def trained(net, size, classes, optimizer):
    x, y = randn(batch, *size), torch.randint(0, classes, (batch,)).to(device)
    net = net.to(device)
    if mode == "channels_last" and x.dim() == 4:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    run = torch.compile(net) if mode == "compile" else net
    opt = optimizer(net.parameters())

    def step():
        with mixed:
            loss = F.cross_entropy(run(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return step, 1


def adam(p):
    return torch.optim.Adam(p, 1e-3)


@row("mlp-tiny")
def _():
    net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    return trained(net, (4,), 2, adam)


@row("mlp-mnist")
def _():
    net = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    return trained(net, (784,), 10, lambda p: torch.optim.SGD(p, 1e-2))


@row("cifar-1")
def _():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 1024), nn.ReLU(), nn.Linear(1024, 256), nn.ReLU(),
                        nn.Linear(256, 10))
    return trained(net, (3, 32, 32), 10, adam)


@row("cifar-2")
def _():
    net = nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
                        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
                        nn.Linear(84, 10))
    return trained(net, (3, 32, 32), 10, adam)


def pair(cin, middle, cout):
    return nn.Sequential(nn.Conv2d(cin, middle, 3, padding=1), nn.BatchNorm2d(middle), nn.ReLU(),
                         nn.Conv2d(middle, cout, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))


@row("cifar-3")
def _():
    net = nn.Sequential(pair(3, 32, 64), pair(64, 128, 128), nn.Dropout(0.05), pair(128, 256, 256), nn.Flatten(),
                        nn.Dropout(0.1), nn.Linear(4096, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(),
                        nn.Dropout(0.1), nn.Linear(512, 10))
    return trained(net, (3, 32, 32), 10, adam)


def repeated(function, calls=1000):
    def step():
        for _ in range(calls):
            function()
    return step, calls


@row("add-4")
def _():
    x, y = randn(4), randn(4)
    return repeated(lambda: x + y)


@row("add-4-grad")
def _():
    x, y = randn(4).requires_grad_(), randn(4)
    return repeated(lambda: x + y)


@row("chain-10")
def _():
    x, y = randn(4), randn(4)

    def step():
        for _ in range(100):
            z = x
            for _ in range(5):
                z = (z + y) * y
    return step, 1000


# ---------------------------------------------------------------- products and convolutions

def product(n):
    def make():
        x, y = randn(n, n), randn(n, n)

        def step():
            with mixed:
                x @ y
        return step, 1
    return make


for n in (256, 1024, 2048, 8192):
    rows["gemm-%d" % n] = product(n)


def laid_out(x):
    return x.to(memory_format=torch.channels_last) if mode == "channels_last" else x


def convolution():
    x, w = randn(batch, 64, 32, 32), randn(64, 64, 3, 3)
    return laid_out(x).requires_grad_(), laid_out(w).requires_grad_()


@row("conv-forward")
def _():
    x, w = convolution()

    def step():
        with torch.no_grad(), mixed:
            F.conv2d(x, w, padding=1)
    return step, 1


def gradient(which):
    def make():
        x, w = convolution()
        with mixed:
            y = F.conv2d(x, w, padding=1)
        g = laid_out(randn(batch, 64, 32, 32)).to(y.dtype)
        by = x if which == "input" else w
        return lambda: torch.autograd.grad(y, by, g, retain_graph=True), 1
    return make


rows["conv-input-grad"], rows["conv-weight-grad"] = gradient("input"), gradient("weight")


# ---------------------------------------------------------------- passes over memory

@row("softmax")
def _():
    x = randn(1024, 1024)
    return lambda: x.softmax(1), 1


@row("batch-norm")
def _():
    norm, x = laid_out(nn.BatchNorm2d(64).to(device)), laid_out(randn(batch, 64, 32, 32))

    def step():
        with torch.no_grad():
            norm(x)
    return step, 1


def adam_over(millions):
    def make():
        p = nn.Parameter(randn(millions, 1000, 1000))
        opt = adam([p])
        p.sum().backward()
        return opt.step, 1
    return make


for n in (1, 3, 10):
    rows["adam-%dM" % n] = adam_over(n)


# ---------------------------------------------------------------- pictures

def decoded():
    from concurrent.futures import ThreadPoolExecutor

    import numpy
    from PIL import Image
    folder = os.environ["DLUA_BENCH_PNG"]
    paths = sorted(os.path.join(at, f) for at, _, names in os.walk(folder) for f in names)

    def part(k):
        return [numpy.asarray(Image.open(path).convert("RGB")) for path in paths[k::threads]]

    def step():
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(part, range(threads)), [])
    return step


@row("png-decode")
def _():
    return decoded(), 1


# Whole batches at once, the fastest way eager PyTorch has: shifted and flipped by one gather.
@row("warm-epoch")
def _():
    import numpy
    images = torch.from_numpy(numpy.stack(decoded()())).permute(0, 3, 1, 2).contiguous()
    padded = F.pad(images, (4, 4, 4, 4))
    mean = torch.tensor([0.49, 0.48, 0.45]).view(1, 3, 1, 1)
    std = torch.tensor([0.25, 0.24, 0.26]).view(1, 3, 1, 1)
    line, channels = torch.arange(32), torch.arange(3).view(1, 3, 1, 1)

    def augmented(index):
        n = len(index)
        top, left = torch.randint(0, 9, (n, 1)), torch.randint(0, 9, (n, 1))
        columns = torch.where(torch.rand(n, 1) < 0.5, 31 - line, line) + left
        rows_ = line + top
        x = padded[index.view(n, 1, 1, 1), channels, rows_.view(n, 1, 32, 1), columns.view(n, 1, 1, 32)]
        return (x.float() / 255 - mean) / std

    def step():
        for index in torch.randperm(len(images)).split(128):
            augmented(index)
    return step, 1


# ---------------------------------------------------------------- timing

step, calls = rows[name]()
step()
if device != "cpu":  # it works behind the script: blocks of ten steps, then the wait for it
    one, calls = step, calls * 10

    def step():
        for _ in range(10):
            one()
        torch.cuda.synchronize()
if seconds == 0:
    sys.exit()
for _ in range(2):
    step()
times, began, cpu = [], time.perf_counter(), time.process_time()
while True:
    start = time.perf_counter()
    step()
    now = time.perf_counter()
    times.append(1e3 * (now - start) / calls)
    spent = now - began
    if len(times) >= 3 and (spent > seconds or (len(times) >= 50 and spent > seconds / 10)):
        break
cpu = 1e3 * (time.process_time() - cpu) / len(times) / calls
times.sort()


def quantile(q):
    return times[max(1, math.ceil(q * len(times))) - 1]


print("%.6g %.6g %.6g %.6g %d" % (quantile(0.5), quantile(0.1), quantile(0.9), cpu, len(times)))
