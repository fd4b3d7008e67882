"""avg_pool2d and its gradient op."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ...ir import Array, Bound, Cost, Gradients, Intervals, Op, Tensors, Types
from ...ir.attributes import Pair
from ...ir.intervals import Interval
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType, f32
from .._rounding import of_sum, sum_or_mean
from .._window import require_image, require_operands
from ._pooling import Pooling, pooled


@dataclass(frozen=True)
class AvgPool2d(Pooling):
    """Y[n,h,w,k] = 1/(I J) sum_{i,j} X[n, s*h + i - p, s*w + j - p, k].

    Operand: x f32[N,H,W,C]; result f32[N,OH,OW,C]. The window is I x J; padded positions are
    zeros that count in the divisor.

    Raises ShapeError for a wrong rank or dtype, or an empty output.
    """

    name: ClassVar[str] = "avg_pool2d"
    multiplies: ClassVar[bool] = True
    keeps_scale: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        return (self.output(types[0]),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        window = self.geometry
        out = window.output_size(x.shape[1], x.shape[2])
        total = np.zeros((x.shape[0], *out, x.shape[3]))
        for _, _, tap in window.taps(window.pad(x), out):
            total += tap
        return ((total / self.area).astype(np.float32),)

    rounding = sum_or_mean

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g, (x,) = gs[0], xs
        assert g is not None
        size = (int(x.shape[1]), int(x.shape[2]))
        op = AvgPool2dGrad(self.window, self.stride, self.padding, input_size=size)
        return (apply(op, g),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        x = ranges[0].hull(Interval(0.0, 0.0)) if max(self.padding) else ranges[0]
        return (x.total(self.area) * Interval(1 / self.area, 1 / self.area),)

    def cost(self, types: Types) -> Cost:
        elements = self.output(types[0]).elements
        return Cost(additions=elements * (self.area - 1), multiplications=elements)


@dataclass(frozen=True)
class AvgPool2dGrad(Pooling):
    """dX[n,h',w',k] = 1/(I J) sum of g[n,h,w,k] over the windows that hold (h', w').

    Operand: g f32[N,OH,OW,C]; result f32[N,H,W,C], where `input_size` is (H, W), which the size
    of g alone does not tell.

    Raises ShapeError when g is not what the forward layer gives for that input.
    """

    name: ClassVar[str] = "avg_pool2d_grad"
    not_differentiable: ClassVar[bool] = True
    gradient_of: ClassVar[type[Op] | None] = AvgPool2d
    multiplies: ClassVar[bool] = True
    input_size: Pair = field(kw_only=True)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "g")
        (g,) = types
        require_image("output gradient", g)
        x = TensorType(f32, (g.shape[0], *self.input_size, g.shape[3]))
        self.require_gradient(g, x)
        return (x,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        (g,) = arrays
        window = self.geometry
        dx = window.pad(np.zeros((g.shape[0], *self.input_size, g.shape[3])))
        for _, _, into in window.taps(dx, g.shape[1:3]):
            into += g
        return ((window.crop(dx) / self.area).astype(np.float32),)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        """At most as many windows as a window has positions reach one element."""
        return (of_sum(self.area + 2, self.reference(np.abs(operands[0]))[0]),)

    def cost(self, types: Types) -> Cost:
        elements = types[0].elements
        return Cost(additions=elements * self.area, multiplications=elements)


def avg_pool2d(
    x: Tensor,
    window: int | Pair,
    *,
    stride: int | Pair | None = None,
    padding: int | Sequence[int] = 0,
    name: str | None = None,
) -> Tensor:
    """Mean of each window (`stride`: the window's size); see `AvgPool2d`."""
    return pooled(AvgPool2d, x, window, stride, padding, name)
