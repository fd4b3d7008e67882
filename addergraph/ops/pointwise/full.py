"""full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...border import number
from ...errors import ShapeError
from ...ir import POINTWISE, Array, Gradients, Intervals, Op, Tensors, Types
from ...ir.trace import Tensor
from ...ir.types import DType, Shape, TensorType, bool_, dtype_named, f32, i32
from .._elementwise import point, require_dtype, require_value
from .._window import require_operands


@dataclass(frozen=True)
class Full(Op):
    """A tensor of `shape` and `dtype` (f32, i32 or bool) whose every element is `value`.

    No operands. f32 rounds `value` to nearest and keeps the sign of zero; i32 and bool (0 or 1)
    must hold it exactly. Raises ShapeError otherwise.
    """

    name: ClassVar[str] = "full"
    kind: ClassVar[str] = POINTWISE
    cheap: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True
    value: float
    shape: Shape = ()
    dtype: DType = f32

    @property
    def constant(self) -> float:
        return self.value

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types)
        made = TensorType(self.dtype, self.shape)
        require_dtype("the constant", made, f32, i32, bool_)
        require_value(self.value, self.dtype)
        return (made,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        made = TensorType(self.dtype, self.shape)
        return (np.full(made.sizes, self.value, self.dtype.numpy),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        return ()

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (point(self.value, self.dtype),)


def full(
    like: Tensor,
    value: float,
    shape: Shape = (),
    dtype: DType | str = f32,
    *,
    name: str | None = None,
) -> Tensor:
    """A constant tensor in the graph of `like`; see `Full`."""
    kind = dtype_named(dtype) if isinstance(dtype, str) else dtype
    op = Full(number("full: value", value, ShapeError), tuple(shape), kind)
    return Tensor(like.builder, like.builder.add(op, [], name or "const")[0])


def constant(like: Tensor, value: float, *, name: str | None = None) -> Tensor:
    """A scalar constant of the dtype of `like`, in its graph; see `Full`."""
    return full(like, value, (), like.dtype, name=name)
