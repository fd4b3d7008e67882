"""Reductions: exact on exact data, within 1 ulp on any, the same for all threads and halos."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addergraph.errors import ShapeError
from addergraph.ir import Array, Halo, Op
from addergraph.ops.pointwise.batch_norm import BatchNormStatistics
from addergraph.ops.reduction.argmax import Argmax
from addergraph.ops.reduction.global_avg_pool import GlobalAvgPool
from addergraph.ops.reduction.mean_squared_error import MeanSquaredError
from addergraph.ops.reduction.reduce import ReduceMax, ReduceMean, ReduceSum
from tests.codegen.harness import HERE, RUNS, require_equal, run_call, same_bits, ulps

pytestmark = pytest.mark.thinned(3)

EXAMPLES = settings().max_examples // 2
REDUCTIONS = (ReduceSum, ReduceMean, ReduceMax)


def exact(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.integers(-8, 9, shape).astype(np.float32) / 4)


@st.composite
def reductions(draw: st.DrawFn) -> tuple[tuple[int, ...], Op, dict[int, Halo]]:
    """A shape, a reduction of it and halos."""
    sizes = st.sampled_from([0, 1, 1, 2, 3, 5, 7, 16, 17, 33, 70])
    shape = tuple(draw(st.lists(sizes, max_size=4)))
    axes = tuple(axis for axis in range(len(shape)) if draw(st.booleans()))
    keepdims = draw(st.booleans())
    op = draw(st.sampled_from(REDUCTIONS))(axes, keepdims)
    halos = {}
    if len(shape) == 4 and draw(st.booleans()):
        halos[0] = Halo(1, 0, 2, 1)
        if keepdims or not axes:
            halos[1] = Halo(0, 1, 1, 2)
    return shape, op, halos


@settings(max_examples=EXAMPLES)
@given(reductions(), st.sampled_from(RUNS), st.integers(0, 2**32 - 1))
def test_any_axes(
    case: tuple[tuple[int, ...], Op, dict[int, Halo]], run: tuple[str, int], seed: int
) -> None:
    shape, op, halos = case
    x = exact(np.random.default_rng(seed), shape)
    if isinstance(op, ReduceMax) and any(shape[axis] == 0 for axis in op.axes):
        return
    require_equal(op, [x], *run, halos=halos)


@settings(max_examples=EXAMPLES)
@given(reductions(), st.sampled_from(RUNS), st.integers(0, 2**32 - 1))
def test_integers_wrap(
    case: tuple[tuple[int, ...], Op, dict[int, Halo]], run: tuple[str, int], seed: int
) -> None:
    """Over the whole range of i32: every order of adding has the same bits."""
    shape, op, halos = case
    assert isinstance(op, ReduceSum | ReduceMean | ReduceMax)
    x = np.random.default_rng(seed).integers(-(2**31), 2**31, shape, np.int32)
    require_equal(ReduceSum(op.axes, op.keepdims), [x], *run, halos=halos)


LONG: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((9001,), (0,)),  # one row, in pieces and a rest
    ((2, 5003), (1,)),
    ((2, 5003), (0, 1)),
    ((20, 8200), (1,)),  # results enough: no chunks
    ((700, 10), (0, 1)),
    ((1000, 3), (0,)),
    ((2, 300, 65), (1,)),
    ((3, 17, 31, 33), (0, 1, 2)),
    ((3, 17, 31, 33), (1, 2, 3)),
    ((40, 300, 5), (1,)),
]


@pytest.mark.thinned(4)
@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize(("shape", "axes"), LONG, ids=str)
def test_chunks(shape: tuple[int, ...], axes: tuple[int, ...], target: str, threads: int) -> None:
    x = exact(np.random.default_rng(1), shape)
    for op in (ReduceSum(axes), ReduceMean(axes), ReduceMax(axes)):
        require_equal(op, [x], target, threads)
    require_equal(ReduceSum(axes), [(x * 2.0**28).astype(np.int32)], target, threads)


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize(("shape", "axes"), LONG, ids=str)
def test_any_data_rounds_once_and_bits_depend_on_nothing_but_the_shape(
    shape: tuple[int, ...], axes: tuple[int, ...], target: str
) -> None:
    x = np.random.default_rng(2).normal(1, 1, shape).astype(np.float32)
    op = ReduceSum(axes)
    results = [run_call(op, [x], target=target, threads=threads)[0] for threads in (1, 2, 3)]
    if len(shape) == 4:
        results += run_call(op, [x], target=target, halos={0: Halo(1, 2, 0, 1)})
    assert all(same_bits(results[0], other) for other in results)
    assert ulps(results[0], op.reference(x)[0]) <= 1


@pytest.mark.parametrize("target", HERE)
@pytest.mark.parametrize(("shape", "axes"), LONG, ids=str)
def test_sums_that_cancel_have_the_same_bits_for_any_threads(
    shape: tuple[int, ...], axes: tuple[int, ...], target: str
) -> None:
    """Magnitudes beyond the 53 bits of the partial sums: there, their order shows in the result."""
    rng = np.random.default_rng(6)
    x = (rng.normal(0, 1, shape) * 10.0 ** rng.uniform(-9, 9, shape)).astype(np.float32)
    x[(x.shape[0] + 1) // 2 :] = -np.sort(x[: x.shape[0] // 2], 0)[::-1]
    op = ReduceSum(axes)
    (first,) = run_call(op, [x], target=target)
    for threads in (2, 3):
        assert same_bits(run_call(op, [x], target=target, threads=threads)[0], first)


@pytest.mark.parametrize(("target", "threads"), RUNS)
def test_nan_infinities_and_zeros(target: str, threads: int) -> None:
    x = np.array(
        [[1, np.nan, 3], [np.inf, 0, 1], [-np.inf, np.inf, 0], [-0.0, -0.0, -0.0], [-np.inf] * 3],
        np.float32,
    )
    for axes in ((0,), (1,), (0, 1)):
        with np.errstate(invalid="ignore"):
            for op in (ReduceSum(axes), ReduceMean(axes), ReduceMax(axes)):
                require_equal(op, [x], target, threads)


# -- batch statistics ----------------------------------------------------------------------------

SHAPES = [
    (2, 3, 5, 7),
    (4, 16, 16, 16),
    (64, 10),
    (5, 1),
    (1, 33),
    (2, 9, 9, 1),
    (1, 1, 1, 1),
    (600, 65),
]


@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_statistics_survive_a_mean_far_above_the_spread(
    shape: tuple[int, ...], target: str, threads: int
) -> None:
    rng = np.random.default_rng(3)
    for mean in (0.0, 1500.0, 1e5):  # from 4096 on, a mean rounded to f32 would show
        x = rng.normal(mean, 1, shape).astype(np.float32)
        op, halos = BatchNormStatistics(), {0: Halo(1, 0, 2, 0)} if len(shape) == 4 else None
        found = run_call(op, [x], target=target, threads=threads, halos=halos)
        for one, other in zip(found, op.reference(x), strict=True):
            assert ulps(one, other) <= 1


@pytest.mark.parametrize("target", HERE)
def test_statistics_do_not_depend_on_threads_or_halos(target: str) -> None:
    x = np.random.default_rng(4).normal(10, 3, (4, 16, 16, 17)).astype(np.float32)
    runs = [run_call(BatchNormStatistics(), [x], target=target, threads=t) for t in (1, 2, 3)]
    runs.append(
        run_call(BatchNormStatistics(), [x], target=target, halos={0: Halo(2, 1, 0, 1)}, threads=2)
    )
    for mean, variance in runs[1:]:
        assert same_bits(mean, runs[0][0])
        assert same_bits(variance, runs[0][1])


@pytest.mark.parametrize(("target", "threads"), RUNS)
def test_statistics_of_numbers_that_are_not_finite(target: str, threads: int) -> None:
    x = np.ones((5, 4), np.float32)
    x[0, 0], x[3, 1], x[0, 2], x[4, 3] = np.inf, -np.inf, np.nan, np.nan
    with np.errstate(invalid="ignore"):
        require_equal(BatchNormStatistics(), [x], target, threads)


@pytest.mark.parametrize(("target", "threads"), RUNS)
def test_the_variance_where_the_shift_is_far_from_the_mean(target: str, threads: int) -> None:
    rng = np.random.default_rng(7)
    x = np.ones((1000, 1), np.float32) * rng.normal(0, 1, 70).astype(np.float32)
    _, variance = run_call(BatchNormStatistics(), [x], target=target, threads=threads)
    assert not variance.any()
    x[0] = rng.normal(0, 1e6, 70)
    found = run_call(BatchNormStatistics(), [x], target=target, threads=threads)
    for one, other in zip(found, BatchNormStatistics().reference(x), strict=True):
        assert ulps(one, other) <= 1


def test_statistics_without_channels() -> None:
    found = run_call(BatchNormStatistics(), [np.zeros((3, 0), np.float32)])
    assert [a.shape for a in found] == [(0,), (0,)]


# -- the rest ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "threads"), RUNS)
def test_mean_squared_error_and_global_average(target: str, threads: int) -> None:
    rng = np.random.default_rng(5)
    for shape in ((3,), (0, 4), (3, 0), (5, 17), (20, 33), (2, 3, 5, 7), (1, 9000)):
        operands = [exact(rng, shape), exact(rng, shape)]
        halos = {1: Halo(1, 0, 1, 0)} if len(shape) == 4 else None
        require_equal(MeanSquaredError(), operands, target, threads, halos=halos)
    for shape in ((2, 3, 5, 7), (0, 2, 2, 3), (3, 1, 1, 16), (1, 17, 19, 33), (2, 2, 2, 0)):
        require_equal(GlobalAvgPool(), [exact(rng, shape)], target, threads)


@pytest.mark.thinned(3)
@pytest.mark.parametrize(("target", "threads"), RUNS)
def test_argmax(target: str, threads: int) -> None:
    rng = np.random.default_rng(6)
    for shape in ((7,), (3, 10), (2, 33), (40, 3), (2, 3, 5, 7), (4, 2, 1, 1), (0, 3), (5, 1)):
        x = exact(rng, shape)  # few values: many ties
        x[rng.random(shape) < 0.1] = np.nan
        x[rng.random(shape) < 0.2] = -0.0
        for axis in range(len(shape)):
            if shape[axis]:
                halos = {0: Halo(1, 2, 1, 0)} if len(shape) == 4 else None
                require_equal(Argmax(axis), [x], target, threads, halos=halos)
                for dtype, low, high in ((np.int32, -(2**31), 2**31), (np.uint8, 120, 136)):
                    integers = rng.integers(low, high, shape).astype(dtype)
                    require_equal(Argmax(axis), [integers], target, threads, halos=halos)


def test_an_empty_maximum_is_refused() -> None:
    with pytest.raises(ShapeError, match="no largest"):
        run_call(ReduceMax((0,)), [np.zeros((0, 3), np.float32)])
