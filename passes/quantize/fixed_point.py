"""The integers of a requantization: per channel, y = factor (x + ...) in shifts or one multiply.

    y = clip(round(factor x + constant), lo, hi),  x in [least, most]

becomes the operands of `requantize_shift` or `requantize_multiply`
(addergraph/ops/pointwise/requantize.py):

    y = clip((m (x + center) + offset) >> shift, lo, hi)

where m / 2^shift is close to the factor and m is a sum of `terms` signed powers of two (or any
integer). The center is the x that gives y = 0, so an error of m scales what is left after the mean.
For every x in [least, most] no step leaves i32: shifts shrink until that holds.
"""

from __future__ import annotations

import functools
import itertools
import math
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from addergraph.errors import DataError
from addergraph.ir import Array
from addergraph.ops.pointwise.requantize import MAX_TERMS

LIMIT = 2**31 - 1
WIDEST = 8  # places between the largest and the smallest power of two of a factor
MULTIPLIER_BITS = 15
DIGITS = 13  # places of a factor of MAX_TERMS powers of two: enough for any number of so many
BEYOND = 1024  # how far past the ends a result may lie before more of it is pointless


@dataclass(frozen=True)
class Affine:
    """y = factor x + constant in each channel, for x in [least, most]: four f64 arrays [C]."""

    factor: Array
    constant: Array
    least: Array
    most: Array


@dataclass(frozen=True)
class Operands:
    """What the op takes behind x: i32 arrays [C]. The factors are terms if it is `shifting`, else
    one to multiply by."""

    center: Array
    offset: Array
    shift: Array
    factors: tuple[Array, ...]
    shifting: bool

    @property
    def arrays(self) -> dict[str, Array]:
        """By the last parts of the parameters' names."""
        kinds = {f"factor{i}": f for i, f in enumerate(self.factors)}
        return {"center": self.center, "offset": self.offset, "shift": self.shift} | kinds

    @property
    def multiplying(self) -> list[Array]:
        """The operands of a `requantize_multiply` with the same results. Shifts, additions and the
        product wrap alike: all of it is arithmetic modulo 2^32."""
        factor = self.factors[0]
        if self.shifting:
            terms = np.stack(self.factors).astype("i8")
            powers = np.sign(terms) << np.maximum(np.abs(terms) - 1, 0)
            factor = powers.sum(0).astype(np.int32)
        return [self.center, self.offset, self.shift, factor]


def shift_operands(affine: Affine, lo: int, hi: int, terms: int) -> Operands:
    """For `requantize_shift`, with factors of `terms` signed powers of two at most; of MAX_TERMS
    there are no more operands than some channel needs."""
    rows = [_row(channel, lo, hi, terms) for channel in _channels(affine)]
    most = max((len(row[3]) for row in rows), default=0)
    return _operands(rows, max(1, most) if terms == MAX_TERMS else terms, True)


def multiply_operands(affine: Affine, lo: int, hi: int) -> Operands:
    """For `requantize_multiply`."""
    rows = [_row(channel, lo, hi, None) for channel in _channels(affine)]
    return _operands(rows, 1, False)


def _channels(affine: Affine) -> list[tuple[float, float, float, float]]:
    columns = (affine.factor, affine.constant, affine.least, affine.most)
    rows = list(zip(*(c.astype("f8").tolist() for c in columns), strict=True))
    for number, row in enumerate(rows):
        if not all(map(math.isfinite, row)):
            raise DataError(f"channel {number} has a factor or constant that is not finite: {row}")
    return rows


def _operands(
    rows: Sequence[tuple[int, int, int, Sequence[int]]], count: int, shifting: bool
) -> Operands:
    def column(numbers: Sequence[int]) -> Array:
        return np.array(numbers, np.int32)

    factors = [[row[3][j] if j < len(row[3]) else 0 for row in rows] for j in range(count)]
    return Operands(
        column([r[0] for r in rows]),
        column([r[1] for r in rows]),
        column([r[2] for r in rows]),
        tuple(column(f) for f in factors),
        shifting,
    )


