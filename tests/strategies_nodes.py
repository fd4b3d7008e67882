"""The nodes that random graphs are made of: shapes, attributes, and how exact each op is.

Every function here adds what it is named after to a `Drawing`, on operands that are there already
or on new leaves. Layers are biased towards what `fuse` looks for: a contraction and its tail.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from addergraph.ir import Parameter, op_named
from addergraph.types import DTYPES, Dim, Shape, f32, i32
from tests.strategies import MOST_ELEMENTS, Drawing, Known, is_dull

SIDES = (3, 4, 5, 1, 2, 7, 9, 3, 4, 5, 1, 2, 7, 6, 8, 0)
CHANNELS = (3, 1, 2, 4, 5, 7, 8, 11, 16, 17, 33, 3, 4, 8, 2, 0)
FEATURES = (4, 1, 2, 3, 5, 7, 8, 13, 17, 19, 35, 2, 3, 4, 8, 0)
EPSILON = 0.5  # of batch norm; variances 1/2, 7/2 and 31/2 then have whole deviations 1, 2 and 4
VARIANCES = (0.5, 3.5, 15.5)


def add_some(d: Drawing) -> None:
    """One random node, or a layer of several."""
    d.one_of(_KINDS)(d)


def results(d: Drawing) -> list[Known]:
    """One to three outputs: the newest value, and any others."""
    values = [v for v in d.values if v.type.is_open or not d.open]
    if not values:
        values = d.add("relu", d.leaf(("N", 3)), bound=9)
    unread = [v for v in values if v.value in _computed(d) and v.value not in _read(d)]
    telling = [v for v in unread if not is_dull(v.array)]
    first = (telling if d.chance(80) else unread) or unread or values
    outputs = [first[-1]]
    outputs += [d.one_of(first[::-1]) for _ in range(d.integer(0, 2))]
    if d.chance(10):
        outputs.append(d.one_of(values[::-1]))  # an input, a parameter, or an inner value
    return outputs


def _computed(d: Drawing) -> set[Any]:
    return {v for node in d.builder.nodes for v in node.outputs}


def _read(d: Drawing) -> set[Any]:
    return {v for node in d.builder.nodes for v in node.inputs}


def updates(d: Drawing) -> list[tuple[Known, Known]]:
    """New values for some parameters: p - v / 4, any value of the type, another parameter."""
    changed = []
    for p in [v for v in d.values if isinstance(v.value, Parameter)]:
        others = [v for v in d.values[::-1] if v.type == p.type and v.value is not p.value]
        if not others or not d.chance(60):
            continue
        other = d.one_of(others[:4])
        if p.type.dtype == f32 and d.chance(60):
            step = scaled(d, other, 0.25)
            made = binary(d, "sub", p, step[0]) if step else []
            other = made[0] if made else other
        changed.append((p, other))
    return changed


# -- operands ------------------------------------------------------------------------------------


def batch_axis(d: Drawing) -> Dim:
    return "N" if d.open else d.batch


def image(d: Drawing) -> Known:
    found = d.pick(lambda v: v.type.rank == 4 and v.type.dtype == f32) if d.chance(75) else None
    height, width = d.one_of(SIDES), d.one_of(SIDES)
    most = MOST_ELEMENTS // max(1, d.batch * height * width)
    shape = (batch_axis(d), height, width, min(most, d.one_of(CHANNELS)))
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
        if 0 not in (height, width) and channels * size <= 80:
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
    made = d.one_of(CHANNELS if groups == 1 else (1, 2, 3, 5, 17))
    made = groups * min(made, MOST_ELEMENTS // max(1, math.prod(sizes) * channels))
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


# -- pointwise -----------------------------------------------------------------------------------


def pointwise(d: Drawing) -> None:
    """A chain of pointwise nodes, some of them with several readers."""
    made = [any_f32(d)]
    for _ in range(d.integer(1, 4)):
        made = tail_node(d, made[0]) or made


def simple(d: Drawing, x: Known) -> list[Known]:
    """neg, abs, clip, select by a comparison, division by powers of two, a broadcast operand."""
    middle = float(np.median(x.array)) if x.array.size else 0.0
    middle = math.floor(middle / 2.0**x.quantum) * 2.0**x.quantum
    same: dict[str, Any] = {"quantum": x.quantum, "bound": x.largest}
    match d.one_of(("clip", "neg", "abs", "select", "div", "broadcast")):
        case "clip":
            spread = 4 * 2.0**x.quantum
            lo = -math.inf if d.chance(20) else middle - spread
            hi = math.inf if d.chance(20) else middle + spread
            return d.add("clip", x, lo=lo, hi=hi, quantum=x.quantum, bound=x.largest + spread)
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
        case _:
            return d.add("abs", x, **same)


def cast(d: Drawing) -> None:
    """Between any dtypes; integers become f32 only where they fit."""
    x = d.pick(lambda v: d.chance(50)) or any_f32(d)
    to = DTYPES[d.one_of(("i32", "f32", "u8", "i8", "bool"))]
    d.add("cast", x, dtype=to, bound=x.largest, quantum=min(0, x.quantum))


def integers(d: Drawing) -> None:
    """Arithmetic of i32, which wraps."""
    x = d.pick(lambda v: v.type.dtype == i32)
    if x is None:
        x = d.leaf((batch_axis(d), d.one_of(FEATURES)), dtype=i32)
    name = d.one_of(("add", "sub", "mul", "maximum", "minimum", "neg", "abs", "greater"))
    if name in ("neg", "abs"):
        d.add(name, x)
        return
    other = d.pick(lambda v: v.type == x.type and v.value is not x.value)
    middle = float(np.median(x.array)) if x.array.size else 0.0
    d.add(name, x, other or d.leaf(x.type.shape[1:], dtype=i32, near=middle))


def constant(d: Drawing) -> None:
    """A constant tensor, also with the batch N, and what is computed from it."""
    x = any_f32(d)
    shape = x.type.shape if d.chance(70) else ()
    value = d.integer(-8, 8) / 4
    made = d.add("full", value=value, shape=shape, quantum=-2, bound=abs(value))
    if made:
        binary(d, d.one_of(("add", "mul", "sub")), x, made[0])


# -- pooling and reductions ----------------------------------------------------------------------


def pool(d: Drawing) -> None:
    x = image(d)
    name, attributes = pool_of(d, x)
    if attributes is None:
        return
    area = math.prod(attributes["window"])
    quantum = x.quantum - (area.bit_length() - 1 if name == "avg_pool2d" else 0)
    d.add(name, x, quantum=quantum, bound=x.largest, **attributes)


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


def reduction(d: Drawing) -> None:
    """Sums and maxima over any axes, means over powers of two, argmax, and squared errors."""
    x = any_f32(d)
    first = 1 if x.type.is_open else 0
    axes = tuple(axis for axis in range(first, x.type.rank) if d.chance(50))
    count = math.prod(x.sizes[axis] for axis in axes)
    name = d.one_of(("reduce_sum", "reduce_max", "reduce_mean", "argmax", "statistics", "error"))
    match name:
        case "argmax":
            found = [axis for axis in range(first, x.type.rank) if x.type.shape[axis] != 0]
            if found:
                d.add("argmax", x, axis=d.one_of(found))
        case "statistics":
            statistics(d, image(d) if x.type.rank < 2 else x)
        case "error":
            squared_error(d, x)
        case "reduce_max":
            if 0 not in (x.type.shape[axis] for axis in axes):
                same: dict[str, Any] = {"quantum": x.quantum, "bound": x.largest}
                d.add(name, x, axes=axes, keepdims=d.chance(40), **same)
        case _:
            mean = name == "reduce_mean" and count.bit_count() == 1
            quantum = x.quantum - (count.bit_length() - 1 if mean else 0)
            bound = x.largest if mean else x.largest * count
            name = "reduce_mean" if mean else "reduce_sum"
            d.add(name, x, axes=axes, keepdims=d.chance(40), quantum=quantum, bound=bound)


def statistics(d: Drawing, x: Known) -> None:
    count = math.prod(x.sizes[:-1])
    if d.open:
        return
    if count.bit_count() != 1 or x.largest > 64:
        x = d.leaf(d.one_of(((2, 2, 1, 5), (1, 4, 2, 3), (8, 17))))
        count = math.prod(x.sizes[:-1])
    bits = count.bit_length() - 1
    mean = x.quantum - bits
    bound = max(x.largest, (2 * x.largest) ** 2)
    d.add("batch_norm_statistics", x, quantum=(mean, 2 * mean - bits), bound=bound)


def squared_error(d: Drawing, x: Known) -> None:
    if math.prod(x.sizes[1:]).bit_count() != 1 or not x.type.rank or x.largest > 64:
        x = d.leaf((batch_axis(d), *d.one_of(((4,), (8,), (2, 2), ()))))
    target = operand(d, x.type.shape)
    quantum = 2 * min(x.quantum, target.quantum) - (math.prod(x.sizes[1:]).bit_length() - 1)
    bound = (x.largest + target.largest) ** 2
    d.add("mean_squared_error", x, target, quantum=quantum, bound=bound)


def average_image(d: Drawing) -> None:
    x = image(d)
    area = x.sizes[1] * x.sizes[2]
    if area.bit_count() == 1:
        quantum = x.quantum - (area.bit_length() - 1)
        d.add("global_avg_pool", x, quantum=quantum, bound=x.largest)


# -- movement ------------------------------------------------------------------------------------


def movement(d: Drawing) -> None:
    """Anything that moves elements of any dtype about."""
    x = d.pick(lambda v: d.chance(60)) or image(d)
    same: dict[str, Any] = {"quantum": x.quantum, "bound": x.largest}
    shape, fixed = x.type.shape, int(x.type.is_open)
    match d.one_of(("reshape", "transpose", "slice", "pad", "concat", "broadcast_to", "flatten")):
        case "reshape":
            d.add("reshape", x, shape=other_shape(d, shape, fixed), **same)
        case "flatten" if shape:
            d.add("flatten", x, **same)
        case "transpose":
            rest = [*range(fixed, len(shape))]
            order = [rest.pop(d.integer(0, len(rest) - 1)) for _ in range(len(rest))]
            d.add("transpose", x, permutation=(*range(fixed), *order), **same)
        case "slice":
            starts = [0 if n == "N" else d.integer(0, min(2, n)) for n in shape]
            stops = [
                n if n == "N" else max(start, n - d.integer(0, 2))
                for n, start in zip(shape, starts, strict=True)
            ]
            d.add("slice", x, start=tuple(starts), stop=tuple(stops), **same)
        case "pad" if x.type.dtype in (f32, i32):
            sides = [
                tuple(0 if n == "N" else d.one_of((0, 1, 0, 2)) for n in shape) for _ in range(2)
            ]
            value = d.one_of((0.0, 1.0, -3.0))
            q, most = min(x.quantum, 0), max(x.largest, 3.0)
            d.add("pad", x, before=sides[0], after=sides[1], value=value, quantum=q, bound=most)
        case "concat" if len(shape) > fixed:
            concat(d, x, d.integer(fixed, len(shape) - 1))
        case "broadcast_to":
            wide = [d.one_of((1, 2, 3)) if n == 1 else n for n in shape]
            lead = [batch_axis(d)] if not fixed and d.chance(60) else []
            d.add("broadcast_to", x, shape=(*lead, *wide), **same)
        case _:
            return


def other_shape(d: Drawing, shape: Shape, fixed: int) -> Shape:
    """Another shape of as many elements; a leading N stays."""
    sizes = [int(n) for n in shape[fixed:]]
    total = math.prod(sizes)
    divisors = [n for n in (2, 3, 4, 5, 7) if total and total % n == 0] or [1]
    first = d.one_of(divisors)
    split = (first, total // first) if total else (total, first)
    choices = [split, tuple(sizes[::-1]), (total,), (1, *sizes), (*sizes, 1), (1, *split, 1)]
    return (*shape[:fixed], *d.one_of(choices))


def concat(d: Drawing, x: Known, axis: int) -> None:
    shape = x.type.shape

    def fits(v: Known) -> bool:
        if (v.type.dtype, v.type.rank, v.type.is_open) != (
            x.type.dtype,
            len(shape),
            x.type.is_open,
        ):
            return False
        pairs = enumerate(zip(v.type.shape, shape, strict=True))
        return all(a == b for k, (a, b) in pairs if k != axis)

    others = [d.pick(fits) or x for _ in range(d.integer(1, 2))]
    if x.type.dtype == f32 and d.chance(50):
        others.append(d.leaf((*shape[:axis], d.one_of(CHANNELS), *shape[axis + 1 :])))
    operands = [x, *others] if d.chance(50) else [*others, x]
    quantum = min(v.quantum for v in operands)
    bound = max(v.largest for v in operands)
    d.add("concat", *operands, axis=axis, quantum=quantum, bound=bound)


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
    if y.bind(d.batch).elements > MOST_ELEMENTS:
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
    if y.bind(d.batch).elements > MOST_ELEMENTS:
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


_KINDS: tuple[Callable[[Drawing], None], ...] = (
    layer, layer, layer, layer, layer, layer, pointwise, pointwise, pointwise, pool, pool,
    reduction, reduction, movement, movement, movement, gradient, gradient, gradient, cast,
    constant, integers, average_image,
)  # fmt: skip
