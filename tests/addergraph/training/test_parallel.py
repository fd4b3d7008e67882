"""Processes that share each batch, as threads with a communicator of the tests' own."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph import Model, layers
from addergraph.cli.main import commands
from addergraph.data import Augment, Loader
from addergraph.errors import (
    AdderGraphError,
    DataError,
    ProcessError,
    ShapeError,
    StorageError,
    UnsupportedError,
)
from addergraph.files import storage
from addergraph.training import SGD, Cosine, launched, prepare
from addergraph.training.callbacks import Callback
from addergraph.training.parallel import ParallelStep
from addergraph.training.replicas import Replicas
from tests.addergraph.models import DATA, X, Y, fit, same_weights
from tests.addergraph.shell import Shell
from tests.addergraph.training.communicators import Fake, together

pytestmark = pytest.mark.usefixtures("quick_objects")

Work = Callable[[Fake], Any]


def network(seed: int = 5, *, dropout: float = 0.3, kind: type = layers.Adder) -> Model:
    model = Model(input_shape=(8, 8, 1), seed=seed)
    for layer in (
        kind(2, 3, stride=2), layers.BatchNorm(), layers.Activation("relu"), layers.Flatten(),
        layers.Dropout(dropout), layers.Dense(10), layers.Activation("softmax"),
    ):  # fmt: skip
        model.add(layer)
    return model


def run(communicator: Fake | None = None, **changed: Any) -> tuple[Model, dict[str, list[float]]]:
    """70 samples in batches of 16: the last one has 6."""
    model = changed.pop("model", None) or network()
    options: dict[str, Any] = {
        "x_val": DATA.x_test[:31],
        "y_val": DATA.y_test[:31],
        "epochs": 2,
        "learning_rate": Cosine(0.05, 2),
        "optimizer": SGD(clip_norm=2.0, average=0.9),
        "augment": Augment(padding=1, flip=0.5),
        "batch_norm_samples": 40,
    }
    history = fit(model, communicator=communicator, **options | changed).history
    return model, {name: values for name, values in history.items() if name != "seconds"}


def all_right(found: list[Any]) -> list[Any]:
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found


def same(one: tuple[Model, object], other: tuple[Model, object]) -> bool:
    return one[1] == other[1] and same_weights(one[0], other[0])


@pytest.mark.parametrize("statistics", ["local", "synchronized"])
def test_the_same_bits_for_any_number_of_processes(statistics: str) -> None:
    options: dict[str, Any] = {
        "deterministic": 3 if statistics == "local" else 2,
        "batch_statistics": statistics,
    }
    alone = run(**options)
    for size in (1, options["deterministic"]):
        for other in all_right(together(int(size), lambda c: run(c, **options))):
            assert same(other, alone)
    assert not same(run(), alone)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["reference", "native"])
@pytest.mark.parametrize("statistics", ["local", "synchronized"])
def test_one_two_and_four(statistics: str, engine: str) -> None:
    options: dict[str, Any] = {"deterministic": 4, "batch_statistics": statistics}
    options |= {"engine": engine, "threads": 1, "batch_size": 32, "epochs": 3}
    alone = run(**options)
    for size in (2, 4):
        for other in all_right(together(size, lambda c: run(c, **options))):
            assert same(other, alone)


class Losses(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.seen.append(logs["loss"])


def losses(communicator: Fake | None, **options: Any) -> list[float]:
    log = Losses()
    kind = options.pop("kind", layers.Adder)
    run(communicator, model=network(dropout=0.0, kind=kind), callbacks=[log], **options)
    return log.seen


def test_synchronized_statistics_are_those_of_one_process() -> None:
    alone = losses(None)
    shared = all_right(together(2, lambda c: losses(c, batch_statistics="synchronized")))
    assert shared[0] == shared[1]
    np.testing.assert_allclose(shared[0][:2], alone[:2], rtol=1e-6)  # then roundings add up
    own = all_right(together(2, lambda c: losses(c)))[0]
    assert abs(own[0] - alone[0]) > 1e-4


@pytest.mark.slow
def test_fifty_steps_with_synchronized_statistics() -> None:
    """Of a convolution, whose gradients are smooth: an adder's jump where x meets f."""
    options: dict[str, Any] = {"kind": layers.Conv, "epochs": 10, "learning_rate": 0.02}
    alone = losses(None, **options)
    shared = together(2, lambda c: losses(c, batch_statistics="synchronized", **options))
    assert len(alone) == 50
    np.testing.assert_allclose(all_right(shared)[0], alone, atol=1e-5)


