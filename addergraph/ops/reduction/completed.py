"""completed: tells another thread that values are in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import REDUCTION, Array, Op
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType, i32
from .._rounding import exact


@dataclass(frozen=True)
class Completed(Op):
    """Y = 1, an i32, which is written once all operands are computed.

    One operand or more, of any dtypes and shapes. A caller that sets this output to 0 before a call
    sees on another thread when it becomes 1: the operands are then in memory, those that are
    outputs of the graph in the caller's. (Not so outputs that equal others: the compiler may copy
    them in the end.) The store is a release. `passes/replicas.py` adds it behind gradients that
    processes exchange. Not differentiable. Raises ShapeError without an operand.
    """

    name: ClassVar[str] = "completed"
    kind: ClassVar[str] = REDUCTION
    not_differentiable: ClassVar[bool] = True
    per_sample: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if not types:
            raise ShapeError("takes one operand or more, found none")
        return (TensorType(i32, ()),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.asarray(1, "i4"),)

    rounding = exact


def completed(x: Tensor, *others: Tensor, name: str | None = None) -> Tensor:
    """1 once all of these are computed; see `Completed`."""
    return apply(Completed(), x, *others, name=name)
