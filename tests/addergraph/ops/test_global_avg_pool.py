"""global_avg_pool."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir import Cost
from addergraph.ir.intervals import Interval
from addergraph.ir.types import tensor
from addergraph.ops.reduction.global_avg_pool import GlobalAvgPool
from tests.addergraph.ops.naive import normal


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 1), (0, 2, 2, 3), (2, 2, 2, 0)])
def test_forward(shape: tuple[int, ...]) -> None:
    x = normal(1, *shape)
    (y,) = GlobalAvgPool().reference(x)
    assert y.dtype == np.float32
    assert y.shape == (shape[0], shape[3])
    for n, k in np.ndindex(y.shape):
        assert y[n, k] == pytest.approx(sum(map(float, x[n, :, :, k].ravel())) / x[n, :, :, k].size)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 3, 4), "NHWC"), (("N", 3, 0, 4), r"f32\[N,3,0,4\] has no pixels")],
)
def test_errors_say_what_was_found(shape, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        GlobalAvgPool().infer(tensor("f32", shape))


def test_facts_for_passes() -> None:
    op, x = GlobalAvgPool(), tensor("f32", ("N", 3, 5, 4))
    assert op.infer(x) == (tensor("f32", ("N", 4)),)
    assert op.interval((Interval(0.0, 0.0),), [x]) == (Interval(0.0, 0.0),)
    assert op.interval((Interval(-1.0, 0.0),), [x])[0].hi == 0.0
    assert op.cost([x.bind(2)]) == Cost(additions=2 * 14 * 4, multiplications=8)
