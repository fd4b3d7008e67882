"""mean_squared_error."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir import Cost
from addergraph.ir.intervals import ANY
from addergraph.ir.types import tensor
from addergraph.ops.reduction.mean_squared_error import MeanSquaredError
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import check_gradient, run

OP = MeanSquaredError()


@pytest.mark.parametrize("shape", [(4,), (3, 2), (2, 3, 2)])
def test_values(shape) -> None:
    p, t = normal(1, *shape), normal(2, *shape)
    expected = ((p.astype("f8") - t) ** 2).reshape(shape[0], -1).mean(1)
    np.testing.assert_allclose(run(OP, p, t), expected, rtol=1e-6)


def test_empty() -> None:
    assert run(OP, np.zeros((0, 3), "f4"), np.zeros((0, 3), "f4")).shape == (0,)
    assert np.isnan(run(OP, np.zeros((2, 0), "f4"), np.zeros((2, 0), "f4"))).all()


@pytest.mark.parametrize("shape", [(4,), (3, 2), (2, 3, 2)])
@pytest.mark.parametrize("open_batch", [False, True])
def test_gradients(shape, open_batch) -> None:
    check_gradient(OP, normal(1, *shape), normal(2, *shape), open_batch=open_batch)


def test_range_and_cost() -> None:
    x = tensor("f32", (2, 3))
    assert OP.interval([ANY, ANY], [x, x])[0].nonnegative
    assert OP.cost([x, x]) == Cost(12, 8)


def test_errors() -> None:
    x = tensor("f32", ("N", 3))
    assert OP.infer(x, x) == (tensor("f32", ("N",)),)
    with pytest.raises(ShapeError, match=r"target must be f32\[N,3\] as the prediction"):
        OP.infer(x, tensor("f32", ("N", 1)))
    with pytest.raises(ShapeError, match="must have a batch axis"):
        OP.infer(tensor("f32", ()), tensor("f32", ()))
