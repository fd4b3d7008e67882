"""softmax_cross_entropy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import REDUCTION, Array, Bound, Cost, Gradients, Op, Tensors, Types
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType, f32
from .._rounding import U, below_maximum, gamma, of_sum
from .._window import require_f32, require_operands


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Op):
    """Y[n] = (sum_t p[n,t]) L[n] - sum_t p[n,t] z[n,t], L = m + ln sum_t e^(z[n,t] - m), m = max z.

    Operands: logits z f32[N,T], targets p f32[N,T] (one-hot or any weights), T >= 1. A row of
    logits with NaN or +inf, or nothing but -inf, gives NaN, and so does -inf where the target is 0.
    The reference computes in float64; native code in f32, summing in any order.

    Gradient: g[n] (softmax(z) sum_t p - p) for the logits, none for the targets. Raises ShapeError
    unless both are f32[N,T].
    """

    name: ClassVar[str] = "softmax_cross_entropy"
    kind: ClassVar[str] = REDUCTION
    multiplies: ClassVar[bool] = True
    integer_form: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "logits", "targets")
        logits, targets = types
        require_f32("logits", logits)
        if logits.rank != 2 or logits.shape[1] == 0:
            raise ShapeError(f"logits must be f32[N,T] with T at least 1, found {logits}")
        if targets != logits:
            raise ShapeError(f"targets must be {logits} as the logits, found {targets}")
        return (TensorType(f32, logits.shape[:1]),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        z, p = (a.astype("f8") for a in arrays)
        with np.errstate(all="ignore"):
            m = z.max(-1, keepdims=True)
            lse = m[:, 0] + np.log(np.exp(z - m).sum(-1))
            return ((p.sum(-1) * lse - (p * z).sum(-1)).astype("f4"),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from ..movement.reshape import reshape
        from .reduce import reduce_sum
        from .softmax import softmax

        g, (z, p) = gs[0], xs
        assert g is not None
        weight = reduce_sum(p, -1, keepdims=True)
        return (reshape(g, (*g.shape, 1)) * (softmax(z) * weight - p), None)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        """sum|p| times the error of L = m + ln s, and the roundings of both weighted sums."""
        z, p = operands[0].astype("f8"), np.abs(operands[1].astype("f8"))
        n, d, m = z.shape[-1], below_maximum(operands[0]), z.max(-1)
        powers = np.exp(-d)
        s = powers.sum(-1)
        relative = U * (powers * d).sum(-1) / s + gamma(n + 4)  # of s
        logarithm = relative + 2 * U * np.abs(np.log(s)) + U * np.abs(m + np.log(s))
        finite = np.where(np.isfinite(z), np.abs(z), 0.0)
        weighted = (p * (finite + np.abs(m + np.log(s))[..., None])).sum(-1)
        return (p.sum(-1) * logarithm + of_sum(n + 4, weighted),)

    def cost(self, types: Types) -> Cost:
        rows, n = types[0].sizes[0], types[0].elements
        return Cost(additions=4 * n + 2 * rows, multiplications=n + rows, transcendentals=n + rows)


def softmax_cross_entropy(logits: Tensor, targets: Tensor, *, name: str | None = None) -> Tensor:
    """Cross entropy of softmax(logits) and targets, per row; see `SoftmaxCrossEntropy`."""
    return apply(SoftmaxCrossEntropy(), logits, targets, name=name)
