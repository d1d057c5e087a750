# make.py - writes ops.lua and losses.lua: what PyTorch computes, for golden_spec.lua to compare with.
#
#   python3 spec/golden/make.py          (needs torch; the files are committed, so only to add cases)
#
# Inputs are drawn so that f32 holds them exactly. A loss is sum(result * cos(1..n)), its gradients are stored beside
# the results. Indices count from 0 in PyTorch and from 1 in dlua: they are shifted here, on the way in and out.
import math
import os

import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
generator = torch.Generator().manual_seed(20)
cases = []


def r(*size, lo=-2.0, hi=2.0):
    """A float tensor of values that f32 holds."""
    return (lo + (hi - lo) * torch.rand(*size, generator=generator)).float().double()


def i(*values):
    return torch.tensor(values, dtype=torch.int64)


def m(*size):
    return torch.rand(*size, generator=generator) < 0.5


def case(name, function, tensors, tail=""):
    """name(tensors…, tail) in dlua is function(tensors…) in PyTorch; tail is Lua."""
    cases.append((name, function, tensors, tail))


# ---------------------------------------------------------------- the ops

x, y = r(3, 4), r(3, 4)
extreme = torch.tensor([0.0, 1e-30, -1e-30, 1e-8, 0.5, -1, 30, -30, 80, -80, 1e6, -1e6, math.inf, -math.inf, math.nan],
                       dtype=torch.float64).float().double()
small = torch.tensor([0.0, 1e-30, 1e-8, 0.25, 0.5, 0.999], dtype=torch.float64).float().double()
everywhere = {
    "neg": torch.neg, "abs": torch.abs, "sign": torch.sign, "square": torch.square, "floor": torch.floor,
    "ceil": torch.ceil, "round": torch.round, "trunc": torch.trunc, "exp": torch.exp, "expm1": torch.expm1,
    "sin": torch.sin, "cos": torch.cos, "atan": torch.atan, "sinh": torch.sinh, "cosh": torch.cosh, "erf": torch.erf,
    "relu": F.relu, "leaky_relu": F.leaky_relu, "elu": F.elu, "gelu": F.gelu, "silu": F.silu,
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "softplus": F.softplus, "hardtanh": F.hardtanh,
    "logsigmoid": F.logsigmoid,
}
for name, function in everywhere.items():
    case(name, function, [r(5, 7)])
    # sign(NaN) is NaN here, and gelu(inf) inf; PyTorch gives 0, and NaN in f32 only.
    case(name, function, [extreme[:12] if name in ("sign", "gelu") else extreme])