def test_few_gradients_are_exchanged_in_one_call_a_step() -> None:
    def count(communicator: Fake) -> int:
        run(communicator, epochs=1, x_val=None, y_val=None, batch_norm_samples=0)
        return communicator.made.count("allreduce")

    assert all_right(together(3, count)) == [5, 5, 5]


def test_a_part_of_a_batch_is_as_in_the_whole() -> None:
    loader = Loader(X, batch_size=16, seed=3, augment=Augment(padding=2, flip=0.5), prefetch=0)
    whole = list(loader.epoch(1))
    replicas = [Replicas(None, 3) for _ in range(3)]
    for part, replica in enumerate(replicas):
        replica.rank, replica.size = part, 3
    parts = [list(loader.epoch(1, part=replica.rows)) for replica in replicas]
    for step, (x, index) in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([p[step][0] for p in parts]), x)
        np.testing.assert_array_equal(np.concatenate([p[step][1] for p in parts]), index)
    with pytest.raises(DataError, match="first=15: 2 images"):
        Augment().apply(X[:2], np.random.default_rng(0), 16, 15)


def test_what_a_process_gets() -> None:
    replicas = Replicas(None, 4)
    assert replicas.bounds(10) == [0, 2, 5, 7, 10] and replicas.sizes(10) == [2, 3, 2, 3]
    np.testing.assert_allclose(replicas.shares(10), [0.2, 0.3, 0.2, 0.3])
    assert replicas.rows(10) == slice(0, 10) and replicas.rows(7) == slice(0, 7)

    def own(communicator: Fake) -> tuple[slice, list[int], slice, dict[str, int], bool, object]:
        with Replicas(communicator, 4) as one:
            total = one.total({"a": one.rank + 1, "b": 5})
            return (
                one.rows(10), one.sizes(10), one.rows(7), total, one.any(one.rank == 1),
                one.shared({"rank": one.rank}),
            )  # fmt: skip

    first, second = all_right(together(2, own))
    assert first == (slice(0, 5), [2, 3], slice(0, 3), {"a": 3, "b": 10}, True, {"rank": 0})
    assert second == (slice(5, 10), [2, 3], slice(3, 7), {"a": 3, "b": 10}, True, {"rank": 0})


def test_threads_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("addergraph.training.replicas.usable_processors", lambda: 5)
    assert Replicas(None).threads(None) is None
    found = together(2, lambda c: (Replicas(c).threads(None), Replicas(c).threads(7)))
    assert found == [(2, 7), (2, 7)]


# --- checkpoints ------------------------------------------------------------------------------


