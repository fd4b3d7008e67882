"""cast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...ir import POINTWISE, Array, Canonical, Gradients, Intervals, Op, Source, Tensors, Types
from ...ir.intervals import Interval
from ...ir.quantization import Known, Quantization
from ...ir.trace import Tensor, apply
from ...ir.types import DType, TensorType, bool_, dtype_named, f32, i8, i32, u8
from .._elementwise import INTEGER_BOUNDS, held, stored
from .._window import require_operands


@dataclass(frozen=True)
class Cast(Op):
    """Y = x as `dtype`; every pair of dtypes, any shape, the same on every CPU:

    * f32 to i32, u8, i8: truncates toward zero, saturates at the ends of the range; NaN gives 0.
    * integer to integer: keeps the low bits (wraps); bool counts as 0 or 1.
    * to f32: rounds to nearest, ties to even. To bool: x != 0, so NaN gives true.

    Gradient: g from f32 to f32; none where either side is not f32.
    """

    name: ClassVar[str] = "cast"
    kind: ClassVar[str] = POINTWISE
    cheap: ClassVar[bool] = True
    integer_form: ClassVar[bool] = False
    dtype: DType

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        return (TensorType(self.dtype, types[0].shape),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        if x.dtype != np.float32 or self.dtype in (f32, bool_):
            return (x.astype(self.dtype.numpy),)
        whole = np.where(np.isnan(x), 0.0, np.trunc(x.astype("f8")))
        return (np.asarray(np.clip(whole, *INTEGER_BOUNDS[self.dtype]), self.dtype.numpy),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        return (gs[0] if self.dtype == xs[0].dtype == f32 else None,)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        x = held(ranges[0], types[0].dtype)
        if self.dtype == bool_:
            return (Interval(0.0, 1.0),)
        if self.dtype == f32 or types[0].dtype != f32:
            return (stored(x, self.dtype),)
        x = held(x, self.dtype).hull(Interval(0.0, 0.0))  # NaN, which no range speaks of, gives 0
        return (Interval(float(int(x.lo)), float(int(x.hi))),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        return operands[0].value if operands[0].type == result else None

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        """Between integers the numbers stay, where they fit."""
        return (known[0] if self.dtype in (u8, i8, i32) else None,)


def cast(x: Tensor, dtype: DType | str, *, name: str | None = None) -> Tensor:
    """x as another dtype; see `Cast`."""
    return apply(Cast(dtype_named(dtype) if isinstance(dtype, str) else dtype), x, name=name)