positive = {"log": torch.log, "log1p": torch.log1p, "log2": torch.log2, "log10": torch.log10, "sqrt": torch.sqrt,
            "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal}
for name, function in positive.items():
    case(name, function, [r(5, 7, lo=0.01, hi=9)])
    case(name, function, [extreme.abs()])
for name, function in {"tan": torch.tan, "asin": torch.asin, "acos": torch.acos}.items():
    case(name, function, [r(5, 7, lo=-0.99, hi=0.99)])
    case(name, function, [small])
case("gelu", lambda x: F.gelu(x, approximate="tanh"), [r(33)], '{approximate = "tanh"}')
case("leaky_relu", lambda x: F.leaky_relu(x, 0.2), [r(9)], "0.2")
case("elu", lambda x: F.elu(x, 0.5), [r(9)], "0.5")
case("softplus", lambda x: F.softplus(x, 2, 3), [r(33)], "2, 3")
case("hardtanh", lambda x: F.hardtanh(x, -0.5, 1.5), [r(33)], "-0.5, 1.5")
case("clamp", lambda x: x.clamp(-0.5, 1), [r(33)], "-0.5, 1")
case("clamp", lambda x: x.clamp(min=0.25), [r(9)], "{min = 0.25}")

binary = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "maximum": torch.maximum,
    "minimum": torch.minimum, "eq": torch.eq, "ne": torch.ne, "lt": torch.lt, "le": torch.le, "gt": torch.gt,
    "ge": torch.ge, "atan2": torch.atan2, "logical_and": torch.logical_and, "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}
for name, function in binary.items():
    case(name, function, [x, y])
    case(name, function, [r(4, 1), r(3)])
for name, function in {"floor_div": lambda x, y: torch.floor_divide(x.detach(), y.detach()), "mod": torch.remainder}.items():
    case(name, function, [r(3, 4, lo=-9, hi=9), r(4, lo=0.5, hi=3)])
    case(name, function, [r(3, 4, lo=-9, hi=9), r(4, lo=-3, hi=-0.5)])
case("pow", torch.pow, [r(3, 4, lo=0.1, hi=3), y])
for exponent in (1, 2, 3, 0.5, -1, -2):
    case("pow", lambda x, e=exponent: torch.pow(x, e), [r(7, lo=0.1, hi=3)], str(exponent))
case("where", torch.where, [m(3, 4), x, y])
case("logical_not", torch.logical_not, [m(7)])
for name in ("isnan", "isinf", "isfinite"):
    case(name, getattr(torch, name), [extreme])

case("masked_fill", lambda x, mask: x.masked_fill(mask, 7.0), [r(3, 4), m(4)], "7")
case("masked_select", torch.masked_select, [r(3, 4), m(3, 4)])
case("masked_scatter", torch.masked_scatter, [r(3, 4), m(3, 4), r(12)])
case("index_select", lambda x, k: x.index_select(0, k), [r(4, 3), i(3, 0, 0)], None)
case("gather", lambda x, k: x.gather(1, k), [r(3, 4), i(3, 0, 1, 2, 0, 1).reshape(3, 2)], None)
case("nonzero", torch.nonzero, [m(3, 4).double()])
case("one_hot", lambda k: F.one_hot(k, 5), [i(0, 4, 2)], "5")

for dim, lua in ((None, ""), (0, "1"), (1, "2"), (-1, "-1")):
    for name in ("sum", "mean", "prod", "var", "std"):
        case(name, lambda x, n=name, d=dim: getattr(x, n)() if d is None else getattr(x, n)(d), [r(5, 7)], lua)
    for name in ("max", "min"):
        case(name, lambda x, n=name, d=dim: getattr(x, n)() if d is None else getattr(x, n)(d), [r(5, 7)], lua)
    for name in ("argmax", "argmin"):
        case(name, lambda x, n=name, d=dim: getattr(x, n)(d), [r(5, 7)], lua)
    for name in ("all", "any"):
        case(name, lambda x, n=name, d=dim: getattr(x, n)() if d is None else getattr(x, n)(d), [m(5, 2)], lua)
for p in (1, 2, 3, math.inf):
    lua = "math.huge" if p == math.inf else str(p)
    case("norm", lambda x, p=p: torch.linalg.vector_norm(x, p), [r(5, 7)], lua)
    case("norm", lambda x, p=p: torch.linalg.vector_norm(x, p, 1), [r(5, 7)], lua + ", 2")
case("var", lambda x: x.var((0, 2), unbiased=False, keepdim=True), [r(2, 3, 4)],
     "{1, 3}, {unbiased = false, keepdim = true}")
case("logsumexp", lambda x: x.logsumexp(1), [r(5, 7)], "2")
case("logsumexp", lambda x: x.logsumexp(0), [r(3, 2) * 1e3], "1")
for dim in (0, 1):
    for name in ("cumsum", "cumprod", "softmax", "log_softmax"):
        case(name, lambda x, n=name, d=dim: getattr(torch, n)(x, d), [r(5, 7)], str(dim + 1))
case("softmax", lambda x: x.softmax(0), [extreme[:12]], "1")
case("sort", lambda x: x.sort(1), [r(3, 5)], "2")
case("sort", lambda x: x.sort(0, descending=True), [r(3, 5)], "1, true")
case("argsort", lambda x: x.argsort(1), [r(3, 5)])
case("topk", lambda x: x.topk(3, 1), [r(3, 5)], "3")
case("topk", lambda x: x.topk(2, 0, largest=False), [r(3, 5)], "2, 1, false")

case("transpose", lambda x: x.transpose(0, 2), [r(2, 3, 4)], "1, 3")
case("permute", lambda x: x.permute(2, 0, 1), [r(2, 3, 4)], "{3, 1, 2}")
case("flip", lambda x: x.flip(0, 1), [r(2, 3)], "{1, 2}")
case("roll", lambda x: x.roll((1, -2), (0, 1)), [r(3, 4)], "{1, -2}, {1, 2}")
case("tile", lambda x: x.repeat(2, 1, 3), [r(2, 3)], "{2, 1, 3}")
case("repeat_interleave", lambda x: x.repeat_interleave(2, 1), [r(2, 3)], "2, 2")
case("tril", lambda x: x.tril(-1), [r(4, 4)], "-1")
case("triu", lambda x: x.triu(1), [r(4, 4)], "1")
for mode in ("reflect", "replicate", "circular"):
    case("pad", lambda x, mode=mode: F.pad(x, (1, 2, 2, 1), mode), [r(1, 2, 4, 5)], '{1, 2, 2, 1}, "%s"' % mode)
case("pad", lambda x: F.pad(x, (1, 2), value=5.0), [r(2, 3)], "{1, 2}, {value = 5}")
case("narrow", lambda x: x.narrow(1, 1, 2), [r(2, 5)], "2, 2, 2")
case("select", lambda x: x.select(0, 1), [r(2, 5)], "1, 2")
case("expand", lambda x: x.expand(4, 3, 2), [r(3, 1)], "{4, 3, 2}")

for reduction in ("mean", "sum", "none"):
    tail = '{reduction = "%s"}' % reduction
    for name, function in (("mse_loss", F.mse_loss), ("l1_loss", F.l1_loss), ("huber_loss", F.huber_loss),
                           ("smooth_l1_loss", F.smooth_l1_loss)):
        case(name, lambda x, y, f=function, d=reduction: f(x, y, reduction=d), [r(3, 4), r(3, 4)], tail)
    case("bce_loss", lambda x, y, d=reduction: F.binary_cross_entropy(x, y.detach(), reduction=d),
         [r(3, 4, lo=0.01, hi=0.99), r(3, 4, lo=0, hi=1)], tail)
    case("bce_with_logits", lambda x, y, d=reduction: F.binary_cross_entropy_with_logits(x, y, reduction=d),
         [r(3, 4) * 10, r(3, 4, lo=0, hi=1)], tail)
    case("kl_div", lambda x, y, d=reduction: F.kl_div(x, y, reduction=d), [r(3, 4, lo=-3, hi=0), r(3, 4, lo=0.1, hi=1)],
         tail)
    case("nll_loss", lambda x, k, d=reduction: F.nll_loss(x, k, reduction=d), [r(3, 4), i(1, -100, 3)], tail)
    case("cross_entropy", lambda x, k, d=reduction: F.cross_entropy(x, k, reduction=d), [r(3, 4), i(1, -100, 3)], tail)
    case("cross_entropy", lambda x, k, d=reduction: F.cross_entropy(x, k, reduction=d, label_smoothing=0.1),
         [r(2, 3, 2), i(1, 2, 0, 1).reshape(2, 2)], '{label_smoothing = 0.1, reduction = "%s"}' % reduction)
    case("cross_entropy", lambda x, t, d=reduction: F.cross_entropy(x, t, reduction=d),
         [r(3, 4), r(3, 4, lo=0, hi=1).softmax(1).float().double()], tail)
case("cross_entropy", F.cross_entropy, [r(3, 4) * 100, i(1, 2, 3)])

for shapes in (((2, 3), (3, 4)), ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 1, 2, 3), (3, 3, 2)),
               ((17, 33), (33, 9))):
    case("matmul", torch.matmul, [r(*shapes[0]), r(*shapes[1])])
