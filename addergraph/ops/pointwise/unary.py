"""Elementwise functions of one operand: neg, abs, exp, log, sqrt, sigmoid, tanh."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...ir import (
    POINTWISE,
    Array,
    Canonical,
    Cost,
    Gradients,
    Intervals,
    Op,
    Source,
    Tensors,
    Types,
)
from ...ir.intervals import ANY, NONNEGATIVE, Interval
from ...ir.trace import Tensor, apply
from ...ir.types import DType, TensorType, f32, i32
from .._elementwise import held, require_dtype, stored
from .._rounding import one_ulp, two_ulps
from .._window import require_operands


@dataclass(frozen=True)
class _Unary(Op):
    """One operand of any shape; the result has its type."""

    kind: ClassVar[str] = POINTWISE
    integer_form: ClassVar[bool] = False
    dtypes: ClassVar[tuple[DType, ...]] = (f32,)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        require_dtype("x", types[0], *self.dtypes)
        return types


@dataclass(frozen=True)
class _Transcendental(_Unary):
    """The reference is the float64 function rounded to f32; native code states an ulp bound."""

    multiplies: ClassVar[bool] = True

    def cost(self, types: Types) -> Cost:
        return Cost(transcendentals=types[0].elements)


@dataclass(frozen=True)
class Neg(_Unary):
    """Y = -x: the sign bit flipped, so -(+0.0) = -0.0; NaN stays NaN.

    Operand f32 or i32, any shape. i32 wraps: -(-2^31) = -2^31. Gradient: -g.
    """

    name: ClassVar[str] = "neg"
    cheap: ClassVar[bool] = True
    dtypes: ClassVar[tuple[DType, ...]] = (f32, i32)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        with np.errstate(over="ignore"):
            return (np.asarray(np.negative(arrays[0])),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g = gs[0]
        assert g is not None
        return (-g,)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        dtype = types[0].dtype
        return (stored(-held(ranges[0], dtype), dtype),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        return operands[0].inputs[0] if isinstance(operands[0].op, Neg) else None


@dataclass(frozen=True)
class Abs(_Unary):
    """Y = |x|: the sign bit cleared, so |-0.0| = +0.0; NaN stays NaN.

    Operand f32 or i32, any shape. i32 wraps: |-2^31| = -2^31. Gradient: g sign(x), 0 at 0.
    """

    name: ClassVar[str] = "abs"
    cheap: ClassVar[bool] = True
    dtypes: ClassVar[tuple[DType, ...]] = (f32, i32)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        with np.errstate(over="ignore"):
            return (np.asarray(np.abs(arrays[0])),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from .select import select

        g, x = gs[0], xs[0]
        assert g is not None
        return (select(x > 0.0, g, select(x < 0.0, -g, 0.0)),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        dtype = types[0].dtype
        x = held(ranges[0], dtype)
        return (stored(Interval(max(x.lo, -x.hi, 0.0), max(-x.lo, x.hi)), dtype),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        """abs of neg, and abs of what has no sign bit already."""
        (x,) = operands
        if isinstance(x.op, Neg):
            return Abs(), x.inputs
        return x.value if isinstance(x.op, Abs) or (x.op and x.op.rectifies) else None


@dataclass(frozen=True)
class Exp(_Transcendental):
    """Y = e^x; exp(-inf) = +0.0, exp(+inf) = +inf, overflow is +inf, NaN stays NaN.

    Operand f32, any shape. Gradient: g Y.
    """

    name: ClassVar[str] = "exp"

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            return (np.asarray(np.exp(arrays[0].astype("f8")), "f4"),)

    rounding = one_ulp

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g = gs[0]
        assert g is not None
        return (g * ys[0],)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (NONNEGATIVE,)


@dataclass(frozen=True)
class Log(_Transcendental):
    """Y = ln x; log(+-0.0) = -inf, log(+inf) = +inf, log of a negative number or NaN is NaN.

    Operand f32, any shape; subnormal operands count as what they are. Gradient: g / x.
    """

    name: ClassVar[str] = "log"

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            return (np.asarray(np.log(arrays[0].astype("f8")), "f4"),)

    rounding = one_ulp

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g = gs[0]
        assert g is not None
        return (g / xs[0],)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (ANY,)


@dataclass(frozen=True)
class Sqrt(_Transcendental):
    """Y = square root of x, correctly rounded (IEEE 754), so native and reference agree in bits.

    sqrt(-0.0) = -0.0, sqrt(+inf) = +inf, sqrt of a negative number or NaN is NaN. Operand f32, any
    shape. Gradient: g / (2 Y).
    """

    name: ClassVar[str] = "sqrt"

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        with np.errstate(invalid="ignore"):
            return (np.asarray(np.sqrt(arrays[0])),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g = gs[0]
        assert g is not None
        return (g * 0.5 / ys[0],)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        x = ranges[0]
        if x.hi < 0:
            return (NONNEGATIVE,)  # every result is NaN; a point would be taken for a constant
        return (stored(Interval(math.sqrt(max(x.lo, 0.0)), math.sqrt(x.hi)), f32),)


@dataclass(frozen=True)
class Sigmoid(_Transcendental):
    """Y = 1 / (1 + e^-x); sigmoid(-inf) = +0.0, sigmoid(+inf) = 1, NaN stays NaN.

    Operand f32, any shape. Gradient: g Y (1 - Y).
    """

    name: ClassVar[str] = "sigmoid"
    integer_form: ClassVar[bool] = True
    activation: ClassVar[bool] = True

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            x = arrays[0].astype("f8")
            power = np.exp(-np.abs(x))  # of a large number it would overflow
            return (np.asarray(np.where(x < 0, power, 1.0) / (1.0 + power), "f4"),)

    rounding = two_ulps

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g, y = gs[0], ys[0]
        assert g is not None
        return (g * (y * (1.0 - y)),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (Interval(0.0, 1.0),)


@dataclass(frozen=True)
class Tanh(_Transcendental):
    """Y = tanh x; of -0.0 it is -0.0, tanh(+-inf) = +-1, NaN stays NaN.

    Operand f32, any shape. Gradient: g (1 - Y^2).
    """

    name: ClassVar[str] = "tanh"
    integer_form: ClassVar[bool] = True
    activation: ClassVar[bool] = True

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            return (np.asarray(np.tanh(arrays[0].astype("f8")), "f4"),)

    rounding = one_ulp

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g, y = gs[0], ys[0]
        assert g is not None
        return (g * (1.0 - y * y),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (Interval(-1.0, 1.0),)


def neg(x: Tensor, *, name: str | None = None) -> Tensor:
    """-x; see `Neg`."""
    return apply(Neg(), x, name=name)


def abs(x: Tensor, *, name: str | None = None) -> Tensor:
    """|x|; see `Abs`."""
    return apply(Abs(), x, name=name)


def exp(x: Tensor, *, name: str | None = None) -> Tensor:
    """e^x; see `Exp`."""
    return apply(Exp(), x, name=name)


def log(x: Tensor, *, name: str | None = None) -> Tensor:
    """Natural logarithm; see `Log`."""
    return apply(Log(), x, name=name)


def sqrt(x: Tensor, *, name: str | None = None) -> Tensor:
    """Square root; see `Sqrt`."""
    return apply(Sqrt(), x, name=name)


def sigmoid(x: Tensor, *, name: str | None = None) -> Tensor:
    """1 / (1 + e^-x); see `Sigmoid`."""
    return apply(Sigmoid(), x, name=name)


def tanh(x: Tensor, *, name: str | None = None) -> Tensor:
    """Hyperbolic tangent; see `Tanh`."""
    return apply(Tanh(), x, name=name)
