"""Random networks of integers, as `ag.quantize` writes them and beyond.

From bytes through adder layers and layers of products of every attribute, requantization by shifts
or products, residual sums, pools and joins to bytes, sums or the place of the largest. Whatever the
numbers, integers have one right result; these are drawn such that results vary, on the scale that
bytes have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from addergraph.ir.types import DType, Shape, bool_, f32, i8, i32, u8
from addergraph.ops.pointwise.requantize import MAX_TERMS, RequantizeMultiply, RequantizeShift
from tests.strategies import MOST_NODES, Case, Drawing, Known, is_dull
from tests.strategies_bytes import looked_up
from tests.strategies_layers import FEATURES, SIDES, batch_axis, pool_of, window_of
from tests.strategies_nodes import concat, integers, other_shape, results

ENDS = (-(2**31), 2**31 - 1)
TOPS = (255, 255, 255, 63, 31, 15, 7)  # of bytes of 8 bits and of fewer
SIGNED = (range(-128, 128), range(-128, 128), range(-127, 128), (-128, 127), range(-7, 8))


def integer_cases() -> st.SearchStrategy[Case]:
    """Random networks of integers: see the module's docstring."""
    return st.integers(0, 2**32 - 1).map(integer_case)


def integer_case(seed: int, nodes: int | None = None) -> Case:
    """The network of this seed: `nodes`, otherwise up to MOST_NODES, and a few more where a layer
    is added whole."""
    d = Drawing(seed)
    wanted = nodes or d.integer(2, MOST_NODES)
    while len(d.builder.nodes) < wanted:
        d.one_of(_KINDS)(d)
    outputs = results(d)
    return d.finish([v for v in outputs if not is_dull(v.array)] or outputs, [])


# -- operands ------------------------------------------------------------------------------------


def activation(d: Drawing, *ranks: int, dtype: DType = u8) -> Known | None:
    """One of the newest values that have samples."""
    batch = batch_axis(d)
    return d.pick(
        lambda v: v.type.dtype == dtype and v.type.rank in ranks and v.type.shape[0] == batch
    )


def some_bytes(d: Drawing, *ranks: int) -> Known:
    """Bytes that are there, or a new input, whose range may be a few bits."""
    found = activation(d, *ranks) if d.chance(85) else None
    if found is not None:
        return found
    shape: Shape = (batch_axis(d), size(d, FEATURES))
    if d.one_of(ranks) == 4:
        height, width = size(d, SIDES), size(d, SIDES)
        most = d.most_elements // max(1, d.batch * height * width)
        shape = (batch_axis(d), height, width, min(most, size(d, d.channels)))
    return d.leaf(shape, dtype=u8, choices=range(1 + d.one_of(TOPS)), source="input")


def size(d: Drawing, choices: Sequence[int]) -> int:
    """One of the choices, but seldom 0: nothing is left to compare then."""
    return d.one_of(choices) or d.one_of((0, 4, 6, 9))


def sums(d: Drawing) -> Known:
    """i32 numbers that are there, or bytes made wide."""
    found = activation(d, 2, 4, dtype=i32) if d.chance(85) else None
    return found or d.add("cast", some_bytes(d, 2, 4), dtype=i32)[0]


def filter_of(d: Drawing, x: Known, shape: Shape) -> Known:
    """A filter in the range of x, for distances."""
    top = int(x.largest)
    return d.leaf(shape, dtype=u8, choices=range(1 + max(top, 1)))


def signed_filter(d: Drawing, shape: tuple[int, ...]) -> Known:
    """A filter for products, seldom one that is computed."""
    choices = d.one_of(SIGNED)
    if d.chance(85) or math.prod(shape) > d.most_elements:
        return d.leaf(shape, dtype=i8, choices=choices)
    return d.add("cast", d.leaf(shape, dtype=i32, choices=choices), dtype=i8)[0]


# -- layers --------------------------------------------------------------------------------------


def layer(d: Drawing) -> None:
    """Distances or products and, mostly, their requantization."""
    made = d.one_of((window_layer, window_layer, dense_layer))(d)
    if made and d.chance(85):
        requantized(d, made[0])


def window_layer(d: Drawing) -> list[Known]:
    """adder2d or conv2d; padding of another byte than 0 takes a node of its own."""
    x = some_bytes(d, 4)
    attributes, shape = window_of(d, x)
    if d.chance(30):
        top, bottom, left, right = attributes["padding"]
        zero = d.integer(0, max(1, int(x.largest)))
        made = d.add(
            "pad", x, before=(0, top, left, 0), after=(0, bottom, right, 0), value=float(zero)
        )
        x, attributes["padding"] = (made[0], (0, 0, 0, 0)) if made else (x, attributes["padding"])
    return contraction(d, ("adder2d", "conv2d"), x, shape, **attributes)


def dense_layer(d: Drawing) -> list[Known]:
    """adder_dense or dense, of an image behind flatten."""
    x = some_bytes(d, 2, 4)
    if x.type.rank == 4:
        x = d.add("flatten", x)[0]
    return contraction(d, ("adder_dense", "dense"), x, (x.sizes[1], d.one_of(FEATURES)))


