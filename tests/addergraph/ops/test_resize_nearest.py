"""resize_nearest."""

from __future__ import annotations

import numpy as np
import pytest

import addergraph as ag
from addergraph import ops
from addergraph.errors import GraphError, ShapeError
from addergraph.ir.types import DTYPES, tensor
from addergraph.ops.movement.resize_nearest import ResizeNearest
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import check_gradient, run


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_values(dtype) -> None:
    x = np.arange(24).reshape(1, 3, 4, 2).astype(dtype.numpy)
    y = run(ResizeNearest((2, 3)), x)
    assert y.shape == (1, 6, 12, 2)
    for h in range(6):
        for w in range(12):
            assert y[0, h, w].tolist() == x[0, h // 2, w // 3].tolist()


def test_empty() -> None:
    assert run(ResizeNearest((2, 2)), np.zeros((0, 3, 2, 1), "f4")).shape == (0, 6, 4, 1)


@pytest.mark.parametrize("factors", [(1, 1), (2, 3), (1, 4)])
def test_gradients(factors) -> None:
    check_gradient(ResizeNearest(factors), normal(1, 2, 3, 2, 2))
    check_gradient(ResizeNearest(factors), normal(1, 2, 3, 2, 2), open_batch=True)


def test_one_number_is_for_both_axes() -> None:
    graph = ag.trace(lambda x: ops.resize_nearest(x, 2), tensor("f32", ("N", 2, 3, 1)))
    assert graph.nodes[0].op == ResizeNearest((2, 2))


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"input must be NHWC \(rank 4\)"):
        ResizeNearest((2, 2)).infer(tensor("f32", ("N", 3)))
    for factors in ((0, 1), (2, -1), (1,)):
        with pytest.raises(ShapeError, match="must be two integers of at least 1"):
            ResizeNearest(factors).infer(tensor("f32", ("N", 2, 2, 1)))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match='resize_nearest "up": factors=1.5'):
        ag.trace(
            lambda x: ops.resize_nearest(x, 1.5, name="up"),  # type: ignore[arg-type]
            tensor("f32", ("N", 2, 2, 1)),
        )
    with pytest.raises(GraphError, match="has no gradient"):
        check_gradient(ResizeNearest((2, 2)), np.zeros((1, 1, 1, 1), "u1"))