case("bmm", torch.bmm, [r(3, 2, 4), r(3, 4, 5)])
case("dot", torch.dot, [r(9), r(9)])
case("linear", F.linear, [r(5, 7), r(3, 7), r(3)])
case("linear", F.linear, [r(2, 3, 4), r(5, 4)])
for kwargs, lua in (({}, ""), ({"padding": 1}, "{padding = 1}"), ({"dilation": 2}, "{dilation = 2}"),
                    ({"stride": 2, "padding": 1}, "{stride = 2, padding = 1}"),
                    ({"stride": (1, 2), "padding": (2, 0)}, "{stride = {1, 2}, padding = {2, 0}}")):
    case("conv2d", lambda x, w, b, k=kwargs: F.conv2d(x, w, b, **k), [r(2, 3, 6, 7), r(4, 3, 3, 3), r(4)], lua)
case("conv2d", lambda x, w: F.conv2d(x, w, groups=2), [r(1, 4, 5, 5), r(6, 2, 3, 3)], "{groups = 2}")
case("conv2d", lambda x, w: F.conv2d(x, w, padding=1), [r(1, 16, 4, 4), r(16, 16, 3, 3)], "{padding = 1}")
case("max_pool2d", lambda x: F.max_pool2d(x, 2), [r(2, 3, 6, 6)], "2")
case("max_pool2d", lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), [r(1, 2, 6, 7)],
     "3, {stride = 2, padding = 1, ceil_mode = true}")
