"""lookup: bytes become those that a table has for them, as pixels their preprocessed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import MOVEMENT, Array, Intervals, Op, Types
from ...ir.quantization import Known, Quantization, common
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType, u8
from .._elementwise import held, require_dtype
from .._window import require_operands

BYTES = 256  # entries of a channel's table


@dataclass(frozen=True)
class Lookup(Op):
    """Y[..., c] = table[c, X[..., c]], or table[0, X[..., c]] of one table for all channels.

    Any function of a byte and its channel, such as the scale, mean and deviation of pixels, exactly
    and without a multiplication. Operands: x u8[..., C] with one axis or more before the channels,
    table u8[C,256] or u8[1,256]; result u8 of x's shape. Attributes: `scale` and `zero_point` of
    the result (scale 0: those of the table, if it states any). Not differentiable. Raises
    ShapeError for other dtypes, ranks and shapes, and for a table that states another scale or zero
    point.
    """

    name: ClassVar[str] = "lookup"
    kind: ClassVar[str] = MOVEMENT
    not_differentiable: ClassVar[bool] = True
    scale: float = 0.0
    zero_point: int = 0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x", "table")
        x, table = types
        require_dtype("x", x, u8)
        require_dtype("table", table, u8)
        if x.rank < 2:
            raise ShapeError(f"x must have an axis or more before its channels, found {x}")
        expected = TensorType(u8, (x.shape[-1], BYTES))
        if table.shape not in (expected.shape, (1, BYTES)):
            raise ShapeError(
                f"the table of the input {x} must be {expected}, {BYTES} bytes for each channel, "
                f"or u8[1,{BYTES}] for all of them, found {table}"
            )
        self._stated()
        return (TensorType(u8, x.shape),)

    def _stated(self) -> Quantization | None:
        return Quantization(self.scale, self.zero_point) if self.scale else None

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        x, table = arrays
        return (table[np.arange(len(table)), x],)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (held(ranges[1], u8),)

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        return (common("table and result", (known[1], self._stated())),)


def lookup(
    x: Tensor, table: Tensor, *, scale: float = 0.0, zero_point: int = 0, name: str | None = None
) -> Tensor:
    """The bytes that `table` has for those of x; see `Lookup`."""
    return apply(Lookup(scale, zero_point), x, table, name=name)
