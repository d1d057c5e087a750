# peer.py - the PyTorch twin of rows.lua: peer.py NAME THREADS BATCH SECONDS [eager|channels_last|compile]
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
mode = sys.argv[5] if len(sys.argv) > 5 else "eager"
torch.set_num_threads(threads)
torch.manual_seed(1)
rows = {}


def row(name):
    def add(function):
        rows[name] = function
        return function
    return add


def trained(net, size, classes, optimizer):
    x, y = torch.randn(batch, *size), torch.randint(0, classes, (batch,))
    if mode == "channels_last" and x.dim() == 4:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    run = torch.compile(net) if mode == "compile" else net
    opt = optimizer(net.parameters())

    def step():
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
    x, y = torch.randn(4), torch.randn(4)
    return repeated(lambda: x + y)


@row("add-4-grad")
def _():
    x, y = torch.randn(4, requires_grad=True), torch.randn(4)
    return repeated(lambda: x + y)


@row("chain-10")
def _():
    x, y = torch.randn(4), torch.randn(4)

    def step():
        for _ in range(100):
            z = x
            for _ in range(5):
                z = (z + y) * y
    return step, 1000


@row("gemm-1024")
def _():
    x, y = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return lambda: x @ y, 1


def convolution():
    x = torch.randn(batch, 64, 32, 32)
    w = torch.randn(64, 64, 3, 3)
    if mode == "channels_last":
        x, w = x.to(memory_format=torch.channels_last), w.to(memory_format=torch.channels_last)
    return x.requires_grad_(), w.requires_grad_()


@row("conv-forward")
def _():
    x, w = convolution()

    def step():
        with torch.no_grad():
            F.conv2d(x, w, padding=1)
    return step, 1


@row("conv-both")
def _():
    x, w = convolution()
    g = torch.randn(batch, 64, 32, 32)
    return lambda: torch.autograd.grad(F.conv2d(x, w, padding=1), (x, w), g), 1


@row("softmax")
def _():
    x = torch.randn(1024, 1024)
    return lambda: x.softmax(1), 1


@row("batch-norm")
def _():
    norm, x = nn.BatchNorm2d(64), torch.randn(batch, 64, 32, 32)

    def step():
        with torch.no_grad():
            norm(x)
    return step, 1


@row("adam-10M")
def _():
    p = nn.Parameter(torch.randn(10, 1000, 1000))
    opt = adam([p])
    p.sum().backward()
    return opt.step, 1


@row("png-decode")
def _():
    from concurrent.futures import ThreadPoolExecutor

    import numpy
    from PIL import Image
    folder = os.environ["DLUA_BENCH_PNG"]
    paths = [os.path.join(at, f) for at, _, names in os.walk(folder) for f in names]

    def decode(path):
        return numpy.asarray(Image.open(path).convert("RGB"))

    def step():
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(decode, paths))
    return step, 1


step, calls = rows[name]()
for _ in range(3):
    step()
times, began = [], time.monotonic()
while len(times) < 5 or (len(times) < 50 and time.monotonic() - began <= seconds):
    start = time.perf_counter()
    step()
    times.append(1e3 * (time.perf_counter() - start) / calls)
times.sort()


def quantile(q):
    return times[max(1, math.ceil(q * len(times))) - 1]


print("%.6g %.6g %.6g %d" % (quantile(0.5), quantile(0.1), quantile(0.9), len(times)))
