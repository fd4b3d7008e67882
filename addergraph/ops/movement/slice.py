"""slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import MOVEMENT, Array, Canonical, Gradients, Intervals, Op, Source, Tensors, Types
from ...ir.trace import Tensor, apply
from ...ir.types import Dim, Shape, TensorType
from .._window import require_operands


@dataclass(frozen=True)
class Slice(Op):
    """Y = x[start[0]:stop[0], start[1]:stop[1], ...], a range for every axis; it may be empty.

    Any dtype, any shape. The batch axis is taken whole while N is open: its start is 0 and its stop
    is `N`, which `bind` replaces with the batch. Gradient: g padded with zeros. Raises ShapeError
    unless 0 <= start <= stop <= size on every axis.
    """

    name: ClassVar[str] = "slice"
    kind: ClassVar[str] = MOVEMENT
    integer_form: ClassVar[bool] = False
    start: tuple[int, ...]
    stop: Shape

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        if not len(self.start) == len(self.stop) == x.rank:
            raise ShapeError(
                f"start={self.start} and stop={self.stop} must be {x.rank} positions each, one for "
                f"each axis of {x}"
            )
        ranges = zip(self.start, self.stop, x.shape, strict=True)
        extents = [_extent(x, axis, *which) for axis, which in enumerate(ranges)]
        return (TensorType(x.dtype, tuple(extents)),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        ranges = zip(self.start, self.stop, strict=True)
        return (np.array(arrays[0][tuple(np.s_[first:last] for first, last in ranges)]),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from .pad import pad

        g, x = gs[0], xs[0]
        assert g is not None
        after = [
            0 if last == "N" else int(size) - last
            for last, size in zip(self.stop, x.shape, strict=True)
        ]
        return (pad(g, self.start, after),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        return operands[0].value if operands[0].type == result else None

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (ranges[0],)


def _extent(x: TensorType, axis: int, first: int, last: Dim, size: Dim) -> Dim:
    if size == "N":
        if first == 0 and last == "N":
            return "N"
        raise ShapeError(
            f"found {first}:{last} on the open batch axis of {x}, which must be taken whole, 0:N; "
            "bind N first to cut it"
        )
    if last == "N":
        raise ShapeError(f"stop=N on axis {axis} of {x}, which is not an open batch")
    if not 0 <= first <= last <= size:
        raise ShapeError(
            f"found {first}:{last} on axis {axis} of {x}; expected 0 <= start <= stop <= {size}"
        )
    return last - first


def slice(
    x: Tensor, start: Sequence[int], stop: Sequence[Dim], *, name: str | None = None
) -> Tensor:
    """The part of x from `start` to `stop`, one each for every axis; see `Slice`."""
    return apply(Slice(tuple(start), tuple(stop)), x, name=name)
