"""greater."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import GraphError, ShapeError
from addergraph.ir.intervals import Interval
from addergraph.ir.types import tensor
from addergraph.ops.pointwise.greater import Greater
from tests.addergraph.ops.properties import SPECIAL, run


def test_values() -> None:
    nan = np.nan
    found = run(Greater(), [1.0, 2.0, 0.0, nan, 1.0, nan], [2.0, 1.0, -0.0, 1.0, nan, nan])
    assert found.tolist() == [False, True, False, False, False, False]
    a, b = SPECIAL[:, None], SPECIAL[None]
    np.testing.assert_array_equal(run(Greater(), a, b), np.greater(a, b))
    found = run(Greater(), np.array([3, -(2**31)], "i4"), np.array(2, "i4"))
    assert found.tolist() == [True, False]
    assert run(Greater(), np.array(1.0, "f4"), np.array(0.0, "f4")).item() is True
    assert run(Greater(), np.zeros((0, 3), "f4"), np.zeros(3, "f4")).shape == (0, 3)


def test_ranges() -> None:
    types = [tensor("f32", (1,))] * 2
    assert Greater().interval([Interval(-3, 1), Interval(1, 2)], types) == (Interval(0, 0),)
    assert Greater().interval([Interval(3, 4), Interval(1, 2)], types) == (Interval(0, 1),)


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"one dtype, found f32\[1\] and i32\[1\]"):
        Greater().infer(tensor("f32", (1,)), tensor("i32", (1,)))
    with pytest.raises(ShapeError, match=r"a must be f32 or i32, found bool\[1\]"):
        Greater().infer(tensor("bool", (1,)), tensor("bool", (1,)))
    with pytest.raises(GraphError, match="not differentiable"):
        Greater().grad([], [], [])