case("avg_pool2d", lambda x: F.avg_pool2d(x, 2), [r(2, 3, 6, 6)], "2")
case("avg_pool2d", lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), [r(1, 2, 6, 7)],
     "3, {stride = 2, padding = 1, count_include_pad = false}")
case("avg_pool2d", lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), [r(1, 2, 6, 8)],
     "3, {stride = 2, padding = 1, ceil_mode = true}")
case("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, (2, 3)), [r(1, 2, 5, 7)], "{2, 3}")
case("adaptive_max_pool2d", lambda x: F.adaptive_max_pool2d(x, (2, 3)), [r(1, 2, 5, 7)], "{2, 3}")
case("batch_norm", lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [r(4, 3, 2, 2), r(3), r(3)],
     "{training = true}")
case("batch_norm", lambda x, w, b: F.batch_norm(x, None, None, w, b, True, eps=1e-3), [r(5, 3), r(3), r(3)],
     "{training = true, eps = 1e-3}")

# ---------------------------------------------------------------- writing

COUNTED_FROM_ONE = {"max", "min", "argmax", "argmin", "sort", "argsort", "topk", "nonzero"}


def number(v, digits):
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, int):
        return str(v)
    if v != v:
        return "nan"
    if abs(v) == math.inf:
        return "huge" if v > 0 else "-huge"
    return "%.*g" % (digits, v)


def tensor(t, shift=0):
    """T("dtype", {sizes}, {values})"""
    kind = {torch.float64: "f64", torch.float32: "f32", torch.int64: "i64", torch.bool: "bool"}[t.dtype]
    values = [number(v if v == -100 else v + shift if shift else v, 9 if kind == "f32" else 17)
              for v in t.detach().reshape(-1).tolist()]
    sizes = ",".join(str(s) for s in t.shape)
    return 'T("%s",{%s},{%s})' % (kind, sizes, ",".join(values))


def evaluate(function, tensors, dtype):
    """Results, and the gradients of sum(result * cos(1..n)) by the float inputs."""
    inputs = [t.to(dtype).requires_grad_() if t.is_floating_point() else t for t in tensors]
    results = function(*inputs)
    results = list(results) if isinstance(results, (tuple, list)) else [results]
    loss = 0
    for k in results:
        if k.requires_grad:
            weights = torch.cos(torch.arange(1, k.numel() + 1, dtype=torch.float64)).to(dtype)
            loss = loss + (k.reshape(-1) * weights).sum()
    floats = [t for t in inputs if t.is_floating_point()]
    if not torch.is_tensor(loss):
        return results, []
    return results, [g for g in torch.autograd.grad(loss, floats, allow_unused=True)]


