"""resize_nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...errors import ShapeError
from ...ir import MOVEMENT, Array, Canonical, Gradients, Intervals, Op, Source, Tensors, Types
from ...ir.attributes import Pair, pair
from ...ir.trace import Tensor, apply
from ...ir.types import DTYPES, TensorType
from .._window import label, require_image, require_operands
from ..contraction._contraction import require_trainable


@dataclass(frozen=True)
class ResizeNearest(Op):
    """Y[n,h,w,c] = X[n, floor(h / a), floor(w / b), c], factors = (a, b).

    Each pixel becomes a x b of them: for whole factors that is the nearest one. Operand: x
    [N,H,W,C] of any dtype; result [N, a H, b W, C]. Gradient: the sum of g over the pixels that X's
    became; of integers none, GraphError. Raises ShapeError for a wrong rank, and unless both
    factors are at least 1.
    """

    name: ClassVar[str] = "resize_nearest"
    kind: ClassVar[str] = MOVEMENT
    integer_form: ClassVar[bool] = True
    factors: Pair

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        require_image("input", x, tuple(DTYPES.values()))
        if len(self.factors) != 2 or min(self.factors) < 1:
            raise ShapeError(f"factors={self.factors} must be two integers of at least 1")
        samples, height, width, channels = x.shape
        rows, columns = int(height) * self.factors[0], int(width) * self.factors[1]
        return (TensorType(x.dtype, (samples, rows, columns, channels)),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        return (arrays[0].repeat(self.factors[0], 1).repeat(self.factors[1], 2),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from ..reduction.reduce import reduce_sum
        from .reshape import reshape

        g, x = gs[0], xs[0]
        assert g is not None
        require_trainable(self.name, x)
        samples, height, width, channels = x.shape
        a, b = self.factors
        return (reduce_sum(reshape(g, (samples, height, a, width, b, channels)), (2, 4)),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (ranges[0],)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        return operands[0].value if operands[0].type == result else None


def resize_nearest(x: Tensor, factors: int | Pair, *, name: str | None = None) -> Tensor:
    """x with each pixel repeated; see `ResizeNearest`."""
    size = pair(label("resize_nearest", name), "factors", factors)
    return apply(ResizeNearest(size), x, name=name)
