"""Poolings and their gradients: bit for bit, since sums are f64 or exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addergraph.errors import ShapeError
from addergraph.ir import Array, Halo
from addergraph.ir.types import tensor
from addergraph.ops.reduction.avg_pool2d import AvgPool2d, AvgPool2dGrad
from addergraph.ops.reduction.max_pool2d import MaxPool2d, MaxPool2dGrad
from addergraph.ops.reduction.sum_pool2d import SumPool2d
from tests.codegen.harness import HERE, RUNS, require_equal, run_call, same_bits, ulps

EXAMPLES = settings().max_examples // 4
HALOS = (Halo(), Halo(1, 0, 2, 1), Halo(0, 1, 1, 0))


def exact(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.integers(-4, 5, shape).astype(np.float32) / 2  # many ties


@st.composite
def poolings(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Input shape, and window, stride and padding in a row."""
    side = st.integers(1, 8)
    channels = draw(st.sampled_from([0, 1, 2, 3, 5, 16, 17, 33]))
    shape = (draw(st.integers(0, 3)), draw(side), draw(side), channels)
    small = st.integers(1, 4)
    numbers = [draw(small) for _ in range(4)] + [draw(st.integers(0, 3)) for _ in range(4)]
    return shape, tuple(numbers)


@pytest.mark.slow
@settings(max_examples=EXAMPLES)
@given(poolings(), st.sampled_from(RUNS), st.sampled_from(HALOS), st.integers(0, 2**32 - 1))
def test_any_geometry(
    case: tuple[tuple[int, ...], tuple[int, ...]], run: tuple[str, int], halo: Halo, seed: int
) -> None:
    shape, (i, j, s, t, *padding) = case
    geometry = ((i, j), (s, t), (padding[0], padding[1], padding[2], padding[3]))
    rng = np.random.default_rng(seed)
    x = exact(rng, shape)
    halos = {0: halo, 1: HALOS[1]}
    try:
        (y,) = AvgPool2d(*geometry).infer(tensor("f32", shape))
    except ShapeError:
        return
    g = exact(rng, y.sizes)
    require_equal(AvgPool2d(*geometry), [x], *run, halos=halos)
    integers = rng.integers(0, 256, shape).astype(np.uint8)
    require_equal(SumPool2d(*geometry), [integers], *run, halos=halos)
    size = (shape[1], shape[2])
    require_equal(AvgPool2dGrad(*geometry, input_size=size), [g], *run, halos=halos)
    try:
        MaxPool2d(*geometry).infer(tensor("f32", shape))
    except ShapeError:
        return
    require_equal(MaxPool2d(*geometry), [x], *run, halos=halos)
    require_equal(MaxPool2dGrad(*geometry), [g, x], *run, halos={**halos, 2: halo})


@pytest.mark.parametrize(("target", "threads"), RUNS)
def test_the_usual_pooling(target: str, threads: int) -> None:
    rng = np.random.default_rng(1)
    x, g = exact(rng, (3, 8, 8, 33)), exact(rng, (3, 4, 4, 33))
    two = ((2, 2), (2, 2))
    require_equal(MaxPool2d(*two), [x], target, threads)
    require_equal(MaxPool2dGrad(*two), [g, x], target, threads)
    require_equal(AvgPool2d(*two), [x], target, threads)
    require_equal(AvgPool2dGrad(*two, input_size=(8, 8)), [g], target, threads)


@pytest.mark.parametrize(("target", "threads"), RUNS)
def test_the_first_maximum_counts_nan_and_signed_zeros(target: str, threads: int) -> None:
    rng = np.random.default_rng(2)
    x = rng.choice(np.array([np.nan, -0.0, 0.0, -np.inf, -1.0], np.float32), (2, 5, 5, 19))
    geometry = ((3, 2), (2, 1), (1, 1, 0, 1))
    (y,) = MaxPool2d(*geometry).reference(x)
    g = exact(rng, y.shape)
    require_equal(MaxPool2d(*geometry), [x], target, threads)
    require_equal(MaxPool2dGrad(*geometry), [g, x], target, threads)


@pytest.mark.parametrize("target", HERE)
def test_any_data(target: str) -> None:
    """Averages round once; the gradient of the maximum adds up to 4 overlapping windows in f32."""
    rng = np.random.default_rng(3)
    x = np.asarray(rng.normal(0, 1, (2, 9, 9, 18)), np.float32)
    geometry = ((3, 3), (2, 2), (1, 1, 1, 1))
    average = AvgPool2d(*geometry)
    (y,) = average.reference(x)
    assert ulps(run_call(average, [x], target=target, threads=2)[0], y) <= 1
    g = np.asarray(rng.uniform(0.5, 1, y.shape), np.float32)
    for op, operands, bound in (
        (AvgPool2dGrad(*geometry, input_size=(9, 9)), [g], 1),
        (MaxPool2dGrad(*geometry), [g, x], 3),
    ):
        runs = [run_call(op, operands, target=target, threads=t)[0] for t in (1, 2, 3)]
        assert all(same_bits(runs[0], other) for other in runs)
        assert ulps(runs[0], op.reference(*operands)[0]) <= bound
