"""Writes training.lua: losses of PyTorch over a few steps. Run: python spec/golden/training.py > spec/golden/training.lua"""

import math

import torch
from torch import nn, optim

STEPS = 8


def wave(shape, phase):
    """Numbers that any language makes alike: sin(phase + k) / 2 for the k-th element, from 0."""
    count = math.prod(shape)
    return torch.tensor([math.sin(phase + k) / 2 for k in range(count)], dtype=torch.float64).reshape(shape)


def prepare(net):
    net.double()
    for k, p in enumerate(net.parameters()):
        p.data = wave(p.shape, k + 1)
    return net


def mlp():
    net = prepare(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)))
    return net, wave((6, 4), 0.5)


def cnn():
    net = prepare(nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2, bias=False), nn.BatchNorm2d(4), nn.LeakyReLU(0.1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    return net, wave((6, 2, 8, 8), 0.5)


def train(build, make_optimizer):
    net, x = build()
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    opt = make_optimizer(net)
    clock = optim.lr_scheduler.OneCycleLR(opt, max_lr=0.05, total_steps=STEPS)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    losses, norms = [], []
    for _ in range(STEPS):
        loss = criterion(net(x), y)
        opt.zero_grad()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(net.parameters(), 0.5)))
        opt.step()
        clock.step()
        losses.append(loss.item())
    net.eval()
    with torch.no_grad():
        final = net(x).flatten().tolist()
    return losses, norms, final


def lua(values):
    return "{" + ", ".join(repr(v) for v in values) + "}"


def main():
    print("-- Made by training.py with PyTorch " + torch.__version__.split("+")[0] + "; do not edit.")
    print("return {")
    for name, build in (("mlp", mlp), ("cnn", cnn)):
        for rule, make in (("SGD", lambda n: optim.SGD(n.parameters(), lr=0.05, momentum=0.9)),
                           ("AdamW", lambda n: optim.AdamW(n.parameters(), lr=0.05, weight_decay=0.01))):
            losses, norms, final = train(build, make)
            print(f'  {{model = "{name}", rule = "{rule}",')
            for key, values in (("losses", losses), ("norms", norms), ("final", final)):
                print(f"    {key} = {lua(values)},".replace(", ", ",\n      "))
            print("  },")
    print("}")


if __name__ == "__main__":
    main()
