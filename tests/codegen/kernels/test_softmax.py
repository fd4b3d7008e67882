"""softmax and softmax_cross_entropy within their stated bounds, special rows exactly."""

from __future__ import annotations

import numpy as np
import pytest

from addergraph.ir import Array, Halo
from addergraph.ops.reduction.softmax import Softmax
from addergraph.ops.reduction.softmax_cross_entropy import SoftmaxCrossEntropy
from tests.codegen.harness import RUNS, run_call, same_bits

SHAPES = [(5,), (3, 1), (7, 10), (5, 16), (3, 33), (2, 3, 4, 5), (2, 1000), (0, 3), (4, 0)]
INF, NAN = np.inf, np.nan
SPECIAL = np.array(
    [[NAN, 1, 2], [INF, 1, 2], [-INF, -INF, -INF], [-INF, 0, -INF], [-INF, 1, 1], [1e38, -1e38, 0]],
    np.float32,
)


def steps(found: Array, expected: Array) -> Array:
    """Distances in f32 steps, element by element; both are non-negative."""
    distance: Array = np.abs(found.view("i4").astype("i8") - expected.view("i4"))
    return distance


@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_softmax_within_its_bound(shape: tuple[int, ...], target: str, threads: int) -> None:
    rng = np.random.default_rng(1)
    for spread in (0.1, 5.0, 40.0):
        x = rng.normal(3, spread, shape).astype(np.float32)
        halos = {0: Halo(1, 1, 1, 1), 1: Halo(1, 1, 1, 1)} if len(shape) == 4 else None
        (found,) = run_call(Softmax(), [x], target=target, threads=threads, halos=halos)
        (expected,) = Softmax().reference(x)
        distance = x.max(-1, keepdims=True, initial=-np.inf) - x if x.size else x
        assert (steps(found, expected) <= 4 + distance).all()
        again = run_call(Softmax(), [x], target=target, threads=threads, halos=halos, in_place=0)[0]
        assert same_bits(found, again)


@pytest.mark.parametrize(("target", "threads"), RUNS)
def test_special_rows(target: str, threads: int) -> None:
    (found,) = run_call(Softmax(), [SPECIAL], target=target, threads=threads)
    assert same_bits(found, Softmax().reference(SPECIAL)[0])
    weights = np.ones_like(SPECIAL)
    (loss,) = run_call(SoftmaxCrossEntropy(), [SPECIAL, weights], target=target, threads=threads)
    (expected,) = SoftmaxCrossEntropy().reference(SPECIAL, weights)
    assert same_bits(loss[:5], expected[:5])


@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("shape", [(7, 10), (5, 16), (3, 1), (2, 1000), (0, 3), (64, 10)], ids=str)
def test_cross_entropy_within_its_bound(shape: tuple[int, int], target: str, threads: int) -> None:
    rng = np.random.default_rng(2)
    one_hot = np.eye(shape[1], dtype=np.float32)[rng.integers(0, shape[1], shape[0])]
    smooth = rng.random(shape).astype(np.float32)
    op = SoftmaxCrossEntropy()
    for targets in (one_hot, smooth):
        z = rng.normal(0, 5, shape).astype(np.float32)
        (found,) = run_call(op, [z, targets], target=target, threads=threads)
        z8, p8 = z.astype("f8"), targets.astype("f8")
        m = z8.max(-1, keepdims=True)
        power = np.exp(z8 - m)
        s = power.sum(-1)
        exact = p8.sum(-1) * (m[:, 0] + np.log(s)) - (p8 * z8).sum(-1)
        # ln s: 1 ulp; s: each term is off by its exponential's ulp and the rounding of z - m; then
        # the result is rounded.
        off = 2.0**-23 * np.log(s) + 2.0**-24 * (power * (2 + m - z8)).sum(-1) / s
        bound = p8.sum(-1) * off + 2.0**-24 * np.abs(exact) + 1e-12
        assert (np.abs(found - exact) <= bound).all()


def test_small_losses_keep_their_digits() -> None:
    z = np.array([[20, 0, -1], [30, 5, 0]], np.float32)
    targets = np.array([[1, 0, 0], [1, 0, 0]], np.float32)
    (found,) = run_call(SoftmaxCrossEntropy(), [z, targets])
    exact = np.log1p(np.exp(z[:, 1:].astype("f8") - z[:, :1]).sum(-1))
    np.testing.assert_allclose(found, exact, rtol=1e-5)
