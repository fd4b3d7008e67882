"""replica_mean: where the processes of one training step exchange a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...ir import POINTWISE, Array, Canonical, Gradients, Op, Source, Tensors
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType
from .._window import require_f32, require_operands


@dataclass(frozen=True)
class ReplicaMean(Op):
    """Y = sum over the replicas r of w_r X_r, with w_r the share of r in the samples of the batch.

    Operand: x f32 of any shape; result of its type. A replica computes the graph for its part of a
    batch; a graph that is compiled as a whole is the only one, and Y = X. `passes/replicas.py` cuts
    a training step there. Gradient: let g_r be 1 / w_r times that of the loss of the whole batch,
    so that g_r follows from r's own mean loss; then it is the replica_mean of g, since

        1 / w_r dL/dX_r = dL/dY = sum over s of w_s g_s.

    Raises ShapeError for another dtype.
    Source: `pmean` in Bradbury et al. 2018, JAX, and its transpose, with weights.
    """

    name: ClassVar[str] = "replica_mean"
    kind: ClassVar[str] = POINTWISE
    per_sample: ClassVar[bool] = False
    exchanged: ClassVar[bool] = True
    integer_form: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        require_f32("input", x)
        return (x,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        return (arrays[0].copy(),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g = gs[0]
        assert g is not None
        return (replica_mean(g),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        return operands[0].value


def replica_mean(x: Tensor, *, name: str | None = None) -> Tensor:
    """The mean of `x` over the processes of a training step; see `ReplicaMean`."""
    return apply(ReplicaMean(), x, name=name)
