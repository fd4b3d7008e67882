"""broadcast_to."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir.types import DTYPES, tensor
from addergraph.ops.movement.broadcast_to import BroadcastTo
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import check_gradient, run

SHAPES = [((3,), (2, 3)), ((2, 1), (2, 3)), ((), (2, 3)), ((1, 3), (2, 3)), ((2, 3), (2, 3))]


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize(("shape", "target"), SHAPES)
def test_values(dtype, shape, target) -> None:
    x = (normal(1, *shape) > 0).astype(dtype.numpy)
    found = run(BroadcastTo(target), x)
    assert found.tolist() == np.broadcast_to(x, target).tolist()
    assert found.flags.writeable


def test_empty() -> None:
    assert run(BroadcastTo((0, 3)), np.zeros((1, 3), "f4")).shape == (0, 3)
    assert run(BroadcastTo((2, 0)), np.zeros((0,), "f4")).shape == (2, 0)


@pytest.mark.parametrize(("shape", "target"), SHAPES)
def test_gradients(shape, target) -> None:
    check_gradient(BroadcastTo(target), normal(1, *shape))


def test_open_batch() -> None:
    op = BroadcastTo(("N", 3))
    assert op.infer(tensor("f32", (3,))) == (tensor("f32", ("N", 3)),)
    assert op.infer(tensor("f32", ("N", 1))) == (tensor("f32", ("N", 3)),)
    assert op.bind(4) == BroadcastTo((4, 3))


@pytest.mark.parametrize(
    ("shape", "target", "message"),
    [
        ((2, 3), (2, 4), "do not broadcast"),
        ((2, 3), (3,), r"f32\[2,3\] does not broadcast to f32\[3\]: only axes of size 1 stretch"),
        ((2, 3), (1, 3), "does not broadcast"),
        (("N", 3), (4, 3), "do not broadcast"),
        (("N", 3), (1, 3), "does not broadcast"),
    ],
)
def test_errors(shape, target, message) -> None:
    with pytest.raises(ShapeError, match=message):
        BroadcastTo(target).infer(tensor("f32", shape))
