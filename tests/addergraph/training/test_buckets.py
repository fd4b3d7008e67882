"""The exchange of a step in buckets, while others are computed."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from addergraph.ir import Array
from addergraph.training import SGD, prepare
from addergraph.training.buckets import Vector, spans_of
from addergraph.training.parallel import ParallelStep
from addergraph.training.replicas import BESIDE, Exchange, Replicas
from tests.addergraph.models import X, Y
from tests.addergraph.training.communicators import Fake, together
from tests.addergraph.training.test_parallel import all_right, network, run, same

pytestmark = pytest.mark.usefixtures("quick_objects")

LABELS = np.eye(10, dtype=np.float32)[Y]


def step_of(replicas: Replicas, **changed: Any) -> ParallelStep:
    options: dict[str, Any] = {
        "label_smoothing": 0.0, "gradient": "full_precision", "engine": "native", "threads": 1,
        "seed": 0, "synchronize": False, "bucket": 64,
    }  # fmt: skip
    return ParallelStep(network(), 16, SGD(), replicas=replicas, **options | changed)


def test_spans_have_enough_and_are_in_order() -> None:
    vector = Vector({"a": (20,), "b": (3,), "c": (16,), "d": (1,)})
    number = {"a": 0, "b": 1, "c": 1, "d": 3}
    whole = {at: (span.start, span.stop, *sorted(names))
             for at, (span, names) in spans_of(vector, number, 0).items()}  # fmt: skip
    assert whole == {0: (0, 32, "a"), 1: (32, 64, "b", "c"), 3: (64, 80, "d")}
    few = spans_of(vector, number, 4 * 40)
    assert {at: sorted(names) for at, (_, names) in few.items()} == {1: ["a", "b", "c"], 3: ["d"]}


@pytest.mark.parametrize("statistics", ["local", "synchronized"])
def test_buckets_change_no_bit(monkeypatch: pytest.MonkeyPatch, statistics: str) -> None:
    options: dict[str, Any] = {"deterministic": 2, "batch_statistics": statistics}
    whole = run(**options)
    monkeypatch.setattr(prepare, "ParallelStep", partial(ParallelStep, bucket=64))
    assert same(run(**options), whole)
    for other in all_right(together(2, lambda c: run(c, **options))):
        assert same(other, whole)


def test_several_exchanges_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(communicator: Fake) -> int:
        run(communicator, epochs=1, x_val=None, y_val=None, batch_norm_samples=0)
        return communicator.made.count("allreduce")

    monkeypatch.setattr(prepare, "ParallelStep", partial(ParallelStep, bucket=64))
    with Replicas(None, 1) as replicas:
        buckets = len(step_of(replicas)._buckets)
    assert buckets > 1
    assert all_right(together(3, count)) == [5 * buckets] * 3


def test_an_exchange_begins_while_the_rest_is_computed() -> None:
    """A stand-in for the compiled code tells of its first bucket, and goes on when that is sent; at
    each of two steps the sum has to be that of the step's own numbers."""

    def work(communicator: Fake) -> list[tuple[int, float]]:
        with Replicas(communicator, 2) as replicas:
            step = step_of(replicas, engine="reference")
            (segment,) = step._segments[8]
            computed, names = segment.run, segment.segment.gives
            first = step._flagged[8].buckets[0][-1]
            (place,) = [p for p in step._buckets[0].places if p.removeprefix("exchanged ") in first]
            found: list[tuple[int, float]] = []

            def slow(inputs: Sequence[Array], outputs: tuple[Array, ...]) -> None:
                before = communicator.made.count("allgather")
                threading.Event().wait(10 * BESIDE)  # nothing is there yet
                silent = [np.empty_like(o) if n in step._flags else o
                          for n, o in zip(names, outputs, strict=True)]  # fmt: skip
                computed(inputs, tuple(silent))
                outputs[names.index(first)][...] = len(found) + communicator.rank
                step._flags["completed"][...] = 1
                for _ in range(2000):
                    if communicator.made.count("allgather") > before:
                        break
                    threading.Event().wait(0.005)
                begun.append(communicator.made.count("allgather") - before)

            begun: list[int] = []
            segment.run = slow
            rows = replicas.rows(16)
            for _ in range(2):
                step.run([X[rows]], [LABELS[rows]], 0.0, 16)
                found.append((begun[-1], float(step._reduced.views[place].flat[0])))
            return found

    assert all_right(together(2, work)) == [[(1, 0.5), (1, 1.5)]] * 2


@pytest.mark.parametrize("size", [1, 2, 3])
def test_an_exchange_leaves_its_vectors_as_they_are(size: int) -> None:
    """A program that still runs may read them."""

    def work(communicator: Fake) -> None:
        with Replicas(communicator) as replicas:
            vector, out = np.arange(5, dtype=np.float32) + replicas.rank, np.empty(5, np.float32)
            shares = np.arange(1, size + 1, dtype=np.float32)
            begun = replicas.begin([vector], shares, out)
            np.testing.assert_array_equal(vector, np.arange(5) + replicas.rank)
            replicas.finish(begun)
            terms = [(np.arange(5) + rank) * shares[rank] for rank in range(size)]
            np.testing.assert_array_equal(out, np.sum(terms, axis=0))

    all_right(together(size, work))


def test_what_has_begun_stays_in_memory_until_it_is_here() -> None:
    class Request:
        done = False

        def Test(self) -> bool:
            return self.done

    request, buffer = Request(), np.zeros(3, np.float32)
    alive = weakref.ref(buffer)
    exchange = Exchange(request, (buffer,), lambda: None)
    assert not exchange.test()
    del exchange, buffer
    gc.collect()
    assert alive() is not None  # though whoever began it is gone
    (left,) = [one for one in Exchange._open if one.request is request]
    request.done = True
    assert left.test() and left.request is None
    del left
    gc.collect()
    assert alive() is None


def test_an_interrupted_step_ends_before_it_is_left() -> None:
    ended = []

    def work(communicator: Fake) -> None:
        with Replicas(communicator) as replicas:
            started, over = threading.Event(), []

            def compute() -> None:
                started.set()
                threading.Event().wait(0.05)
                over.append(True)

            def look() -> None:
                if started.is_set():
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                replicas.during(compute, look)
            ended.append(bool(over))

    all_right(together(2, work))
    assert ended == [True, True]


def test_an_error_beside_an_exchange_is_that_of_the_step() -> None:
    def compute() -> None:
        raise ZeroDivisionError("beside")

    with Replicas(None, 2) as replicas, pytest.raises(ZeroDivisionError, match="beside"):
        replicas.during(compute, lambda: None)
