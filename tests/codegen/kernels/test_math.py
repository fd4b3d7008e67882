"""exp, log, sigmoid, tanh: within the ulps stated, the same bits on every ISA, and coefficients
that can be derived.

Measured once, with AVX-512, on every f32 in [-105, -2^-26] and [2^-25, 90) for exp and on every
positive one for log: 1 ulp; on every f32 of magnitude 2^-13 to 105 for sigmoid, to 10 for tanh:
sigmoid 2 ulps, tanh 1 ulp. Here every 2039th bit pattern stands for all, on every ISA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from numpy.polynomial import Chebyshev, Polynomial

from addergraph.codegen.kernels.math import EXP, LN2_HIGH, LN2_LOW, LOG, LOG2_E, TANH, TANH_SMALL
from addergraph.ir import Array, Op
from addergraph.ops.pointwise.unary import Exp, Log, Sigmoid, Tanh
from tests.codegen.harness import HERE, run_call, same_bits, ulps

EVERY = np.arange(0, 1 << 32, 2039, dtype=np.uint64).astype(np.uint32).view(np.float32)
# fmt: off
EDGES = np.array(
    [
        0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754942e-38, 1.1754944e-38,
        3.4028235e38, -3.4028235e38, 88.72283, 88.72284, 89.0, -87.33655, -103.97207, -103.97208,
        -104.0, 0.70710677, 0.7071068, 1.4142135, 1.4142137, 0.99999994, 1.0000001, 0.625, -0.625,
        0.62499994, 9.010914, -17.32868,
    ],
    np.float32,
)
# fmt: on


@pytest.mark.parametrize(
    ("op", "most"), [(Exp(), 1), (Log(), 1), (Sigmoid(), 2), (Tanh(), 1)], ids=str
)
def test_within_the_stated_ulps_and_equal_bits_on_every_isa(op: Op, most: int) -> None:
    x = np.concatenate([EVERY, EDGES])
    (expected,) = op.reference(x)
    (first, *others) = [run_call(op, [x], target=target)[0] for target in HERE]
    assert ulps(first, expected) <= most
    assert all(same_bits(first, other) for other in others)


def test_special_values_are_exact() -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -104.0, 89.0, -1.0], np.float32)
    exp, log = run_call(Exp(), [x])[0], run_call(Log(), [x])[0]
    assert same_bits(exp[:7], np.array([1, 1, np.inf, 0, np.nan, 0, np.inf], np.float32))
    inf, nan = np.inf, np.nan
    assert same_bits(log[:6], np.array([-inf, -inf, inf, nan, nan, nan], np.float32))
    assert np.isnan(log[7])
    x = np.array([0.0, -0.0, inf, -inf, nan, -104.0, 89.0, 1e-45, -1e-45], np.float32)
    sigmoid, tanh = run_call(Sigmoid(), [x])[0], run_call(Tanh(), [x])[0]
    halves = [0.5, 0.5, 1, 0, nan, 0, 1, 0.5, 0.5]
    assert same_bits(sigmoid, np.array(halves, np.float32))
    assert same_bits(tanh, np.array([0.0, -0.0, 1, -1, nan, -1, 1, 1e-45, -1e-45], np.float32))


def _interpolant(taylor: Sequence[float], low: float, high: float, degree: int) -> Array:
    def series(x: Array) -> Array:
        total = np.zeros_like(x)
        for c in reversed(taylor):
            total = total * x + c
        return total

    fitted = Chebyshev.interpolate(series, degree, [low, high])
    return np.asarray(fitted.convert(kind=Polynomial).coef)


def test_the_coefficients_are_chebyshev_interpolants() -> None:
    half = math.log(2) / 2 * 1.0001
    exp = _interpolant([1 / math.factorial(k + 2) for k in range(30)], -half, half, len(EXP) - 1)
    alternating = [(-1) ** k / (k + 3) for k in range(200)]
    log = _interpolant(alternating, math.sqrt(0.5) - 1, math.sqrt(2) - 1, len(LOG) - 1)
    np.testing.assert_allclose(EXP, exp, rtol=2.0**-23)
    np.testing.assert_allclose(LOG, log, rtol=2.0**-23)
    tanh = _interpolant(_tanh_series(30), 0.0, TANH_SMALL**2 * 1.0001, len(TANH) - 1)
    np.testing.assert_allclose(TANH, tanh, rtol=2.0**-23)


def _tanh_series(count: int) -> list[float]:
    """(tanh(x) - x) / x^3 in powers of x^2: y' = 1 - y^2 gives one coefficient after another."""
    tanh = [Fraction(1)]  # of x, x^3, x^5 ...
    for k in range(1, count + 1):
        square = sum((tanh[i] * tanh[k - 1 - i] for i in range(k)), Fraction(0))
        tanh.append(-square / (2 * k + 1))
    return [float(c) for c in tanh[1:]]


def test_the_parts_of_ln_2() -> None:
    assert LN2_HIGH * 2**16 == round(LN2_HIGH * 2**16) < 2**16  # 9 bits are left for an exponent
    assert abs(LN2_HIGH + LN2_LOW - math.log(2)) < 2.0**-24 * LN2_LOW
    assert all(np.float32(c) == c for c in (*EXP, *LOG, *TANH, LN2_LOW, LOG2_E))
