"""transpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...errors import ShapeError
from ...ir import MOVEMENT, Array, Canonical, Gradients, Intervals, Op, Source, Tensors, Types
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType
from .._window import require_operands


@dataclass(frozen=True)
class Transpose(Op):
    """Y = x with axis `permutation[a]` of x as axis a.

    Any dtype, any shape. Axis 0 stays first while N is open. Gradient: the inverse transpose of g.
    Raises ShapeError unless `permutation` names each axis once.
    """

    name: ClassVar[str] = "transpose"
    kind: ClassVar[str] = MOVEMENT
    integer_form: ClassVar[bool] = False
    permutation: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        if sorted(self.permutation) != list(range(x.rank)):
            raise ShapeError(
                f"permutation={self.permutation} must name each of the axes 0 to {x.rank - 1} "
                f"of {x} once"
            )
        if x.is_open and self.permutation[0] != 0:
            raise ShapeError(
                f"permutation={self.permutation} moves the open batch axis of {x}; bind N first"
            )
        return (TensorType(x.dtype, tuple(x.shape[axis] for axis in self.permutation)),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        return (arrays[0].transpose(self.permutation).copy(),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g = gs[0]
        assert g is not None
        return (transpose(g, [self.permutation.index(a) for a in range(len(self.permutation))]),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        (x,) = operands
        if self.permutation == tuple(range(x.type.rank)):
            return x.value
        if not isinstance(x.op, Transpose):
            return None
        return Transpose(tuple(x.op.permutation[axis] for axis in self.permutation)), x.inputs

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (ranges[0],)


def transpose(x: Tensor, permutation: Sequence[int], *, name: str | None = None) -> Tensor:
    """x with its axes in another order; see `Transpose`."""
    return apply(Transpose(tuple(permutation)), x, name=name)
