"""What elementwise ops share: dtype rules, gradients of broadcasting, ranges of stored numbers."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ShapeError
from ..ir.intervals import ANY, Interval
from ..ir.trace import Tensor
from ..ir.types import DType, Shape, TensorType, bool_, f32, i8, i32, u8

F32_INFINITY = 2.0**128 - 2.0**103  # from here on, f32 rounds to infinity
INTEGER_BOUNDS: dict[DType, tuple[int, int]] = {
    i32: (-(2**31), 2**31 - 1),
    u8: (0, 255),
    i8: (-128, 127),
    bool_: (0, 1),
}


def require_dtype(what: str, type: TensorType, *allowed: DType) -> None:
    """ShapeError unless the dtype of `type` is one of `allowed`."""
    if type.dtype not in allowed:
        expected = " or ".join(d.name for d in allowed)
        raise ShapeError(f"{what} must be {expected}, found {type}; use cast first")


def require_same_dtype(a: TensorType, b: TensorType) -> None:
    """ShapeError unless both have one dtype: nothing is promoted silently."""
    if a.dtype != b.dtype:
        raise ShapeError(f"operands must have one dtype, found {a} and {b}; cast one of them")


def require_value(value: float, dtype: DType) -> None:
    """ShapeError unless `dtype` holds `value`: exactly if it is an integer type, rounded if f32."""
    if dtype == f32:
        if F32_INFINITY <= abs(value) < math.inf:
            raise ShapeError(f"value={value!r} is too large for f32")
        return
    lo, hi = INTEGER_BOUNDS[dtype]
    if not lo <= value <= hi or value != int(value):
        raise ShapeError(
            f"{dtype} cannot hold value={value!r}: expected an integer in [{lo}, {hi}]"
        )


def sum_to(g: Tensor, shape: Shape) -> Tensor:
    """The gradient of broadcasting `shape` to the shape of `g`: `g` summed over the new axes."""
    from .movement.reshape import reshape
    from .reduction.reduce import reduce_sum

    extra = len(g.shape) - len(shape)
    stretched = [
        axis
        for axis, dim in enumerate(g.shape)
        if axis < extra or (shape[axis - extra] == 1 and dim != 1)
    ]
    total = reduce_sum(g, stretched) if stretched else g
    return total if total.shape == shape else reshape(total, shape)


def held(range: Interval, dtype: DType) -> Interval:
    """What an operand of `dtype` can hold of `range`."""
    return range.clip(*INTEGER_BOUNDS[dtype]) if dtype in INTEGER_BOUNDS else range


def stored(range: Interval, dtype: DType) -> Interval:
    """Where a result computed exactly in `range` lies once it is stored as `dtype`.

    f32 rounds to nearest, which is monotone, so rounding the ends is enough. Integers wrap: a range
    that leaves the dtype says nothing more.
    """
    if dtype in INTEGER_BOUNDS:
        lo, hi = INTEGER_BOUNDS[dtype]
        return range if lo <= range.lo and range.hi <= hi else Interval(lo, hi)
    with np.errstate(over="ignore"):
        return Interval(float(np.float32(range.lo)), float(np.float32(range.hi)))


def point(value: float, dtype: DType) -> Interval:
    """The range of a constant. A NaN constant has no non-NaN element, so nothing is claimed."""
    return ANY if value != value else stored(Interval(value, value), dtype)
