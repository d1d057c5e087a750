"""Writes optim.lua: what PyTorch's optimisers and schedules give. Run: python spec/golden/optim.py > spec/golden/optim.lua"""

import math

import torch
from torch import optim
from torch.optim import lr_scheduler as schedule

START = [0.5, -1.25, 2.0, -0.1, 0.0]
STEPS = 5

OPTIMIZERS = [
    ("SGD", dict(lr=0.1)),
    ("SGD", dict(lr=0.1, weight_decay=0.01, maximize=True)),
    ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.25)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)),
    ("Adam", dict(lr=0.05)),
    ("Adam", dict(lr=0.05, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6)),
    ("Adam", dict(lr=0.05, amsgrad=True)),
    ("AdamW", dict(lr=0.05)),
    ("AdamW", dict(lr=0.05, weight_decay=0.2, amsgrad=True)),
    ("RMSprop", dict(lr=0.02)),
    ("RMSprop", dict(lr=0.02, centered=True, momentum=0.9, weight_decay=0.05, alpha=0.9)),
    ("Adagrad", dict(lr=0.1)),
    ("Adagrad", dict(lr=0.1, lr_decay=0.1, weight_decay=0.05, initial_accumulator_value=0.5)),
]

SCHEDULES = [
    ("StepLR", dict(step_size=3, gamma=0.5)),
    ("MultiStepLR", dict(milestones=[2, 5, 6], gamma=0.3)),
    ("ExponentialLR", dict(gamma=0.9)),
    ("CosineAnnealingLR", dict(T_max=10, eta_min=0.001)),
    ("LinearLR", dict(start_factor=0.25, total_iters=4)),
    ("OneCycleLR", dict(max_lr=0.5, total_steps=10)),
    ("OneCycleLR", dict(max_lr=0.5, total_steps=10, three_phase=True, anneal_strategy="linear", div_factor=10.0)),
]


def gradient(step):
    return [math.sin(1 + 3 * step + i) * (i + 1) / 2 for i in range(len(START))]


def lua(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "{" + ", ".join(lua(v) for v in value) + "}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {lua(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str):
        return f'"{value}"'
    return repr(value)


def run_optimizer(name, options):
    p = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    opt = getattr(optim, name)([p], **options)
    for step in range(1, STEPS + 1):
        p.grad = torch.tensor(gradient(step), dtype=torch.float64)
        opt.step()
    return p.tolist()


def run_schedule(name, options):
    make = getattr(schedule, name)
    groups = [dict(params=[torch.zeros(1, requires_grad=True)], lr=0.1)]
    if name != "OneCycleLR":
        groups.append(dict(params=[torch.zeros(1, requires_grad=True)], lr=0.02))
    opt = optim.SGD(groups, lr=1, momentum=0.9)
    clock = make(opt, **options)
    rows = []
    for _ in range(10):
        rows.append([g["lr"] for g in opt.param_groups] + [opt.param_groups[0]["momentum"]])
        opt.step()
        clock.step()
    return rows


def run_sequence():
    opt = optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    warm = schedule.LinearLR(opt, start_factor=0.1, total_iters=3)
    cool = schedule.CosineAnnealingLR(opt, T_max=7)
    clock = schedule.SequentialLR(opt, [warm, cool], milestones=[3])
    rates = []
    for _ in range(10):
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        clock.step()
    return rates


PLATEAU = [1.0, 0.9, 0.95, 0.94, 0.93, 0.92, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85]


def run_plateau():
    opt = optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    clock = schedule.ReduceLROnPlateau(opt, factor=0.5, patience=2, cooldown=1)
    rates = []
    for value in PLATEAU:
        clock.step(value)
        rates.append(opt.param_groups[0]["lr"])
    return rates


def main():
    print("-- Made by optim.py with PyTorch " + torch.__version__.split("+")[0] + "; do not edit.")
    print("return {")
    print(f"  start = {lua(START)},")
    print(f"  gradients = {lua([gradient(s) for s in range(1, STEPS + 1)])},".replace("}, {", "},\n    {"))
    print("  optimizers = {")
    for name, options in OPTIMIZERS:
        print(f'    {{"{name}", {lua(options)},\n      {lua(run_optimizer(name, options))}}},')
    print("  },\n  schedules = {")
    for name, options in SCHEDULES:
        print(f'    {{"{name}", {lua(options)},\n     {{')
        for row in run_schedule(name, options):
            print(f"      {lua(row)},")
        print("    }},")
    print("  },")
    print(f"  sequence = {lua(run_sequence())},".replace(", ", ",\n    "))
    print(f"  plateau = {{values = {lua(PLATEAU)},\n    rates = {lua(run_plateau())}}},")
    print("}")


if __name__ == "__main__":
    main()
