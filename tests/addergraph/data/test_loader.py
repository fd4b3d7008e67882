"""The loader's batches: what they are, that they depend on nothing else, and that it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addergraph.data import Augment, Loader, Normalize
from addergraph.errors import DataError
from addergraph.ir import Array

X = np.random.default_rng(0).integers(0, 256, (23, 6, 5, 3), dtype=np.uint8)
AUGMENT = Augment(padding=2, flip=0.5)
NORMALIZE = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def _threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("addergraph-loader")]


def _same(a: Iterable[tuple[Array, Array]], b: Iterable[tuple[Array, Array]]) -> bool:
    return all(
        np.array_equal(x, u) and np.array_equal(i, j) for (x, i), (u, j) in zip(a, b, strict=True)
    )


def test_batches_are_the_stated_ones() -> None:
    loader = Loader(X, batch_size=5, seed=7, augment=AUGMENT, normalize=NORMALIZE)
    order = np.random.default_rng([7, 3]).permutation(23)
    batches = list(loader.epoch(3))
    assert len(batches) == len(loader) == 5
    assert [len(i) for _, i in batches] == [5, 5, 5, 5, 3]
    for step, (x, index) in enumerate(batches):
        assert np.array_equal(index, order[5 * step : 5 * step + 5]) and index.dtype == np.int64
        random = np.random.default_rng([7, 3, step + 1])
        assert np.array_equal(x, NORMALIZE.apply(AUGMENT.apply(X[index], random)))
        assert x.dtype == np.float32 and x.flags.c_contiguous and x.ctypes.data % 64 == 0


def test_bytes_without_normalisation_keep_their_values() -> None:
    loader = Loader(X, batch_size=10, shuffle=False)
    x = np.concatenate([x for x, _ in loader.epoch(0)])
    assert x.dtype == np.float32 and np.array_equal(x, X)
    floats = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    ((x, index),) = Loader(floats, batch_size=8, shuffle=False).epoch(9)
    assert np.array_equal(x, floats) and index.tolist() == list(range(7))
    assert not np.shares_memory(x, floats)


@given(
    count=st.integers(1, 23),
    batch_size=st.integers(1, 25),
    seed=st.integers(0, 1 << 70),
    number=st.integers(0, 5),
    prefetch=st.integers(0, 4),
    data=st.data(),
)
def test_prefetching_and_resuming_change_nothing(
    count: int, batch_size: int, seed: int, number: int, prefetch: int, data: st.DataObject
) -> None:
    def loader(depth: int) -> Loader:
        return Loader(X[:count], batch_size=batch_size, seed=seed, augment=AUGMENT, prefetch=depth)

    first = data.draw(st.integers(0, len(loader(0))))
    whole = list(loader(0).epoch(number))
    assert sorted(np.concatenate([i for _, i in whole])) == list(range(count))
    assert _same(loader(prefetch).epoch(number, first), whole[first:])
    assert not _threads()


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(Loader(X, batch_size=4, seed=s).order(e)) for s in range(3) for e in range(3)}
    assert len(orders) == 9


def test_batches_are_made_ahead_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    third = threading.Event()

    def apply(self: Augment, x: Array, random: np.random.Generator) -> Array:
        made.append(threading.get_ident())
        if len(made) == 3:
            third.set()
        return x

    monkeypatch.setattr(Augment, "apply", apply)
    epoch = Loader(X, batch_size=1, augment=AUGMENT, prefetch=2).epoch(0)
    assert not made and not _threads()  # nothing before the first batch is asked for
    next(epoch)
    assert third.wait(10)  # two more, while the consumer works on the first
    assert len(made) == 3  # and not a fourth
    assert set(made) == {_threads()[0].ident}
    epoch.close()
    assert not _threads() and len(made) == 3


def test_an_error_comes_where_its_batch_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    def apply(self: Augment, x: Array, random: np.random.Generator) -> Array:
        if calls.pop():
            raise DataError("the third batch")
        return x

    for prefetch in (0, 2):
        calls = [False, True, False, False]
        monkeypatch.setattr(Augment, "apply", apply)
        epoch = Loader(X, batch_size=1, augment=AUGMENT, prefetch=prefetch).epoch(0)
        next(epoch)
        next(epoch)
        with pytest.raises(DataError, match=r"the third batch"):
            next(epoch)
        assert not _threads()


def test_leaving_early_ends_the_thread() -> None:
    for _ in Loader(X, batch_size=2).epoch(0):
        assert len(_threads()) == 1
        break  # the iterator has no other reference, so it is closed here
    assert not _threads()


def test_settings_out_of_range_are_refused() -> None:
    for options, message in [
        ({"batch_size": 0}, r"batch_size=0 must be an integer of at least 1"),
        ({"batch_size": 2.0}, r"batch_size=2.0"),
        ({"batch_size": 4, "seed": -1}, r"seed=-1"),
        ({"batch_size": 4, "prefetch": -1}, r"prefetch=-1"),
    ]:
        with pytest.raises(DataError, match=message):
            Loader(X, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"dtype float64; expected uint8 or float32"):
        Loader(X.astype(np.float64), batch_size=1)
    with pytest.raises(DataError, match=r"shape \(0, 6, 5, 3\)"):
        Loader(X[:0], batch_size=1)
    loader = Loader(X, batch_size=10)
    with pytest.raises(DataError, match=r"first_step=4: an epoch has 3 steps"):
        loader.epoch(0, 4)  # at once, not at the first batch
    with pytest.raises(DataError, match=r"epoch=-1"):
        loader.epoch(-1)
    assert list(loader.epoch(0, 3)) == []
