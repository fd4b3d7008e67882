"""clip."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir.intervals import ANY, Interval
from addergraph.ir.types import tensor
from addergraph.ops.pointwise.clip import Clip
from tests.addergraph.ops.properties import SPECIAL, bits, check_gradient, gradients, run

INF = float("inf")


def test_values() -> None:
    x = [-2.0, -1.0, -0.0, 0.5, 1.0, 7.0, INF, -INF, np.nan]
    expected = [-1.0, -1.0, -0.0, 0.5, 1.0, 1.0, 1.0, -1.0, np.nan]
    assert bits(run(Clip(-1.0, 1.0), x)) == bits(expected)
    assert bits(run(Clip(-INF, INF), SPECIAL)) == bits(SPECIAL)
    assert bits(run(Clip(0.0, 1.0), [-0.0])) == bits([-0.0])
    assert run(Clip(0.0, 1.0), np.array(3.0, "f4")).item() == 1.0
    assert run(Clip(0.0, 1.0), np.zeros((0, 2), "f4")).shape == (0, 2)


def test_gradient() -> None:
    x = np.array([[-3.0, -0.5, 0.25], [0.75, 1.5, 9.0]], "f4")
    check_gradient(Clip(-1.0, 1.0), x, open_batch=True)
    (dx,) = gradients(Clip(-1.0, 1.0), np.array([-1.0, 1.0, 1.5], "f4"))
    assert dx is not None and dx.tolist() == [1.0, 1.5, 0.0]


def test_range_holds_the_rounded_ends() -> None:
    (found,) = Clip(-0.1, 0.1).interval([ANY], [tensor("f32", (1,))])
    assert found == Interval(float(np.float32(-0.1)), float(np.float32(0.1)))
    assert found.hi >= run(Clip(-0.1, 0.1), [5.0])[0]
    assert Clip(0.0, 6.0).interval([Interval(-1, 2)], []) == (Interval(0, 2),)


def test_errors() -> None:
    x = tensor("f32", (1,))
    with pytest.raises(ShapeError, match=r"lo=2.0 must not exceed hi=1.0"):
        Clip(2.0, 1.0).infer(x)
    with pytest.raises(ShapeError, match=r"nor may one be NaN"):
        Clip(float("nan"), 1.0).infer(x)
    with pytest.raises(ShapeError, match=r"x must be f32, found i32"):
        Clip(0.0, 1.0).infer(tensor("i32", (1,)))
