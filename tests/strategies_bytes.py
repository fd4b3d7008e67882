"""Layers of bytes for random graphs: distances, their requantization, sums of them, pools.

Integers are exact whatever they are, so any numbers will do; these are such that results vary.
"""

from __future__ import annotations

import numpy as np

from addergraph.ir.types import Dim, Shape, i32, u8
from addergraph.ops.pointwise.requantize import RequantizeMultiply, RequantizeShift
from tests.strategies import CHANNELS, Drawing, Known, is_dull
from tests.strategies_layers import FEATURES, SIDES, batch_axis

ENDS = (-(2**31), 2**31 - 1)
BOUNDS = ((0, 255), (0, 63), (3, 15), (-(2**12), 2**12), ENDS)


def bytes_layer(d: Drawing) -> None:
    """An adder layer of bytes, bytes again, and what follows them."""
    x = d.pick(lambda v: v.type.dtype == u8 and v.type.rank in (2, 4)) if d.chance(60) else None
    x = x or d.leaf(_shape(d), dtype=u8, near=d.one_of((0.0, 20.0, 124.0)), source="input")
    if 0 in x.sizes[1:] or (x.type.shape[0] == "N" and not d.open):
        return
    if d.chance(25):
        x = (looked_up(d, x) or [x])[0]
    made = _distances(d, x)
    made = requantized(d, made[0]) if made else []
    if made and made[0].type.dtype == i32 and d.chance(50):
        made = d.add("add", made[0], made[0])
        made = requantized(d, made[0]) if made else []
    if made and made[0].type.dtype == u8 and made[0].type.rank == 4 and d.chance(50):
        window = d.one_of(((1, 1), (1, 2), (2, 1)))
        if all(w <= s for w, s in zip(window, made[0].sizes[1:3], strict=True)):
            pool = d.one_of(("max_pool2d", "sum_pool2d"))
            d.add(pool, made[0], window=window, stride=d.one_of(((1, 1), (2, 2))))


def looked_up(d: Drawing, x: Known) -> list[Known]:
    """What a table for each channel, or one for all, has for the bytes of x."""
    tables = x.type.shape[-1] if d.chance(80) else 1
    table = d.leaf((tables, 256), dtype=u8, choices=range(1 + d.one_of((255, 63, 255))))
    return d.add("lookup", x, table)


def _shape(d: Drawing) -> Shape:
    batch: Dim = batch_axis(d)
    if d.chance(40):
        return (batch, d.one_of(FEATURES))
    height, width = d.one_of(SIDES), d.one_of(SIDES)
    most = d.most_elements // max(1, d.batch * height * width)
    return (batch, height, width, min(most, d.one_of(d.channels)))


def _distances(d: Drawing, x: Known) -> list[Known]:
    outputs, inputs = d.one_of(CHANNELS[:-1]), x.sizes[-1]
    near = float(np.median(x.array)) if x.array.size else 0.0
    bias = [d.leaf((outputs,), dtype=i32)] if d.chance(30) else []
    if x.type.rank == 2:
        f = d.leaf((inputs, outputs), dtype=u8, near=near)
        return d.add("adder_dense", x, f, *bias)
    sides = (min(3, x.sizes[1] + 2), min(3, x.sizes[2] + 2))
    f = d.leaf(
        (d.integer(1, sides[0]), d.integer(1, sides[1]), inputs, outputs), dtype=u8, near=near
    )
    return d.add("adder2d", x, f, *bias, padding=(1, 1, 1, 1), stride=d.one_of(((1, 1), (2, 1))))


def requantized(d: Drawing, x: Known) -> list[Known]:
    """By shifts or a product, to bytes or to i32; operands for each channel, or for all."""
    channels: Shape = x.type.shape[-1:] if d.chance(80) else ()
    middle = float(np.median(x.array)) if x.array.size else 0.0
    center = d.leaf(channels, dtype=i32, near=-middle)
    offset = d.leaf(channels, dtype=i32, near=float(d.one_of((0, 8, 100, 2**20))))
    shift = d.leaf(channels, dtype=i32, choices=(0, 1, 2, 5), source="parameter")
    op = d.one_of((RequantizeShift, RequantizeShift, RequantizeMultiply))
    count = d.integer(1, 3) if op is RequantizeShift else 1
    factors = [d.leaf(d.one_of((channels, ())), dtype=i32) for _ in range(count)]
    operands = (x, center, offset, shift, *factors)
    (free,) = op(*ENDS, i32).reference(*(v.array for v in operands))
    # Ends that would clip nearly everything to one number tell nothing.
    telling = [ends for ends in BOUNDS if not is_dull(np.clip(free, *ends))]
    lo, hi = d.one_of(telling or [ENDS])
    return d.add(op.name, *operands, lo=lo, hi=hi, dtype=u8 if lo >= 0 else i32)
