"""neg, abs, exp, log, sqrt, sigmoid, tanh."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir import Cost
from addergraph.ir.intervals import ANY, NONNEGATIVE, Interval
from addergraph.ir.types import i32, tensor
from addergraph.ops.pointwise.unary import Abs, Exp, Log, Neg, Sigmoid, Sqrt, Tanh
from tests.addergraph.ops.properties import (
    SPECIAL,
    bits,
    check_gradient,
    check_interval,
    gradients,
    run,
)

LEAST, MOST = -(2**31), 2**31 - 1
POSITIVE = np.array([[0.5, 1.25, 2.0], [3.0, 0.75, 4.0]], "f4")
F32 = [tensor("f32", (2, 3))]
I32 = [tensor("i32", (2, 3))]


def test_special_values() -> None:
    inf, nan = np.inf, np.nan
    x = [0.0, -0.0, inf, -inf, nan, -1.0]
    assert bits(run(Neg(), x)) == bits([-0.0, 0.0, -inf, inf, nan, 1.0])
    assert bits(run(Abs(), x)) == bits([0.0, 0.0, inf, inf, nan, 1.0])
    assert bits(run(Exp(), x)) == bits([1.0, 1.0, inf, 0.0, nan, np.exp(-1.0)])
    assert bits(run(Log(), x)) == bits([-inf, -inf, inf, nan, nan, nan])
    assert bits(run(Sqrt(), x)) == bits([0.0, -0.0, inf, nan, nan, nan])
    assert bits(run(Sigmoid(), [*x[:5], -200.0, 200.0])) == bits([0.5, 0.5, 1, 0.0, nan, 0.0, 1])
    assert bits(run(Tanh(), [*x[:5], 1e-45, -1e-45])) == bits(
        [0.0, -0.0, 1, -1, nan, 1e-45, -1e-45]
    )
    assert run(Sigmoid(), [-100.0])[0] == pytest.approx(3.783506e-44)
    assert bits(run(Exp(), [100.0, -200.0])) == bits([inf, 0.0])
    assert run(Log(), [1e-45])[0] == pytest.approx(-103.2789)


def test_integers_wrap() -> None:
    x = np.array([LEAST, MOST, 0, -5], "i4")
    assert run(Neg(), x).tolist() == [LEAST, -MOST, 0, 5]
    assert run(Abs(), x).tolist() == [LEAST, MOST, 0, 5]
    assert run(Neg(), np.array(LEAST, "i4")).item() == LEAST


@pytest.mark.parametrize("op", [Neg(), Abs(), Exp(), Log(), Sqrt(), Sigmoid(), Tanh()])
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 0)])
def test_scalars_and_empty(op, shape) -> None:
    assert run(op, np.ones(shape, "f4")).shape == shape


@pytest.mark.parametrize("op", [Neg(), Abs(), Exp(), Log(), Sqrt(), Sigmoid(), Tanh()])
def test_gradients(op) -> None:
    check_gradient(op, POSITIVE)
    check_gradient(op, POSITIVE, open_batch=True)


def test_abs_has_a_sign_gradient_and_none_at_zero() -> None:
    (dx,) = check_gradient(Abs(), np.array([-2.0, 3.0], "f4"))
    assert dx is not None and dx.tolist() == [-1.0, 1.5]
    assert bits(gradients(Abs(), np.array([0.0, -0.0], "f4"))[0]) == bits([0.0, 0.0])


@pytest.mark.parametrize("op", [Neg(), Abs(), Exp(), Log(), Sqrt(), Sigmoid(), Tanh()])
def test_ranges_hold(op) -> None:
    rng = np.random.default_rng(0)
    check_interval(op, SPECIAL)
    for scale in (1e-30, 1.0, 1e30):
        check_interval(op, (rng.normal(size=50) * scale).astype("f4"))


@pytest.mark.parametrize(
    ("op", "x", "expected"),
    [
        (Neg(), Interval(-1, 3), Interval(-3, 1)),
        (Abs(), Interval(-1, 3), Interval(0, 3)),
        (Abs(), Interval(-4, -2), Interval(2, 4)),
        (Abs(), ANY, NONNEGATIVE),
        (Exp(), Interval(-1, 3), NONNEGATIVE),
        (Sigmoid(), ANY, Interval(0, 1)),
        (Tanh(), ANY, Interval(-1, 1)),
        (Log(), Interval(1, 2), ANY),
        (Sqrt(), Interval(4, 9), Interval(2, 3)),
        (Sqrt(), Interval(-4, 9), Interval(0, 3)),
        (Sqrt(), Interval(-4, -1), NONNEGATIVE),
    ],
)
def test_ranges(op, x, expected) -> None:
    assert op.interval([x], F32) == (expected,)


def test_an_unbounded_integer_may_be_the_one_that_wraps() -> None:
    assert Abs().interval([ANY], I32) == (Interval(LEAST, MOST),)
    assert Abs().interval([Interval(-7, 2)], I32) == (Interval(0, 7),)
    assert Neg().interval([Interval(lo=0)], I32) == (Interval(-MOST, 0),)


def test_cost() -> None:
    assert Exp().cost(F32) == Cost(transcendentals=6)
    assert Neg().cost(F32) == Cost()


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"x must be f32, found i32\[2\]; use cast first"):
        Exp().infer(tensor(i32, (2,)))
    with pytest.raises(ShapeError, match=r"x must be f32 or i32, found u8\[2\]"):
        Neg().infer(tensor("u8", (2,)))
    with pytest.raises(ShapeError, match=r"takes 1 operands \(x\), found 2"):
        Abs().infer(*F32, *F32)
