"""fake_quantize, fake_quantize_filter."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir.quantization import symmetric
from addergraph.ir.types import tensor
from addergraph.ops.pointwise.fake_quantize import FakeQuantize, FakeQuantizeFilter
from tests.addergraph.ops.properties import SPECIAL, bits, check_interval, gradients, run

INF = float("inf")


def test_values() -> None:
    x = [-9.0, -0.5, -0.125, -0.0, 0.1, 0.125, 0.375, 1.9, INF, -INF, np.nan]
    expected = [-0.5, -0.5, 0.0, 0.0, 0.0, 0.0, 0.5, 1.25, 1.25, -0.5, np.nan]
    assert bits(run(FakeQuantize(0.25, 2, bits=3), x)) == bits(expected)  # ties to even
    kept = [-9.0, -0.5, 0.0, 0.0, 0.0, 0.0, 0.5, 1.9, INF, -INF, np.nan]
    assert bits(run(FakeQuantize(0.25, 2, bits=3, saturate=False), x)) == bits(kept)


@pytest.mark.parametrize("saturate", [True, False])
def test_values_are_those_of_the_integers(saturate: bool) -> None:
    """On ties of every scale, and beside them, where f32 quotients would round the other way."""
    rng = np.random.default_rng(0)
    for scale in rng.lognormal(-3, 2, 40):
        op = FakeQuantize(float(scale), 3, 5, saturate)
        ties = (scale * np.arange(-9, 35.5, 0.5)).astype(np.float32)
        x = np.concatenate([ties, np.nextafter(ties, np.float32(9)), np.nextafter(ties, -ties)])
        integers = op.known.quantized(x, 0, op.top)
        expected = op.known.values(integers).astype(np.float32)
        steps = x.astype("f8") / scale
        outside = (steps < -3) | (steps > op.top - 3)
        same = ~outside if not saturate else np.ones(len(x), bool)
        np.testing.assert_array_equal(run(op, x)[same], expected[same])
        if not saturate:
            np.testing.assert_array_equal(run(op, x)[outside], x[outside])


def test_distances_beyond_the_range_are_kept() -> None:
    """|x - f| = |x - end| + |end - f| for x in the range: what bytes and a constant have."""
    op = FakeQuantize(0.125, 2, bits=4, saturate=False)
    f = np.random.default_rng(1).normal(scale=2, size=500).astype(np.float32)
    x = op.known.values(np.arange(16))[:, None]
    low, high = x.min(), x.max()
    held = np.clip(f, low, high)
    integers = op.known.quantized(f, 0, op.top)
    expected = np.abs(x - op.known.values(integers)) + np.abs(f - held)
    np.testing.assert_allclose(np.abs(x - run(op, f)), expected, atol=1e-6)


def test_gradient_is_straight_through() -> None:
    op = FakeQuantize(0.25, 2, bits=3)  # [-0.5, 1.25]
    x = np.array([-0.75, -0.5, 0.1, 1.2, 1.25, 1.26, 7.0], np.float32)
    (dx,) = gradients(op, x)
    (g,) = gradients(FakeQuantize(0.25, 2, bits=3, saturate=False), x)
    assert dx is not None and g is not None
    inside = np.array([False, True, True, True, True, False, False])
    assert np.all(g != 0)
    np.testing.assert_array_equal(dx, np.where(inside, g, 0))


@pytest.mark.parametrize("saturate", [True, False])
def test_range(saturate: bool) -> None:
    for scale, zero in ((0.1, 0), (0.3, 5), (1e-3, 7)):
        op = FakeQuantize(scale, zero, 3, saturate)
        check_interval(op, np.linspace(-0.34, 0.77, 100, dtype=np.float32))
        check_interval(op, SPECIAL)


def test_errors() -> None:
    x = tensor("f32", (2,))
    for bits_, shown in ((1, "1"), (9, "9"), (True, "True"), (4.0, "4.0")):
        with pytest.raises(ShapeError, match=f"bits={shown} must be an integer from 2 to 8"):
            FakeQuantize(1.0, bits=bits_).infer(x)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"zero_point=16 must be in \[0, 15\]"):
        FakeQuantize(1.0, 16, 4).infer(x)
    with pytest.raises(ShapeError, match="scale=0.0 must be positive"):
        FakeQuantize(0.0).infer(x)
    with pytest.raises(ShapeError, match="x must be f32, found i32"):
        FakeQuantize(1.0).infer(tensor("i32", (2,)))
    with pytest.raises(ShapeError, match="bits=9 must be an integer from 2 to 8"):
        FakeQuantizeFilter(9).infer(tensor("f32", (2, 2)))
    with pytest.raises(ShapeError, match="f must have rank 2 or more .* found f32"):
        FakeQuantizeFilter().infer(x)
    with pytest.raises(ShapeError, match="f must be f32, found i8"):
        FakeQuantizeFilter().infer(tensor("i8", (2, 2)))


# --- filters of products --------------------------------------------------------------------------


def test_values_of_filters() -> None:
    """Each channel on its own grid: [-3, 3] steps at 3 bits, ties to even."""
    f = [[3.0, 30.0, 0.0, np.nan, 1e-45], [0.5, -5.0, -0.0, 1.0, 0.0], [-1.5, 15.1, 0.0, INF, 0.0]]
    expected = [[3.0, 30.0, 0.0, np.nan, 1e-45], [0.0, 0.0, 0.0, np.nan, 0.0],
                [-2.0, 20.0, 0.0, np.nan, 0.0]]  # fmt: skip
    assert bits(run(FakeQuantizeFilter(3), f)) == bits(expected)
    assert bits(run(FakeQuantizeFilter(3), [[INF, 1.0], [1.0, 1.0]])[:, 0]) == bits([np.nan] * 2)
    assert run(FakeQuantizeFilter(), np.zeros((0, 4), "f4")).shape == (0, 4)


@pytest.mark.parametrize("width", [2, 4, 8])
def test_values_of_filters_are_those_of_the_integers(width: int) -> None:
    """Also at ties, where f32 quotients would round the other way; twice is once."""
    rng = np.random.default_rng(0)
    f = rng.normal(size=(3, 3, 5, 40)).astype(np.float32) * rng.lognormal(-3, 4, 40).astype("f4")
    op = FakeQuantizeFilter(width)
    most = np.abs(f).max((0, 1, 2))
    f[0, 0, 0] = most
    f[0, 0, 1] = most.astype("f8") / op.end * (rng.integers(-op.end, op.end, 40) + 0.5)
    integers, scale = symmetric(f, width)
    assert np.abs(integers).max((0, 1, 2)).tolist() == [op.end] * 40
    np.testing.assert_array_equal(run(op, f), (scale * integers).astype(np.float32))
    np.testing.assert_array_equal(run(op, f)[0, 0, 0], most)
    assert (np.abs(run(op, f) - f) < 0.5001 * scale).all()
    np.testing.assert_array_equal(run(op, run(op, f)), run(op, f))


def test_gradient_of_filters_is_straight_through() -> None:
    f = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    (df,) = gradients(FakeQuantizeFilter(2), f)
    np.testing.assert_array_equal(df, (1 + 0.5 * np.arange(12, dtype=np.float32)).reshape(4, 3))


def test_range_of_filters() -> None:
    f = np.linspace(-0.34, 0.77, 100, dtype=np.float32).reshape(-1, 2)
    for operand in (f, np.abs(f), -np.abs(f), 0 * f, 3e38 * f, SPECIAL[:9].reshape(-1, 3)):
        check_interval(FakeQuantizeFilter(3), operand)
