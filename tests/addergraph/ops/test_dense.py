"""dense and matmul."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir import Cost
from addergraph.ir.intervals import ANY, Interval
from addergraph.ir.types import tensor
from addergraph.ops.contraction.dense import Dense, Matmul
from tests.addergraph.ops.naive import normal
from tests.addergraph.ops.properties import run


@pytest.mark.parametrize(("n", "k", "t"), [(2, 5, 3), (0, 5, 3), (2, 0, 3), (2, 5, 0)])
def test_forward(n: int, k: int, t: int) -> None:
    x, f, bias = normal(1, n, k), normal(2, k, t), normal(3, t)
    expected = np.zeros((n, t))
    for row, column, inner in np.ndindex(n, t, k):
        expected[row, column] += float(x[row, inner]) * float(f[inner, column])
    for op in (Dense(), Matmul()):
        (y,) = op.reference(x, f)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        Dense().reference(x, f, bias)[0], expected + bias, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    ("op", "shapes", "message"),
    [
        (Dense(), [(2, 5), (5, 3), (3,), (3,)], r"takes 2 to 3 operands .*, found 4"),
        (Dense(), [(2, 5, 1), (5, 3)], "input must have rank 2, found .*; flatten it first"),
        (Dense(), [("N", 5), (4, 3)], "input has 5 columns but the filter has 4 rows"),
        (Dense(), [("N", 5), (5, 3), (2,)], r"bias must be f32\[3\], found f32\[2\]"),
        (Matmul(), [(2, 5), (5, 3), (3,)], r"takes 2 operands \(a, b\), found 3"),
        (Matmul(), [(2, 5), (4, 3)], "left operand has 5 columns but the right operand has 4 rows"),
        (Matmul(), [(2, 5), ("N", 3)], "right operand .* has an open batch"),
    ],
)
def test_errors_say_what_was_found(op, shapes, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*(tensor("f32", s) for s in shapes))


def test_bytes_are_exact() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (4, 700)).astype(np.uint8)
    f = rng.integers(-128, 128, (700, 3)).astype(np.int8)
    bias = np.array([5, -(2**31), 2**31 - 1], np.int32)  # adding it wraps
    found = run(Dense(), x, f, bias)
    np.testing.assert_array_equal(found, (x.astype("i8") @ f.astype("i8") + bias).astype("i4"))


def test_dtypes_do_not_mix() -> None:
    x, f = tensor("u8", (2, 5)), tensor("i8", (5, 3))
    for op, operands, message in [
        (Dense(), (tensor("f32", (2, 5)), tensor("i32", (5, 3))), "f32 or i8, found i32"),
        (Dense(), (x, tensor("f32", (5, 3))), "filter must be i8, as the input is u8.*, found f32"),
        (Dense(), (x, f, tensor("f32", (3,))), r"bias must be i32\[3\], found f32"),
        (Matmul(), (x, f), "left operand must be f32, found u8"),
    ]:
        with pytest.raises(ShapeError, match=message):
            op.infer(*operands)


def test_facts_for_passes() -> None:
    operands = [tensor("f32", (2, 5)), tensor("f32", (5, 3))]
    assert Dense().cost(operands) == Cost(additions=30, multiplications=30)
    positive = Interval(0.0, 2.0)
    (y,) = Dense().interval((positive, positive), operands)
    assert y.lo == 0.0
    assert 20.0 <= y.hi < 20.001
    assert Matmul().interval((ANY, positive), operands) == (ANY,)
    empty = [tensor("f32", (2, 0)), tensor("f32", (0, 3))]
    assert Dense().interval((ANY, ANY, positive), empty) == (positive,)
