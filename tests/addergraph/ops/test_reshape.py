"""reshape and flatten."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir.trace import trace
from addergraph.ir.types import DTYPES, tensor
from addergraph.ops.movement.reshape import Flatten, Reshape, flatten, reshape
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import check_gradient, run


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_values(dtype) -> None:
    x = np.arange(24).reshape(2, 3, 4).astype(dtype.numpy)
    assert run(Reshape((4, 6)), x).tolist() == x.reshape(4, 6).tolist()
    assert run(Flatten(), x).tolist() == x.reshape(2, 12).tolist()


def test_scalars_and_empty() -> None:
    assert run(Reshape((1, 1)), np.array(2.0, "f4")).tolist() == [[2.0]]
    assert run(Reshape(()), [[2.0]]).item() == 2.0
    assert run(Reshape((3, 0)), np.zeros((0, 7), "f4")).shape == (3, 0)
    assert run(Flatten(), np.zeros((0, 2, 3), "f4")).shape == (0, 6)
    assert run(Flatten(), np.zeros((2, 0, 3), "f4")).shape == (2, 0)
    assert run(Flatten(), [1.0, 2.0]).tolist() == [[1.0], [2.0]]


def test_gradients() -> None:
    check_gradient(Reshape((3, 2)), normal(1, 2, 3))
    check_gradient(Flatten(), normal(1, 2, 2, 2))
    check_gradient(Flatten(), normal(1, 2, 2, 2), open_batch=True)


def test_open_batch() -> None:
    def f(x):
        return flatten(reshape(x, ("N", 2, 3)))

    graph = trace(f, tensor("f32", ("N", 6)))
    assert str(graph.outputs[0].type) == "f32[N,6]"
    assert graph.bind(4).nodes[0].op == Reshape((4, 2, 3))


@pytest.mark.parametrize(
    ("found", "shape", "message"),
    [
        ((2, 3), (5,), r"cannot reshape f32\[2,3\] to f32\[5\]: 6 elements do not fill 5"),
        (("N", 6), ("N", 5), "6 elements a sample do not fill 5"),
        (("N", 6), (6,), "an open batch N must lead both shapes"),
        ((6,), ("N", 6), "an open batch N must lead both shapes"),
        ((2, 3), (3, "N"), "N may only be the leading dimension"),
        ((2, 3), (-1,), "is not a size"),
    ],
)
def test_errors(found, shape, message) -> None:
    with pytest.raises(ShapeError, match=message):
        Reshape(shape).infer(tensor("f32", found))


def test_flatten_needs_a_batch_axis() -> None:
    with pytest.raises(ShapeError, match="must have a batch axis"):
        Flatten().infer(tensor("f32", ()))
