"""dropout: the same elements stay on every target, by any threads, wherever buffers stand."""

from __future__ import annotations

import numpy as np
import pytest

import addergraph as ag
from addergraph.errors import ShapeError
from addergraph.ir import Array, Halo
from addergraph.ops.pointwise.dropout import KEPT_BITS, Dropout
from tests.codegen.harness import RUNS, require_equal


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def step(number: int) -> Array:
    return np.asarray(number, np.int32)


def kept(op: Dropout, number: int, count: int = 1 << 16) -> Array:
    (y,) = op.reference(ones(count), step(number))
    return np.asarray(y > 0)


@pytest.mark.parametrize(("target", "threads"), RUNS)
@pytest.mark.parametrize("number", [0, 1, 2**31 - 1, -1])
def test_every_target_keeps_the_same_elements(target: str, threads: int, number: int) -> None:
    x = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    x.flat[:4] = [np.nan, np.inf, -np.inf, -0.0]
    for op in (Dropout(0.3, 2**59 - 1), Dropout(0.9)):
        require_equal(op, [x, step(number)], target, threads)


@pytest.mark.parametrize("shape", [(), (1,), (16,), (47,), (2, 33), (0, 3), (2, 3, 4, 5)])
def test_ranks_and_halos(shape: tuple[int, ...]) -> None:
    one, other = Halo(1, 0, 2, 1), Halo(0, 2, 1, 3)
    around = [{0: one}, {2: one}, {0: one, 2: other}] if len(shape) == 4 else []
    for halos in [{}, *around]:
        for threads in (1, 3):
            require_equal(Dropout(0.5, 1), [ones(*shape), step(5)], threads=threads, halos=halos)


def test_the_share_that_stays_and_its_scale() -> None:
    for rate in (0.1, 0.5, 0.8):
        op = Dropout(rate, 3)
        (y,) = op.reference(ones(1 << 16), step(0))
        assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - rate))}
        deviation = np.sqrt(rate * (1 - rate) / y.size)
        assert abs((y == 0).mean() - rate) < 4 * deviation


def test_steps_seeds_and_neighbours_are_independent() -> None:
    """Two fair and independent draws agree in half of the elements."""
    first = kept(Dropout(0.5, 1), 0)
    others = [kept(Dropout(0.5, 1), 1), kept(Dropout(0.5, 1), 2), kept(Dropout(0.5, 2), 0)]
    for other in [*others, np.roll(first, 1), np.roll(first, 64)]:
        assert abs((first == other).mean() - 0.5) < 4 * 0.5 / np.sqrt(first.size)


def test_known_numbers() -> None:
    """The first numbers of SplitMix64 from seed 0, as other programs have them."""
    z = np.asarray([0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F], np.uint64)
    for number, stays in zip(z >> np.uint64(64 - KEPT_BITS), range(3), strict=True):
        rate = float(number) / 2**KEPT_BITS
        assert kept(Dropout(rate), 0, 3)[stays] and not kept(Dropout(rate + 1e-7), 0, 3)[stays]


def test_what_is_refused() -> None:
    x, at = ag.tensor("f32", (3,)), ag.tensor("i32", ())
    for op, types, message in (
        (Dropout(1.0), (x, at), "below 1"),
        (Dropout(-0.1), (x, at), "at least 0"),
        (Dropout(float("nan")), (x, at), "below 1"),
        (Dropout(1 - 1e-12), (x, at), "below 1"),
        (Dropout(0.5, -1), (x, at), "seed"),
        (Dropout(0.5), (x, x), r"step must be i32\[\]"),
        (Dropout(0.5), (at, at), "must be f32"),
    ):
        with pytest.raises(ShapeError, match=message):
            op.infer(*types)