def contraction(
    d: Drawing, names: tuple[str, str], x: Known, shape: tuple[int, ...], **attributes: Any
) -> list[Known]:
    """The first op, of distances, or the other, of products: strict mode has its share so."""
    distances, products = names
    if d.chance(60):
        return d.add(distances, x, filter_of(d, x, shape), *bias_of(d, shape), **attributes)
    if len(shape) == 4 and x.sizes[3] and d.chance(25):  # depthwise
        attributes["groups"], shape = x.sizes[3], (*shape[:2], 1, x.sizes[3])
    return d.add(products, x, signed_filter(d, shape), *bias_of(d, shape), **attributes)


def bias_of(d: Drawing, filter_shape: tuple[int, ...]) -> list[Known]:
    return [d.leaf(filter_shape[-1:], dtype=i32)] if d.chance(30) else []


def average(d: Drawing) -> None:
    """A mean, in windows or of the whole image: distances to zeros, channel by channel."""
    x = some_bytes(d, 4)
    _, height, width, channels = x.sizes
    window, attributes = (height, width), {"groups": channels}
    if d.chance(50):
        _, pool = pool_of(d, x)
        if pool is None:
            return
        window = pool["window"]
        attributes |= {"stride": pool["stride"], "padding": pool["padding"]}
    if 0 in (*window, channels):
        return
    zeros = d.leaf((*window, 1, channels), dtype=u8, choices=(0,), source="parameter")
    made = d.add("adder2d", x, zeros, **attributes)
    if made and made[0].sizes[1:3] == (1, 1) and d.chance(70):
        made = d.add("flatten", made[0])
    if made:
        requantized(d, made[0])


def largest(d: Drawing) -> None:
    """max_pool2d of bytes."""
    x = some_bytes(d, 4)
    _, attributes = pool_of(d, x)
    if attributes is not None and 0 not in x.sizes[1:3]:
        d.add("max_pool2d", x, **attributes)


def residual(d: Drawing) -> None:
    """The sum of two or three parts on one scale, as bytes again."""
    total = requantized(d, sums(d), i32)
    for _ in range(d.integer(1, 2) if total else 0):
        other = part_like(d, total[0])
        total = d.add("add", *((total[0], other) if d.chance(50) else (other, total[0])))
    if total:
        requantized(d, total[0], u8)


def part_like(d: Drawing, x: Known) -> Known:
    """i32 numbers of the sizes of x, mostly requantized."""
    found = d.pick(lambda v: v.type.dtype in (u8, i32) and v.type.shape == x.type.shape) or x
    wide = d.add("cast", found, dtype=i32) if found.type.dtype == u8 else [found]
    return ((requantized(d, wide[0], i32) if d.chance(70) else []) or wide)[0]


# -- requantization ------------------------------------------------------------------------------


def requantized(d: Drawing, x: Known, dtype: DType | None = None) -> list[Known]:
    """x as bytes or as i32 of about the spread of bytes; operands for each channel, or for all."""
    if not x.type.rank:
        return []
    dtype = dtype or d.one_of((u8, u8, u8, i32))
    channels: Shape = x.type.shape[-1:] if d.chance(85) else ()
    top, shift = d.one_of(TOPS), d.integer(0, 14)
    middle, spread = _middle_and_spread(x)
    center = d.leaf(channels, dtype=i32, near=-middle)
    zero = d.integer(0, top) if dtype == u8 else 0
    offset = d.leaf(channels, dtype=i32, near=float((zero << shift) + ((1 << shift) >> 1)))
    shifts = d.leaf(d.one_of((channels, ())), dtype=i32, choices=(shift,))
    factor = top * 2.0**shift / spread * d.one_of((1.0, -1.0, 0.5, 2.0))
    if d.chance(70):
        terms = [_term(d, channels, factor / 3**k) for k in range(d.one_of((1, 2, 3, 2, 3, 5)))]
        assert len(terms) <= MAX_TERMS
        operands, op = (center, offset, shifts, *terms), RequantizeShift
    else:
        near = round(factor)
        numbers = (near, near + 1, near - 1, round(factor * 0.8))
        factors = d.leaf(channels, dtype=i32, choices=tuple(np.clip(numbers, *ENDS)))
        operands, op = (center, offset, shifts, factors), RequantizeMultiply  # type: ignore[assignment]
    (free,) = op(*ENDS, i32).reference(*(v.array for v in (x, *operands)))
    allowed = ((0, top), (3, 9), (0, 255)) if dtype == u8 else (ENDS, (-4 * top, 4 * top))
    # Ends that would clip nearly everything to one number tell nothing.
    telling = [ends for ends in allowed if not is_dull(np.clip(free, *ends))] or allowed[-1:]
    lo, hi = d.one_of(telling)
    return d.add(op.name, x, *operands, lo=lo, hi=hi, dtype=dtype)


def _middle_and_spread(x: Known) -> tuple[float, float]:
    if not x.array.size:
        return 0.0, 1.0
    low, middle, high = np.quantile(x.array.astype("f8"), (0.1, 0.5, 0.9))
    return float(np.round(middle)), max(1.0, float(high - low))


