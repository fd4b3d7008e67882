"""cast."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.ir.intervals import ANY, Interval
from addergraph.ir.types import DTYPES, bool_, f32, i8, i32, tensor, u8
from addergraph.ops.pointwise.cast import Cast
from tests.addergraph.ops.properties import check_gradient, check_interval, gradients, run

VALUES = {
    "f32": [0.0, -0.0, 1.9, -1.9, 127.5, 255.9, 256.0, 3e9, -3e9, np.inf, -np.inf, np.nan],
    "i32": [0, 1, -1, 127, 128, 255, 256, 16777217, 2**31 - 1, -(2**31)],
    "u8": [0, 1, 127, 128, 255],
    "i8": [0, 1, -1, 127, -128],
    "bool": [False, True],
}


def test_float_to_integer_truncates_and_saturates() -> None:
    x = VALUES["f32"]
    most, least = 2**31 - 1, -(2**31)
    assert run(Cast(i32), x).tolist() == [
        *(0, 0, 1, -1, 127, 255, 256, most, least, most, least, 0)
    ]
    assert run(Cast(u8), x).tolist() == [0, 0, 1, 0, 127, 255, 255, 255, 0, 255, 0, 0]
    assert run(Cast(i8), x).tolist() == [0, 0, 1, -1, 127, 127, 127, 127, -128, 127, -128, 0]
    assert run(Cast(bool_), x).tolist() == [False, False, *[True] * 10]


def test_integers_wrap() -> None:
    x = np.array(VALUES["i32"], "i4")
    assert run(Cast(u8), x).tolist() == [0, 1, 255, 127, 128, 255, 0, 1, 255, 0]
    assert run(Cast(i8), x).tolist() == [0, 1, -1, 127, -128, -1, 0, 1, -1, 0]
    assert run(Cast(i8), np.array([200], "u1")).tolist() == [-56]
    assert run(Cast(bool_), x).tolist() == [False, *[True] * 9]


def test_to_float_rounds_to_even() -> None:
    x = np.array([16777217, 16777219, 2**31 - 1], "i4")
    assert run(Cast(f32), x).tolist() == [16777216.0, 16777220.0, 2147483648.0]
    assert run(Cast(f32), np.array([True, False])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("source", "target"), list(itertools.product(DTYPES.values(), DTYPES.values()))
)
def test_every_pair_of_dtypes(source, target) -> None:
    x = np.array(VALUES[source.name], source.numpy)
    check_interval(Cast(target), x)
    for shape in ((), (0, 2)):
        assert run(Cast(target), np.zeros(shape, source.numpy)).shape == shape
    if target == source:
        np.testing.assert_array_equal(run(Cast(target), x), x)


@given(st.lists(st.floats(width=32), min_size=1), st.sampled_from([i32, u8, i8]))
def test_ranges_hold(values, dtype) -> None:
    x = np.array(values, "f4")
    if not np.isnan(x).all():
        check_interval(Cast(dtype), x)


def test_ranges() -> None:
    assert Cast(f32).interval([ANY], [tensor("u8", (1,))]) == (Interval(0, 255),)
    assert Cast(f32).interval([ANY], [tensor("bool", (1,))]) == (Interval(0, 1),)
    assert Cast(u8).interval([Interval(-5, 90.7)], [tensor("f32", (1,))]) == (Interval(0, 90),)
    # NaN is in no range, and gives 0
    assert Cast(i32).interval([Interval(3, 4)], [tensor("f32", (1,))]) == (Interval(0, 4),)


def test_gradients() -> None:
    check_gradient(Cast(f32), np.array([1.0, 2.0], "f4"))
    assert gradients(Cast(f32), np.array([1, 2], "i4")) == [None]
    assert gradients(Cast(i32), np.array([1.0, 2.0], "f4")) == [None]
