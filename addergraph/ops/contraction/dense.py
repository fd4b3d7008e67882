"""dense and matmul: the multiplying matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...ir import CONTRACTION, Array, Cost, Gradients, Intervals, Op, Tensors, Types
from ...ir.quantization import Known, Quantization
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType, i32
from .._window import require_operands
from . import _rounding
from ._contraction import (
    PRODUCTS,
    product_quantization,
    product_range,
    product_result,
    require_bias,
    require_byte_products,
    require_matrices,
    require_trainable,
    with_bias,
)


@dataclass(frozen=True)
class _Product(Op):
    """What the two products share."""

    kind: ClassVar[str] = CONTRACTION
    takes_tail: ClassVar[bool] = True
    integer_form: ClassVar[bool] = False
    multiplies: ClassVar[bool] = True

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        x, f, *bias = arrays
        y = x.astype("f8") @ f.astype("f8") + 0.0  # a zero sum is +0.0
        return (product_result(x, y, bias),)

    rounding = _rounding.products

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from ..movement.transpose import transpose
        from ..reduction.reduce import reduce_sum

        g, (x, f, *bias) = gs[0], xs
        assert g is not None
        require_trainable(self.name, x)
        dx = matmul(g, transpose(f, (1, 0)))
        df = matmul(transpose(x, (1, 0)), g)
        return (dx, df, *(reduce_sum(g, (0,)) for _ in bias))

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (product_range(ranges, types),)

    def cost(self, types: Types) -> Cost:
        terms = types[0].sizes[0] * types[1].elements
        return Cost(additions=terms, multiplications=terms)


@dataclass(frozen=True)
class Dense(_Product):
    """Y[n,t] = sum_k X[n,k] F[k,t]  (+ b[t]).

    Operands: x f32[N,K], f f32[K,T], optional bias f32[T]; result f32[N,T]. Or integers, as for
    `conv2d`: x u8, f i8, optional bias i32, result i32, exact.

    Gradient: dX = g F^T, dF = X^T g, db = sum_n g; none of integers. Raises ShapeError for wrong
    ranks or dtypes, sizes that do not match, or more terms than i32 holds.
    """

    name: ClassVar[str] = "dense"
    integer_form: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x", "f", "bias", optional=1)
        y = require_matrices(types[0], types[1], forms=PRODUCTS)
        require_bias(int(y.shape[1]), types[2:], y.dtype)
        if y.dtype == i32:
            require_byte_products(types[1])
        return (y,)

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        return (product_quantization(known),)


@dataclass(frozen=True)
class Matmul(_Product):
    """Y[m,t] = sum_k A[m,k] B[k,t].

    Operands: a f32[M,K], b f32[K,T]; result f32[M,T].

    Gradient: dA = g B^T, dB = A^T g. Raises ShapeError for wrong ranks or dtypes, or sizes that do
    not match.
    """

    name: ClassVar[str] = "matmul"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "a", "b")
        return (require_matrices(types[0], types[1], "left operand", "right operand"),)


def dense(x: Tensor, f: Tensor, bias: Tensor | None = None, *, name: str | None = None) -> Tensor:
    """Matrix product of `x` and a filter, plus a bias; see `Dense`."""
    return with_bias(Dense(), x, f, bias, name)


def matmul(a: Tensor, b: Tensor, *, name: str | None = None) -> Tensor:
    """Matrix product of two tensors; see `Matmul`."""
    return apply(Matmul(), a, b, name=name)
