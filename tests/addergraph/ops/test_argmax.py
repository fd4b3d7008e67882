"""argmax."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir.intervals import Interval
from addergraph.ir.trace import trace
from addergraph.ir.types import tensor
from addergraph.ops.reduction.argmax import Argmax, argmax
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import run


def test_values() -> None:
    x = normal(1, 3, 4, 5)
    for axis in range(3):
        assert run(Argmax(axis), x).tolist() == np.argmax(x, axis).tolist()


def test_ties_and_special_values() -> None:
    nan, inf = np.nan, np.inf
    x = [[1, 2, 2], [-0.0, 0.0, -1], [inf, nan, nan], [-inf, -inf, -inf], [nan, inf, nan]]
    assert run(Argmax(1), x).tolist() == [1, 0, 1, 0, 0]


def test_integers() -> None:
    """Signed or not: 200 is above 100 as a byte."""
    least = -(2**31)
    assert run(Argmax(1), np.array([[least, 5, 5], [least] * 3, [-1, -2, 0]], "i4")).tolist() == [
        1, 0, 2,
    ]  # fmt: skip
    assert run(Argmax(0), np.array([100, 200, 200], "u1")).item() == 1


def test_scalar_and_empty_results() -> None:
    assert run(Argmax(0), [3.0, 5.0]).item() == 1
    assert run(Argmax(1), np.zeros((0, 3), "f4")).shape == (0,)


def test_open_batch() -> None:
    x = tensor("f32", ("N", 10))
    assert Argmax(1).infer(x) == (tensor("i32", ("N",)),)
    assert Argmax(1).per_sample and not Argmax(0).per_sample
    assert Argmax(1).interval([Interval()], [x]) == (Interval(0, 9),)
    assert Argmax(0).interval([Interval()], [x])[0].nonnegative
    graph = trace(lambda x: argmax(x), x)
    assert graph.nodes[0].op == Argmax(1)


@pytest.mark.parametrize(
    ("axis", "shape", "message"),
    [
        (2, (2, 3), r"axis=2 must be from 0 to 1 for f32\[2,3\]"),
        (-1, (2, 3), "axis=-1 must be from 0"),
        (0, (), "axis=0 must be from 0"),
        (1, (2, 0), "axis 1 of .* is empty"),
    ],
)
def test_errors(axis, shape, message) -> None:
    with pytest.raises(ShapeError, match=message):
        Argmax(axis).infer(tensor("f32", shape))
