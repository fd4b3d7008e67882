"""pad."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir.intervals import Interval
from addergraph.ir.types import DTYPES, tensor
from addergraph.ops.movement.pad import Pad
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import bits, check_gradient, run


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_values(dtype) -> None:
    x = (normal(1, 2, 3) > 0).astype(dtype.numpy)
    expected = np.pad(x, ((1, 0), (2, 3)), constant_values=1)
    assert run(Pad((1, 2), (0, 3), 1.0), x).tolist() == expected.tolist()


def test_edge_cases() -> None:
    assert run(Pad((), ()), np.array(2.0, "f4")).item() == 2.0
    assert bits(run(Pad((1,), (1,), -0.0), np.zeros(0, "f4"))) == bits([-0.0, -0.0])
    assert run(Pad((0, 1), (0, 0)), np.zeros((0, 2), "f4")).shape == (0, 3)


def test_gradients() -> None:
    check_gradient(Pad((1, 2), (0, 3)), normal(1, 2, 2))
    check_gradient(Pad((0, 1), (0, 2), 5.0), normal(1, 2, 3), open_batch=True)


def test_ranges() -> None:
    x = [tensor("f32", (2,))]
    assert Pad((1,), (0,), -3.0).interval([Interval(1, 2)], x) == (Interval(-3, 2),)
    assert Pad((0,), (0,), -3.0).interval([Interval(1, 2)], x) == (Interval(1, 2),)


@pytest.mark.parametrize(
    ("op", "type", "message"),
    [
        (Pad((1,), (1, 1)), tensor("f32", (2, 2)), r"before=\(1,\) must be 2 counts"),
        (Pad((1, 1), (1, -1)), tensor("f32", (2, 2)), r"after=\(1, -1\) must be 2 counts"),
        (Pad((1, 0), (0, 0)), tensor("f32", ("N", 2)), "open and cannot be padded; bind N first"),
        (Pad((1,), (1,), 300.0), tensor("u8", (2,)), "u8 cannot hold value=300.0"),
    ],
)
def test_errors(op, type, message) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(type)


def test_open_batch() -> None:
    assert Pad((0, 1), (0, 2)).infer(tensor("f32", ("N", 2))) == (tensor("f32", ("N", 5)),)
