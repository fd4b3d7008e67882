"""batch_norm and batch_norm_statistics."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.errors import ShapeError
from addergraph.ir import Array, Builder
from addergraph.ir.interpreter import interpret
from addergraph.ir.intervals import ANY, NONNEGATIVE, Interval
from addergraph.ir.trace import Tensor
from addergraph.ir.types import tensor
from addergraph.ops.pointwise.batch_norm import (
    BatchNorm,
    BatchNormStatistics,
    batch_norm,
    batch_norm_statistics,
)
from tests.addergraph.ops.naive import normal


def test_statistics_survive_a_mean_a_thousand_times_the_spread() -> None:
    x = (normal(1, 64, 3, 3, 2) + np.array([4096, -4096])).astype(np.float32)
    mean, variance = BatchNormStatistics().reference(x)
    x64 = x.astype(np.float64)
    np.testing.assert_allclose(mean, x64.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, x64.var((0, 1, 2)), rtol=1e-6)
    assert mean.dtype == variance.dtype == np.float32


def test_normalized_batch_has_mean_beta_and_deviation_gamma() -> None:
    x, gamma, beta = normal(1, 32, 5, 3) * 7 + 2, normal(2, 3), normal(3, 3)
    x = x.astype(np.float32)
    mean, variance = BatchNormStatistics().reference(x)
    (y,) = BatchNorm(1e-12).reference(x, mean, variance, gamma, beta)
    np.testing.assert_allclose(y.mean((0, 1)), beta, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1)), np.abs(gamma), atol=1e-5)


def test_epsilon_is_under_the_root() -> None:
    one = np.ones(1, np.float32)
    (y,) = BatchNorm(3.0).reference(np.full((1, 1), 5, np.float32), one, one, one, one)
    assert y.item() == (5 - 1) / 2 + 1


def test_empty() -> None:
    c = normal(1, 3)
    assert BatchNorm().reference(normal(1, 0, 3), c, c, c, c)[0].shape == (0, 3)
    mean, variance = BatchNormStatistics().reference(normal(1, 4, 0))
    assert mean.shape == variance.shape == (0,)


def through_batch(x: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    """Normalization by the batch's own statistics, in float64."""
    centred = x - x.mean(0)
    return np.asarray(centred / np.sqrt(np.square(centred).mean(0) + epsilon) * gamma + beta)


def test_chained_gradients_are_those_of_normalization_by_batch_statistics() -> None:
    x, gamma, beta, g = normal(1, 6, 3), normal(2, 3), normal(3, 3), normal(4, 6, 3)
    builder = Builder("chained")
    symbols = [
        Tensor(builder, builder.input(n, tensor("f32", a.shape)))
        for n, a in (("x", x), ("gamma", gamma), ("beta", beta), ("g", g))
    ]
    sx, sgamma, sbeta, sg = symbols
    mean, variance = batch_norm_statistics(sx)
    y = batch_norm(sx, mean, variance, sgamma, sbeta, epsilon=0.01)
    operands = (sx, mean, variance, sgamma, sbeta)
    direct, dmean, dvariance, _, _ = BatchNorm(0.01).grad(operands, (y,), (sg,))
    (through,) = BatchNormStatistics().grad((sx,), (mean, variance), (dmean, dvariance))
    assert direct is not None
    assert through is not None
    found = interpret(builder.finish([(direct + through).value]), x, gamma, beta, g)
    expected, x64 = np.zeros((6, 3)), x.astype(np.float64)
    for at in np.ndindex(6, 3):
        step = np.zeros((6, 3))
        step[at] = 1e-5
        rise = through_batch(x64 + step, gamma, beta, 0.01)
        rise -= through_batch(x64 - step, gamma, beta, 0.01)
        expected[at] = np.vdot(g, rise) / 2e-5
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gradient_of_statistics_needs_a_bound_batch() -> None:
    builder = Builder("open")
    x = Tensor(builder, builder.input("x", tensor("f32", ("N", 3))))
    mean, variance = batch_norm_statistics(x)
    with pytest.raises(ShapeError, match="bind N first"):
        BatchNormStatistics().grad((x,), (mean, variance), (mean, variance))


@pytest.mark.parametrize(
    ("op", "shapes", "message"),
    [
        (BatchNorm(), [(2, 3)] + [(3,)] * 3, "takes 5 operands .*, found 4"),
        (BatchNorm(), [(3,)] * 5, r"input must have rank 2 or more .*, found f32\[3\]"),
        (BatchNorm(), [(2, 3), (3,), (2,), (3,), (3,)], r"variance must be f32\[3\] .* f32\[2\]"),
        (BatchNorm(0.0), [(2, 3)] + [(3,)] * 4, "epsilon=0.0 must be positive"),
        (BatchNorm(float("nan")), [(2, 3)] + [(3,)] * 4, "epsilon=nan must be positive"),
        (BatchNormStatistics(), [(3,)], "rank 2 or more"),
        (BatchNormStatistics(), [(0, 4, 3)], r"f32\[0,4,3\] has no elements in a channel"),
    ],
)
def test_errors_say_what_was_found(op, shapes, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*(tensor("f32", s) for s in shapes))


def test_ranges() -> None:
    bound, open_ = [tensor("f32", (4, 3))], [tensor("f32", ("N", 3))]
    zero = Interval(0.0, 0.0)
    assert BatchNormStatistics().interval((zero,), bound) == (zero, NONNEGATIVE)
    assert BatchNormStatistics().interval((zero,), open_) == (ANY, NONNEGATIVE)
    (mean, _) = BatchNormStatistics().interval((Interval(0.0, 3.0),), bound)
    assert mean.lo == 0.0
    assert 3.0 <= mean.hi < 3.0001
