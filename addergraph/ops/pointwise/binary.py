"""Elementwise arithmetic of two operands: add, sub, mul, div, maximum, minimum.

Operands of one dtype broadcast by NumPy's rule (`types.broadcast_shapes`). f32 is IEEE 754, rounded
to nearest, each operation by itself (no fused multiply-add); i32 wraps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
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
    Value,
)
from ...ir.intervals import ANY, Interval
from ...ir.quantization import Known, Quantization, common
from ...ir.trace import Operand, Tensor, apply
from ...ir.types import DType, TensorType, broadcast_shapes, f32, i32
from .._elementwise import held, require_dtype, require_same_dtype, stored, sum_to
from .._window import require_operands
from .unary import Neg


@dataclass(frozen=True)
class _Binary(Op, ABC):
    """Shape, gradient and range rules; a subclass says what happens to one pair of elements."""

    kind: ClassVar[str] = POINTWISE
    broadcasts: ClassVar[bool] = True
    integer_form: ClassVar[bool] = False
    cheap: ClassVar[bool] = True
    dtypes: ClassVar[tuple[DType, ...]] = (f32, i32)
    neutral: ClassVar[float | None] = None  # as the right operand it changes no bit of the left one
    commutes: ClassVar[bool] = False

    @abstractmethod
    def compute(self, a: Array, b: Array) -> Array:
        """The results, for operands that broadcast."""

    @abstractmethod
    def partial(self, g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both operands, still of the result's shape."""

    @abstractmethod
    def range(self, a: Interval, b: Interval) -> Interval:
        """The range of the exact result."""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "a", "b")
        a, b = types
        require_dtype("a", a, *self.dtypes)
        require_same_dtype(a, b)
        return (TensorType(a.dtype, broadcast_shapes("operands", a.shape, b.shape)),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            return (np.asarray(self.compute(*arrays)),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g, (a, b) = gs[0], xs
        assert g is not None
        da, db = self.partial(g, a, b)
        return (sum_to(da, a.shape), sum_to(db, b.shape))

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        dtype = types[0].dtype
        a, b = (held(r, dtype) for r in ranges)
        return (stored(self.range(a, b), dtype),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        """x + -0.0, x - 0.0, x * 1, x / 1 are x; in i32 x + 0 is, too."""
        x, y = operands
        if self._is_neutral(y) and x.type == result:
            return x.value
        if self.commutes and self._is_neutral(x) and y.type == result:
            return y.value
        return None

    def _is_neutral(self, operand: Source) -> bool:
        if operand.constant is None or self.neutral is None:
            return False
        if operand.type.dtype == i32:
            return operand.constant == self.neutral
        return str(float(operand.constant)) == str(self.neutral)


def _negated(operand: Source) -> Value | None:
    """x, where the operand is neg(x)."""
    return operand.inputs[0] if isinstance(operand.op, Neg) else None


@dataclass(frozen=True)
class _Additive(_Binary):
    def cost(self, types: Types) -> Cost:
        return Cost(additions=self.infer(*types)[0].elements)

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        """Of one scale, with zero points of 0: any other would be added up."""
        made = common("integers that are added", known)
        if made is not None and made.zero_point:
            raise ShapeError(
                f"integers with {made} are added: their zero points would be, too; "
                "requantize them to a zero point of 0"
            )
        return (made,)


@dataclass(frozen=True)
class _Multiplicative(_Binary):
    multiplies: ClassVar[bool] = True

    def cost(self, types: Types) -> Cost:
        return Cost(multiplications=self.infer(*types)[0].elements)


@dataclass(frozen=True)
class Add(_Additive):
    """Y = a + b. f32, or i32 (wraps); operands broadcast. Gradients: g and g."""

    name: ClassVar[str] = "add"
    neutral: ClassVar[float | None] = -0.0
    commutes: ClassVar[bool] = True
    keeps_scale: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True

    def compute(self, a: Array, b: Array) -> Array:
        return np.asarray(a + b)

    def partial(self, g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return g, g

    def range(self, a: Interval, b: Interval) -> Interval:
        return a + b

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        """Also x + -y = x - y,  -x + y = y - x: IEEE subtraction adds the negative."""
        if (kept := super().canonical(operands, result)) is not None:
            return kept
        x, y = operands
        if (minus_y := _negated(y)) is not None:
            return Sub(), (x.value, minus_y)
        if (minus_x := _negated(x)) is not None:
            return Sub(), (y.value, minus_x)
        return None


@dataclass(frozen=True)
class Sub(_Additive):
    """Y = a - b. f32, or i32 (wraps); operands broadcast. Gradients: g and -g."""

    name: ClassVar[str] = "sub"
    keeps_scale: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True
    neutral: ClassVar[float | None] = 0.0

    def compute(self, a: Array, b: Array) -> Array:
        return np.asarray(a - b)

    def partial(self, g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return g, -g

    def range(self, a: Interval, b: Interval) -> Interval:
        return a - b

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        """Also x - -y = x + y."""
        if (kept := super().canonical(operands, result)) is not None:
            return kept
        minus_y = _negated(operands[1])
        return None if minus_y is None else (Add(), (operands[0].value, minus_y))


@dataclass(frozen=True)
class Mul(_Multiplicative):
    """Y = a b. f32, or i32 (wraps: the low 32 bits); operands broadcast. Gradients: g b and g a."""

    name: ClassVar[str] = "mul"
    neutral: ClassVar[float | None] = 1.0
    commutes: ClassVar[bool] = True

    def compute(self, a: Array, b: Array) -> Array:
        return np.asarray(a * b)

    def partial(self, g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return g * b, g * a

    def range(self, a: Interval, b: Interval) -> Interval:
        return a * b


@dataclass(frozen=True)
class Div(_Multiplicative):
    """Y = a / b, correctly rounded (no reciprocal); x / 0 is an infinity, 0 / 0 is NaN.

    f32 only; operands broadcast. Gradients: g / b and -g a / b^2.
    """

    name: ClassVar[str] = "div"
    neutral: ClassVar[float | None] = 1.0
    cheap: ClassVar[bool] = False
    dtypes: ClassVar[tuple[DType, ...]] = (f32,)

    def compute(self, a: Array, b: Array) -> Array:
        return np.asarray(a / b)

    def partial(self, g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        da = g / b
        return da, -da * (a / b)

    def range(self, a: Interval, b: Interval) -> Interval:
        if b.lo <= 0 <= b.hi:
            return ANY
        ends = [p / q for p in (a.lo, a.hi) for q in (b.lo, b.hi)]
        ends = [0.0 if math.isnan(end) else end for end in ends]  # inf / inf: the limit is open
        return Interval(min(ends), max(ends))


@dataclass(frozen=True)
class _Extreme(_Binary):
    integer_form: ClassVar[bool] = True

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        return (common("integers that are compared", known),)


@dataclass(frozen=True)
class Maximum(_Extreme):
    """Y = a where a > b or a is NaN, else b: NaN propagates, and of equal zeros b is taken.

    f32 or i32; operands broadcast. Gradient: g goes to a where a >= b, otherwise to b.
    """

    name: ClassVar[str] = "maximum"

    def compute(self, a: Array, b: Array) -> Array:
        return np.where((a > b) | (a != a), a, b)

    def partial(self, g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        from .select import select

        b_wins = a < b
        return select(b_wins, 0.0, g), select(b_wins, g, 0.0)

    def range(self, a: Interval, b: Interval) -> Interval:
        return Interval(max(a.lo, b.lo), max(a.hi, b.hi))


@dataclass(frozen=True)
class Minimum(_Extreme):
    """Y = a where a < b or a is NaN, else b: NaN propagates, and of equal zeros b is taken.

    f32 or i32; operands broadcast. Gradient: g goes to a where a <= b, otherwise to b.
    """

    name: ClassVar[str] = "minimum"

    def compute(self, a: Array, b: Array) -> Array:
        return np.where((a < b) | (a != a), a, b)

    def partial(self, g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        from .select import select

        b_wins = a > b
        return select(b_wins, 0.0, g), select(b_wins, g, 0.0)

    def range(self, a: Interval, b: Interval) -> Interval:
        return Interval(min(a.lo, b.lo), min(a.hi, b.hi))


def add(a: Operand, b: Operand, *, name: str | None = None) -> Tensor:
    """a + b; see `Add`."""
    return apply(Add(), a, b, name=name)


def sub(a: Operand, b: Operand, *, name: str | None = None) -> Tensor:
    """a - b; see `Sub`."""
    return apply(Sub(), a, b, name=name)


def mul(a: Operand, b: Operand, *, name: str | None = None) -> Tensor:
    """a * b; see `Mul`."""
    return apply(Mul(), a, b, name=name)


def div(a: Operand, b: Operand, *, name: str | None = None) -> Tensor:
    """a / b; see `Div`."""
    return apply(Div(), a, b, name=name)


def maximum(a: Operand, b: Operand, *, name: str | None = None) -> Tensor:
    """The larger of a and b; see `Maximum`."""
    return apply(Maximum(), a, b, name=name)


def minimum(a: Operand, b: Operand, *, name: str | None = None) -> Tensor:
    """The smaller of a and b; see `Minimum`."""
    return apply(Minimum(), a, b, name=name)
