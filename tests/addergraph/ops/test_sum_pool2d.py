"""sum_pool2d against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir.intervals import ANY, Interval
from addergraph.ir.quantization import Quantization
from addergraph.ir.trace import trace
from addergraph.ir.types import tensor
from addergraph.ops.reduction.avg_pool2d import AvgPool2d
from addergraph.ops.reduction.sum_pool2d import SumPool2d, sum_pool2d
from tests.addergraph.ops.properties import run

SHAPED = ((3, 2), (1, 2), (1, 2, 0, 1))


def test_it_is_the_mean_times_the_area() -> None:
    x = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3)).astype(np.uint8)
    found = run(SumPool2d(*SHAPED), x)
    (means,) = AvgPool2d(*SHAPED).reference(x.astype("f4"))
    assert found.dtype == np.int32
    np.testing.assert_allclose(found, 6 * means, rtol=1e-6)
    whole = run(SumPool2d((5, 6), (1, 1)), x)
    np.testing.assert_array_equal(whole[:, 0, 0], x.sum((1, 2)))


def test_ranges_and_what_it_stands_for() -> None:
    operands = [tensor("u8", (1, 5, 6, 3))]
    assert SumPool2d((2, 2), (2, 2)).interval([ANY], operands) == (Interval(0, 1020),)
    assert SumPool2d((2, 2), (2, 2)).interval([Interval(5, 9)], operands) == (Interval(20, 36),)
    assert SumPool2d(*SHAPED).interval([Interval(5, 9)], operands) == (Interval(0, 54),)
    known = SumPool2d((2, 2), (2, 2)).quantization([Quantization(0.5, 3)])
    assert known == (Quantization(0.5, 12),)
    assert SumPool2d(*SHAPED).quantization([None]) == (None,)
    with pytest.raises(ShapeError, match="whose value is not 0.0"):
        SumPool2d(*SHAPED).quantization([Quantization(0.5, 3)])


def test_refusals() -> None:
    with pytest.raises(ShapeError, match="input must be u8, found f32"):
        SumPool2d((2, 2), (2, 2)).infer(tensor("f32", (1, 4, 4, 1)))
    with pytest.raises(ShapeError, match=r"sums 9,000,000 bytes, at most 2,295,000,000, .* i32"):
        SumPool2d((3000, 3000), (1, 1)).infer(tensor("u8", (1, 3000, 3000, 1)))
    graph = trace(lambda x: sum_pool2d(x, 2, name="sums"), tensor("u8", ("N", 4, 4, 1)))
    assert graph.outputs[0].type == tensor("i32", ("N", 2, 2, 1))
