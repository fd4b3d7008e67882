"""Layers of random graphs: contractions with tails, poolings' attributes, and gradient ops.

See `strategies.py`. Layers are biased towards what `fuse` looks for.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from addergraph.ir import Parameter, op_named
from addergraph.ir.types import Dim, Shape, f32
from tests.strategies import Drawing, Known

SIDES = (3, 4, 5, 1, 2, 7, 9, 3, 4, 5, 1, 2, 7, 6, 8, 0)
FEATURES = (4, 1, 2, 3, 5, 7, 8, 13, 17, 19, 35, 2, 3, 4, 8, 0)
EPSILON = 0.5  # of batch norm; variances 1/2, 7/2 and 31/2 then have whole deviations 1, 2 and 4
VARIANCES = (0.5, 3.5, 15.5)


# -- operands ------------------------------------------------------------------------------------


def batch_axis(d: Drawing) -> Dim:
    return "N" if d.open else d.batch


def image(d: Drawing) -> Known:
    found = d.pick(lambda v: v.type.rank == 4 and v.type.dtype == f32) if d.chance(75) else None
    height, width = d.one_of(SIDES), d.one_of(SIDES)
    most = d.most_elements // max(1, d.batch * height * width)
    shape = (batch_axis(d), height, width, min(most, d.one_of(d.channels)))
    return found or d.leaf(shape, source="input")


def matrix(d: Drawing) -> Known:
    found = d.pick(lambda v: v.type.rank == 2 and v.type.dtype == f32) if d.chance(75) else None
    return found or d.leaf((batch_axis(d), d.one_of(FEATURES)), source="input")


def any_f32(d: Drawing) -> Known:
    return d.pick(lambda v: v.type.dtype == f32) or image(d)


def operand(d: Drawing, shape: Shape) -> Known:
    """A filter, bias or residual: a leaf, computed from parameters alone, or what is there."""
    if d.chance(25):
        found = d.pick(lambda v: v.type.dtype == f32 and v.type.shape == shape)
        if found is not None:
            return found
    leaf = d.leaf(shape)
    if isinstance(leaf.value, Parameter) and d.chance(20):
        name = d.one_of(("neg", "abs", "relu"))
        made = d.add(name, leaf, quantum=leaf.quantum, bound=leaf.largest)
        return made[0] if made else leaf
    return leaf


def scaled(d: Drawing, x: Known, factor: float) -> list[Known]:
    """x times a power of two, as a constant node."""
    shift = round(math.log2(factor))
    (constant,) = d.add("full", value=factor, quantum=shift, bound=factor)
    bound = x.largest * factor
    return d.add("mul", x, constant, quantum=x.quantum + shift, bound=bound)


# -- contractions and their tails ----------------------------------------------------------------


def layer(d: Drawing) -> None:
    """A contraction and the pointwise nodes behind it."""
    made = dense_layer(d) if d.chance(30) else window_layer(d)
    for _ in range(d.integer(0, 4) if made else 0):
        made = tail_node(d, made[0]) or made


def window_layer(d: Drawing) -> list[Known]:
    name = d.one_of(("adder2d", "conv2d", "adder2d"))
    x = image(d)
    if name == "adder2d":
        x = perhaps_nonnegative(d, x)
    attributes, filter_shape = window_of(d, x)
    f = operand(d, filter_shape)
    bias = [operand(d, filter_shape[-1:])] if d.chance(30) else []
    facts = contraction_rule(name, math.prod(filter_shape[:3]), x, f, *bias)
    return d.add(name, x, f, *bias, **facts, **attributes)


def dense_layer(d: Drawing) -> list[Known]:
    name = d.one_of(("adder_dense", "dense", "matmul", "adder_dense"))
    x = matrix(d)
    if name == "adder_dense":
        x = perhaps_nonnegative(d, x)
    made = d.one_of(FEATURES)
    f = operand(d, (x.sizes[1], made))
    bias = [operand(d, (made,))] if name != "matmul" and d.chance(30) else []
    return d.add(name, x, f, *bias, **contraction_rule(name, x.sizes[1], x, f, *bias))


def perhaps_nonnegative(d: Drawing, x: Known) -> Known:
    """Makes the minimum form of an adder likely."""
    if not d.chance(40):
        return x
    name = d.one_of(("relu", "abs"))
    made = d.add(name, x, quantum=x.quantum, bound=x.largest)
    return made[0] if made else x


def contraction_rule(name: str, terms: int, x: Known, f: Known, *bias: Known) -> dict[str, Any]:
    """Quantum and bound of all intermediate sums, whatever the form."""
    quantum, bound = x.quantum + f.quantum, terms * x.largest * f.largest
    if name.startswith("adder"):
        quantum, bound = min(x.quantum, f.quantum), terms * (x.largest + f.largest)
    return {
        "quantum": min([quantum, *(b.quantum for b in bias)]),
        "bound": bound + sum(b.largest for b in bias),
    }


def window_of(d: Drawing, x: Known) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Attributes of a windowed contraction over x, and the shape of its filter."""
    _, height, width, channels = x.sizes
    if d.chance(25):  # the shape stays, so x itself may be the residual
        size, dilation = d.one_of((3, 1, 5)), d.one_of((1, 2))
        same = {"padding": (size // 2 * dilation,) * 4, "dilation": (dilation, dilation)}
        if 0 not in (height, width) and channels * size <= (640 if d.wide else 80):
            return same, (size, size, channels, channels)
    sizes, strides, dilations, padding = [], [], [], []
    for extent in (height, width):
        size, dilation = d.one_of((3, 1, 2, 4, 5)), d.one_of((1, 1, 1, 2, 3))
        stride = d.one_of((1, 1, 2, 3, 5))
        before, after = d.one_of((0, 1, 2, 3)), d.one_of((0, 1, 2, 3))
        missing = (size - 1) * dilation + 1 - extent - before - after
        sizes.append(size)
        dilations.append(dilation)
        strides.append(stride)
        padding += [before, after + max(0, missing)]
    divisors = [g for g in (1, 1, 2, 3, 4) if channels % g == 0]
    groups = d.one_of(divisors)
    made = d.one_of(d.channels if groups == 1 else (1, 2, 3, 5, 17))
    made = groups * min(made, max(1, d.most_elements // max(1, math.prod(sizes) * channels)))
    attributes = {
        "stride": tuple(strides), "padding": tuple(padding), "dilation": tuple(dilations),
        "groups": groups,
    }  # fmt: skip
    return attributes, (*sizes, channels // groups, made)


def tail_node(d: Drawing, x: Known) -> list[Known]:
    """One pointwise node as it stands behind contractions; several for some kinds."""
    if x.array.size and x.array.max() <= 0 and x.type.rank and d.chance(70):
        # An adder's results are far below zero: what follows would be constant.
        shift = d.leaf(x.type.shape[-1:], near=-float(np.median(x.array)))
        return binary(d, "add", x, shift)
    match d.one_of(("relu", "shift", "scale", "residual", "scalar", "norm", "other")):
        case "relu":
            return d.add("relu", x, quantum=x.quantum, bound=x.largest)
        case "shift" if x.type.rank:
            return binary(d, d.one_of(("add", "sub")), x, operand(d, x.type.shape[-1:]))
        case "scale" if x.type.rank:
            return binary(d, "mul", x, operand(d, x.type.shape[-1:]))
        case "residual":
            name = d.one_of(("add", "sub", "maximum", "minimum", "mul"))
            found = d.pick(lambda v: v.type == x.type and v.value is not x.value)
            other = found if d.chance(60) else None
            pair = [x, other or operand(d, x.type.shape)]
            return binary(d, name, *(pair if d.chance(70) else pair[::-1]))
        case "scalar" if d.chance(50):
            return binary(d, d.one_of(("add", "mul", "minimum")), x, d.leaf(()))
        case "scalar":
            return scaled(d, x, d.one_of((0.5, 2.0, 0.25)))
        case "norm" if x.type.rank >= 2:
            return batch_norm(d, x)
        case _:
            return simple(d, x)


def binary(d: Drawing, name: str, a: Known, b: Known) -> list[Known]:
    """add, sub, mul, maximum or minimum of f32 values."""
    quantum, bound = min(a.quantum, b.quantum), a.largest + b.largest
    if name == "mul":
        quantum, bound = a.quantum + b.quantum, a.largest * b.largest
    return d.add(name, a, b, quantum=quantum, bound=bound)


def batch_norm(d: Drawing, x: Known) -> list[Known]:
    channel = x.type.shape[-1:]
    middle = float(np.median(x.array)) if x.array.size else 0.0
    source = d.one_of(("parameter", "input"))
    mean = d.leaf(channel, source=source, near=middle)
    variance = d.leaf(channel, source=source, choices=VARIANCES)
    gamma, beta = d.leaf(channel), d.leaf(channel, choices=(-2.0, -0.25, 0.0, 1.0, 1.5))
    quantum = min(min(x.quantum, mean.quantum) + gamma.quantum - 2, beta.quantum)
    bound = (x.largest + mean.largest) * gamma.largest + beta.largest
    operands = (x, mean, variance, gamma, beta)
    return d.add("batch_norm", *operands, quantum=quantum, bound=bound, epsilon=EPSILON)


def simple(d: Drawing, x: Known) -> list[Known]:
    """neg, abs, clip, relu6, leaky_relu, rounding to a grid, select by a comparison, division by
    powers of two, a broadcast operand."""
    middle = float(np.median(x.array)) if x.array.size else 0.0
    middle = math.floor(middle / 2.0**x.quantum) * 2.0**x.quantum
    same: dict[str, Any] = {"quantum": x.quantum, "bound": x.largest}
    kinds = ("clip", "neg", "abs", "relu6", "leaky_relu", "grid", "select", "div", "broadcast")
    match d.one_of(kinds):
        case "clip":
            spread = 4 * 2.0**x.quantum
            lo = -math.inf if d.chance(20) else middle - spread
            hi = math.inf if d.chance(20) else middle + spread
            return d.add("clip", x, lo=lo, hi=hi, quantum=x.quantum, bound=x.largest + spread)
        case "grid":
            step, bits, saturate = 2.0 ** (x.quantum + 1), d.one_of((3, 4, 8)), d.chance(60)
            zero_point = 0 if d.chance(30) else 2 ** (bits - 1)
            return d.add(
                "fake_quantize", x, scale=step, zero_point=zero_point, bits=bits, saturate=saturate,
                quantum=x.quantum, bound=x.largest + step,
            )  # fmt: skip
        case "select":
            other = operand(d, x.type.shape)
            bound = 2.0 * max(abs(middle), 1.0)
            level = d.add("full", value=middle, quantum=x.quantum, bound=bound)
            mask = d.add("greater", x, level[0]) if level else []
            most = max(x.largest, other.largest)
            least = min(x.quantum, other.quantum)
            pair = (x, other) if d.chance(50) else (other, x)
            return d.add("select", mask[0], *pair, quantum=least, bound=most) if mask else []
        case "div":
            divisor = d.leaf(x.type.shape[-1:], choices=(0.5, 1.0, -2.0, 4.0))
            return d.add("div", x, divisor, quantum=x.quantum - 2, bound=2 * x.largest)
        case "broadcast" if x.type.rank:
            # Some axes of the operand are 1, and the first may be missing.
            ones = [1 if d.chance(50) or n == "N" else n for n in x.type.shape]
            return binary(d, d.one_of(("add", "mul", "maximum")), x, d.leaf((*ones,)))
        case "neg":
            return d.add("neg", x, **same)
        case "relu6":
            return d.add("relu6", x, quantum=min(x.quantum, 1), bound=min(x.largest, 6.0))
        case "leaky_relu":
            return d.add("leaky_relu", x, slope=0.25, quantum=x.quantum - 2, bound=x.largest)
        case _:
            return d.add("abs", x, **same)


def pool_of(d: Drawing, x: Known) -> tuple[str, dict[str, Any] | None]:
    """max_pool2d or avg_pool2d and attributes that fit x; averages over powers of two."""
    name = d.one_of(("max_pool2d", "avg_pool2d"))
    window, stride, padding = [], [], []
    for extent in x.sizes[1:3]:
        size = d.one_of((2, 1, 4, 3) if name == "max_pool2d" else (2, 1, 4))
        before = d.integer(0, size - 1)
        after = d.integer(0, size - 1)
        if not extent and (name == "max_pool2d" or before + after < size):
            return name, None
        after = max(after, size - extent - before)
        window.append(size)
        stride.append(d.one_of((2, 1, 3, 5)))
        padding += [before, after]
    return name, {"window": tuple(window), "stride": tuple(stride), "padding": tuple(padding)}


# -- gradients -----------------------------------------------------------------------------------


def gradient(d: Drawing) -> None:
    d.one_of((window_gradient, dense_gradient, pool_gradient, window_gradient))(d)


def window_gradient(d: Drawing) -> None:
    """A gradient op of adder2d or conv2d, with an upstream gradient of the right type."""
    x = image(d)
    attributes, filter_shape = window_of(d, x)
    f = operand(d, filter_shape)
    kind = d.one_of(("adder2d", "conv2d"))
    (y,) = op_named(kind)(**attributes).infer(x.type, f.type)
    if y.bind(d.batch).elements > d.most_elements:
        return
    g = operand(d, y.shape)
    if not d.open and d.chance(50):
        filter_gradient(d, kind, g, x, f, attributes)
        return
    terms = math.prod(filter_shape[:2]) * filter_shape[3]
    if kind == "adder2d":
        quantum = g.quantum + min(0, x.quantum, f.quantum)
        bound = terms * g.largest * max(1.0, x.largest + f.largest)
        d.add("adder2d_grad_input", g, x, f, quantum=quantum, bound=bound, **attributes)
        return
    quantum, bound = g.quantum + f.quantum, terms * g.largest * f.largest
    attributes |= {"input_size": x.sizes[1:3]}
    d.add("conv2d_grad_input", g, f, quantum=quantum, bound=bound, **attributes)


def filter_gradient(
    d: Drawing, kind: str, g: Known, x: Known, f: Known, attributes: dict[str, Any]
) -> None:
    terms = math.prod(g.sizes[:3])
    if kind == "adder2d":
        quantum = g.quantum + min(x.quantum, f.quantum)
        bound = terms * g.largest * (x.largest + f.largest)
        d.add("adder2d_grad_filter", g, x, f, quantum=quantum, bound=bound, **attributes)
        return
    quantum, bound = g.quantum + x.quantum, terms * g.largest * x.largest
    attributes |= {"kernel_size": f.sizes[:2]}
    d.add("conv2d_grad_filter", g, x, quantum=quantum, bound=bound, **attributes)


def dense_gradient(d: Drawing) -> None:
    x = matrix(d)
    made = d.one_of(FEATURES)
    f, g = operand(d, (x.sizes[1], made)), operand(d, (x.type.shape[0], made))
    if not d.open and d.chance(50):
        quantum = g.quantum + min(x.quantum, f.quantum)
        bound = x.sizes[0] * g.largest * (x.largest + f.largest)
        d.add("adder_dense_grad_filter", g, x, f, quantum=quantum, bound=bound)
        return
    quantum = g.quantum + min(0, x.quantum, f.quantum)
    bound = made * g.largest * max(1.0, x.largest + f.largest)
    d.add("adder_dense_grad_input", g, x, f, quantum=quantum, bound=bound)


def pool_gradient(d: Drawing) -> None:
    x = image(d)
    name, attributes = pool_of(d, x)
    if attributes is None:
        return
    (y,) = op_named(name)(**attributes).infer(x.type)
    if y.bind(d.batch).elements > d.most_elements:
        return
    g = operand(d, y.shape)
    area = math.prod(attributes["window"])
    if name == "max_pool2d":
        bound = area * g.largest
        d.add("max_pool2d_grad", g, x, quantum=g.quantum, bound=bound, **attributes)
        return
    quantum = g.quantum - (area.bit_length() - 1)
    attributes |= {"input_size": x.sizes[1:3]}
    d.add("avg_pool2d_grad", g, quantum=quantum, bound=g.largest, **attributes)
