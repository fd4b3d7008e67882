"""The nodes that random graphs are made of: shapes, attributes, and how exact each op is.

Every function here adds what it is named after to a `Drawing`, on operands that are there already
or on new leaves. Layers and gradients are in `strategies_layers.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from addergraph.ir import Parameter
from addergraph.ir.types import DTYPES, Shape, f32, i32
from tests.strategies import Drawing, Known, is_dull
from tests.strategies_bytes import bytes_layer
from tests.strategies_layers import (
    FEATURES,
    any_f32,
    batch_axis,
    binary,
    gradient,
    image,
    layer,
    operand,
    pool_of,
    scaled,
    tail_node,
)


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


# -- pointwise -----------------------------------------------------------------------------------


def pointwise(d: Drawing) -> None:
    """A chain of pointwise nodes, some of them with several readers."""
    made = [any_f32(d)]
    for _ in range(d.integer(1, 4)):
        made = tail_node(d, made[0]) or made
    if not d.open and d.chance(8):
        dropout(d, made[0])


def dropout(d: Drawing, x: Known) -> None:
    """By rates whose scale is a power of two."""
    step = d.leaf((), dtype=i32)
    bound = 4 * x.largest
    rate = d.one_of((0.5, 0.75))
    d.add("dropout", x, step, quantum=x.quantum, bound=bound, rate=rate, seed=d.integer(0, 9))


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
    """A batch's own; or the grid of a filter, at 2 bits, where taps become 0 or the largest."""
    count = math.prod(x.sizes[:-1])
    if d.open:
        return
    if d.chance(30):
        d.add("fake_quantize_filter", x, bits=2, quantum=x.quantum, bound=x.largest)
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
    moves = ("reshape", "transpose", "slice", "pad", "concat", "broadcast_to", "flatten", "resize")
    match d.one_of(moves):
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
        case "resize" if len(shape) == 4:
            d.add("resize_nearest", x, factors=(d.integer(1, 2), d.integer(1, 3)), **same)
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
        others.append(d.leaf((*shape[:axis], d.one_of(d.channels), *shape[axis + 1 :])))
    operands = [x, *others] if d.chance(50) else [*others, x]
    quantum = min(v.quantum for v in operands)
    bound = max(v.largest for v in operands)
    d.add("concat", *operands, axis=axis, quantum=quantum, bound=bound)


_KINDS: tuple[Callable[[Drawing], None], ...] = (
    layer, layer, layer, layer, layer, layer, pointwise, pointwise, pointwise, pool, pool,
    reduction, reduction, movement, movement, movement, gradient, gradient, gradient, cast,
    constant, integers, average_image, bytes_layer, bytes_layer,
)  # fmt: skip
