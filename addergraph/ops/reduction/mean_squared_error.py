"""mean_squared_error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import REDUCTION, Array, Bound, Cost, Gradients, Intervals, Op, Tensors, Types
from ...ir.intervals import NONNEGATIVE
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType, f32
from .._rounding import of_sum
from .._window import require_f32, require_operands


@dataclass(frozen=True)
class MeanSquaredError(Op):
    """Y[n] = sum (p[n,...] - t[n,...])^2 / count, over the axes behind the first.

    Operands: prediction p and target t, f32 of one shape, rank 1 or more. Y f32[N]. NaN where a row
    is empty; rank 1 gives the squares themselves. The reference computes in float64; native code in
    f32, summing in any order, then divides. Gradient: 2 g (p - t) / count for p, its negative for
    t. Raises ShapeError otherwise.
    """

    name: ClassVar[str] = "mean_squared_error"
    kind: ClassVar[str] = REDUCTION
    multiplies: ClassVar[bool] = True
    integer_form: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "prediction", "target")
        prediction, target = types
        require_f32("prediction", prediction)
        if not prediction.rank:
            raise ShapeError(f"prediction must have a batch axis, found {prediction}")
        if target != prediction:
            raise ShapeError(f"target must be {prediction} as the prediction, found {target}")
        return (TensorType(f32, prediction.shape[:1]),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        p, t = (a.astype("f8") for a in arrays)
        with np.errstate(all="ignore"):
            total = np.square(p - t).sum(tuple(range(1, p.ndim)))
            return (np.divide(total, math.prod(p.shape[1:])).astype("f4"),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from ..movement.reshape import reshape

        g, (p, t) = gs[0], xs
        assert g is not None
        inner = p.shape[1:]
        scale = 2.0 / max(1, math.prod(int(d) for d in inner))
        g = reshape(g * scale, (*g.shape, *(1 for _ in inner))) if inner else g * scale
        dp = g * (p - t)
        return (dp, -dp)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (NONNEGATIVE,)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        """Squares are non-negative: all roundings are relative."""
        n = operands[0].size // max(1, results[0].size)
        return (of_sum(n + 5, results[0]),)

    def cost(self, types: Types) -> Cost:
        rows, n = types[0].sizes[0], types[0].elements
        return Cost(additions=2 * n, multiplications=n + rows)


def mean_squared_error(prediction: Tensor, target: Tensor, *, name: str | None = None) -> Tensor:
    """Mean of the squared differences, per row; see `MeanSquaredError`."""
    return apply(MeanSquaredError(), prediction, target, name=name)
