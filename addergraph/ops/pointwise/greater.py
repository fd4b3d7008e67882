"""greater."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...ir import POINTWISE, Array, Intervals, Op, Types
from ...ir.intervals import Interval
from ...ir.trace import Operand, Tensor, apply
from ...ir.types import TensorType, bool_, broadcast_shapes, f32, i32
from .._elementwise import held, require_dtype, require_same_dtype
from .._window import require_operands


@dataclass(frozen=True)
class Greater(Op):
    """Y = a > b, as bool; false where either is NaN, and +0.0 > -0.0 is false.

    Operands f32 or i32, of one dtype; they broadcast. Not differentiable.
    """

    name: ClassVar[str] = "greater"
    kind: ClassVar[str] = POINTWISE
    broadcasts: ClassVar[bool] = True
    cheap: ClassVar[bool] = True
    not_differentiable: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "a", "b")
        a, b = types
        require_dtype("a", a, f32, i32)
        require_same_dtype(a, b)
        return (TensorType(bool_, broadcast_shapes("operands", a.shape, b.shape)),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        a, b = arrays
        return (np.asarray(a > b),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        a, b = (held(r, t.dtype) for r, t in zip(ranges, types, strict=True))
        # never provably true: ranges do not exclude NaN
        return (Interval(0.0, 0.0 if a.hi <= b.lo else 1.0),)


def greater(a: Operand, b: Operand, *, name: str | None = None) -> Tensor:
    """a > b; see `Greater`."""
    return apply(Greater(), a, b, name=name)
