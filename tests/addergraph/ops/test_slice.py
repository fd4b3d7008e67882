"""slice."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir.interpreter import interpret
from addergraph.ir.text import parse
from addergraph.ir.trace import trace
from addergraph.ir.types import DTYPES, tensor
from addergraph.ops.movement.slice import Slice, slice
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import check_gradient, run


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_values(dtype) -> None:
    x = np.arange(20).reshape(4, 5).astype(dtype.numpy)
    assert run(Slice((1, 2), (3, 5)), x).tolist() == x[1:3, 2:5].tolist()


def test_edge_cases() -> None:
    assert run(Slice((), ()), np.array(2.0, "f4")).item() == 2.0
    assert run(Slice((2, 0), (2, 3)), np.zeros((2, 3), "f4")).shape == (0, 3)


def test_gradients() -> None:
    check_gradient(Slice((1, 0), (3, 2)), normal(1, 3, 4))


def test_an_open_batch_is_taken_whole_and_binds() -> None:
    graph = trace(lambda x: slice(x, (0, 1), ("N", 3)), tensor("f32", ("N", 4)))
    assert str(graph.outputs[0].type) == "f32[N,2]"
    assert "start=(0,1) stop=(N,3)" in str(graph)
    assert parse(str(graph)) == graph
    x = normal(1, 5, 4)
    bound = graph.bind(5)
    assert bound.nodes[0].op == Slice((0, 1), (5, 3))
    assert np.array_equal(interpret(bound, x), x[:, 1:3])


def test_gradient_with_an_open_batch() -> None:
    from addergraph.ops.movement.pad import Pad

    def f(x, g):
        y = slice(x, (0, 1), ("N", 3))
        (dx,) = Slice((0, 1), ("N", 3)).grad([x], [y], [g])
        return dx

    graph = trace(f, tensor("f32", ("N", 4)), tensor("f32", ("N", 2)))
    assert graph.nodes[-1].op == Pad((0, 1), (0, 1))


@pytest.mark.parametrize(
    ("op", "shape", "message"),
    [
        (Slice((0,), (1, 1)), (2, 2), "must be 2 positions each"),
        (Slice((0, 1), (2, 3)), (2, 2), r"found 1:3 on axis 1 of f32\[2,2\]; expected .* <= 2"),
        (Slice((-1, 0), (2, 2)), (2, 2), "found -1:2 on axis 0"),
        (Slice((2, 0), (1, 2)), (2, 2), "found 2:1 on axis 0"),
        (Slice((0, 0), (1, 2)), ("N", 2), "found 0:1 on the open batch axis .* taken whole, 0:N"),
        (Slice((1, 0), ("N", 2)), ("N", 2), "found 1:N on the open batch axis"),
        (Slice((0, 0), ("N", 2)), (2, 2), "stop=N on axis 0 of .* not an open batch"),
    ],
)
def test_errors(op, shape, message) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(tensor("f32", shape))
