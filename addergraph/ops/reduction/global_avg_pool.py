"""global_avg_pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import REDUCTION, Array, Cost, Gradients, Intervals, Op, Tensors, Types
from ...ir.intervals import Interval
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType, f32
from .._rounding import sum_or_mean
from .._window import require_image, require_operands


@dataclass(frozen=True)
class GlobalAvgPool(Op):
    """Y[n,k] = 1/(H W) sum_{h,w} X[n,h,w,k].

    Operand: x f32[N,H,W,C]; result f32[N,C].

    Raises ShapeError for a wrong rank or dtype, and for an image without pixels.
    """

    name: ClassVar[str] = "global_avg_pool"
    kind: ClassVar[str] = REDUCTION
    multiplies: ClassVar[bool] = True
    keeps_scale: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        require_image("input", x)
        if not _area(x):
            raise ShapeError(f"the input {x} has no pixels: nothing to average")
        return (TensorType(f32, (x.shape[0], x.shape[3])),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        mean = arrays[0].mean((1, 2), dtype=np.float64) + 0.0  # a zero mean is +0.0
        return (mean.astype(np.float32),)

    rounding = sum_or_mean

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from ..movement.broadcast_to import broadcast_to
        from ..movement.reshape import reshape

        g, (x,) = gs[0], xs
        assert g is not None
        share = reshape(g * (1.0 / _area(x.type)), (x.shape[0], 1, 1, x.shape[3]))
        return (broadcast_to(share, x.shape),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        area = _area(types[0])
        return (ranges[0].total(area) * Interval(1 / area, 1 / area),)

    def cost(self, types: Types) -> Cost:
        n, h, w, c = types[0].sizes
        return Cost(additions=n * (h * w - 1) * c, multiplications=n * c)


def _area(x: TensorType) -> int:
    """Pixels of one image."""
    return int(x.shape[1]) * int(x.shape[2])


def global_avg_pool(x: Tensor, *, name: str | None = None) -> Tensor:
    """Mean over the rows and columns of each channel; see `GlobalAvgPool`."""
    return apply(GlobalAvgPool(), x, name=name)
