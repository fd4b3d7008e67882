"""select."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...ir import POINTWISE, Array, Canonical, Gradients, Intervals, Op, Source, Tensors, Types
from ...ir.trace import Operand, Tensor, apply
from ...ir.types import TensorType, bool_, broadcast_shapes, f32
from .._elementwise import held, require_dtype, require_same_dtype, sum_to
from .._window import require_operands
from .full import Full, full


@dataclass(frozen=True)
class Select(Op):
    """Y = a where the condition holds, b elsewhere, bit for bit.

    Operands: condition bool, a and b of one dtype (any); all three broadcast. Gradients:
    select(condition, g, 0) and select(condition, 0, g), none for the condition.
    """

    name: ClassVar[str] = "select"
    kind: ClassVar[str] = POINTWISE
    broadcasts: ClassVar[bool] = True
    cheap: ClassVar[bool] = True
    integer_form: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "condition", "a", "b")
        condition, a, b = types
        require_dtype("condition", condition, bool_)
        require_same_dtype(a, b)
        return (TensorType(a.dtype, broadcast_shapes("operands", *(t.shape for t in types))),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.where(*arrays),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g, (condition, a, b) = gs[0], xs
        assert g is not None
        da, db = select(condition, g, 0.0), select(condition, 0.0, g)
        return (None, sum_to(da, a.shape), sum_to(db, b.shape))

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        condition = held(ranges[0], bool_)
        if condition.constant:
            return (ranges[1] if condition.lo else ranges[2],)
        return (ranges[1].hull(ranges[2]),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        """A constant condition chooses one operand, if that has (or can get) the result's type."""
        condition, *branches = operands
        if condition.constant is None:
            return None
        chosen = branches[0 if condition.constant else 1]
        if chosen.type == result:
            return chosen.value
        if chosen.constant is None:
            return None
        return Full(float(chosen.constant), result.shape, result.dtype), ()


def select(condition: Tensor, a: Operand, b: Operand, *, name: str | None = None) -> Tensor:
    """a where `condition`, else b; numbers take the other operand's dtype. See `Select`."""
    dtype = next((t.dtype for t in (a, b) if isinstance(t, Tensor)), f32)
    a, b = (t if isinstance(t, Tensor) else full(condition, t, (), dtype) for t in (a, b))
    return apply(Select(), condition, a, b, name=name)
