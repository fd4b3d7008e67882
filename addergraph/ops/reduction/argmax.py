"""argmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import REDUCTION, Array, Intervals, Op, Types
from ...ir.intervals import Interval
from ...ir.quantization import Known, Quantization
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType, f32, i32, u8
from .._elementwise import INTEGER_BOUNDS
from .._rounding import exact
from .._window import require_of, require_operands
from .reduce import normal_axis


@dataclass(frozen=True)
class Argmax(Op):
    """Y = the index of the largest element along `axis`, as i32; the axis is left out.

    Of equal elements the first wins (-0.0 equals +0.0); the first NaN wins over everything. Operand
    f32, i32 or u8. Not differentiable. Raises ShapeError where the operand has no such axis or it
    is empty.
    """

    name: ClassVar[str] = "argmax"
    kind: ClassVar[str] = REDUCTION
    not_differentiable: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True
    axis: int

    @property
    def per_sample(self) -> bool:  # type: ignore[override]
        """Whether the batch axis stays."""
        return self.axis != 0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        require_of("x", x, (f32, i32, u8))
        if not 0 <= self.axis < x.rank:
            raise ShapeError(f"axis={self.axis} must be from 0 to {x.rank - 1} for {x}")
        if x.shape[self.axis] == 0:
            raise ShapeError(f"axis {self.axis} of {x} is empty: it has no largest element")
        return (TensorType(i32, x.shape[: self.axis] + x.shape[self.axis + 1 :]),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.asarray(np.argmax(arrays[0], self.axis), "i4"),)

    rounding = exact

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        size = types[0].shape[self.axis]
        last = INTEGER_BOUNDS[i32][1] if size == "N" else size - 1
        return (Interval(0.0, float(last)),)

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        return (Quantization(1.0),)  # an index is its own value


def argmax(x: Tensor, axis: int = -1, *, name: str | None = None) -> Tensor:
    """The index of the largest element along `axis`; see `Argmax`."""
    return apply(Argmax(normal_axis("argmax", axis, len(x.shape))), x, name=name)
