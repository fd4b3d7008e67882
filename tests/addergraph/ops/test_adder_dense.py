"""adder_dense is adder2d with a 1x1 kernel on a 1x1 image."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir import Cost
from addergraph.ir.intervals import ANY, Interval
from addergraph.ir.types import tensor
from addergraph.ops.contraction.adder2d import Adder2d, Adder2dGradFilter, Adder2dGradInput
from addergraph.ops.contraction.adder_dense import (
    AdderDense,
    AdderDenseGradFilter,
    AdderDenseGradInput,
)
from tests.addergraph.ops.naive import normal

SIZES = [(2, 5, 3), (1, 1, 1), (0, 5, 3), (2, 0, 3), (2, 5, 0)]


@pytest.mark.parametrize(("n", "k", "t"), SIZES)
def test_equals_adder2d(n: int, k: int, t: int) -> None:
    x, f, bias, g = normal(1, n, k), normal(2, k, t), normal(3, t), normal(4, n, t)
    x4, f4, g4 = x[:, None, None], f[None, None], g[:, None, None]
    for operands in ([x, f], [x, f, bias]):
        (y,) = AdderDense().reference(*operands)
        (y4,) = Adder2d().reference(x4, f4, *operands[2:])
        np.testing.assert_array_equal(y, y4[:, 0, 0])
        assert y.dtype == np.float32
    (dx,) = AdderDenseGradInput().reference(g, x, f)
    np.testing.assert_array_equal(dx, Adder2dGradInput().reference(g4, x4, f4)[0][:, 0, 0])
    (df,) = AdderDenseGradFilter().reference(g, x, f)
    expected = Adder2dGradFilter().reference(g4, x4, f4)[0][0, 0]
    np.testing.assert_allclose(df, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "shapes", "message"),
    [
        (AdderDense(), [(2, 5)], r"takes 2 to 3 operands \(x, f, bias\), found 1"),
        (AdderDense(), [(2, 5, 1, 1), (5, 3)], "input must have rank 2, found .*; flatten it"),
        (AdderDense(), [(2, 5), (5,)], "filter must have rank 2"),
        (AdderDense(), [("N", 5), (4, 3)], "input has 5 columns but the filter has 4 rows"),
        (AdderDense(), [("N", 5), ("N", 3)], "filter .* has an open batch"),
        (AdderDense(), [("N", 5), (5, 3), (1, 3)], r"bias must be f32\[3\], found f32\[1,3\]"),
        (AdderDenseGradInput(), [(2, 4), (2, 5), (5, 3)], r"must be f32\[2,3\], found f32\[2,4\]"),
        (AdderDenseGradFilter(), [(2, 3), (2, 5)], r"takes 3 operands \(g, x, f\), found 2"),
    ],
)
def test_errors_say_what_was_found(op, shapes, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*(tensor("f32", s) for s in shapes))


def test_facts_for_passes() -> None:
    operands = [tensor("f32", (2, 5)), tensor("f32", (5, 3))]
    assert AdderDense().cost(operands) == Cost(additions=60)
    assert AdderDense().interval((ANY, ANY), operands) == (Interval(hi=0.0),)
    assert str(AdderDense().infer(tensor("f32", ("N", 5)), operands[1])[0]) == "f32[N,3]"
