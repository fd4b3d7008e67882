"""relu."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...ir import POINTWISE, Array, Canonical, Op, Source
from ...ir.intervals import Interval
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType
from .._window import require_f32, require_operands


@dataclass(frozen=True)
class Relu(Op):
    """Y = max(X, 0): NaN stays NaN, -0.0 becomes +0.0.

    Operand: x f32 of any shape; result of its type. Raises ShapeError for another dtype.
    """

    name: ClassVar[str] = "relu"
    kind: ClassVar[str] = POINTWISE
    rectifies: ClassVar[bool] = True
    cheap: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        require_f32("input", x)
        return (x,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (np.abs(np.where(x < 0, np.float32(0), x)),)

    def grad(
        self, xs: Sequence[Tensor], ys: Sequence[Tensor], gs: Sequence[Tensor | None]
    ) -> tuple[Tensor | None, ...]:
        from .select import select

        g = gs[0]
        assert g is not None
        return (select(ys[0] > 0.0, g, 0.0),)

    def interval(
        self, ranges: Sequence[Interval], types: Sequence[TensorType]
    ) -> tuple[Interval, ...]:
        return (Interval(max(ranges[0].lo, 0.0), max(ranges[0].hi, 0.0)),)

    def positive_zero(self, operands: Sequence[bool]) -> bool:
        return True

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        return operands[0].value if isinstance(operands[0].op, Relu) else None


def relu(x: Tensor, *, name: str | None = None) -> Tensor:
    """max(x, 0); see `Relu`."""
    return apply(Relu(), x, name=name)
