"""How far f32 evaluation of one op may be from its reference: what the closed forms share.

u = 2^-24, gamma(n) = n u / (1 - n u). A sum of n terms in any order is within gamma(n - 1) of the
exact one, relative to the sum of the terms' magnitudes (Higham 2002, section 4.2). The forms also
count a term's own roundings, the bias, and the rounding of the reference to f32. Each is the
`rounding` of its op: bounds hold element by element.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir import Array, Bound, Op

U = 2.0**-24  # half the distance from 1 to the next f32
TINY = 2.0**-149  # the least subnormal: what underflow may cost


def gamma(n: int) -> float:
    """n u / (1 - n u), the relative error of n roundings; inf where that says nothing."""
    return n * U / (1 - n * U) if n * U < 1 else np.inf


def of_sum(n: int, magnitude: Array) -> Array:
    """The bound of n roundings of partial sums of terms with this sum of magnitudes."""
    return gamma(n) * magnitude.astype("f8") + n * TINY


def leading(a: Array) -> tuple[int, ...]:
    """All axes but the last."""
    return tuple(range(a.ndim - 1))


def per_channel(a: Array) -> int:
    """Elements for each place of the last axis: of a filter the terms of one output."""
    return int(a.size) // max(1, int(a.shape[-1]))


def below_maximum(z: Array) -> Array:
    """max z - z along the last axis, and 0 for -inf, whose power is exactly zero."""
    d = z.max(-1, keepdims=True, initial=-np.inf).astype("f8") - z
    return np.where(np.isposinf(d), 0.0, d)


# --- forms that several ops have, as their `rounding` ---------------------------------------------


def exact(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
    """Results are elements of the operands, counted, or f64 operations in a fixed order."""
    return (0.0,) * len(results)


def sum_or_mean(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
    """A sum or mean over n elements: n - 1 additions, a division, the reference's rounding."""
    x, y = operands[0], results[0]
    return (of_sum(x.size // max(1, y.size) + 2, op.reference(np.abs(x))[0]),)


def one_ulp(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
    """One unit in the last place (codegen/kernels/math.py)."""
    return (2 * U * np.abs(results[0].astype("f8")) + TINY,)


def two_ulps(op: Op, operands: Sequence[Array], results: Sequence[Array]) -> Sequence[Bound]:
    """Two units in the last place (codegen/kernels/math.py)."""
    return (2 * (2 * U * np.abs(results[0].astype("f8")) + TINY),)
