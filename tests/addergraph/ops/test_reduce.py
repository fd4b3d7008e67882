"""reduce_sum, reduce_mean, reduce_max."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.errors import ShapeError
from addergraph.ir import Cost
from addergraph.ir.intervals import NONNEGATIVE, Interval
from addergraph.ir.trace import trace
from addergraph.ir.types import tensor
from addergraph.ops.reduction.reduce import (
    ReduceMax,
    ReduceMean,
    ReduceSum,
    reduce_max,
    reduce_mean,
    reduce_sum,
)
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import bits, check_gradient, check_interval, gradients, run

FAMILIES = [(ReduceSum, np.sum), (ReduceMean, np.mean), (ReduceMax, np.max)]
AXES = [(), (0,), (1,), (0, 2), (0, 1, 2)]
X = normal(1, 2, 3, 4)


@pytest.mark.parametrize(("family", "of_numpy"), FAMILIES)
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_values(family, of_numpy, axes, keepdims) -> None:
    expected = of_numpy(X.astype("f8"), axis=axes, keepdims=keepdims)
    np.testing.assert_allclose(run(family(axes, keepdims), X), expected, rtol=1e-6)


def test_scalars_and_empty() -> None:
    empty = np.zeros((2, 0), "f4")
    assert bits(run(ReduceSum((1,)), empty)) == bits([0.0, 0.0])
    assert np.isnan(run(ReduceMean((1,)), empty)).all()
    assert run(ReduceSum((0,)), empty).shape == (0,)
    assert run(ReduceMax((0,)), empty).shape == (0,)
    assert run(ReduceMean((1,)), np.zeros((0, 3), "f4")).shape == (0,)
    for family, _ in FAMILIES:
        assert run(family(()), np.array(3.0, "f4")).item() == 3.0


def test_zeros_and_special_values() -> None:
    inf, nan = np.inf, np.nan
    x = [[-0.0, -0.0], [0.0, -0.0], [inf, -inf], [1.0, nan], [3e38, 3e38], [-inf, -inf]]
    assert bits(run(ReduceSum((1,)), x)) == bits([0.0, 0.0, nan, nan, inf, -inf])
    assert bits(run(ReduceMean((1,)), x)) == bits([0.0, 0.0, nan, nan, 3e38, -inf])
    assert bits(run(ReduceMax((1,)), x)) == bits([0.0, 0.0, inf, nan, 3e38, -inf])


def test_the_reference_sums_in_float64() -> None:
    x = np.array([1.0, *[2.0**-24] * 4], "f4")
    assert run(ReduceSum((0,)), x).item() == np.float32(1 + 2.0**-22)


@pytest.mark.parametrize(("family", "_"), FAMILIES)
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("open_batch", [False, True])
def test_gradients(family, _, axes, keepdims, open_batch) -> None:
    check_gradient(family(axes, keepdims), X, open_batch=open_batch)


def test_the_largest_share_the_gradient() -> None:
    (dx,) = gradients(ReduceMax((1,)), np.array([[2.0, 1.0, 2.0], [0.0, -0.0, -1.0]], "f4"))
    assert dx is not None and dx.tolist() == [[0.5, 0.0, 0.5], [0.75, 0.75, 0.0]]


@pytest.mark.parametrize(("family", "_"), FAMILIES)
@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=9))
def test_ranges_hold(family, _, values) -> None:
    x = np.array(values, "f4")
    if not np.isnan(run(family((0,)), x)):
        check_interval(family((0,)), x)


def test_ranges() -> None:
    x, n = tensor("f32", (2, 4)), tensor("f32", ("N", 4))
    (total,) = ReduceSum((1,)).interval([Interval(-1, 2)], [x])
    assert total.lo == pytest.approx(-4) and total.hi == pytest.approx(8)
    (mean,) = ReduceMean((1,)).interval([Interval(0, 2)], [x])
    assert mean.lo == 0 and mean.hi == pytest.approx(2)
    assert ReduceSum((0,)).interval([Interval(1, 2)], [n]) == (NONNEGATIVE,)
    assert ReduceMean((0,)).interval([Interval(-2, 0)], [n]) == (Interval(hi=0.0),)
    assert ReduceMax((0,)).interval([Interval(-2, 7)], [n]) == (Interval(-2, 7),)


def test_open_batch() -> None:
    x = tensor("f32", ("N", 4, 5))
    assert ReduceSum((1,)).infer(x) == (tensor("f32", ("N", 5)),)
    assert ReduceSum((0, 2)).infer(x) == (tensor("f32", (4,)),)
    assert ReduceSum((0, 2), True).infer(x) == (tensor("f32", (1, 4, 1)),)
    assert ReduceSum((1,)).per_sample and not ReduceMean((0, 1)).per_sample


def test_functions_normalise_axes() -> None:
    def f(x):
        return reduce_sum(x, -1), reduce_mean(x, (-1, 0), keepdims=True), reduce_max(x)

    graph = trace(f, tensor("f32", ("N", 4)))
    assert [n.op for n in graph.nodes] == [
        ReduceSum((1,)),
        ReduceMean((0, 1), True),
        ReduceMax((0, 1)),
    ]
    for axes, message in ((2, "axis=2 is not an axis"), ((0, -2), "names an axis of .* twice")):
        with pytest.raises(ShapeError, match=message):
            trace(lambda x, axes=axes: reduce_sum(x, axes), tensor("f32", ("N", 4)))


def test_cost() -> None:
    assert ReduceSum((1,)).cost([tensor("f32", (2, 4))]) == Cost(additions=8)
    assert ReduceMean((1,)).cost([tensor("f32", (2, 4))]) == Cost(8, 2)


@pytest.mark.parametrize("axes", [(1, 0), (0, 0), (2,), (-1,)])
def test_axes_must_be_canonical(axes) -> None:
    with pytest.raises(ShapeError, match=r"must be ascending, each once, and from 0 to 1"):
        ReduceSum(axes).infer(tensor("f32", (2, 3)))


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"axis 1 of f32\[2,0\] is empty"):
        ReduceMax((1,)).infer(tensor("f32", (2, 0)))
    with pytest.raises(ShapeError, match=r"x must be f32 or i32, found u8"):
        ReduceSum((0,)).infer(tensor("u8", (2,)))
    with pytest.raises(ShapeError, match=r"x must be f32, found i32"):
        ReduceMean((0,)).infer(tensor("i32", (2,)))


def test_integers_sum_modulo_two_to_the_32() -> None:
    x = np.array([[2**31 - 1, 1, 5], [-7, 3, 4], [-(2**31), -1, 0]], np.int32)
    op = ReduceSum((1,), True)
    y = run(op, x)
    assert y.dtype == np.int32 and y.tolist() == [[5 - 2**31], [0], [2**31 - 1]]
    assert op.rounding([x], [y]) == (0.0,)
    type = tensor("i32", (3, 3))
    assert op.infer(type) == (tensor("i32", (3, 1)),)
    (few,), (many,) = (op.interval([Interval(-end, 0)], [type]) for end in (1e6, 1e9))
    assert few.lo == pytest.approx(-3e6) and few.hi == 0
    assert many == Interval(-(2**31), 2**31 - 1)