def _row(
    channel: tuple[float, float, float, float], lo: int, hi: int, terms: int | None
) -> tuple[int, int, int, Sequence[int]]:
    """(center, offset, shift, factors) of one channel."""
    factor, constant, least, most = channel
    if abs(factor) * max(most - least, 1.0) < 0.25:  # below rounding: a constant
        middle = factor * (least + most) / 2 + constant
        return 0, round(min(max(middle, lo), hi)), 0, ()
    reach = (hi - lo + BEYOND) / abs(factor)
    center = round(min(max(constant / factor, -most - reach), -least + reach))
    largest = max(abs(least + center), abs(most + center))
    rest = constant - factor * center
    rest = min(max(rest, lo - BEYOND), hi + BEYOND)
    places = {None: MULTIPLIER_BITS, MAX_TERMS: DIGITS}.get(terms, WIDEST)
    for width in range(places, -1, -1):
        numerator, exponent, codes = _approximated(abs(factor), terms, width)
        shift = max(0, -exponent)
        scale = 1 << max(0, exponent)
        size = sum(1 << (abs(c) - 1) for c in codes) if terms is not None else numerator
        offset = round(rest * 2.0**shift) + ((1 << shift) >> 1)
        if shift <= 31 and scale * size * largest + abs(offset) <= LIMIT:
            sign = -1 if factor < 0 else 1
            if terms is None:
                return center, offset, shift, (sign * numerator * scale,)
            moved = [sign * (c + (max(0, exponent) if c > 0 else -max(0, exponent))) for c in codes]
            return center, offset, shift, moved
    raise DataError(
        f"the factor {factor:g} of sums from {least:g} to {most:g} does not fit i32 arithmetic; "
        "the layer is too wide to requantize"
    )


def _approximated(factor: float, terms: int | None, width: int) -> tuple[int, int, tuple[int, ...]]:
    """(numerator, exponent, codes): numerator 2^exponent is close to `factor`.

    The numerator has about `width` bits, and is the sum of the codes' powers of two where `terms`
    is a number.
    """
    fraction, exponent = math.frexp(factor)  # in [0.5, 1)
    if terms is None:
        return round(fraction * 2.0 ** (width + 1)), exponent - width - 1, ()
    numerator, codes = _sum_of_powers(fraction * 2.0 ** (width + 1), terms, width)
    exponent -= width + 1
    spare = min(abs(c) - 1 for c in codes)  # powers that all terms share go into the shift
    if exponent < 0 and spare:
        spare = min(spare, -exponent)
        codes = tuple(c - spare if c > 0 else c + spare for c in codes)
        numerator, exponent = numerator >> spare, exponent + spare
    return numerator, exponent, codes


def _sum_of_powers(number: float, terms: int, width: int) -> tuple[int, tuple[int, ...]]:
    """The sum of powers of two that is nearest to `number`, and their codes."""
    if terms == MAX_TERMS:
        return round(number), _digits(round(number))
    table, ordered = _mantissas(terms, width)
    at = bisect(ordered, (number, 0))
    near = ordered[max(0, at - 1) : at + 1]  # equally near: the one of fewer terms
    _, _, numerator = min((abs(n - number), rank, n) for n, rank in near)
    return numerator, table[numerator]


def _digits(number: int) -> tuple[int, ...]:
    """The codes of the fewest powers of two, added or taken off, that make up a positive number: no
    two of them are neighbours."""
    codes, place = [], 1
    while number:
        digit = 2 - (number & 3) if number & 1 else 0
        codes += [digit * place] if digit else []
        number, place = (number - digit) >> 1, place + 1
    return tuple(codes)


@functools.cache
def _mantissas(terms: int, width: int) -> tuple[dict[int, tuple[int, ...]], list[tuple[int, int]]]:
    """The sums of at most `terms` signed powers of two 2^0 .. 2^(width + 1) around [0.5, 1) of
    2^(width + 1), each with its codes, sign (1 + places), of the fewest terms; and the same sums by
    size, each with its place in the first."""
    found: dict[int, tuple[int, ...]] = {}
    codes = [sign * place for place in range(width + 2, 0, -1) for sign in (1, -1)]
    for count in range(1, terms + 1):
        for chosen in itertools.combinations(codes, count):
            total = sum(math.copysign(1 << (abs(c) - 1), c) for c in chosen)
            if 2.0**width * 0.75 <= total <= 2.0 ** (width + 1):
                found.setdefault(int(total), chosen)
    return found, sorted(zip(found, range(len(found)), strict=True))
