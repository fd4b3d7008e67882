"""The integers of requantizations: close to the real factors, and never out of i32."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import DataError
from addergraph.ir import Array
from addergraph.ir.types import i32
from addergraph.ops.pointwise.requantize import MAX_TERMS, RequantizeMultiply, RequantizeShift
from addergraph.passes.quantize.fixed_point import (
    DIGITS,
    Affine,
    Operands,
    _digits,
    multiply_operands,
    shift_operands,
)

# The largest relative error of a factor.
FRACTIONS = {1: 0.34, 2: 0.0925, 3: 0.02, 8: 2e-3, None: 1e-3}


def drawn(count: int, seed: int) -> Affine:
    """Factors of both signs and 18 binades; constants that put results in and around the bytes."""
    rng = np.random.default_rng(seed)
    least = -np.floor(2.0 ** rng.uniform(6, 22, count))
    factor = rng.choice([-1, 1], count) * 2.0 ** rng.uniform(-17, 1, count)
    middle = least * rng.uniform(0, 1, count)
    return Affine(factor, rng.uniform(-200, 400, count) - factor * middle, least, 0 * least)


def operands(affine: Affine, lo: int, hi: int, terms: int | None) -> Operands:
    if terms is None:
        return multiply_operands(affine, lo, hi)
    return shift_operands(affine, lo, hi, terms)


def results(x: Array, made: Operands, lo: int, hi: int, terms: int | None) -> Array:
    op = RequantizeMultiply(lo, hi) if terms is None else RequantizeShift(lo, hi)
    (y,) = op.reference(x, made.center, made.offset, made.shift, *made.factors)
    return y


def inputs(affine: Affine, seed: int) -> Array:
    """Rows of x: the ends, and numbers whose results are near the bytes."""
    rng = np.random.default_rng(seed)
    wanted = rng.uniform(-40, 300, (200, len(affine.factor)))
    near = (wanted - affine.constant) / affine.factor
    rows = np.concatenate([affine.least[None], affine.most[None], near])
    return np.asarray(np.rint(np.clip(rows, affine.least, affine.most)), np.int32)


def test_eight_powers_of_two_are_enough_for_every_number() -> None:
    """Added or taken off; of 14 digits up to 14 would have to be added."""
    for number in range(1, 1 << (DIGITS + 1)):
        codes = _digits(number)
        assert sum(np.sign(c) * (1 << (abs(c) - 1)) for c in codes) == number
        assert len(codes) <= MAX_TERMS


@pytest.mark.parametrize("terms", [1, 2, 3, 8, None])
def test_results_are_close(terms: int | None) -> None:
    affine = drawn(300, 1)
    made, x = operands(affine, 0, 255, terms), inputs(affine, 2)
    exact = np.clip(affine.factor * x + affine.constant, 0, 255)
    off = np.abs(results(x, made, 0, 255, terms) - exact)
    assert (off <= 1.0 + FRACTIONS[terms] * 255).all(), off.max()
    assert off.mean() <= 0.51 + FRACTIONS[terms] * 128


@pytest.mark.parametrize("terms", [1, 2, 3, 8, None])
def test_nothing_wraps(terms: int | None) -> None:
    """With 64 bits the results are the same, and every step fits in 32."""
    affine = drawn(300, 3)
    made, x = operands(affine, 0, 255, terms), inputs(affine, 4).astype("i8")
    t = x + made.center
    total = np.zeros_like(t)
    steps = [t]
    for factor in made.factors:
        wide = factor.astype("i8")
        moved = t * wide if terms is None else np.sign(wide) * (t << np.maximum(abs(wide) - 1, 0))
        total = total + moved
        steps += [moved, total]
    steps.append(total + made.offset)
    assert max(int(np.abs(s).max()) for s in steps) < 2**31
    wide_result = np.clip(steps[-1] >> made.shift, 0, 255)
    assert (wide_result == results(x.astype(np.int32), made, 0, 255, terms)).all()


@pytest.mark.parametrize("terms", [1, 3, 8, None])
@pytest.mark.parametrize("factor", [1.0, -1.0, 0.5, -0.125, 4.0])
def test_powers_of_two_are_exact(factor: float, terms: int | None) -> None:
    affine = Affine(*(np.array([n]) for n in (factor, 3.0, -2000.0, 0.0)))
    x = np.arange(-2000, 1, dtype=np.int32)[:, None]
    made = operands(affine, -(2**20), 2**20, terms)
    if terms is None:
        op: RequantizeMultiply | RequantizeShift = RequantizeMultiply(-(2**20), 2**20, i32)
    else:
        op = RequantizeShift(-(2**20), 2**20, i32)
    (y,) = op.reference(x, made.center, made.offset, made.shift, *made.factors)
    assert (y == np.floor(factor * x + 3.0 + 0.5)).all()


def test_factors_below_rounding_are_constants() -> None:
    affine = Affine(np.array([0.0, 1e-9]), np.array([7.4, 300.0]), np.full(2, -1e5), np.zeros(2))
    made = shift_operands(affine, 0, 255, 2)
    assert results(np.array([[-9999, -3]], np.int32), made, 0, 255, 2).tolist() == [[7, 255]]


def test_more_terms_are_no_worse() -> None:
    affine = drawn(500, 5)
    x = inputs(affine, 6)
    exact = np.clip(affine.factor * x + affine.constant, 0, 255)
    errors = [
        float(np.abs(results(x, operands(affine, 0, 255, k), 0, 255, k) - exact).mean())
        for k in (1, 2, 3)
    ]
    assert errors[0] > 3 * errors[1] > 6 * errors[2]


def test_what_has_no_integers() -> None:
    one = np.ones(1)
    with pytest.raises(DataError, match=r"channel 0 .* not finite"):
        shift_operands(Affine(one * np.nan, one, -one, one), 0, 255, 2)
    with pytest.raises(DataError, match="too wide to requantize"):
        shift_operands(Affine(one, 0 * one, one * -(2.0**40), one), 0, 255, 2)
