"""relu, relu6, leaky_relu."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir import Cost
from addergraph.ir.intervals import Interval
from addergraph.ir.types import tensor
from addergraph.ops.pointwise.relu import LeakyRelu, Relu, Relu6
from tests.addergraph.ops.properties import SPECIAL, bits, check_gradient, check_interval, run

OPS = [Relu(), Relu6(), LeakyRelu(), LeakyRelu(0.0), LeakyRelu(3.0)]
INF, NAN = np.inf, np.nan


def test_special_values() -> None:
    x = [0.0, -0.0, INF, -INF, NAN, -2.0, 6.0, 7.0]
    assert bits(run(Relu(), x)) == bits([0.0, 0.0, INF, 0.0, NAN, 0.0, 6.0, 7.0])
    assert bits(run(Relu6(), x)) == bits([0.0, 0.0, 6.0, 0.0, NAN, 0.0, 6.0, 6.0])
    assert bits(run(LeakyRelu(0.5), x)) == bits([0.0, -0.0, INF, -INF, NAN, -1.0, 6.0, 7.0])


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0)])
def test_scalars_and_empty(op, shape) -> None:
    assert run(op, np.ones(shape, "f4")).shape == shape


@pytest.mark.parametrize("op", OPS)
def test_gradients(op) -> None:
    x = np.array([[-2.0, 3.0], [5.5, 8.0]], "f4")
    check_gradient(op, x)
    check_gradient(op, x, open_batch=True)


@pytest.mark.parametrize("op", OPS)
def test_ranges_hold(op) -> None:
    check_interval(op, SPECIAL)
    check_interval(op, np.random.default_rng(0).normal(size=50).astype("f4") * 9)


@pytest.mark.parametrize(
    ("op", "x", "expected"),
    [
        (Relu6(), Interval(-3, 9), Interval(0, 6)),
        (Relu6(), Interval(1, 2), Interval(1, 2)),
        (LeakyRelu(0.5), Interval(-4, 3), Interval(-2, 3)),
        (LeakyRelu(0.5), Interval(-4, -2), Interval(-2, 0)),
        (LeakyRelu(2.0), Interval(1, 3), Interval(0, 3)),
    ],
)
def test_ranges(op, x, expected) -> None:
    assert op.interval([x], [tensor("f32", (2,))]) == (expected,)


def test_cost_and_errors() -> None:
    types = [tensor("f32", (2, 3))]
    assert LeakyRelu().cost(types) == Cost(multiplications=6)
    assert Relu6().cost(types) == Cost()
    for slope in (-0.1, INF, NAN, 1e39):
        with pytest.raises(ShapeError, match="slope=.* must be a number of f32, 0 or more"):
            LeakyRelu(slope).infer(*types)
    with pytest.raises(ShapeError, match="must be f32"):
        LeakyRelu().infer(tensor("i32", (2,)))
