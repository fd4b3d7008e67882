"""transpose."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir.types import DTYPES, tensor
from addergraph.ops.movement.transpose import Transpose
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import check_gradient, run


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_values(dtype) -> None:
    x = np.arange(24).reshape(2, 3, 4).astype(dtype.numpy)
    for order in itertools.permutations(range(3)):
        found = run(Transpose(order), x)
        assert found.tolist() == x.transpose(order).tolist()
        assert found.flags.c_contiguous


def test_scalars_and_empty() -> None:
    assert run(Transpose(()), np.array(2.0, "f4")).shape == ()
    assert run(Transpose((1, 0)), np.zeros((0, 3), "f4")).shape == (3, 0)


def test_gradients() -> None:
    check_gradient(Transpose((2, 0, 1)), normal(1, 2, 3, 2))
    check_gradient(Transpose((0, 2, 1)), normal(1, 2, 3, 2), open_batch=True)


def test_errors() -> None:
    for permutation in ((0,), (0, 0), (0, 2), (-1, 0)):
        with pytest.raises(ShapeError, match=r"must name each of the axes 0 to 1 of f32"):
            Transpose(permutation).infer(tensor("f32", (2, 3)))
    with pytest.raises(ShapeError, match="moves the open batch axis of .*; bind N first"):
        Transpose((1, 0)).infer(tensor("f32", ("N", 3)))
