"""max_pool2d and its gradient op."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...ir import Array, Bound, Canonical, Cost, Gradients, Intervals, Op, Source, Tensors, Types
from ...ir.attributes import Pair
from ...ir.quantization import Known, Quantization
from ...ir.trace import Tensor, apply
from ...ir.types import DType, TensorType, f32, u8
from .._elementwise import held
from .._rounding import exact, of_sum
from .._window import require_operands
from ..contraction._contraction import require_trainable
from ._pooling import Pooling, pooled, require_data_in_every_window


@dataclass(frozen=True)
class MaxPool2d(Pooling):
    """Y[n,h,w,k] = max_{i,j} X[n, s*h + i - p, s*w + j - p, k].

    Operand: x f32[N,H,W,C] or u8; result [N,OH,OW,C] of its dtype. Padded positions are ignored.
    Of f32 the result is the first maximum in the order (i, j), which tells -0.0 from +0.0; a NaN
    counts as maximum, so a window with a NaN gives NaN. Of bytes there is no gradient, GraphError.

    Raises ShapeError for a wrong rank or dtype, an empty output, or a window wholly in padding.
    """

    name: ClassVar[str] = "max_pool2d"
    keeps_scale: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True
    dtypes: ClassVar[tuple[DType, ...]] = (f32, u8)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        y = self.output(types[0])
        require_data_in_every_window(self, types[0])
        return (y,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        *_, (_, _, _, y) = _running_maximum(self, arrays[0])
        return (y,)

    rounding = exact

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g = gs[0]
        assert g is not None
        require_trainable(self.name, xs[0])
        return (apply(MaxPool2dGrad(self.window, self.stride, self.padding), g, xs[0]),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (held(ranges[0], types[0].dtype),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        """Of one element each. A mean is not: it starts its sum at +0.0, which loses a -0.0."""
        return operands[0].value if self == MaxPool2d((1, 1), (1, 1)) else None

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        return (known[0],)

    def cost(self, types: Types) -> Cost:
        return Cost(additions=self.output(types[0]).elements * (self.area - 1))


@dataclass(frozen=True)
class MaxPool2dGrad(Pooling):
    """dX[n,h',w',k] = sum of g[n,h,w,k] over the windows whose first maximum is at (h', w').

    First in the order (i, j); a NaN counts as maximum. Operands: g f32[N,OH,OW,C],
    x f32[N,H,W,C]; result f32[N,H,W,C]. The sum runs over h, then w.

    Raises ShapeError when g is not what the forward layer gives for x.
    """

    name: ClassVar[str] = "max_pool2d_grad"
    not_differentiable: ClassVar[bool] = True
    gradient_of: ClassVar[type[Op] | None] = MaxPool2d

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "g", "x")
        g, x = types
        self.require_gradient(g, x)
        require_data_in_every_window(self, x)
        return (x,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        g, x = arrays
        winner = np.full(g.shape, -1)
        for i, j, takes, _ in _running_maximum(self, x):
            winner[takes] = i * self.window[1] + j
        window = self.geometry
        dx = window.pad(np.zeros(x.shape))
        for i, j, into in window.taps(dx, g.shape[1:3]):
            into += np.where(winner == i * self.window[1] + j, g, 0.0)
        return (window.crop(dx).astype(np.float32),)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        """At most as many windows as a window has positions reach one element."""
        g, x = operands
        return (of_sum(self.area + 2, self.reference(np.abs(g), x)[0]),)

    def cost(self, types: Types) -> Cost:
        return Cost(additions=types[0].elements * self.area)


def _running_maximum(pooling: Pooling, x: Array) -> Iterator[tuple[int, int, Array, Array]]:
    """For each tap in order: (i, j, where it becomes the maximum so far, the maximum so far)."""
    window = pooling.geometry
    out = window.output_size(x.shape[1], x.shape[2])
    shape = (x.shape[0], *out, x.shape[3])
    maximum, found = np.zeros(shape, x.dtype), np.zeros(shape, bool)
    inside = window.taps(window.pad(np.ones(x.shape, bool), False), out)
    for (i, j, tap), (_, _, real) in zip(window.taps(window.pad(x), out), inside, strict=True):
        takes = real & (~found | (tap > maximum) | (np.isnan(tap) & ~np.isnan(maximum)))
        maximum, found = np.where(takes, tap, maximum), found | real
        yield i, j, takes, maximum


def max_pool2d(
    x: Tensor,
    window: int | Pair,
    *,
    stride: int | Pair | None = None,
    padding: int | Sequence[int] = 0,
    name: str | None = None,
) -> Tensor:
    """Maximum of each window (`stride`: the window's size); see `MaxPool2d`."""
    return pooled(MaxPool2d, x, window, stride, padding, name)
