"""sum_pool2d: what a mean over windows of bytes is, before its division."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import Array, Cost, Intervals, Types
from ...ir.attributes import Pair
from ...ir.intervals import Interval
from ...ir.quantization import Known, Quantization
from ...ir.trace import Tensor
from ...ir.types import DType, TensorType, i32, u8
from .._elementwise import held
from .._rounding import exact
from .._window import require_operands
from ..contraction._contraction import U8_TERMS, require_zero_padding
from ._pooling import Pooling, pooled


@dataclass(frozen=True)
class SumPool2d(Pooling):
    """Y[n,h,w,k] = sum_{i,j} X[n, s*h + i - p, s*w + j - p, k], exact.

    Operand: x u8[N,H,W,C]; result i32[N,OH,OW,C]. Padded positions are zeros. With the division in
    a requantization behind it, it is `avg_pool2d` in integers, and `global_avg_pool` where the
    window is the image. Not differentiable.

    Raises ShapeError for a wrong rank or dtype, an empty output, or a window of more than 8,421,504
    positions: 255 times as much could leave i32.
    """

    name: ClassVar[str] = "sum_pool2d"
    not_differentiable: ClassVar[bool] = True
    dtypes: ClassVar[tuple[DType, ...]] = (u8,)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        shape = self.output(types[0]).shape
        if self.area > U8_TERMS:
            raise ShapeError(
                f"window={self.window} sums {self.area:,} bytes, at most {255 * self.area:,}, "
                f"which i32 cannot hold; {U8_TERMS:,} fit"
            )
        return (TensorType(i32, shape),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        window = self.geometry
        out = window.output_size(x.shape[1], x.shape[2])
        total = np.zeros((x.shape[0], *out, x.shape[3]), np.int32)
        for _, _, tap in window.taps(window.pad(x), out):
            total += tap
        return (total,)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        x = held(ranges[0], u8)
        x = x.hull(Interval(0.0, 0.0)) if max(self.padding) else x
        return (Interval(self.area * x.lo, self.area * x.hi),)

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        (x,) = known
        if x is None:
            return (None,)
        require_zero_padding(self.padding, x)
        return (Quantization(x.scale, x.zero_point * self.area),)

    rounding = exact

    def cost(self, types: Types) -> Cost:
        return Cost(additions=self.output(types[0]).elements * (self.area - 1))


def sum_pool2d(
    x: Tensor,
    window: int | Pair,
    *,
    stride: int | Pair | None = None,
    padding: int | Sequence[int] = 0,
    name: str | None = None,
) -> Tensor:
    """Sum of each window of bytes (`stride`: the window's size); see `SumPool2d`."""
    return pooled(SumPool2d, x, window, stride, padding, name)
