"""concat."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir.intervals import Interval
from addergraph.ir.trace import trace
from addergraph.ir.types import DTYPES, tensor
from addergraph.ops.movement.concat import Concat, concat
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import check_gradient, run


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_values(dtype) -> None:
    parts = [(normal(i, 2, i, 3) > 0).astype(dtype.numpy) for i in (1, 0, 2)]
    assert run(Concat(1), *parts).tolist() == np.concatenate(parts, 1).tolist()


def test_gradients() -> None:
    check_gradient(Concat(0), normal(1, 1, 2), normal(2, 3, 2), normal(3, 2, 2))
    check_gradient(Concat(1), normal(1, 2, 2), normal(2, 2, 1), open_batch=True)


def test_ranges() -> None:
    found = Concat(0).interval([Interval(0, 1), Interval(5, 6), Interval(-2, -1)], [])
    assert found == (Interval(-2, 6),)


def test_function() -> None:
    graph = trace(lambda x: concat([x, x, x]), tensor("f32", ("N", 4)))
    assert graph.nodes[0].op == Concat(1)
    assert str(graph.outputs[0].type) == "f32[N,12]"
    with pytest.raises(ShapeError, match="takes two or more tensors"):
        concat([])


@pytest.mark.parametrize(
    ("axis", "shapes", "message"),
    [
        (0, [(2, 3)], "takes two or more operands, found 1"),
        (2, [(2, 3), (2, 3)], "axis=2 must be from 0 to 1"),
        (0, [(2, 3), (2, 4)], r"operand 1 is f32\[2,4\], which does not fit behind operand 0"),
        (1, [(2, 3), (2, 3, 1)], "operand 1 is"),
        (1, [("N", 3), (4, 3)], "operand 1 is"),
        (0, [("N", 3), ("N", 3)], "is the open batch; bind N first"),
        (0, [(2, 3), ("N", 3)], "is the open batch; bind N first"),
    ],
)
def test_errors(axis, shapes, message) -> None:
    with pytest.raises(ShapeError, match=message):
        Concat(axis).infer(*(tensor("f32", s) for s in shapes))


def test_dtypes_must_be_equal() -> None:
    with pytest.raises(ShapeError, match="operand 1 is i32"):
        Concat(0).infer(tensor("f32", (2,)), tensor("i32", (2,)))
