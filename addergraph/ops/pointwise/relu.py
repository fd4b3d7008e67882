"""relu and what is made from it: relu6, leaky_relu."""

from __future__ import annotations

import math
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
)
from ...ir.intervals import Interval
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType
from .._elementwise import stored
from .._window import require_f32, require_operands
from .clip import Clip


@dataclass(frozen=True)
class Relu(Op):
    """Y = max(X, 0): NaN stays NaN, -0.0 becomes +0.0.

    Operand: x f32 of any shape; result of its type. Raises ShapeError for another dtype.
    """

    name: ClassVar[str] = "relu"
    kind: ClassVar[str] = POINTWISE
    activation: ClassVar[bool] = True
    rectifies: ClassVar[bool] = True
    cheap: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        (x,) = types
        require_f32("input", x)
        return (x,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (np.asarray(np.abs(np.where(x < 0, np.float32(0), x))),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from .select import select

        g = gs[0]
        assert g is not None
        return (select(ys[0] > 0.0, g, 0.0),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (Interval(max(ranges[0].lo, 0.0), max(ranges[0].hi, 0.0)),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        return operands[0].value if isinstance(operands[0].op, Relu) else None

    def limited(self, most: float) -> Op:
        """clip(x, 0, most). The bits of min(relu(x), most), but that -0.0 keeps its sign."""
        return Clip(0.0, most)


@dataclass(frozen=True)
class Relu6(Op):
    """Y = min(max(X, 0), 6): NaN stays NaN, -0.0 becomes +0.0.

    Operand: x f32 of any shape; result of its type. Gradient: g where 0 < X < 6, else 0. Raises
    ShapeError for another dtype.
    Source: Krizhevsky 2010, "Convolutional Deep Belief Networks on CIFAR-10".
    """

    name: ClassVar[str] = "relu6"
    kind: ClassVar[str] = POINTWISE
    activation: ClassVar[bool] = True
    rectifies: ClassVar[bool] = True
    cheap: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return Relu().infer(*types)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        (y,) = Relu().reference(*arrays)
        return (np.where(y > 6, np.float32(6), y),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from .select import select

        g, y = gs[0], ys[0]
        assert g is not None
        return (select(y > 0.0, select(y < 6.0, g, 0.0), 0.0),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (ranges[0].clip(0.0, 6.0),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        """The sign bit is cleared by itself."""
        (x,) = operands
        if isinstance(x.op, Relu6):
            return x.value
        return (Relu6(), x.inputs) if isinstance(x.op, Relu) else None


@dataclass(frozen=True)
class LeakyRelu(Op):
    """Y = X where X > 0, slope X elsewhere: NaN stays NaN, zeros keep their sign.

    Operand: x f32 of any shape; result of its type. `slope` is rounded to f32. Gradient: g where
    X > 0, else slope g. Raises ShapeError for another dtype and unless 0 <= slope < infinity.
    Source: Maas et al. 2013, "Rectifier Nonlinearities Improve Neural Network Acoustic Models".
    """

    name: ClassVar[str] = "leaky_relu"
    kind: ClassVar[str] = POINTWISE
    activation: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True
    cheap: ClassVar[bool] = True
    integer_form: ClassVar[bool] = True
    slope: float = 0.01

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if not 0.0 <= self.slope <= float(np.finfo(np.float32).max):
            raise ShapeError(f"slope={self.slope!r} must be a number of f32, 0 or more")
        return Relu().infer(*types)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        with np.errstate(all="ignore"):
            return (np.where(x > 0, x, x * np.float32(self.slope)),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from .select import select

        g = gs[0]
        assert g is not None
        return (select(xs[0] > 0.0, g, g * self.slope),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        slope = float(np.float32(self.slope))
        below = ranges[0].clip(-math.inf, 0.0) * Interval(slope, slope)
        above = ranges[0].clip(0.0, math.inf)
        return (stored(Interval(min(below.lo, above.lo), max(below.hi, above.hi)), types[0].dtype),)

    def cost(self, types: Types) -> Cost:
        return Cost(multiplications=types[0].elements)


def relu(x: Tensor, *, name: str | None = None) -> Tensor:
    """max(x, 0); see `Relu`."""
    return apply(Relu(), x, name=name)


def relu6(x: Tensor, *, name: str | None = None) -> Tensor:
    """min(max(x, 0), 6); see `Relu6`."""
    return apply(Relu6(), x, name=name)


def leaky_relu(x: Tensor, slope: float = 0.01, *, name: str | None = None) -> Tensor:
    """x where it is positive, slope x elsewhere; see `LeakyRelu`."""
    return apply(LeakyRelu(float(slope)), x, name=name)
