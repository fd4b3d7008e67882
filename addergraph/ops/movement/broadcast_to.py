"""broadcast_to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import MOVEMENT, Array, Canonical, Gradients, Intervals, Op, Source, Tensors, Types
from ...ir.trace import Tensor, apply
from ...ir.types import Dim, Shape, TensorType, broadcast_shapes
from .._elementwise import sum_to
from .._window import require_operands


@dataclass(frozen=True)
class BroadcastTo(Op):
    """Y = x repeated to `shape` by NumPy's rule: right-aligned, missing and 1-sized axes stretch.

    Any dtype, any shape; `shape` may lead with N. Gradient: g summed over the stretched axes.
    Raises ShapeError where x does not broadcast to `shape`.
    """

    name: ClassVar[str] = "broadcast_to"
    kind: ClassVar[str] = MOVEMENT
    integer_form: ClassVar[bool] = False
    shape: Shape

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        made = TensorType(x.dtype, self.shape)
        if broadcast_shapes("x and the result", x.shape, self.shape) != self.shape:
            raise ShapeError(f"{x} does not broadcast to {made}: only axes of size 1 stretch")
        return (made,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.broadcast_to(arrays[0], [int(d) for d in self.shape]).copy(),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g = gs[0]
        assert g is not None
        return (sum_to(g, xs[0].shape),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        return operands[0].value if operands[0].type == result else None

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (ranges[0],)


def broadcast_to(x: Tensor, shape: Sequence[Dim], *, name: str | None = None) -> Tensor:
    """x repeated to `shape`; see `BroadcastTo`."""
    return apply(BroadcastTo(tuple(shape)), x, name=name)
