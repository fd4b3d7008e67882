"""full and constant."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir.intervals import ANY, Interval
from addergraph.ir.trace import trace
from addergraph.ir.types import bool_, f32, i32, tensor, u8
from addergraph.ops.pointwise.full import Full, constant, full
from tests.addergraph.ops.properties import bits, run


def test_values() -> None:
    assert run(Full(0.1)).item() == np.float32(0.1)
    assert bits(run(Full(-0.0, (2,)))) == bits([-0.0, -0.0])
    assert run(Full(-(2.0**31), (1, 2), i32)).tolist() == [[-(2**31)] * 2]
    assert run(Full(1.0, (2,), bool_)).tolist() == [True, True]
    assert np.isnan(run(Full(float("nan")))).all()
    assert run(Full(1.0, (0, 3))).shape == (0, 3)


def test_bind_replaces_the_batch() -> None:
    op = Full(1.0, ("N", 2))
    assert op.infer() == (tensor("f32", ("N", 2)),)
    assert op.bind(3) == Full(1.0, (3, 2))
    with pytest.raises(ShapeError, match="bind N first"):
        op.reference()


def test_ranges() -> None:
    assert Full(0.1).interval([], []) == (Interval(*[float(np.float32(0.1))] * 2),)
    assert Full(float("nan")).interval([], []) == (ANY,)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Full(1e39), "value=1e\\+39 is too large for f32"),
        (Full(0.5, (), i32), "i32 cannot hold value=0.5: expected an integer in"),
        (Full(2.0**31, (), i32), "i32 cannot hold"),
        (Full(float("nan"), (), i32), "i32 cannot hold value=nan"),
        (Full(2.0, (), bool_), "bool cannot hold value=2.0"),
        (Full(1.0, (), u8), "the constant must be f32 or i32 or bool, found u8"),
        (Full(1.0, (2, "N")), "N may only be the leading dimension"),
        (Full(1.0, (-1,)), "is not a size"),
    ],
)
def test_errors(op, message) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer()


def test_no_operands() -> None:
    with pytest.raises(ShapeError, match="found 1"):
        Full(1.0).infer(tensor(f32, ()))


def test_functions() -> None:
    def f(x):
        return full(x, 3, (2,), "i32"), full(x, 1.5), constant(x, 7)

    graph = trace(f, tensor("i32", ("N",)))
    assert [str(v.type) for v in graph.outputs] == ["i32[2]", "f32[]", "i32[]"]
