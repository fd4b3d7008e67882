"""completed."""

from __future__ import annotations

import numpy as np
import pytest

import addergraph as ag
from addergraph.errors import ShapeError
from addergraph.ir import Graph
from addergraph.ir.interpreter import run_reference
from addergraph.ir.trace import trace
from addergraph.ir.types import tensor
from addergraph.ops import relu
from addergraph.ops.reduction.completed import Completed, completed


def told() -> Graph:
    return trace(lambda x: (relu(x), completed(relu(x), x)), tensor("f32", (2, 3)))


def test_it_is_one() -> None:
    x = np.zeros((2, 3), np.float32)
    (_, found), _ = run_reference(told(), [x], {})
    assert found == 1 and found.dtype == np.int32 and found.shape == ()


@pytest.mark.usefixtures("quick_objects")
@pytest.mark.parametrize("threads", [1, 3])
def test_native_code_writes_it_at_each_call(threads: int) -> None:
    program = ag.compile(told(), threads=threads)
    x, y, flag = np.ones((2, 3), np.float32), np.empty((2, 3), np.float32), np.zeros((), np.int32)
    for _ in range(3):
        flag[...] = 0
        program.run_into([x], (y, flag))
        assert flag == 1


def test_it_takes_any_operands_but_none() -> None:
    types = tensor("f32", ("N", 4)), tensor("u8", ()), tensor("bool", (0, 2))
    assert Completed().infer(*types) == (tensor("i32", ()),)
    assert not Completed().per_sample
    with pytest.raises(ShapeError, match="one operand or more"):
        Completed().infer()
