"""fake_quantize, fake_quantize_filter: quantized and dequantized again in f32, so that training
sees the rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import (
    POINTWISE,
    REDUCTION,
    Array,
    Gradients,
    Graph,
    Intervals,
    Op,
    Tensors,
    Types,
    Value,
)
from ...ir.attributes import BITS, is_bits
from ...ir.intervals import Interval
from ...ir.quantization import Quantization, symmetric
from ...ir.trace import Tensor, apply
from ...ir.types import TensorType
from .._rounding import exact
from .._window import require_f32, require_operands


@dataclass(frozen=True)
class FakeQuantize(Op):
    """Y = scale (q - zero_point), q = round(clip(x / scale + zero_point, 0, 2^bits - 1)).

    Operand f32, any shape. Quotient and product are f64 and q rounds ties to even, so that q is
    what `Quantization.quantized` makes of x; Y is the f64 product rounded to f32. NaN stays NaN.
    Without `saturate` an x beyond the range stays as it is: for filters of adder layers, where
    |x - f| = |x - end| + |end - f| for every x in the range, the distance that bytes and the
    layer's constant have.

    Gradient, straight-through: g where the range holds x, its ends included, else 0; without
    `saturate` g everywhere. Raises ShapeError unless 2 <= bits <= 8, the scale is positive and
    finite, and the zero point is one of the integers.
    Source: Jacob et al. 2018 (arXiv:1712.05877), section 3; the straight-through gradient is that
    of Bengio et al. 2013 (arXiv:1308.3432).
    """

    name: ClassVar[str] = "fake_quantize"
    kind: ClassVar[str] = POINTWISE
    surrogate: ClassVar[bool] = True
    integer_form: ClassVar[bool] = False
    scale: float
    zero_point: int = 0
    bits: int = 8
    saturate: bool = True

    @property
    def top(self) -> int:
        """The largest integer."""
        return (1 << self.bits) - 1

    @property
    def known(self) -> Quantization:
        """Scale and zero point."""
        return Quantization(self.scale, self.zero_point)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x")
        require_f32("x", types[0])
        _require_bits(self.bits)
        Quantization(self.scale, self.zero_point)
        if not 0 <= self.zero_point <= self.top:
            raise ShapeError(f"zero_point={self.zero_point} must be in [0, {self.top}]")
        return types

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        return (self._rounded(arrays[0]),)

    def _rounded(self, x: Array) -> Array:
        low, high = -self.zero_point, self.top - self.zero_point
        with np.errstate(all="ignore"):
            steps = x.astype("f8") / self.scale
            whole = np.rint(np.clip(steps, low, high)) + 0.0  # no -0.0
            y = (self.scale * whole).astype(np.float32)
            if self.saturate:
                return np.asarray(y)
            return np.where((steps < low) | (steps > high), x, y).astype(np.float32)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        from .select import select

        g, x = gs[0], xs[0]
        assert g is not None
        if not self.saturate:
            return (g,)
        low, high = (self.scale * (end - self.zero_point) for end in (0, self.top))
        return (select(x < low, 0.0, select(x > high, 0.0, g)),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        lo, hi = self._rounded(np.array([ranges[0].lo, ranges[0].hi]))  # it is monotone
        return (Interval(float(lo), float(hi)),)


@dataclass(frozen=True)
class FakeQuantizeFilter(Op):
    """Y[...,t] = s[t] round(f[...,t] / s[t]), s[t] = max |f[...,t]| / (2^(bits-1) - 1).

    For filters of convolutions and dense layers, whose integers are symmetric with one scale for
    each output channel. Operand f32[...,T] of rank 2 or more. Quotients and products are f64 and
    round takes ties to even, so that the integers are those of `quantization.symmetric`; Y is the
    f64 product rounded to f32. A channel of zeros stays so; one that holds a NaN or an infinity
    becomes NaN.

    Gradient, straight-through: g everywhere, as no tap is beyond the range. Raises ShapeError
    for another rank or dtype and unless 2 <= bits <= 8.
    Source: one symmetric scale for each channel is that of Krishnamoorthi 2018 (arXiv:1806.08342);
    the straight-through gradient is that of Bengio et al. 2013 (arXiv:1308.3432).
    """

    name: ClassVar[str] = "fake_quantize_filter"
    kind: ClassVar[str] = REDUCTION
    surrogate: ClassVar[bool] = True
    integer_form: ClassVar[bool] = False
    per_sample: ClassVar[bool] = False
    bits: int = 8

    @property
    def end(self) -> int:
        """The largest integer."""
        return (1 << (self.bits - 1)) - 1

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "f")
        require_f32("f", types[0])
        if types[0].rank < 2:
            raise ShapeError(f"f must have rank 2 or more (output channels last), found {types[0]}")
        _require_bits(self.bits)
        return types

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        integers, scale = symmetric(arrays[0], self.bits)
        with np.errstate(invalid="ignore"):
            return ((scale * integers + 0.0).astype(np.float32),)  # no -0.0

    rounding = exact

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        return (gs[0],)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        lo, hi = ranges[0].lo, ranges[0].hi
        most = max(-lo, hi)
        return (Interval(-most if lo < 0 else 0.0, most if hi > 0 else 0.0),)


Rounding = FakeQuantize | FakeQuantizeFilter
"""The ops that state integers for training."""


def _require_bits(bits: int) -> None:
    if not is_bits(bits):
        raise ShapeError(f"bits={bits!r} must be an integer from {BITS[0]} to {BITS[1]}")


def fake_quantize(
    x: Tensor, scale: float, zero_point: int = 0, *, bits: int = 8, saturate: bool = True,
    name: str | None = None,
) -> Tensor:  # fmt: skip
    """x on the grid of integers of `bits`; see `FakeQuantize`."""
    return apply(FakeQuantize(float(scale), zero_point, bits, saturate), x, name=name)


def fake_quantize_filter(f: Tensor, *, bits: int = 8, name: str | None = None) -> Tensor:
    """A filter on the grids of its output channels' integers; see `FakeQuantizeFilter`."""
    return apply(FakeQuantizeFilter(bits), f, name=name)


def unrounded(graph: Graph) -> dict[Value, Value]:
    """Result of each rounding node of `graph` -> the value that it rounds."""
    rounding = (node for node in graph.nodes if isinstance(node.op, Rounding))
    return {node.outputs[0]: node.inputs[0] for node in rounding}


def trained_bits(graph: Graph) -> tuple[int, ...]:
    """The numbers of bits that values of `graph` are rounded to, ascending; the image aside."""
    images = {v.name for v in graph.inputs}
    return tuple(sorted({op.bits for name, op in stated(graph).items() if name not in images}))


def stated(graph: Graph) -> dict[str, Rounding]:
    """Name of each value that a node of `graph` rounds -> its op.

    Filters of adder layers aside, whose integers are those of the layer's input.
    """
    found: dict[str, Rounding] = {}
    for node in graph.nodes:
        op = node.op
        if isinstance(op, FakeQuantizeFilter) or (isinstance(op, FakeQuantize) and op.saturate):
            found[node.inputs[0].name] = op
    return found
