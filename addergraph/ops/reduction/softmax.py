"""softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import REDUCTION, Array, Bound, Cost, Gradients, Intervals, Op, Tensors, Types
from ...ir.intervals import Interval
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType
from .._rounding import TINY, U, below_maximum, gamma
from .._window import require_f32, require_operands


@dataclass(frozen=True)
class Softmax(Op):
    """Y = e^(x - m) / sum e^(x - m) over the last axis, m its maximum.

    A row that holds NaN or +inf, or nothing but -inf, is NaN throughout; any other -inf gives +0.0.
    The reference computes in float64; native code in f32, summing in any order. Operand f32 of rank
    1 or more; an empty last axis gives an empty result. Gradient: Y (g - sum g Y). Raises
    ShapeError for a scalar, and where the last axis is the open batch.
    """

    name: ClassVar[str] = "softmax"
    kind: ClassVar[str] = REDUCTION
    activation: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True
    integer_form: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        require_f32("x", x)
        if not x.rank:
            raise ShapeError(f"x must have an axis to normalise over, found {x}")
        if x.shape[-1] == "N":
            raise ShapeError(f"the last axis of {x} is the open batch; bind N or add an axis")
        return types

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        x = arrays[0].astype("f8")
        with np.errstate(all="ignore"):
            e = np.exp(x - x.max(-1, keepdims=True, initial=-np.inf))
            return ((e / e.sum(-1, keepdims=True)).astype("f4"),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from .reduce import reduce_sum

        g, y = gs[0], ys[0]
        assert g is not None
        return (y * (g - reduce_sum(g * y, -1, keepdims=True)),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (Interval(0.0, 1.0),)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        """e^-d is off by u d (from the rounding of d) and 1 ulp; then the sum and the division."""
        y = results[0].astype("f8")
        d = below_maximum(operands[0])
        relative = U * (d + (y * d).sum(-1, keepdims=True)) + gamma(y.shape[-1] + 6)
        return (relative * y + 8 * TINY,)

    def cost(self, types: Types) -> Cost:
        n = types[0].elements
        return Cost(additions=2 * n, multiplications=n, transcendentals=n)


def softmax(x: Tensor, *, name: str | None = None) -> Tensor:
    """Softmax over the last axis; see `Softmax`."""
    return apply(Softmax(), x, name=name)
