"""avg_pool2d and its gradient against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir.intervals import Interval
from addergraph.ir.types import tensor
from addergraph.ops.reduction.avg_pool2d import AvgPool2d, AvgPool2dGrad
from tests.addergraph.ops.naive import normal, taps

CASES = [
    (AvgPool2d((2, 2), (2, 2)), (2, 4, 6, 3)),
    (AvgPool2d((3, 2), (1, 2), (1, 2, 0, 1)), (1, 5, 4, 2)),
    (AvgPool2d((2, 2), (2, 2), (3, 3, 3, 3)), (2, 1, 5, 1)),
    (AvgPool2d((2, 2), (1, 1), (2, 2, 2, 2)), (2, 0, 1, 1)),
    (AvgPool2d((1, 1), (3, 3)), (1, 4, 5, 2)),
    (AvgPool2d((2, 2), (2, 2)), (0, 4, 6, 3)),
    (AvgPool2d((2, 2), (2, 2)), (2, 4, 6, 0)),
]


@pytest.mark.parametrize(("op", "shape"), CASES)
def test_against_loops(op: AvgPool2d, shape: tuple[int, int, int, int]) -> None:
    x, x_type = normal(1, *shape), tensor("f32", shape)
    (y_type,) = op.infer(x_type)
    g = normal(2, *y_type.sizes)
    y, dx, area = np.zeros(g.shape), np.zeros(shape), op.window[0] * op.window[1]
    for t in taps(shape[1:3], op.window, op.stride, op.padding):
        if t.inside:
            y[:, t.h, t.w] += x[:, t.row, t.column] / area
            dx[:, t.row, t.column] += g[:, t.h, t.w] / area
    (found,) = op.reference(x)
    assert found.dtype == np.float32
    assert found.shape == y_type.sizes
    np.testing.assert_allclose(found, y, rtol=1e-6, atol=1e-7)
    gradient = AvgPool2dGrad(op.window, op.stride, op.padding, input_size=shape[1:3])
    assert gradient.infer(y_type) == (x_type,)
    np.testing.assert_allclose(gradient.reference(g)[0], dx, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("op", "shapes", "message"),
    [
        (AvgPool2d((2, 2), (2, 2)), [(4, 4, 1)], "input must be NHWC"),
        (AvgPool2d((2, 2), (2, 2)), [], r"takes 1 operands \(x\), found 0"),
        (AvgPool2d((2, 7), (2, 2)), [(1, 4, 4, 1)], "spans 7 but the input width is 4"),
        (AvgPool2d((2, 2), (2, -2)), [(1, 4, 4, 1)], r"stride=\(2, -2\) must be at least 1"),
        (
            AvgPool2dGrad((2, 2), (2, 2), input_size=(4, 6)),
            [(1, 2, 2, 1)],
            r"output gradient must be f32\[1,2,3,1\], found f32\[1,2,2,1\]",
        ),
    ],
)
def test_errors_say_what_was_found(op, shapes, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*(tensor("f32", s) for s in shapes))


def test_padding_widens_the_range_to_zero() -> None:
    operands, positive = [tensor("f32", ("N", 4, 4, 1))], Interval(1.0, 2.0)
    (inner,) = AvgPool2d((2, 2), (2, 2)).interval((positive,), operands)
    assert inner.lo == pytest.approx(1.0)
    assert inner.hi == pytest.approx(2.0)
    assert inner.lo < 1.0 < 2.0 < inner.hi
    (outer,) = AvgPool2d((2, 2), (2, 2), (1, 1, 1, 1)).interval((positive,), operands)
    assert outer.lo == 0.0
