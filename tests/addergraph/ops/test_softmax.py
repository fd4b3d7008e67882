"""softmax."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir import Cost
from addergraph.ir.intervals import Interval
from addergraph.ir.types import tensor
from addergraph.ops.reduction.softmax import Softmax
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import bits, check_gradient, run


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (3, 1)])
def test_values(shape) -> None:
    x = normal(1, *shape) * 5
    e = np.exp(x.astype("f8"))
    np.testing.assert_allclose(run(Softmax(), x), e / e.sum(-1, keepdims=True), rtol=1e-6)


def test_large_values_do_not_overflow() -> None:
    assert run(Softmax(), [1000.0, 1000.0, -1000.0]).tolist() == [0.5, 0.5, 0.0]


def test_special_values() -> None:
    inf, nan = np.inf, np.nan
    x = [[0.0, -inf], [inf, 0.0], [nan, 0.0], [-inf, -inf]]
    assert bits(run(Softmax(), x)) == bits([[1.0, 0.0], [nan, nan], [nan, nan], [nan, nan]])


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_empty(shape) -> None:
    assert run(Softmax(), np.zeros(shape, "f4")).shape == shape


def test_gradients() -> None:
    check_gradient(Softmax(), normal(1, 2, 3))
    check_gradient(Softmax(), normal(1, 4))
    check_gradient(Softmax(), normal(1, 2, 2, 3), open_batch=True)


def test_range_and_cost() -> None:
    x = tensor("f32", (2, 3))
    assert Softmax().interval([Interval()], [x]) == (Interval(0, 1),)
    assert Softmax().cost([x]) == Cost(12, 6, 6)


def test_errors() -> None:
    with pytest.raises(ShapeError, match="must have an axis to normalise over"):
        Softmax().infer(tensor("f32", ()))
    with pytest.raises(ShapeError, match="the last axis of .* is the open batch"):
        Softmax().infer(tensor("f32", ("N",)))
