"""max_pool2d and its gradient against plain loops, with the values that compare oddly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir import Array
from addergraph.ir.intervals import Interval
from addergraph.ir.types import tensor
from addergraph.ops.reduction.max_pool2d import MaxPool2d, MaxPool2dGrad
from tests.addergraph.ops.naive import normal, taps

NAN, INF = math.nan, math.inf
CASES = [
    (MaxPool2d((2, 2), (2, 2)), (2, 4, 6, 3)),
    (MaxPool2d((3, 2), (1, 2), (1, 2, 0, 1)), (1, 5, 4, 2)),
    (MaxPool2d((3, 3), (2, 2), (2, 2, 2, 2)), (2, 1, 5, 1)),
    (MaxPool2d((1, 1), (3, 3)), (1, 4, 5, 2)),
    (MaxPool2d((2, 2), (2, 2)), (0, 4, 6, 3)),
    (MaxPool2d((2, 2), (2, 2)), (2, 4, 6, 0)),
]


def loops(op: MaxPool2d, x: Array, g: Array) -> tuple[Array, Array]:
    """(y, dx): the first maximum of each window in (i, j) order, NaN above everything."""
    y, dx = np.full(g.shape, -INF), np.zeros(x.shape)
    found = taps(x.shape[1:3], op.window, op.stride, op.padding)
    for n, h, w, k in np.ndindex(g.shape):
        read = [t for t in found if (t.h, t.w) == (h, w) and t.inside]
        keys = [INF if math.isnan(v := x[n, t.row, t.column, k]) else v for t in read]
        nans = [i for i, t in enumerate(read) if math.isnan(x[n, t.row, t.column, k])]
        best = read[nans[0] if nans else keys.index(max(keys))]
        y[n, h, w, k] = x[n, best.row, best.column, k]
        dx[n, best.row, best.column, k] += g[n, h, w, k]
    return y, dx


def same_bits(found: Array, expected: Array) -> None:
    np.testing.assert_array_equal(found, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[numbers], np.signbit(expected)[numbers])


@pytest.mark.parametrize("ordinary", [True, False])
@pytest.mark.parametrize(("op", "shape"), CASES)
def test_against_loops(op: MaxPool2d, shape: tuple[int, ...], ordinary: bool) -> None:
    odd = np.random.default_rng(1).choice([NAN, -INF, INF, -0.0, 0.0, 1.0], shape)
    x = normal(1, *shape) if ordinary else odd.astype(np.float32)
    (y_type,) = op.infer(tensor("f32", shape))
    g = normal(2, *y_type.sizes)
    y, dx = loops(op, x, g)
    (found,) = op.reference(x)
    assert found.dtype == np.float32
    assert found.shape == y_type.sizes
    same_bits(found, y)
    gradient = MaxPool2dGrad(op.window, op.stride, op.padding)
    assert gradient.infer(y_type, tensor("f32", shape)) == (tensor("f32", shape),)
    np.testing.assert_allclose(gradient.reference(g, x)[0], dx, atol=1e-6)


@pytest.mark.parametrize(
    ("window", "expected", "taker"),
    [
        ([NAN, 1.0, 2.0, 3.0], NAN, 0),
        ([1.0, 5.0, NAN, NAN], NAN, 2),
        ([INF, NAN, 0.0, 0.0], NAN, 1),
        ([-0.0, 0.0, -0.0, 0.0], -0.0, 0),
        ([0.0, -0.0, -1.0, -0.0], 0.0, 0),
        ([-1.0, -0.0, 0.0, -1.0], -0.0, 1),
        ([-INF, -INF, -INF, -INF], -INF, 0),
        ([2.0, 7.0, 7.0, 7.0], 7.0, 1),
    ],
)
def test_ties_signs_and_nan(window: list[float], expected: float, taker: int) -> None:
    x = np.array(window, np.float32).reshape(1, 2, 2, 1)
    padding = (1, 1, 1, 1)  # of a 4x4 window, which then sees padding on all sides
    for op in (MaxPool2d((2, 2), (1, 1)), MaxPool2d((4, 4), (1, 1), padding)):
        same_bits(op.reference(x)[0].ravel(), np.array([expected]))
        gradient = MaxPool2dGrad(op.window, op.stride, op.padding)
        (dx,) = gradient.reference(np.full((1, 1, 1, 1), 3, np.float32), x)
        assert dx.ravel().tolist() == [3.0 * (place == taker) for place in range(4)]


@pytest.mark.parametrize(
    ("op", "shapes", "message"),
    [
        (MaxPool2d((2, 2), (2, 2)), [(4, 4, 1)], "input must be NHWC"),
        (MaxPool2d((2, 2), (2, 2)), [(1, 4, 4, 1)] * 2, r"takes 1 operands \(x\), found 2"),
        (MaxPool2d((5, 2), (2, 2)), [(1, 4, 4, 1)], "spans 5 but the input height is 4"),
        (MaxPool2d((2, 2), (0, 2)), [(1, 4, 4, 1)], r"stride=\(0, 2\) must be at least 1"),
        (
            MaxPool2d((3, 2), (1, 1), (0, 0, 0, 2)),
            [(1, 4, 4, 1)],
            r"window of width 2 would lie wholly in the padding \(0, 2\)",
        ),
        (MaxPool2d((2, 2), (1, 1), (1, 1, 0, 0)), [(1, 0, 4, 1)], "input of height 0"),
        (
            MaxPool2dGrad((2, 2), (2, 2)),
            [(1, 3, 2, 1), (1, 4, 4, 1)],
            r"output gradient must be f32\[1,2,2,1\], found f32\[1,3,2,1\]",
        ),
    ],
)
def test_errors_say_what_was_found(op, shapes, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*(tensor("f32", s) for s in shapes))


def test_range_is_that_of_the_input() -> None:
    op = MaxPool2d((3, 3), (1, 1), (1, 1, 1, 1))
    operands = [tensor("f32", ("N", 4, 4, 1))]
    assert op.interval((Interval(-3.0, -1.0),), operands) == (Interval(-3.0, -1.0),)
