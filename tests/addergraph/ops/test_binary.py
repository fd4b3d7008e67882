"""add, sub, mul, div, maximum, minimum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.errors import ShapeError
from addergraph.ir import Cost
from addergraph.ir.intervals import ANY, Interval
from addergraph.ir.types import tensor
from addergraph.ops.pointwise.binary import Add, Div, Maximum, Minimum, Mul, Sub
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import (
    SPECIAL,
    bits,
    check_gradient,
    check_interval,
    gradients,
    run,
    type_of,
)

LEAST, MOST = -(2**31), 2**31 - 1
OPS = [Add(), Sub(), Mul(), Div(), Maximum(), Minimum()]
EXACT = [Add(), Sub(), Mul(), Maximum(), Minimum()]
NUMPY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
}
SHAPES = [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2,)), ((2, 3, 1), (1, 1, 4))]
EMPTY = [((0, 3), (3,)), ((2, 0), (1,)), ((0,), (1,)), ((), ())]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("a", "b"), SHAPES + EMPTY)
def test_values(op, a, b) -> None:
    x, y = normal(1, *a), normal(2, *b)
    np.testing.assert_array_equal(run(op, x, y), NUMPY[op.name](x, y))


@pytest.mark.parametrize("op", OPS)
def test_special_values_are_those_of_numpy(op) -> None:
    """Only the sign of a zero result is our own, where zeros of both signs meet."""
    a, b = SPECIAL[:, None], SPECIAL[None]
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(run(op, a, b), NUMPY[op.name](a, b))


def test_of_equal_zeros_the_second_is_taken() -> None:
    for op in (Maximum(), Minimum()):
        assert bits(run(op, [0.0, -0.0], [-0.0, 0.0])) == bits([-0.0, 0.0])


def test_integers_wrap() -> None:
    a, b = np.array([MOST, LEAST, 65536, -7], "i4"), np.array([1, -1, 65536, 2], "i4")
    assert run(Add(), a, b).tolist() == [LEAST, MOST, 131072, -5]
    assert run(Sub(), a, b).tolist() == [MOST - 1, LEAST + 1, 0, -9]
    assert run(Mul(), a, b).tolist() == [MOST, LEAST, 0, -14]
    assert run(Maximum(), a, b).tolist() == [MOST, -1, 65536, 2]
    assert run(Minimum(), a, b).tolist() == [1, LEAST, 65536, -7]
    assert run(Add(), np.array(MOST, "i4"), np.array(1, "i4")).item() == LEAST


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_gradients(op, a, b) -> None:
    check_gradient(op, normal(1, *a), 2 + np.abs(normal(2, *b)))


@pytest.mark.parametrize("op", OPS)
def test_gradients_with_an_open_batch(op) -> None:
    x, y = normal(1, 3, 2), 2 + np.abs(normal(2, 3, 1))
    check_gradient(op, x, y, open_batch=True)


def test_gradient_of_a_tie_goes_to_the_first() -> None:
    x = np.array([2.0, 2.0], "f4")
    for op in (Maximum(), Minimum()):
        da, db = gradients(op, x, x.copy())
        assert da is not None and db is not None
        assert (da.tolist(), db.tolist()) == ([1.0, 1.5], [0.0, 0.0])


@pytest.mark.parametrize("op", OPS)
@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
)
def test_ranges_hold(op, a, b) -> None:
    x, y = np.array(a, "f4")[:, None], np.array(b, "f4")[None]
    if not np.isnan(run(op, x, y)).all():
        check_interval(op, x, y)


@pytest.mark.parametrize("op", EXACT)
@given(
    st.lists(st.integers(LEAST, MOST) | st.integers(-9, 9), min_size=1, max_size=4),
    st.lists(st.integers(LEAST, MOST) | st.integers(-9, 9), min_size=1, max_size=4),
)
def test_integer_ranges_hold(op, a, b) -> None:
    check_interval(op, np.array(a, "i4")[:, None], np.array(b, "i4")[None])


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (Add(), Interval(0, 5)),
        (Sub(), Interval(-4, 1)),
        (Mul(), Interval(-3, 6)),
        (Div(), Interval(-1, 2)),
        (Maximum(), Interval(1, 3)),
        (Minimum(), Interval(-1, 2)),
    ],
)
def test_ranges(op, expected) -> None:
    types = [tensor("f32", (2,))] * 2
    assert op.interval([Interval(-1, 2), Interval(1, 3)], types) == (expected,)


def test_dividing_by_a_range_with_zero_says_nothing() -> None:
    types = [tensor("f32", (2,))] * 2
    assert Div().interval([Interval(1, 2), Interval(0, 3)], types) == (ANY,)  # 1 / -0.0 = -inf


def test_maximum_with_a_constant_bounds_an_unknown_integer() -> None:
    types = [tensor("i32", (2,))] * 2
    assert Maximum().interval([ANY, Interval(0, 0)], types) == (Interval(0, MOST),)


def test_cost_counts_results() -> None:
    types = [tensor("f32", (2, 1)), tensor("f32", (5,))]
    assert Add().cost(types) == Cost(additions=10)
    assert Div().cost(types) == Cost(multiplications=10)
    assert Maximum().cost(types) == Cost()


def test_open_batch() -> None:
    x, bias = tensor("f32", ("N", 4)), tensor("f32", (4,))
    assert Add().infer(x, bias) == (x,)
    with pytest.raises(ShapeError, match="do not broadcast"):
        Add().infer(x, tensor("f32", (7, 4)))


def test_errors() -> None:
    a = tensor("f32", (2, 3))
    with pytest.raises(ShapeError, match=r"operands must have one dtype, found f32\[2,3\] and i32"):
        Add().infer(a, tensor("i32", (2, 3)))
    with pytest.raises(ShapeError, match=r"\[2,3\] and \[2\] do not broadcast"):
        Mul().infer(a, tensor("f32", (2,)))
    with pytest.raises(ShapeError, match=r"a must be f32, found i32\[1\]"):
        Div().infer(tensor("i32", (1,)), tensor("i32", (1,)))
    with pytest.raises(ShapeError, match=r"takes 2 operands \(a, b\), found 1"):
        Sub().infer(a)


def test_the_result_is_not_a_view() -> None:
    x = normal(1, 2, 2)
    before = x.copy()
    run(Add(), x, x)[:] = 0
    assert np.array_equal(x, before) and type_of(x).sizes == (2, 2)
