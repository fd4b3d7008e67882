"""select."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir.interpreter import interpret
from addergraph.ir.intervals import Interval
from addergraph.ir.trace import trace
from addergraph.ir.types import DTYPES, tensor
from addergraph.ops.pointwise.select import Select, select
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import bits, check_gradient, run


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_values(dtype) -> None:
    a, b = np.array([1, 0, 1], dtype.numpy), np.array([0], dtype.numpy)
    condition = np.array([[True], [False]])
    assert run(Select(), condition, a, b).tolist() == np.where(condition, a, b).tolist()


def test_bits_are_kept() -> None:
    condition = np.array([True, False])
    assert bits(run(Select(), condition, [-0.0, 1.0], [1.0, np.nan])) == bits([-0.0, np.nan])


def test_scalars_and_empty() -> None:
    one = np.array(1.0, "f4")
    assert run(Select(), np.array(True), one, one).item() == 1.0
    assert run(Select(), np.zeros((0, 2), "?"), one, one).shape == (0, 2)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((3,), (2, 1)), ((), (2, 3))])
def test_gradients(shapes) -> None:
    condition = np.array([[True, False, True], [False, False, True]])
    a, b = (normal(i, *s) for i, s in enumerate(shapes))
    found = check_gradient(Select(), condition, a, b)
    assert found[0] is None and found[1] is not None and found[2] is not None


def test_numbers_take_the_other_operands_dtype() -> None:
    def f(x):
        return select(x > 0, x, -1), select(x > 0, 1.0, 0.5)

    graph = trace(f, tensor("i32", (3,)))
    assert [str(v.type) for v in graph.outputs] == ["i32[3]", "f32[3]"]
    first, second = interpret(graph, np.array([2, 0, -3], "i4"))
    assert (first.tolist(), second.tolist()) == ([2, -1, -1], [1.0, 0.5, 0.5])


def test_ranges() -> None:
    types = [tensor("bool", (1,)), tensor("f32", (1,)), tensor("f32", (1,))]
    a, b = Interval(0, 2), Interval(-3, 1)
    assert Select().interval([Interval(), a, b], types) == (Interval(-3, 2),)
    assert Select().interval([Interval(0, 0), a, b], types) == (b,)
    assert Select().interval([Interval(1, 1), a, b], types) == (a,)


def test_errors() -> None:
    flag, x = tensor("bool", (2,)), tensor("f32", (2,))
    with pytest.raises(ShapeError, match=r"condition must be bool, found f32\[2\]"):
        Select().infer(x, x, x)
    with pytest.raises(ShapeError, match=r"one dtype, found f32\[2\] and i32\[2\]"):
        Select().infer(flag, x, tensor("i32", (2,)))
    with pytest.raises(ShapeError, match="do not broadcast"):
        Select().infer(flag, x, tensor("f32", (3,)))
