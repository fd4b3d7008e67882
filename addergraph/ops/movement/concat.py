"""concat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import MOVEMENT, Array, Gradients, Intervals, Op, Tensors, Types
from ...ir.intervals import Interval
from ...ir.trace import Tensor, apply
from ...ir.types import Dim, TensorType
from ..reduction.reduce import normal_axis


@dataclass(frozen=True)
class Concat(Op):
    """Y = the operands, one behind the other along `axis`.

    Two or more operands of one dtype (any), equal in shape but for `axis`, where sizes may differ
    and be 0. The open batch axis cannot be the `axis`. Gradients: slices of g. Raises ShapeError
    otherwise.
    """

    name: ClassVar[str] = "concat"
    kind: ClassVar[str] = MOVEMENT
    integer_form: ClassVar[bool] = True
    axis: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if len(types) < 2:
            raise ShapeError(f"takes two or more operands, found {len(types)}")
        first = types[0]
        if not 0 <= self.axis < first.rank:
            raise ShapeError(f"axis={self.axis} must be from 0 to {first.rank - 1} for {first}")
        if any(t.is_open for t in types) and self.axis == 0:
            raise ShapeError(f"axis=0 of {first} is the open batch; bind N first")
        total = 0
        for number, t in enumerate(types):
            if t.dtype != first.dtype or self._rest(t) != self._rest(first):
                raise ShapeError(
                    f"operand {number} is {t}, which does not fit behind operand 0, {first}: "
                    f"dtypes and all sizes but those of axis {self.axis} must be equal"
                )
            total += int(t.shape[self.axis])
        shape = (*first.shape[: self.axis], total, *first.shape[self.axis + 1 :])
        return (TensorType(first.dtype, shape),)

    def _rest(self, type: TensorType) -> tuple[Dim | None, ...]:
        return tuple(None if axis == self.axis else d for axis, d in enumerate(type.shape))

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.concatenate(arrays, self.axis),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from .slice import slice

        g, at, parts = gs[0], 0, []
        assert g is not None
        for x in xs:
            start, stop = [0] * len(x.shape), list(x.shape)
            start[self.axis], at = at, at + int(x.shape[self.axis])
            stop[self.axis] = at
            parts.append(slice(g, start, stop))
        return tuple(parts)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (reduce(Interval.hull, ranges),)


def concat(tensors: Sequence[Tensor], axis: int = -1, *, name: str | None = None) -> Tensor:
    """The tensors, one behind the other along `axis` (default the last); see `Concat`."""
    if not tensors:
        raise ShapeError("concat: takes two or more tensors, found none")
    return apply(Concat(normal_axis("concat", axis, len(tensors[0].shape))), *tensors, name=name)
