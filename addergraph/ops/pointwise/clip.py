"""clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import POINTWISE, Array, Gradients, Intervals, Op, Tensors, Types
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType, f32
from .._elementwise import stored
from .._window import require_f32, require_operands


@dataclass(frozen=True)
class Clip(Op):
    """Y = lo where x < lo, hi where x > hi, x elsewhere: NaN stays NaN, -0.0 stays -0.0 in [0, 1].

    Operand f32, any shape. `lo` and `hi` are rounded to f32 and may be infinite. Gradient: g where
    lo <= x <= hi (the ends included), 0 elsewhere. Raises ShapeError unless lo <= hi.
    """

    name: ClassVar[str] = "clip"
    kind: ClassVar[str] = POINTWISE
    cheap: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True
    lo: float
    hi: float

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        require_f32("x", types[0])
        if not self.lo <= self.hi:
            raise ShapeError(f"lo={self.lo!r} must not exceed hi={self.hi!r}, nor may one be NaN")
        return types

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        with np.errstate(over="ignore"):
            lo, hi = np.float32(self.lo), np.float32(self.hi)
        return (np.where(x < lo, lo, np.where(x > hi, hi, x)),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from .select import select

        g, x = gs[0], xs[0]
        assert g is not None
        return (select(x < self.lo, 0.0, select(x > self.hi, 0.0, g)),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (stored(ranges[0].clip(self.lo, self.hi), f32),)


def clip(x: Tensor, lo: float, hi: float, *, name: str | None = None) -> Tensor:
    """x limited to [lo, hi]; see `Clip`."""
    return apply(Clip(float(lo), float(hi)), x, name=name)