def _term(d: Drawing, channels: Shape, factor: float) -> Known:
    """Codes of powers of two near `factor`, and of none."""
    place = 1 + round(math.log2(max(1.0, abs(factor))))
    sign = 1 if factor > 0 else -1
    codes = [sign * min(place + k, 31) for k in (0, 0, 0, 1)]
    return d.leaf(d.one_of((channels, channels, ())), dtype=i32, choices=(*codes, 0))


# -- what stands between layers ------------------------------------------------------------------


def preprocessed(d: Drawing) -> None:
    """Bytes by a table for each channel, as pixels are."""
    looked_up(d, some_bytes(d, 2, 4))


def centered(d: Drawing) -> None:
    """Sums less a number for each place that all of its channels have, made of their sum."""
    x = sums(d)
    total = d.add("reduce_sum", x, axes=(x.type.rank - 1,), keepdims=True)
    mean = requantized(d, total[0], i32) if total else []
    made = d.add("sub", x, mean[0]) if mean else []
    if made:
        requantized(d, made[0])


def joined(d: Drawing) -> None:
    """Values of one dtype side by side."""
    x = activation(d, 2, 4, dtype=d.one_of((u8, u8, i32)))
    if x is not None:
        concat(d, x, d.integer(1, x.type.rank - 1))


def moved(d: Drawing) -> None:
    """Integers somewhere else."""
    x = activation(d, 2, 4, dtype=d.one_of((u8, u8, i32, bool_, i8)))
    if x is None:
        return
    shape = x.type.shape
    match d.one_of(("reshape", "transpose", "slice", "pad", "flatten")):
        case "reshape":
            d.add("reshape", x, shape=other_shape(d, shape, 1))
        case "transpose":
            rest = [*range(1, len(shape))]
            order = [rest.pop(d.integer(0, len(rest) - 1)) for _ in range(len(rest))]
            d.add("transpose", x, permutation=(0, *order))
        case "slice":
            sides = [(d.integer(0, min(2, int(n))), d.integer(0, 2)) for n in shape[1:]]
            stops = [
                max(start, int(n) - cut) for n, (start, cut) in zip(shape[1:], sides, strict=True)
            ]
            starts = tuple(start for start, _ in sides)
            d.add("slice", x, start=(0, *starts), stop=(shape[0], *stops))
        case "pad":
            before, after = ([d.one_of((0, 1, 0, 2)) for _ in shape[1:]] for _ in range(2))
            value = d.integer(0, 1 if x.type.dtype == bool_ else 127)
            d.add("pad", x, before=(0, *before), after=(0, *after), value=float(value))
        case _:
            d.add("flatten", x)


def chosen(d: Drawing) -> None:
    """One of two by a comparison."""
    x = sums(d)
    middle, _ = _middle_and_spread(x)
    made = d.add("greater", x, d.leaf(x.type.shape[-1:], dtype=i32, near=middle))
    if not made:
        return
    dtype = d.one_of((u8, i32))
    found = d.pick(lambda v: v.type.dtype == dtype and v.type.shape == x.type.shape)
    one = found or x
    other = d.leaf(x.type.shape[-1:], dtype=one.type.dtype, near=middle if one is x else 20.0)
    d.add("select", made[0], *((one, other) if d.chance(50) else (other, one)))


def converted(d: Drawing) -> None:
    """Another dtype and back: integers wrap, f32 is clipped where it stands for bytes."""
    x = sums(d) if d.chance(50) else some_bytes(d, 2, 4)
    to = d.one_of((f32, f32, u8, i8, i32, bool_))
    made = d.add("cast", x, dtype=to, bound=x.largest)
    if not made or to != f32:
        if made and d.chance(60):
            d.add("cast", made[0], dtype=d.one_of((i32, u8)))
        return
    middle, spread = _middle_and_spread(x)
    same: dict[str, Any] = {"bound": 2 * x.largest + 256}
    if d.chance(50):
        made = d.add("sub", made[0], d.leaf((), choices=(middle,), source="parameter"), **same)
    if made:
        made = d.add("relu", made[0], **same) if d.chance(40) else made
        made = d.add("clip", made[0], lo=math.floor(-spread), hi=math.ceil(spread / 2), **same)
    if made:
        d.add("cast", made[0], dtype=d.one_of((u8, i32)))


def place_of_the_largest(d: Drawing) -> None:
    """argmax takes f32, which holds the sums of these networks."""
    x = activation(d, 2, 4, dtype=i32) or some_bytes(d, 2, 4)
    if x.largest >= 2**24 or 0 in x.sizes[1:]:
        return
    made = d.add("cast", x, dtype=f32, bound=x.largest)
    if made:
        d.add("argmax", made[0], axis=d.integer(1, x.type.rank - 1))


_KINDS: tuple[Callable[[Drawing], None], ...] = (
    layer, layer, layer, layer, layer, residual, residual, residual, average, average, largest,
    largest, preprocessed, joined, moved, centered, chosen, converted, integers,
    place_of_the_largest,
)  # fmt: skip
