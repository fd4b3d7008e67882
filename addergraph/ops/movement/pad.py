"""pad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import MOVEMENT, Array, Canonical, Gradients, Intervals, Op, Source, Tensors, Types
from ...ir.trace import Tensor, apply
from ...ir.types import Dim, Shape, TensorType
from .._elementwise import point, require_value
from .._window import require_operands


@dataclass(frozen=True)
class Pad(Op):
    """Y = x with `before[axis]` and `after[axis]` elements of `value` on either side of each axis.

    Any dtype that holds `value` (as for `full`), any shape. While N is open the batch axis has
    none. Gradient: the slice of g where x stands. Raises ShapeError unless there is one count, 0 or
    more, for each axis.
    """

    name: ClassVar[str] = "pad"
    kind: ClassVar[str] = MOVEMENT
    integer_form: ClassVar[bool] = True
    before: tuple[int, ...]
    after: tuple[int, ...]
    value: float = 0.0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        for side, counts in (("before", self.before), ("after", self.after)):
            if len(counts) != x.rank or min(counts, default=0) < 0:
                raise ShapeError(
                    f"{side}={counts} must be {x.rank} counts, 0 or more, one for each axis of {x}"
                )
        if x.is_open and (self.before[0] or self.after[0]):
            raise ShapeError(f"the batch axis of {x} is open and cannot be padded; bind N first")
        require_value(self.value, x.dtype)
        sides = zip(x.shape, self.before, self.after, strict=True)
        return (TensorType(x.dtype, tuple(d if d == "N" else b + d + a for d, b, a in sides)),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        sizes = [b + d + a for d, b, a in zip(x.shape, self.before, self.after, strict=True)]
        y = np.full(sizes, self.value, x.dtype)
        y[tuple(np.s_[b : b + d] for b, d in zip(self.before, x.shape, strict=True))] = x
        return (y,)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from .slice import slice

        g, x = gs[0], xs[0]
        assert g is not None
        return (slice(g, self.before, _stops(self.before, x.shape)),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        return None if any((*self.before, *self.after)) else operands[0].value

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        if not any((*self.before, *self.after)):
            return (ranges[0],)
        return (ranges[0].hull(point(self.value, types[0].dtype)),)


def _stops(start: Sequence[int], shape: Shape) -> Shape:
    stops: list[Dim] = []
    for first, size in zip(start, shape, strict=True):
        stops.append("N" if size == "N" else first + size)
    return tuple(stops)


def pad(
    x: Tensor,
    before: Sequence[int],
    after: Sequence[int],
    value: float = 0.0,
    *,
    name: str | None = None,
) -> Tensor:
    """x inside a border of `value`; see `Pad`."""
    return apply(Pad(tuple(before), tuple(after), float(value)), x, name=name)
