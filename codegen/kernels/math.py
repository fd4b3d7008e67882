"""exp, log, sigmoid and tanh on f32 registers, by polynomials of our own: no libc, no tables.

Contract: exp, log and tanh at most 1 ulp, sigmoid at most 2 ulps from the float64 function rounded
to f32 (tests/codegen/kernels/test_math.py holds the figures), over all of f32: overflow
gives inf, underflow passes through the subnormals to +0, subnormal operands count, NaN stays NaN,
log(0) = -inf, log(x < 0) = NaN, tanh(-0.0) = -0.0. Every multiplication
and addition is rounded by itself (no FMA), so the bits are the same on every ISA. The caller's
rounding mode is to nearest and subnormals are not flushed.

Coefficients: the Chebyshev interpolant (near the best polynomial of its degree) of the stated
function on the reduced range, in float64, turned into powers and rounded to f32. `test_math`
derives them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.ir as ir

from ..emit.builder import I32, Emitter, Register, constant, vector
from ..emit.hidden import hidden

# ln 2 = LN2_HIGH + LN2_LOW. HIGH has 15 bits, so its product with an exponent (8 bits) is exact.
LN2_HIGH = 0.693145751953125
LN2_LOW = 1.428606765330187e-06
LOG2_E = 1.4426950216293335

# (e^r - 1 - r) / r^2 on |r| <= 1.0001 ln(2) / 2, the constant term first.
EXP = (0.5, 0.1666666716337204, 0.04166646674275398, 0.00833331048488617, 0.0013933649752289057,
       0.00019890991097781807)  # fmt: skip

# (ln(1 + f) - f + f^2 / 2) / f^3 on sqrt(1/2) <= 1 + f <= sqrt(2).
LOG = (0.3333333134651184, -0.2499999701976776, 0.20000715553760529, -0.1666780263185501,
       0.14249058067798615, -0.12425687164068222, 0.11685419827699661, -0.11479733884334564,
       0.06971611827611923)  # fmt: skip

# (tanh(x) - x) / x^3 as a function of x^2 on |x| <= TANH_SMALL.
TANH = (-0.3333333432674408, 0.13333304226398468, -0.053959257900714874, 0.02176889218389988,
        -0.008343859575688839, 0.002292647259309888)  # fmt: skip
TANH_SMALL = 0.625

# Beyond these e^x rounds to +0 and to inf, and the exponents below stay small.
EXP_LEAST, EXP_MOST = -104.0, 89.0
# Adding it rounds a number of magnitude below 2^22 to an integer, which the low bits then hold.
ROUND, ROUND_BITS = 12582912.0, 0x4B400000  # 1.5 * 2^23
LEAST_NORMAL = 2.0**-126
SQRT_HALF_BITS = 0x3F3504F3


def emit_exp(e: Emitter, x: Register) -> Register:
    """e^x = 2^n e^r, where n = round(x / ln 2) and r = x - n ln 2."""
    b = e.b
    x = b.select(b.fcmp_ordered("<", x, _like(x, EXP_LEAST)), _like(x, EXP_LEAST), x)
    x = b.select(b.fcmp_ordered(">", x, _like(x, EXP_MOST)), _like(x, EXP_MOST), x)
    shifted = b.fadd(b.fmul(x, _like(x, LOG2_E)), _like(x, ROUND))
    n = b.fsub(shifted, _like(x, ROUND))
    r = b.fsub(x, b.fmul(n, _like(x, LN2_HIGH)))
    r = b.fsub(r, b.fmul(n, _like(x, LN2_LOW)))
    power = b.fadd(b.fmul(b.fmul(r, r), _polynomial(e, EXP, r)), r)
    power = b.fadd(power, _like(x, 1.0))
    # 2^n in two factors: the first product is exact, the second rounds once, also to a subnormal.
    exponent = b.sub(b.bitcast(shifted, _bits(x)), _like_bits(x, ROUND_BITS))
    half = b.ashr(exponent, _like_bits(x, 1))
    rest = b.sub(exponent, half)
    return b.fmul(b.fmul(power, _power_of_two(e, half, x)), _power_of_two(e, rest, x))


def emit_cut(e: Emitter, value: Register) -> Register:
    """An f64 scalar as f32. Where f64 has no instructions, LLVM shall not see that it was one: it
    would compare f64, by a function, where f32 is compared with a constant."""
    near = e.b.fptrunc(value, ir.FloatType())
    if e.target.doubles:
        return near
    return e.b.bitcast(hidden(e.b, e.b.bitcast(near, I32)), ir.FloatType())


def emit_log(e: Emitter, x: Register) -> Register:
    """ln x = n ln 2 + ln m, where x = 2^n m and m lies in [sqrt(1/2), sqrt(2))."""
    b = e.b
    small = b.fcmp_ordered("<", x, _like(x, LEAST_NORMAL))
    scaled = b.select(small, b.fmul(x, _like(x, 2.0**23)), x)
    bits = b.bitcast(scaled, _bits(x))
    exponent = b.ashr(b.sub(bits, _like_bits(x, SQRT_HALF_BITS)), _like_bits(x, 23))
    m = b.bitcast(b.sub(bits, b.shl(exponent, _like_bits(x, 23))), x.type)
    exponent = b.sub(exponent, b.select(small, _like_bits(x, 23), _like_bits(x, 0)))
    n = b.sitofp(exponent, x.type)
    f = b.fsub(m, _like(x, 1.0))
    square = b.fmul(f, f)
    tail = b.fmul(b.fmul(f, square), _polynomial(e, LOG, f))
    tail = b.fsub(tail, b.fmul(square, _like(x, 0.5)))
    tail = b.fadd(tail, b.fmul(n, _like(x, LN2_LOW)))
    # n LN2_HIGH is exact, and 0 or larger than f: what their sum loses is found exactly.
    high = b.fmul(n, _like(x, LN2_HIGH))
    total = b.fadd(high, f)
    lost = b.fsub(f, b.fsub(total, high))
    y = b.fadd(total, b.fadd(lost, tail))
    y = b.select(b.fcmp_ordered("<", x, _like(x, float("inf"))), y, x)  # +inf and NaN as they are
    y = b.select(b.fcmp_ordered("<", x, _like(x, 0.0)), _like(x, float("nan")), y)
    return b.select(b.fcmp_ordered("==", x, _like(x, 0.0)), _like(x, float("-inf")), y)


def emit_sigmoid(e: Emitter, x: Register) -> Register:
    """1 / (1 + p) for x >= 0, p / (1 + p) for x < 0, where p = e^-|x| is at most 1."""
    power, one = emit_exp(e, e.b.fneg(e.call("fabs", x))), _like(x, 1.0)
    above = e.b.select(e.b.fcmp_ordered("<", x, _like(x, 0.0)), power, one)
    return e.b.fdiv(above, e.b.fadd(one, power))


def emit_tanh(e: Emitter, x: Register) -> Register:
    """Of |x|, with its sign put back: a polynomial for small ones, else 1 - 2 / (1 + e^2|x|)."""
    b, one = e.b, _like(x, 1.0)
    size = e.call("fabs", x)
    square = b.fmul(size, size)
    small = b.fadd(size, b.fmul(b.fmul(size, square), _polynomial(e, TANH, square)))
    power = b.fadd(emit_exp(e, b.fadd(size, size)), one)
    large = b.fsub(one, b.fdiv(_like(x, 2.0), power))
    y = b.select(b.fcmp_ordered("<", size, _like(x, TANH_SMALL)), small, large)
    sign = b.and_(b.bitcast(x, _bits(x)), _like_bits(x, -(2**31)))
    return b.bitcast(b.or_(b.bitcast(y, _bits(x)), sign), x.type)


def _polynomial(e: Emitter, coefficients: Sequence[float], x: Register) -> Register:
    total = _like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = e.b.fadd(e.b.fmul(total, x), _like(x, c))
    return total


def _power_of_two(e: Emitter, n: Register, like: Register) -> Register:
    biased = e.b.add(n, _like_bits(like, 127))
    return e.b.bitcast(e.b.shl(biased, _like_bits(like, 23)), like.type)


def _bits(x: Register) -> Any:
    """The i32 register type of the lanes of `x`."""
    return vector(I32, x.type.count if isinstance(x.type, ir.VectorType) else 1)


def _like(x: Register, value: float) -> Register:
    return constant(x.type, value)


def _like_bits(x: Register, value: int) -> Register:
    return constant(_bits(x), value)
