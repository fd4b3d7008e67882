"""adder_dense: the fully connected adder layer, and the two gradient ops of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...ir import CONTRACTION, Array, Bound, Cost, Gradients, Intervals, Op, Tensors, Types
from ...ir.attributes import FULL_PRECISION, GRADIENTS, SIGN, choice
from ...ir.intervals import Interval
from ...ir.quantization import Known, Quantization
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType, f32, i32
from .._window import require_gradient, require_operands
from . import _rounding
from ._contraction import (
    DISTANCES,
    Forms,
    byte_distance_range,
    distance_quantization,
    plus_bias,
    require_bias,
    require_byte_distances,
    require_matrices,
    require_trainable,
    with_bias,
)


@dataclass(frozen=True)
class AdderDense(Op):
    """Y[n,t] = - sum_k |X[n,k] - F[k,t]|  (+ b[t]).

    Operands: x f32[N,K], f f32[K,T], optional bias f32[T]; result f32[N,T]. `input_nonnegative`
    as for `adder2d`, of which this is the 1x1 case.

    Or integers, as there: x u8, f u8, optional bias i32, result i32, exact.

    Gradient (surrogate): dF = sum_n g (X - F), dX = sum_t g clip(F - X, -1, 1); with
    gradient=sign, as for `adder2d`: dF = sum_n g sign(X - F), dX = sum_t g sign(F - X). None of u8.
    Raises ShapeError for wrong ranks or dtypes, or sizes that do not match.
    Source: Chen et al. 2020 (arXiv:1912.13200), eq. 2, 5 and 6.
    """

    name: ClassVar[str] = "adder_dense"
    kind: ClassVar[str] = CONTRACTION
    surrogate: ClassVar[bool] = True
    takes_tail: ClassVar[bool] = True
    measures_distance: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True
    forms: ClassVar[Forms] = DISTANCES
    input_nonnegative: bool = False
    gradient: str = FULL_PRECISION

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x", "f", "bias", optional=1)
        choice("attributes", "gradient", self.gradient, GRADIENTS)
        y = require_matrices(types[0], types[1], forms=self.forms)
        require_bias(int(y.shape[1]), types[2:], y.dtype)
        if y.dtype == i32:
            require_byte_distances(self.input_nonnegative, types[1])
        return (y,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        x, f, *bias = arrays
        sums, made = ("i8", np.int32) if x.dtype == np.uint8 else ("f8", np.float32)
        y = np.zeros((x.shape[0], f.shape[1]), sums)
        x64, f64 = x.astype(sums), f.astype(sums)
        for k in range(f.shape[0]):
            y -= np.abs(x64[:, k, None] - f64[k])
        return ((y + bias[0] if bias else y).astype(made),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from ..reduction.reduce import reduce_sum
        from ._sign_gradient import SCALE, by_filter

        g, (x, f, *bias) = gs[0], xs
        assert g is not None
        require_trainable(self.name, x)
        if self.gradient == SIGN:
            dx = apply(AdderDenseGradInput(), g, SCALE * x, SCALE * f)
            df = by_filter(g, x, f)
        else:
            dx = apply(AdderDenseGradInput(), g, x, f)
            df = apply(AdderDenseGradFilter(), g, x, f)
        return (dx, df, *(reduce_sum(g, (0,)) for _ in bias))

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        if types[0].dtype == f32:
            return (plus_bias(Interval(hi=0.0), ranges),)
        return (byte_distance_range(ranges, types),)

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        return (distance_quantization(known),)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        if operands[0].dtype != np.float32:
            return (0.0,)
        x_sums = operands[0].astype("f8").sum(-1, keepdims=True)
        return (_rounding.of_distances(x_sums, operands, results[0]),)

    def cost(self, types: Types) -> Cost:
        return Cost(additions=2 * _terms(types[0], types[1]))


@dataclass(frozen=True)
class AdderDenseGradInput(Op):
    """dX[n,k] = sum_t g[n,t] clip(F[k,t] - X[n,k], -1, 1).

    Operands: g f32[N,T], x f32[N,K], f f32[K,T]; result f32[N,K]. HardTanh gradient, eq. 6 of
    Chen et al. 2020. Raises ShapeError when g is not what the forward layer gives for x and f.
    """

    name: ClassVar[str] = "adder_dense_grad_input"
    kind: ClassVar[str] = CONTRACTION
    not_differentiable: ClassVar[bool] = True
    gradient_of: ClassVar[type[Op] | None] = AdderDense
    multiplies: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        _require_gradient(types)
        return (types[1],)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        g, x, f = (a.astype("f8") for a in arrays)
        dx = np.zeros(x.shape)
        for t in range(f.shape[1]):
            dx += g[:, t, None] * np.clip(f[:, t] - x, -1.0, 1.0)
        return (dx.astype(np.float32),)

    def rounding(self, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
        return _rounding.hard_tanh_by_input(self, operands)

    def cost(self, types: Types) -> Cost:
        terms = _terms(types[1], types[2])
        return Cost(additions=4 * terms, multiplications=terms)


@dataclass(frozen=True)
class AdderDenseGradFilter(Op):
    """dF[k,t] = sum_n g[n,t] (X[n,k] - F[k,t]).

    Operands as for `adder_dense_grad_input`; result f32[K,T]. Full-precision gradient, eq. 5 of
    Chen et al. 2020. Raises ShapeError when g is not what the forward layer gives for x and f.
    """

    name: ClassVar[str] = "adder_dense_grad_filter"
    kind: ClassVar[str] = CONTRACTION
    not_differentiable: ClassVar[bool] = True
    gradient_of: ClassVar[type[Op] | None] = AdderDense
    multiplies: ClassVar[bool] = True
    per_sample: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        _require_gradient(types)
        return (types[2],)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        g, x, f = (a.astype("f8") for a in arrays)
        df = x.T @ g - f * g.sum(0)
        return ((df + 0.0).astype(np.float32),)  # a zero is +0.0

    rounding = _rounding.difference_by_filter

    def cost(self, types: Types) -> Cost:
        terms = _terms(types[1], types[2])
        return Cost(additions=terms, multiplications=terms)


def _terms(x: TensorType, f: TensorType) -> int:
    """Number of |x - f| terms of the forward layer."""
    return x.sizes[0] * f.elements


def _require_gradient(types: Types) -> None:
    require_operands(types, "g", "x", "f")
    g, x, f = types
    require_gradient(g, require_matrices(x, f))


def adder_dense(
    x: Tensor, f: Tensor, bias: Tensor | None = None, *, name: str | None = None
) -> Tensor:
    """Negative L1 distance of each column of `f` to each row of `x`; see `AdderDense`."""
    return with_bias(AdderDense(), x, f, bias, name)
