"""Checkpoints: going on bit for bit, and refusing what is not this run's."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph import Model, layers
from addergraph.data import Augment, Normalize
from addergraph.errors import AdderGraphError, DataError, EnvironmentWarning, StorageError
from addergraph.files import storage
from addergraph.ir import Array
from addergraph.training import SGD, Adam, Cosine
from addergraph.training.checkpoint import Identity, RunFolder
from addergraph.training.step import TrainStep
from tests.addergraph.models import DATA, ENGINES, X, Y, fit, same_weights, small_model

pytestmark = pytest.mark.usefixtures("quick_objects")

Arrays = dict[str, Array]
NAME = "checkpoint.safetensors"


class Stop(Exception):
    """What a test interrupts training with."""


def options(folder: Path, **changed: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "x_val": DATA.x_test[:30],
        "y_val": DATA.y_test[:30],
        "epochs": 4,
        "learning_rate": Cosine(0.05, 4, warmup=1.0),
        "augment": Augment(padding=1, flip=0.5),
        "normalize": Normalize((0.3,), (0.4,), scale=1.0),
        "checkpoint": folder,
    }
    return made | changed


def whole(folder: Path, **changed: Any) -> tuple[Model, dict[str, list[float]]]:
    model = small_model()
    return model, fit(model, **options(folder, **changed)).history


def without_seconds(history: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: values for name, values in history.items() if name != "seconds"}


def state(folder: Path) -> tuple[Arrays, dict[str, Any]]:
    tensors, metadata = storage.load(folder / NAME)
    return tensors, json.loads(metadata["position"])


def stop_at(calls: int) -> Callable[[int], float]:
    """A learning rate that ends the process, as it were, when it is asked for the n-th time."""
    count = 0

    def rate(epoch: int) -> float:
        nonlocal count
        count += 1
        if count > calls:
            raise Stop
        return 0.05 / (1 + epoch)

    return rate


OPTIMIZERS = {
    "sgd": SGD(nesterov=True, average=0.9),
    "adamw": Adam(weight_decay=0.1, clip_norm=1.0),
}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_two_epochs_and_two_are_four(tmp_path: Path, optimizer: str, engine: str) -> None:
    same = {"optimizer": OPTIMIZERS[optimizer], "engine": engine, "keep_best": True}
    expected, history = whole(tmp_path / "whole", **same)
    whole(tmp_path / "parts", epochs=2, **same)
    model = small_model(seed=9)  # its own weights do not matter
    found = fit(model, **options(tmp_path / "parts", resume=True, **same)).history
    assert same_weights(model, expected)
    assert without_seconds(found) == without_seconds(history)
    (tensors, at), (others, there) = (state(tmp_path / part) for part in ("parts", "whole"))
    assert tensors.keys() == others.keys() and at["epoch"] == there["epoch"] == 4
    assert all(np.array_equal(tensors[name], others[name]) for name in tensors)
    logs = [
        [{k: v for k, v in json.loads(line).items() if k not in ("seconds", "images_per_second")}
         for line in (tmp_path / part / "log.jsonl").read_text().splitlines()]
        for part in ("parts", "whole")
    ]  # fmt: skip
    assert logs[0] == logs[1] and [row["epoch"] for row in logs[0]] == [1, 2, 3, 4]
    csv = (tmp_path / "parts" / "log.csv").read_text().splitlines()
    assert csv[0].startswith("epoch,learning_rate,loss,accuracy,val_loss") and len(csv) == 5
    best = [Model.load(tmp_path / part / "best.safetensors") for part in ("parts", "whole")]
    assert same_weights(*best) and same_weights(best[0], model)


def test_going_on_within_an_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the 5 steps of an epoch, one run is stopped before the second epoch's third."""

    def run(folder: str, rate: Callable[[int], float], **more: Any) -> Model:
        model = small_model()
        given = options(tmp_path / folder, learning_rate=rate, checkpoint_steps=2, **more)
        fit(model, **given)
        return model

    expected = run("whole", stop_at(1000))
    with pytest.raises(Stop):
        run("parts", stop_at(4 + 5 + 1 + 2))  # settings, an epoch, its log row, two steps
    _, at = state(tmp_path / "parts")
    assert (at["epoch"], at["step"]) == (1, 1)  # the sixth step of the run; the seventh is lost
    capsys.readouterr()
    assert same_weights(run("parts", stop_at(1000), resume=True, verbose=1), expected)
    said = f'from "{tmp_path / "parts" / NAME}": going on in epoch 2 of 4, after step 1 of 5'
    assert said in capsys.readouterr().out.splitlines()
    (tensors, at), (others, there) = (state(tmp_path / part) for part in ("parts", "whole"))
    assert all(np.array_equal(tensors[name], others[name]) for name in others)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert at["history"][name] == there["history"][name]


def test_threads_and_the_length_of_the_run_may_change(tmp_path: Path) -> None:
    whole(tmp_path, engine="native", threads=1, epochs=1)
    model = small_model()
    fit(model, **options(tmp_path, engine="native", threads=2, epochs=2, resume=True))
    assert state(tmp_path)[1]["epoch"] == 2


def test_a_finished_run_is_not_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, history = whole(tmp_path, epochs=2, optimizer=SGD(average=0.5))
    model = small_model(seed=3)
    again = options(tmp_path, epochs=2, optimizer=SGD(average=0.5), resume=True, verbose=1)
    found = fit(model, **again)
    assert capsys.readouterr().out.endswith(
        f'"{tmp_path / NAME}": the run is complete, 2 of 2 epochs\n'
    )
    assert found.history == history and same_weights(model, expected)


def test_resuming_where_there_is_nothing_begins(tmp_path: Path) -> None:
    model = small_model()
    fit(model, **options(tmp_path / "new" / "folder", resume=True, epochs=1))
    assert state(tmp_path / "new" / "folder")[1]["epoch"] == 1