def write_ops(path):
    lines = ["-- Made by make.py with PyTorch %s; do not edit." % torch.__version__.split("+")[0],
             "local huge, nan = math.huge, 0 / 0", "return function(T) return {"]
    for name, function, tensors, tail in cases:
        arguments = [tensor(t, 1 if t.dtype == torch.int64 else 0) for t in tensors]
        if tail is None:  # x, dim, index
            arguments.insert(1, "1" if name == "index_select" else "2")
        elif tail:
            arguments.append(tail)
        lines.append('{op="%s",args={%s},' % (name, ",".join(arguments)))
        for key, dtype in (("f64", torch.float64), ("f32", torch.float32)):
            results, gradients = evaluate(function, tensors, dtype)
            shift = 1 if name in COUNTED_FROM_ONE else 0
            shown = [tensor(t, shift if t.dtype == torch.int64 else 0) for t in results]
            given = [tensor(g) if g is not None else "false" for g in gradients]
            lines.append("%s={results={%s},gradients={%s}}," % (key, ",".join(shown), ",".join(given)))
        lines.append("},")
    lines.append("} end")
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")


# ---------------------------------------------------------------- the first hundred losses of five models


def scrambled(size, salt, scale):
    """Numbers that Lua computes to the same bits: no generator to agree on."""
    count = math.prod(size)
    values = [((k * 7919 + salt * 104729) % 2003) / 2003 - 0.5 for k in range(1, count + 1)]
    return torch.tensor(values, dtype=torch.float64).reshape(size) * scale


def mlp():
    return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))


def cnn():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
                               torch.nn.MaxPool2d(2), torch.nn.Conv2d(4, 6, 3), torch.nn.ReLU(), torch.nn.Flatten(),
                               torch.nn.Linear(24, 3))


def losses(build, size, optimizer):
    net = build().double()
    with torch.no_grad():
        for salt, p in enumerate(net.parameters(), 1):
            p.copy_(scrambled(p.shape, salt, 0.5))
    inputs = scrambled(size, 99, 4.0)
    target = torch.tensor([k % 3 for k in range(size[0])])
    opt, out = optimizer(net.parameters()), []
    for _ in range(100):
        loss = F.cross_entropy(net(inputs), target)
        opt.zero_grad()
        loss.backward()
        opt.step()
        out.append(loss.item())
    return out


def write_losses(path):
    optim = torch.optim
    rows = {
        "mlp_sgd": losses(mlp, (12, 4), lambda p: optim.SGD(p, 0.1)),
        "mlp_momentum": losses(mlp, (12, 4), lambda p: optim.SGD(p, 0.05, momentum=0.9)),
        "mlp_adamw": losses(mlp, (12, 4), lambda p: optim.AdamW(p, 0.01, weight_decay=0.1)),
        "cnn_adam": losses(cnn, (6, 1, 8, 8), lambda p: optim.Adam(p, 0.002)),
        "cnn_rmsprop": losses(cnn, (6, 1, 8, 8), lambda p: optim.RMSprop(p, 0.001)),
    }
    with open(path, "w") as file:
        file.write("-- Made by make.py with PyTorch %s; do not edit.\nreturn {\n" % torch.__version__.split("+")[0])
        for name, values in rows.items():
            file.write("%s = {\n" % name)
            for k in range(0, 100, 5):
                file.write("  " + ", ".join("%.17g" % v for v in values[k:k + 5]) + ",\n")
            file.write("},\n")
        file.write("}\n")


torch.set_num_threads(1)
write_ops(os.path.join(HERE, "ops.lua"))
write_losses(os.path.join(HERE, "losses.lua"))
