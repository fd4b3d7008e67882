"""requantize_shift and requantize_multiply: integers of one scale as integers of another.

An affine map with one factor for each channel, such as a batch norm behind an adder layer, in
integers: the sum of a few signed powers of two for the factor, or a fixed-point multiplication.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ShapeError
from ...ir import POINTWISE, Array, Cost, Intervals, Op, Types
from ...ir.intervals import Interval
from ...ir.quantization import Known, Quantization
from ...ir.trace import Tensor, apply
from ...ir.types import DType, TensorType, i32, u8
from .._elementwise import INTEGER_BOUNDS, require_dtype

MAX_TERMS = 8  # powers of two in one factor


@dataclass(frozen=True)
class Requantize(Op, ABC):
    """Attributes of both forms.

    lo, hi             ends of the result; a relu is lo = the result's zero point
    dtype              of the result: u8 or i32, which has to hold lo and hi
    scale, zero_point  of the result; scale 0: not stated
    """

    kind: ClassVar[str] = POINTWISE
    not_differentiable: ClassVar[bool] = True
    lo: int
    hi: int
    dtype: DType = u8
    scale: float = 0.0
    zero_point: int = 0

    @abstractmethod
    def scaled(self, t: Array, factors: Sequence[Array]) -> Array:
        """The factor times t, as i32."""

    def require_attributes(self) -> None:
        if self.dtype not in (u8, i32):
            raise ShapeError(f"dtype={self.dtype} of the result must be u8 or i32")
        least, most = INTEGER_BOUNDS[self.dtype]
        if not least <= self.lo <= self.hi <= most:
            raise ShapeError(
                f"lo={self.lo} and hi={self.hi} must be in this order and in {self.dtype}, "
                f"from {least} to {most}"
            )
        if self.scale:
            Quantization(self.scale, self.zero_point)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        self.require_attributes()
        if len(types) < 4:
            raise ShapeError(
                "takes x, center, offset, shift and one factor or more, "
                f"found {len(types)} operands"
            )
        x, *channels = types
        require_dtype("x", x, i32)
        if not x.rank:
            raise ShapeError(f"x must have a channel axis, found {x}")
        allowed = (TensorType(i32, x.shape[-1:]), TensorType(i32, ()))
        for type in channels:
            if type not in allowed:
                raise ShapeError(
                    f"center, offset, shift and factors must be {allowed[0]} or i32[] for the "
                    f"input {x}, found {type}"
                )
        return (TensorType(self.dtype, x.shape),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        x, center, offset, shift, *factors = arrays
        with np.errstate(over="ignore"):
            total = self.scaled(x + center, factors) + offset
        return (np.clip(total >> (shift & 31), self.lo, self.hi).astype(self.dtype.numpy),)

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        return (Interval(float(self.lo), float(self.hi)),)

    def quantization(self, known: Known) -> tuple[Quantization | None, ...]:
        return (Quantization(self.scale, self.zero_point) if self.scale else None,)


@dataclass(frozen=True)
class RequantizeShift(Requantize):
    """Y[...,c] = clip((sum_j p_j[c] (X[...,c] + center[c]) + offset[c]) >> shift[c], lo, hi).

    p_j = sign(term_j) 2^(|term_j| - 1), and 0 where term_j is 0: each factor is a sum of signed
    powers of two, so that this takes additions, shifts and comparisons only. `>>` rounds down;
    half of 2^shift in `offset` makes it round to nearest, and the result's zero point goes there,
    too. Adding the center first keeps errors of the factor small: sums of distances have a mean
    far above their spread.

    Operands: x i32[...,C], then center, offset, shift and 1 to 8 terms, i32[C] or i32[]; result
    `dtype`[...,C]. Arithmetic is i32 and wraps; shifts count modulo 32. What makes the numbers sees
    to it that nothing wraps (`passes/quantize/fixed_point.py`). Attributes: `lo`, `hi`, the ends of
    the result; `scale` and `zero_point`, its own (scale 0: not stated). Not
    differentiable.
    Raises ShapeError for other dtypes, shapes or numbers of operands, and for ends that the
    result's dtype cannot hold.
    Source: the affine map of Jacob et al. 2018 (arXiv:1712.05877), with powers of two for its
    factor.
    """

    name: ClassVar[str] = "requantize_shift"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        made = super().infer(*types)
        if not 1 <= len(types) - 4 <= MAX_TERMS:
            raise ShapeError(f"takes 1 to {MAX_TERMS} terms, found {len(types) - 4}")
        return made

    def scaled(self, t: Array, factors: Sequence[Array]) -> Array:
        total = np.zeros(t.shape, np.int32)
        for term in factors:
            shifted = t << ((np.abs(term) - 1) & 31)
            total += np.where(term == 0, 0, np.where(term < 0, -shifted, shifted))
        return total

    def cost(self, types: Types) -> Cost:
        return Cost(additions=types[0].elements * (len(types) - 2))


@dataclass(frozen=True)
class RequantizeMultiply(Requantize):
    """Y[...,c] = clip((multiplier[c] (X[...,c] + center[c]) + offset[c]) >> shift[c], lo, hi).

    As `requantize_shift`, with one integer multiplication for the powers of two. Operands: x
    i32[...,C], then center, offset, shift and multiplier, i32[C] or i32[]. The product has its low
    32 bits. Not differentiable. Raises ShapeError as there.
    Source: Jacob et al. 2018 (arXiv:1712.05877), section 2.2.
    """

    name: ClassVar[str] = "requantize_multiply"
    multiplies: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        made = super().infer(*types)
        if len(types) != 5:
            raise ShapeError(f"takes one multiplier, found {len(types) - 4}")
        return made

    def scaled(self, t: Array, factors: Sequence[Array]) -> Array:
        return np.asarray(t * factors[0])

    def cost(self, types: Types) -> Cost:
        elements = types[0].elements
        return Cost(additions=2 * elements, multiplications=elements)


def requantize_shift(
    x: Tensor, center: Tensor, offset: Tensor, shift: Tensor, *terms: Tensor, lo: int, hi: int,
    dtype: DType = u8, scale: float = 0.0, zero_point: int = 0, name: str | None = None,
) -> Tensor:  # fmt: skip
    """Integers of another scale, by shifts; see `RequantizeShift`."""
    op = RequantizeShift(lo, hi, dtype, scale, zero_point)
    return apply(op, x, center, offset, shift, *terms, name=name)


def requantize_multiply(
    x: Tensor, center: Tensor, offset: Tensor, shift: Tensor, multiplier: Tensor, *, lo: int,
    hi: int, dtype: DType = u8, scale: float = 0.0, zero_point: int = 0, name: str | None = None,
) -> Tensor:  # fmt: skip
    """Integers of another scale, by a multiplication; see `RequantizeMultiply`."""
    op = RequantizeMultiply(lo, hi, dtype, scale, zero_point)
    return apply(op, x, center, offset, shift, multiplier, name=name)