# --- refusals -----------------------------------------------------------------------------------


def other_network() -> Model:
    model = Model(name="other")
    for layer in (layers.Flatten(), layers.Dense(10)):
        model.add(layer)
    return model


@pytest.mark.parametrize(
    ("model", "x", "changed", "said"),
    [
        (other_network, X, {}, "is of another network: model [0-9a-f]{16}, this run has other"),
        (small_model, X + 1, {}, "is of another data: 70 samples"),
        (small_model, X, {"optimizer": Adam()}, r"was made with optimizer=SGD\(.*has optimizer=A"),
        (small_model, X, {"batch_size": 8}, "was made with batch_size=16, this run has .*=8"),
        (small_model, X, {"seed": 4}, "was made with seed=0"),
        (small_model, X, {"augment": None}, "was made with augment=Augment"),
        (small_model, X, {"engine": "native"}, "was made with engine=reference"),
        (small_model, X, {"x_val": None, "y_val": None}, "was made with validation=30 samples"),
        (small_model, X, {"x_val": X[:30], "y_val": Y[:30]}, "=30 samples .* has validation=30"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused_before_anything_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Callable[[], Model], x: Array,
    changed: dict[str, Any], said: str,
) -> None:  # fmt: skip
    whole(tmp_path, epochs=1)
    before = (tmp_path / NAME).read_bytes()
    monkeypatch.setattr("addergraph.training.fit.TrainStep", None)
    with pytest.raises(DataError, match=said):
        fit(model(), x, **options(tmp_path, resume=True, **changed))
    assert (tmp_path / NAME).read_bytes() == before


def test_a_checkpoint_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    whole(tmp_path, epochs=1)
    with pytest.raises(StorageError, match="is there already: resume that run"):
        whole(tmp_path)
    whole(tmp_path, resume=True)  # the lock was given back


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path, Identity("", "", {}), resume=False),
        pytest.raises(StorageError, match="another run is using"),
    ):
        whole(tmp_path)


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks"), NotImplementedError("flock")])
def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("filelock.FileLock.acquire", acquire)
    with pytest.warns(EnvironmentWarning, match="cannot be locked .*: let no other run use it"):
        whole(tmp_path, epochs=1)
    assert (tmp_path / NAME).exists()


@pytest.mark.thinned(4)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("calls", [1, 3, 7, 12])
@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_keeps_the_last_whole_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, calls: int, when: str
) -> None:
    """In the middle of a step, or when it is computed and not yet counted; no checkpoint was due
    there. The run that goes on has the bits of one that was never interrupted."""
    real, count = TrainStep.run, 0

    def run(step: TrainStep, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == calls and when == "before":
            step.state.blob[:100] = 255  # half of an update
            raise KeyboardInterrupt
        made = real(step, *arguments)
        if count == calls:
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(TrainStep, "run", run)
    with pytest.raises(KeyboardInterrupt):
        whole(tmp_path / "a", engine=engine, epochs=3)
    monkeypatch.undo()
    assert (tmp_path / "a" / NAME).exists() == (calls > 1)
    if calls > 1:
        _, position = state(tmp_path / "a")
        steps = -(-len(X) // 16)
        assert position["epoch"] * steps + position["step"] == calls - 1
    model, history = whole(tmp_path / "a", engine=engine, epochs=3, resume=True)
    other, expected = whole(tmp_path / "b", engine=engine, epochs=3)
    assert same_weights(model, other)
    assert without_seconds(history) == without_seconds(expected)


def test_damaged_checkpoints(tmp_path: Path) -> None:
    whole(tmp_path, epochs=1)
    path = tmp_path / NAME
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(StorageError, match=NAME):
        whole(tmp_path, resume=True)
    path.write_bytes(data)
    tensors, metadata = storage.load(path)
    for name, value, said in (
        ("format", "addergraph.model", "is a model file, and no checkpoint"),
        ("version", "2", "version 2, this program reads version 1"),
        ("settings", "{", '"settings" is not JSON'),
        ("position", "[]", '"position" is no JSON object'),
        ("position", '{"epoch": 1}', "step is missing in the position of"),
    ):
        storage.save(path, tensors, metadata | {name: value})
        with pytest.raises(StorageError, match=said):
            whole(tmp_path, resume=True)
    del tensors["state/adder1.f"]
    storage.save(path, tensors, metadata)
    with pytest.raises(AdderGraphError, match="adder1.f"):
        whole(tmp_path, resume=True)


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / f".{NAME}.0123.tmp").write_text("half")
    (tmp_path / ".mine.tmp").write_text("not ours")
    whole(tmp_path, epochs=1)
    assert {p.name for p in tmp_path.glob(".*.tmp")} == {".mine.tmp"}


# --- no space -----------------------------------------------------------------------------------


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    """The kernel refuses files larger than RLIMIT_FSIZE; then there is space again."""
    resource = pytest.importorskip("resource")
    whole(tmp_path, epochs=1)
    before = (tmp_path / NAME).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(StorageError, match=f"cannot write.*{NAME}.*free space"):
            whole(tmp_path, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / NAME).read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))
    model, _ = whole(tmp_path, resume=True)
    assert same_weights(model, whole(tmp_path / "whole")[0])


def test_a_log_that_cannot_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="log.csv.*No space left"):
        whole(tmp_path)
    monkeypatch.undo()
    assert state(tmp_path)[1]["epoch"] == 1
    whole(tmp_path, resume=True)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 5


def test_a_folder_whose_name_is_too_long() -> None:
    with pytest.raises(StorageError, match="cannot write .*File name too long"):
        fit(small_model(), checkpoint="a" * 300)
