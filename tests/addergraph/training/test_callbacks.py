"""Callbacks: when they are called, how they end a run, and that nothing is lost by it."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph import Model
from addergraph.errors import DataError, GraphError, StorageError, UnsupportedError
from addergraph.training import Adam, Callback, Cosine, TensorBoard
from tests.addergraph.models import X, Y, fit, same_weights, small_model

HOOKS = (
    "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_train_batch_begin",
    "on_train_batch_end",
)  # fmt: skip


class Recorder(Callback):
    """What it was called with; raises or stops at the n-th call of a hook."""

    def __init__(self, at: tuple[str, int] | None = None, raises: bool = False) -> None:
        self.at, self.raises = at, raises
        self.seen: list[tuple[Any, ...]] = []

    def __getattribute__(self, name: str) -> Any:
        if name not in HOOKS:
            return super().__getattribute__(name)

        def hook(*given: Any) -> None:
            self.seen.append((name, *given))
            if self.at == (name, [s[0] for s in self.seen].count(name)):
                if self.raises:
                    raise ZeroDivisionError("mine")
                self.stop_training = True

        return hook

    def calls(self) -> list[str]:
        return [" ".join(map(str, seen[:-1])) for seen in self.seen]


def run(*callbacks: Callback, **options: Any) -> tuple[Model, Any]:
    model = small_model()
    return model, fit(
        model, X[:40], Y[:40], callbacks=callbacks, learning_rate=Cosine(0.1, 2), **options
    )


def test_hooks_come_in_order_with_their_numbers() -> None:
    first, second = Recorder(), Recorder()
    model, history = run(first, second, epochs=2, x_val=X[40:], y_val=Y[40:])
    epoch = [f"on_train_batch_{end} {batch}" for batch in range(3) for end in ("begin", "end")]
    assert first.calls() == second.calls() == [
        "on_train_begin", "on_epoch_begin 0", *epoch, "on_epoch_end 0", "on_epoch_begin 1", *epoch,
        "on_epoch_end 1", "on_train_end",
    ]  # fmt: skip
    assert first.model is model
    last = {name: values[-1] for name, values in history.history.items()}
    assert first.seen[-2][2] == {**last, "learning_rate": Cosine(0.1, 2)(1.0)}
    rates = [s[2]["learning_rate"] for s in first.seen if s[0] == "on_train_batch_begin"]
    assert rates == sorted(rates, reverse=True) and rates[0] == 0.1
    losses = [s[2]["loss"] for s in first.seen if s[0] == "on_train_batch_end"][3:]
    assert np.average(losses, weights=[16, 16, 8]) == pytest.approx(last["loss"])
    assert same_weights(model, run(epochs=2)[0])  # those who look change nothing


def test_a_callback_sees_the_weights_of_the_step() -> None:
    seen = []

    class Looks(Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            seen.append(self.model.weights["dense1.b"].copy())

    model, _ = run(Looks())
    assert len(seen) == 3 and not np.array_equal(seen[0], seen[1])
    assert np.array_equal(seen[2], model.weights["dense1.b"])


@pytest.mark.parametrize(
    ("hook", "count", "epochs", "steps"),
    [("on_train_batch_end", 2, 0, 2), ("on_train_batch_end", 5, 1, 2),
     ("on_train_batch_end", 3, 1, 0), ("on_epoch_end", 1, 1, 0),
     ("on_train_begin", 1, 0, 0), ("on_train_batch_begin", 4, 1, 1)],
)  # fmt: skip
def test_stopping_leaves_a_checkpoint_to_go_on_from(
    hook: str, count: int, epochs: int, steps: int, tmp_path: Path
) -> None:
    stops, options = Recorder((hook, count)), {"checkpoint": tmp_path, "optimizer": Adam()}
    options["learning_rate"] = 0.01
    model = small_model()
    history = fit(model, X[:40], Y[:40], callbacks=[stops], epochs=3, **options)
    assert history.epochs == epochs
    done = [c for c in stops.calls() if c.startswith("on_train_batch_end")]
    assert len(done) == 3 * epochs + steps
    assert stops.calls()[-1] == "on_train_end"
    resumed, whole = small_model(), small_model()
    went_on = Recorder()
    fit(resumed, X[:40], Y[:40], resume=True, callbacks=[went_on], epochs=3, **options)
    fit(whole, X[:40], Y[:40], epochs=3, learning_rate=0.01, optimizer=Adam())
    assert same_weights(resumed, whole)
    assert went_on.seen[0] == ("on_train_begin", {"steps": 3 * epochs + steps})
    assert went_on.seen[2][:2] == ("on_train_batch_begin", steps)
    again = Recorder()  # whoever stopped a run does not stop the next one
    stops.at = None
    assert fit(small_model(), X[:40], Y[:40], callbacks=[stops, again]).epochs == 1


@pytest.mark.parametrize(
    ("hook", "count"),
    [("on_train_batch_end", 2), ("on_train_batch_begin", 5), ("on_train_batch_end", 3),
     ("on_epoch_begin", 2), ("on_epoch_end", 1), ("on_train_end", 1)],
)  # fmt: skip
def test_an_exception_comes_out_and_the_run_survives(hook: str, count: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"checkpoint": tmp_path, "optimizer": Adam(average=0.9)}
    options |= {"learning_rate": 0.01, "epochs": 2}
    raises = Recorder((hook, count), raises=True)
    with pytest.raises(ZeroDivisionError, match="^mine$"):
        fit(small_model(), X[:40], Y[:40], callbacks=[raises], **options)
    done = sum(c.startswith("on_train_batch_end") for c in raises.calls())
    went_on, resumed, whole = Recorder(), small_model(), small_model()
    fit(resumed, X[:40], Y[:40], resume=True, callbacks=[went_on], **options)
    assert went_on.seen[0] == ("on_train_begin", {"steps": done})  # nothing is done twice
    fit(whole, X[:40], Y[:40], **options | {"checkpoint": None})
    assert same_weights(resumed, whole)


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_train_batch_begin"])
@pytest.mark.parametrize("way_out", [SystemExit, KeyboardInterrupt])
def test_an_exit_saves_the_last_whole_step(way_out: Any, hook: str, tmp_path: Path) -> None:
    def leave(batch: int, logs: Any) -> None:
        if batch == 2:
            raise way_out(3)

    exits, went_on, options = Callback(), Recorder(), {"checkpoint": tmp_path}
    setattr(exits, hook, leave)
    with pytest.raises(way_out):
        run(exits, **options)
    run(went_on, resume=True, **options)
    done = 3 if hook == "on_train_batch_end" else 2
    assert went_on.seen[0] == ("on_train_begin", {"steps": done})


def test_without_a_checkpoint_the_model_has_the_weights_of_that_moment() -> None:
    seen = []

    class Looks(Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            seen.append(self.model.weights["dense1.b"].copy())
            if len(seen) == 2:
                raise KeyError("mine")

    model = small_model()
    with pytest.raises(KeyError):
        fit(model, callbacks=[Looks()])
    assert np.array_equal(seen[1], model.weights["dense1.b"])


@pytest.mark.parametrize("given", [Callback, [Callback], Callback(), [lambda: None], 3, "on", None])
def test_what_is_no_callback_is_refused(given: object) -> None:
    with pytest.raises(DataError, match="expected a list of objects of classes that derive"):
        fit(small_model(), callbacks=given)


@pytest.mark.parametrize(
    ("what", "change"),
    [("model.freeze", lambda m: m.freeze("dense1")),
     ("model.unfreeze", lambda m: m.unfreeze("dense1")),
     ("model.loss", lambda m: setattr(m, "loss", "mean_squared_error"))],
)  # fmt: skip
def test_what_the_compiled_step_does_not_follow_is_refused(what: str, change: Any) -> None:
    class Changes(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any) -> None:
            change(copy.copy(self.model))  # a copy is not trained
            change(self.model)

    model = small_model()
    said = rf"^{what}.* counts from the next fit, .* stop it \(callback.stop_training = True\)"
    with pytest.raises(GraphError, match=said):
        fit(model, callbacks=[Changes()])
    assert model.loss == "cat_cross_entropy" and not model.frozen
    change(model)
    fit(model)


# --- TensorBoard ----------------------------------------------------------------------------------


def test_scalars_are_read_back(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, history = run(TensorBoard(tmp_path / "runs", every=2), epochs=2, x_val=X[40:], y_val=Y[40:])
    found = reader.EventAccumulator(str(tmp_path / "runs"))
    found.Reload()
    names = {*history.history, "learning_rate", "batch/loss", "batch/learning_rate"}
    assert set(found.Tags()["scalars"]) == names
    for name, values in history.history.items():
        scalars = found.Scalars(name)
        assert [s.step for s in scalars] == [1, 2]
        assert np.allclose([s.value for s in scalars], values)
    assert [s.step for s in found.Scalars("batch/loss")] == [2, 4, 6]


def test_tensorboard_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'addergraph\[tensorboard\]'"):
        run(TensorBoard(tmp_path))
    with pytest.raises(DataError, match="every=-1"):
        TensorBoard(tmp_path, every=-1)
    with pytest.raises(StorageError, match="folder=3"):
        TensorBoard(3)  # type: ignore[arg-type]


def test_tensorboard_needs_a_folder_that_can_be_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        run(TensorBoard(tmp_path / "file" / "runs"))