class Stop(Callback):
    """After so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.left -= 1
        self.stop_training = self.left <= 0


@pytest.mark.parametrize(("before", "after"), [pytest.param(2, 1, marks=pytest.mark.slow), (1, 2)])
def test_another_number_of_processes_goes_on(tmp_path: Path, before: int, after: int) -> None:
    options: dict[str, Any] = {"deterministic": 2, "keep_best": True}
    whole = run(checkpoint=tmp_path / "whole", **options)
    folder = {"checkpoint": tmp_path / "run", "resume": True}
    all_right(together(before, lambda c: run(c, callbacks=[Stop(7)], **folder, **options)))
    found = all_right(together(after, lambda c: run(c, **folder, **options)))
    assert all(same(one, whole) for one in found)
    rows = [
        [line.split(",")[:6] for line in (tmp_path / name / "log.csv").read_text().splitlines()]
        for name in ("whole", "run")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 3  # a head and two epochs, written once
    left = sorted(os.listdir(tmp_path / "run"))
    assert left == sorted(os.listdir(tmp_path / "whole"))


def test_one_callback_stops_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Replicas.__init__, "__defaults__", (0, 30.0))

    def work(communicator: Fake) -> Any:
        stop = Stop(3 if communicator.rank else 100)
        return run(communicator, callbacks=[stop], checkpoint=tmp_path, verbose=1, epochs=1), stop

    _, first = all_right(together(2, work))[0]
    assert first.left == 97
    said = capsys.readouterr().out
    assert said.count("stopped by a callback") == 1


def test_parts_decide_bits_and_a_checkpoint_says_so(tmp_path: Path) -> None:
    run(checkpoint=tmp_path, deterministic=2, callbacks=[Stop(2)])
    for other in (0, 4):
        with pytest.raises(DataError, match="was made with deterministic=2, this run has"):
            run(checkpoint=tmp_path, resume=True, deterministic=other)


# --- failures ---------------------------------------------------------------------------------


def errors(work: Work, size: int = 2) -> list[AdderGraphError]:
    found = together(size, work)
    assert all(isinstance(one, AdderGraphError) for one in found), found
    return found


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y": Y[::-1].copy()}, "differ in the data: process 1 has 70 samples"),
        ({"x": X[:64], "y": Y[:64]}, r"differ in the shapes of the samples: .*\(70, 8, 8, 1\)"),
        ({"batch_size": 15}, "differ in the setting batch_size: process 1 has 16, process 2 of 2"),
        ({"epochs": 3, "learning_rate": Cosine(0.05, 2)}, "differ in the setting epochs"),
        ({"y_val": DATA.y_test[1:32]}, "differ in the setting validation"),
        ({"callbacks": [Losses()]}, "differ in the number of callbacks"),
    ],
)
def test_processes_that_work_on_something_else(changed: dict[str, Any], message: str) -> None:
    found = errors(lambda c: run(c, **(changed if c.rank else {})))
    for error in found:
        assert isinstance(error, ProcessError)
        with pytest.raises(ProcessError, match=message):
            raise error


def test_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(("0.1", "0.2"))
    right = prepare.facts_of

    def facts(*arguments: Any) -> dict[str, str]:
        return right(*arguments) | {"the version of AdderGraph": next(numbers)}

    monkeypatch.setattr("addergraph.training.fit.facts_of", facts)
    for error in errors(run):
        assert "differ in the version of AdderGraph: process 1 has 0." in str(error)


@pytest.mark.parametrize("when", ["before", "within"])
def test_an_error_of_one_process_reaches_all(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Replicas.__init__, "__defaults__", (0, 30.0))

    class Fails(Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            if failing and batch == 2:
                raise StorageError("the disk of this process is full")

    failing = False

    def work(communicator: Fake) -> Any:
        nonlocal failing
        if communicator.rank == 1 and when == "before":
            return run(communicator, y=Y[:-1])
        one = Fails()
        if communicator.rank != 1:
            one.on_train_batch_end = lambda batch, logs: None  # type: ignore[method-assign]
        failing = True
        folder = {"checkpoint": tmp_path, "checkpoint_steps": 2}
        return run(communicator, callbacks=[one], **folder)

    first, second = errors(work)
    assert isinstance(first, ProcessError)
    assert str(first) == f"process 2 of 2 has ended this run: {second}"
    if when == "within":  # the last whole step is there, though no checkpoint was due
        failing = False
        metadata = storage.load(tmp_path / "checkpoint.safetensors")[1]
        assert json.loads(metadata["position"])["step"] == 3
        again = {"checkpoint": tmp_path, "checkpoint_steps": 2, "resume": True}
        all_right(together(2, lambda c: run(c, **again)))


def test_a_process_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replicas.__init__, "__defaults__", (0, 0.05))

    def work(communicator: Fake) -> Any:
        return run(communicator) if communicator.rank == 0 else None

    late, _ = together(2, work)
    assert isinstance(late, ProcessError)
    assert "process 1 of 2 has waited 0.05 s for another one" in str(late)


def test_divergence_ends_all_alike() -> None:
    for error in errors(lambda c: run(c, learning_rate=1e30, x_val=None, y_val=None)):
        assert "training diverged" in str(error)


def test_batches_that_cannot_be_dealt_out() -> None:
    with pytest.raises(DataError, match="batch of 6 samples cannot be cut into 8 parts"):
        run(deterministic=8)
    for error in errors(lambda c: run(c, deterministic=3)):
        assert "2 processes cannot have as many each of 3 parts" in str(error)
    model = Model(input_shape=(8, 8, 1))
    for layer in (layers.Flatten(), layers.AdderDense(4), layers.BatchNorm(), layers.Dense(10)):
        model.add(layer)
    for statistics in ("local", "synchronized"):
        with pytest.raises(ShapeError, match="gets one value for each channel"):
            run(model=model, deterministic=4, batch_statistics=statistics, augment=None)
    with pytest.raises(DataError, match="communicator=3: expected one of mpi4py"):
        run(3)  # type: ignore[arg-type]


def test_several_outputs() -> None:
    def work(communicator: Fake | None) -> Any:
        def net(x: Any) -> dict[str, Any]:
            flat = layers.Flatten()(x)
            return {"digit": layers.Dense(10)(flat), "size": layers.Dense(1)(flat)}

        model = Model(
            net, input_shape=(8, 8, 1), loss={"digit": "cat_cross_entropy", "size": "huber"}
        )
        y = {"digit": Y, "size": X.mean(axis=(1, 2))}
        history = fit(model, X, y, communicator=communicator, deterministic=2, epochs=2).history
        return model, {n: v for n, v in history.items() if n != "seconds"}

    alone = work(None)
    assert "size_loss" in alone[1] and "digit_accuracy" in alone[1]
    assert all(same(one, alone) for one in all_right(together(2, work)))


@pytest.mark.slow
def test_the_need_is_that_of_the_parts() -> None:
    with Replicas(None, 2) as replicas:
        step = ParallelStep(
            network(), 16, SGD(), label_smoothing=0.0, gradient="full_precision",
            engine="native", threads=1, seed=0, replicas=replicas, synchronize=False,
        )  # fmt: skip
        need = step.need([16])
        vectors = 3 * step._reduced.whole.nbytes  # of two parts, and their mean
    assert need.arena > vectors and need.state > 0
    assert need.batches == 4 * 16 * 64 * 4  # four batches of 16 samples of 64 numbers


@pytest.mark.parametrize("synchronize", [False, True])
def test_the_need_has_what_parts_keep_between_exchanges(synchronize: bool) -> None:
    with Replicas(None, 2) as replicas:
        step = ParallelStep(
            network(), 16, SGD(), label_smoothing=0.0, gradient="full_precision",
            engine="reference", threads=1, seed=0, replicas=replicas, synchronize=synchronize,
        )  # fmt: skip
        need = step.need([16, 12])
        for samples in (16, 12):
            step.run([X[:samples]], [np.eye(10, dtype=np.float32)[Y[:samples]]], 0.1)
    kept = [a for s in step._segments.values() for one in s for g in one._given.values() for a in g]
    vectors = [one.whole for one in (*step._vectors, step._reduced)]
    own = [a for a in kept if not any(np.shares_memory(a, one) for one in vectors)]
    assert need.arena == sum(a.nbytes for a in own) + sum(one.nbytes for one in vectors)
    assert (len(own) > 10) == synchronize  # otherwise predictions alone


# --- mpirun -----------------------------------------------------------------------------------


def test_who_was_started_by_mpirun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched.processes({}) == 1 and launched.communicator() is None
    assert launched.processes({"OMPI_COMM_WORLD_SIZE": "4"}) == 4
    assert launched.processes({"PMI_SIZE": "3", "OMPI_COMM_WORLD_SIZE": "x"}) == 3
    monkeypatch.setattr(launched, "processes", lambda: 4)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(UnsupportedError, match=r"4 processes .*pip install 'addergraph\[mpi\]'"):
        launched.communicator()


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD", "PMI", "MV2_COMM_WORLD"])
def test_other_commands_than_train_are_refused_once(
    name: str, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "m.onnx"
    command = ("export-onnx", "small-adder", "-o", output)
    monkeypatch.setenv(f"{name}_SIZE", "2")
    monkeypatch.setenv(f"{name}_RANK", "0")
    said = shell.error(*command)
    assert "mpirun started 2 processes, and export-onnx is work for one" in said
    monkeypatch.setenv(f"{name}_RANK", "1")
    assert shell.ok(*command) == "" and not output.exists()
    assert "Usage" in shell.ok("export-onnx", "--help")


def test_train_alone_is_not_refused() -> None:
    assert [c.name for c in commands.commands.values() if getattr(c, "_shares", 0)] == ["train"]


def test_settings_of_parts_leave_checkpoints_of_one_process_alone() -> None:
    from addergraph.training.settings import Fit

    usual = Fit().description()
    assert not {"deterministic", "batch_statistics", "communicator"} & usual.keys()
    assert Fit(deterministic=4).description()["deterministic"] == "4"
    assert dataclasses.replace(Fit(), batch_statistics="local").description() == usual
