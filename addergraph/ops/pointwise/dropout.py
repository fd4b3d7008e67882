"""dropout."""

from __future__ import annotations

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
from ...ir.types import TensorType, f32, i32
from .._elementwise import point, require_dtype, stored
from .._window import require_operands

MOST_SEED = 2**59  # the text of a graph takes 18 digits
STEP_BITS, KEPT_BITS = 32, 24  # elements of a step; bits of a number that rate is compared with
# SplitMix64: the increment of its counter, and the shifts and factors that mix it.
GOLDEN = 0x9E3779B97F4A7C15
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31


@dataclass(frozen=True)
class Dropout(Op):
    """Y[e] = X[e] / (1 - rate) where u(e) >= rate, else 0: each element stays with 1 - rate.

    Operands: x f32 of any shape, step i32[]; result of the type of x. u is uniform on 0..1 and a
    pure function of seed, step and e, the element's place in row-major order, so it depends on no
    thread, target or order of work: the upper 24 bits of number 2^32 step + e + 1 of the generator
    SplitMix64 from `seed`. 1 / (1 - rate) is rounded to f32. An element that is left out is +0.0,
    NaN and infinities as well. Gradient: the same of g. Raises ShapeError for another dtype or
    step, and unless 0 <= rate < 1 and 0 <= seed < 2^59.
    Source: Srivastava et al. 2014, JMLR 15 (scaled in training, as is usual now); Steele et al.,
    OOPSLA 2014 (SplitMix64).
    """

    name: ClassVar[str] = "dropout"
    kind: ClassVar[str] = POINTWISE
    per_sample: ClassVar[bool] = False
    training_only: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True
    integer_form: ClassVar[bool] = False
    rate: float
    seed: int = 0

    @property
    def elementwise(self) -> bool:
        """An element's place counts, too."""
        return False

    @property
    def scale(self) -> float:
        return float(np.float32(1.0 / (1.0 - self.rate)))

    @property
    def least(self) -> int:
        """Elements whose number of KEPT_BITS is at least this stay."""
        return round(self.rate * (1 << KEPT_BITS))

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        require_operands(types, "x", "step")
        x, step = types
        require_dtype("the input", x, f32)
        if step != TensorType(i32, ()):
            raise ShapeError(f"step must be i32[], found {step}")
        if not (0.0 <= self.rate < 1.0 and self.least < 2**KEPT_BITS):
            raise ShapeError(f"rate={self.rate!r} must be a number of at least 0 and below 1")
        if not 0 <= self.seed < MOST_SEED:
            raise ShapeError(f"seed={self.seed} must be an integer of at least 0 and below 2^59")
        return (x,)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        x, step = arrays
        first = (int(step) << STEP_BITS) + 1
        # Sums and products wrap at 2^64, as they do in machine code.
        counter = np.arange(x.size, dtype=np.uint64) + np.uint64(first % 2**64)
        z = np.uint64(self.seed) + counter * np.uint64(GOLDEN)
        for shift, factor in MIX:
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        z ^= z >> np.uint64(LAST_SHIFT)
        stays = (z >> np.uint64(64 - KEPT_BITS)).reshape(x.shape) >= self.least
        with np.errstate(all="ignore"):
            return (np.where(stays, x * np.float32(self.scale), np.float32(0)),)

    def grad(self, xs: Tensors, ys: Tensors, gs: Gradients) -> Gradients:
        g = gs[0]
        assert g is not None
        return apply(self, g, xs[1]), None

    def interval(self, ranges: Intervals, types: Types) -> Intervals:
        scaled = ranges[0] * Interval(self.scale, self.scale)
        return (stored(scaled, f32).hull(point(0.0, f32)),)

    def canonical(self, operands: Sequence[Source], result: TensorType) -> Canonical:
        return operands[0].value if self.least == 0 and self.scale == 1.0 else None

    def cost(self, types: Types) -> Cost:
        return Cost(multiplications=types[0].elements)


def dropout(
    x: Tensor, step: Tensor, rate: float, seed: int = 0, *, name: str | None = None
) -> Tensor:
    """x with a share `rate` of its elements left out, others in every step; see `Dropout`."""
    return apply(Dropout(float(rate), seed), x, step, name=name)
