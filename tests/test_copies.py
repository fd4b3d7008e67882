"""Copies of what holds compiled code: they have their own weights, and compile again when asked."""

from __future__ import annotations

import copy
import gc
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import compiler, layers
from addergraph.errors import UnsupportedError
from addergraph.ir import Array
from addergraph.ir.text import parse
from addergraph.model import Model
from addergraph.model import programs as model_programs
from tests.codegen.states import step

pytestmark = pytest.mark.usefixtures("quick_objects")

GRAPH = parse(
    """graph net(%x: f32[N,6]) params(%f: f32[6,5]) {
      %y = adder_dense(%x, %f) : f32[N,5]
      return %y
    }"""
)
ROWS = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
X = np.random.default_rng(1).random((32, 6, 6, 1), np.float32)
Y = np.arange(32) % 3


def through_pickle(made: Any) -> Any:
    return pickle.loads(pickle.dumps(made))


ways = pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, through_pickle])
apart = pytest.mark.parametrize("way", [copy.deepcopy, through_pickle])


def small_model() -> Model:
    model = Model(input_shape=(6, 6, 1), seed=1)
    for layer in (layers.Adder(4, kernel_size=3), layers.BatchNorm(), layers.Flatten()):
        model.add(layer)
    model.add(layers.Dense(3))
    return model


@ways
def test_a_copied_model_has_its_own_weights_and_predicts(way: Callable[[Model], Model]) -> None:
    model = small_model()
    model.fit(X, Y, epochs=1, verbose=0)
    before = model.predict(X)
    made = way(model)
    assert np.array_equal(made.predict(X), before)
    for name, array in made.weights.items():
        assert not np.shares_memory(array, model.weights[name])
    list(made.weights.values())[-1][...] += 1
    assert np.array_equal(model.predict(X), before)
    made.fit(X, Y, epochs=1, verbose=0)
    made.add_to = None  # type: ignore[attr-defined]  # nor do they share attributes
    assert np.array_equal(model.predict(X), before)
    assert not np.array_equal(made.predict(X), before)
    assert not hasattr(model, "add_to")


@ways
def test_a_copied_program_runs_and_has_its_own_weights(way: Callable[[Any], Any]) -> None:
    program = ag.compile(GRAPH, weights={"f": np.ones((6, 5), np.float32)}, threads=2)
    before = program(ROWS)
    made = way(program)
    assert np.array_equal(made(ROWS), before) and made.threads == 2
    made.set_weights({"f": np.zeros((6, 5), np.float32)})
    assert np.array_equal(program(ROWS), before) and not np.array_equal(made(ROWS), before)


def test_copies_of_a_program_with_updates() -> None:
    """A deep one has a state of its own; a shallow one shares it, as two programs may."""
    start = {"w": np.zeros((4, 3), np.float32), "count": np.zeros((), np.float32)}
    program, x = compiler.compile(step(8), weights=start), np.zeros((8, 4), np.float32)
    program(x)
    assert program.state is not None
    for way in (copy.deepcopy, through_pickle):
        made: Any = way(program)
        made(x)
        assert program.state.views["count"] == 1 and made.state.views["count"] == 2
    copy.copy(program)(x)
    assert program.state.views["count"] == 2


@apart
def test_a_copied_training_step_goes_on_by_itself(way: Callable[[Any], Any]) -> None:
    step = small_model().train_step(32)
    step(X, Y, 0.1)
    state, made = step.state.blob.copy(), way(step)
    assert made.model is not step.model and made.model.weights is made._weights
    following = [made(X, Y, 0.1) for _ in range(2)]
    assert np.array_equal(step.state.blob, state)
    for loss, prediction in following:  # the same steps as the original's
        own_loss, own = step(X, Y, 0.1)
        assert own_loss == loss and np.array_equal(own, prediction)
    ours, its = (one.model.predict(X, engine="native", threads=1) for one in (step, made))
    assert np.array_equal(ours, its)


def test_a_loaded_library_is_not_copied_and_leaves_nothing(tmp_path: Path) -> None:
    compiler.export(GRAPH, tmp_path, weights={"f": np.ones((6, 5), np.float32)}, name="net")
    library = ag.load_native(tmp_path)
    expected: Array = library(ROWS)  # type: ignore[assignment]
    for way in (copy.copy, copy.deepcopy, through_pickle):
        with pytest.raises(UnsupportedError, match="load it once more"):
            way(library)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        again = ag.load_native(tmp_path)
        assert np.array_equal(again(ROWS), expected)
    del again
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    assert Path("/proc/self/maps").read_text().count("libnet.so") > 0  # the first one's
    del library
    gc.collect()
    assert Path("/proc/self/maps").read_text().count("libnet.so") == 0


# -- what a model's programs know of its weights ---------------------------------------------------


def test_weights_that_nobody_else_holds_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All were hashed at each call, which took ten times as long as a small network."""
    model, counted = small_model(), []
    original = model_programs.digest_of

    def digest(weights: model_programs.Weights) -> bytes:
        counted.append(1)
        return original(weights)

    monkeypatch.setattr(model_programs, "digest_of", digest)
    model.fit(X, Y, epochs=1, verbose=0)
    gc.collect()
    model.predict(X)
    del counted[:]
    for _ in range(5):
        model.predict(X)
    assert not counted
    held = model.weights
    for _ in range(5):
        model.predict(X)
    assert len(counted) == 5
    del held
    model.predict(X), model.predict(X)
    assert len(counted) == 6


HANDLES: dict[str, tuple[Callable[[Model, str], Any], Callable[[Any, str], None]]] = {
    "the dict": (lambda m, n: m.weights, lambda w, n: w[n].__setitem__(1, 1.0)),
    "an array": (lambda m, n: m.weights[n], lambda w, n: w.__setitem__(1, 2.0)),
    "a view": (lambda m, n: m.weights[n][1:], lambda w, n: w.__setitem__(0, 3.0)),
    "a buffer": (lambda m, n: m.weights[n].data, lambda w, n: w.__setitem__(1, 4.0)),
    "a view of a view": (lambda m, n: m.weights[n][:][:], lambda w, n: w.__setitem__(1, 5.0)),
}


@pytest.mark.parametrize("how", HANDLES)
@pytest.mark.parametrize("trained", [False, True])
def test_any_way_to_write_weights_is_noticed(trained: bool, how: str) -> None:
    """At once, and by who kept a handle over calls that found nothing changed."""
    model = small_model()
    if trained:  # then all weights are views of one block
        model.fit(X, Y, epochs=1, verbose=0)
        gc.collect()
    name = list(model.weights)[-1]
    get, write = HANDLES[how]
    before = model.predict(X[:1])
    model.predict(X[:1])  # nobody has a handle: nothing is compared from here on
    handle = get(model, name)
    assert np.array_equal(model.predict(X[:1]), before)
    write(handle, name)
    after = model.predict(X[:1])
    assert not np.array_equal(after, before)
    del handle
    model.predict(X[:1])
    model.weights[name][0] += 1  # by a handle that is gone when it is looked for
    assert not np.array_equal(model.predict(X[:1]), after)


def test_steps_and_assignments_are_noticed() -> None:
    model = small_model()
    before = model.predict(X[:1])
    step = model.train_step(32)
    step(X, Y, 0.1)
    after = model.predict(X[:1])
    assert not np.array_equal(after, before)
    del step
    gc.collect()
    model.predict(X[:1])
    model.weights = {key: array * 2 for key, array in model.weights.items()}
    assert not np.array_equal(model.predict(X[:1]), after)
