"""The loop: best weights and early stopping, averages, divergence, what cannot be trained."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph import Model, compiler, layers
from addergraph.data import Normalize
from addergraph.errors import DataError, DataWarning, ShapeError
from addergraph.ir import Graph
from addergraph.training import SGD, Adam
from addergraph.training.progress import Progress
from tests.addergraph.models import DATA, ENGINES, X, Y, fit, same_weights, small_model

pytestmark = pytest.mark.usefixtures("quick_objects")

VALIDATION = {"x_val": DATA.x_test[:40], "y_val": DATA.y_test[:40]}


def good_then_bad(epoch: int) -> float:
    """Rates that spoil the weights after two epochs, without any NaN."""
    return 0.05 if epoch < 2 else 3.0


# --- how samples enter ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "dtype", "normalize", "large"),
    [
        (1, "f4", None, False),  # digits as they are loaded: 0 to 1
        (255, "f4", None, True),
        (255, "u1", None, True),
        (65535, "u2", None, True),
        (255, "u1", Normalize((0.0,), (1.0,)), False),
        (255, "u1", Normalize((0.0,), (1.0,), scale=1.0), True),
    ],
)
def test_samples_beyond_the_scale_of_the_filters(
    factor: int, dtype: str, normalize: Normalize | None, large: bool
) -> None:
    pixels = (X[:16] / X.max() * factor).astype(dtype)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(small_model(), pixels, Y[:16], normalize=normalize)
    said = [str(w.message) for w in caught if w.category is DataWarning]
    assert len(said) == large
    assert not said or f"samples enter with numbers up to {factor} (root mean square" in said[0]


# --- the best epoch -------------------------------------------------------------------------------


def test_the_best_weights_are_kept() -> None:
    expected, model = small_model(), small_model()
    rates: dict[str, Any] = {"learning_rate": good_then_bad, **VALIDATION}
    accuracies = fit(model, epochs=5, keep_best=True, **rates).history["val_accuracy"]
    best = int(np.argmax(accuracies))
    assert best < 4
    fit(expected, epochs=best + 1, **rates)
    assert same_weights(model, expected)
    found = model.evaluate(*VALIDATION.values(), engine="reference")
    assert found["accuracy"] == max(accuracies)


@pytest.mark.parametrize("validation", [VALIDATION, {}])
def test_patience_ends_a_run_that_gets_no_better(validation: dict[str, Any]) -> None:
    model = small_model()
    history = fit(model, epochs=50, learning_rate=good_then_bad, patience=3, **validation).history
    measured = history["val_accuracy"] if validation else [-v for v in history["loss"]]
    assert len(measured) < 50
    assert int(np.argmax(measured)) == len(measured) - 1 - 3


def test_a_stopped_run_stays_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given: dict[str, Any] = {"learning_rate": good_then_bad, "patience": 2, **VALIDATION}

    def run(resume: bool) -> int:
        options = {"checkpoint": tmp_path, "keep_best": True, "resume": resume, "verbose": 1}
        history = fit(small_model(), epochs=50, **options, **given)
        return len(history.history["loss"])

    assert run(False) == run(True) < 50
    first, _, second = capsys.readouterr().out.partition(f'from "{tmp_path}')
    best = run(True) - 2
    last = (
        f"no epoch since {best} was better\nthe weights are those of epoch {best}, the best one\n"
    )
    assert first.endswith(last) and second.endswith(last)
    assert second.splitlines()[0].endswith(f"the run is complete, {best + 2} of 50 epochs")


# --- averages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_evaluation_and_the_result_use_the_averages(engine: str) -> None:
    plain, model = small_model(input_shape=(8, 8, 1)), small_model()
    steps: list[dict[str, Any]] = []
    step = plain.train_step(16, engine=engine)
    for _ in range(3):
        step(X[:16], Y[:16], 0.05)
        steps.append({name: array.astype("f8") for name, array in plain.weights.items()})
    history = fit(
        model, X[:16], Y[:16], epochs=3, shuffle=False, engine=engine,
        optimizer=SGD(average=0.5), batch_norm_samples=0, **VALIDATION,
    ).history  # fmt: skip
    for name, array in model.weights.items():
        expected = sum(w * s[name] for w, s in zip((1, 2, 4), steps, strict=True)) / 7
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    found = model.evaluate(*VALIDATION.values(), engine=engine)
    assert history["val_loss"][-1] == found["loss"]


# --- divergence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loss_that_is_not_finite_names_the_layer(engine: str, tmp_path: Path) -> None:
    model, good = small_model(), small_model()
    fit(good, epochs=1, engine=engine)
    written: list[bytes] = []

    def rate(epoch: int) -> float:
        if epoch == 1 and (tmp_path / "checkpoint.safetensors").exists():
            written.append((tmp_path / "checkpoint.safetensors").read_bytes())
        return 0.05 if epoch < 1 else 1e30

    said = (
        r'diverged in epoch 2, step 3: the loss is nan: parameter "adder1.f" had become NaN or Inf '
        r'in the step before; the weights are those of the end of epoch 1; ".*.safetensors" is '
        r"kept. Lower the learning rate \(it was 1e\+30\)"
    )
    with pytest.raises(DataError, match=said):
        fit(model, epochs=5, learning_rate=rate, engine=engine, checkpoint=tmp_path)
    assert same_weights(model, good)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == written[-1]


def test_only_a_checkpoint_that_is_there_is_kept(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="those before training. Lower"):
        fit(small_model(), epochs=1, learning_rate=1e30, checkpoint=tmp_path)
    assert not (tmp_path / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_culprit_is_the_first_layer_that_overflows(engine: str) -> None:
    model = Model(input_shape=(2,))
    for layer in (layers.Dense(2), layers.Dense(2, name="big"), layers.Dense(2)):
        model.add(layer)
    model.weights["dense1.f"][...] = np.eye(2)
    model.weights["big.f"][...] = 3e38
    with pytest.raises(DataError, match='step 1: the loss is nan: add|dense "big" is the first'):
        fit(model, [[1.0, 1.0], [2.0, 1.0]], [0, 1], batch_size=2, engine=engine)


def test_a_weight_that_overflows_is_found_at_the_end_of_the_epoch() -> None:
    model = Model(input_shape=(1,), loss_name="mean_squared_error")
    model.add(layers.Dense(1, bias=False))
    model.weights["dense1.f"][...] = 1.0
    with pytest.raises(DataError, match='step 1: parameter "dense1.f" holds NaN or Inf after it'):
        fit(
            model, [[1e9]], [[0.0]], learning_rate=3e38, engine="reference",
            optimizer=SGD(momentum=0.0, weight_decay=0.0),
        )  # fmt: skip
    assert model.weights["dense1.f"] == 1.0


# --- what cannot be trained ---------------------------------------------------------------------


def flat_norm() -> Model:
    model = Model()
    for layer in (layers.Flatten(), layers.Dense(10), layers.BatchNorm()):
        model.add(layer)
    return model


@pytest.mark.parametrize(("count", "batch"), [(4, 1), (1, 8), (17, 16), (70, 3)])
def test_batch_norm_over_one_value_is_refused_before_training(count: int, batch: int) -> None:
    model = flat_norm()
    named = {17: "; of 17 samples a batch size of 15 does$", 70: "; of 70 samples .* of 2 does$"}
    said = 'batch_norm "bn1" gets one value for each channel .*' + named.get(count, "")
    with pytest.raises(ShapeError, match=said):
        fit(model, X[:count], Y[:count], batch_size=batch)
    assert (model.weights["bn1.mean"] == 0).all()


def test_batch_norm_over_the_pixels_of_one_sample_trains() -> None:
    fit(small_model(), X[:3], Y[:3], batch_size=1)


def test_every_option_at_once_learns() -> None:
    model, optimizer = small_model(), Adam(weight_decay=0.01, clip_norm=5.0, average=0.5)
    history = fit(
        model, epochs=8, learning_rate=0.02, optimizer=optimizer, label_smoothing=0.1,
        gradient="sign", engine="native", **VALIDATION,
    ).history  # fmt: skip
    assert history["loss"][-1] < history["loss"][0]
    assert history["val_accuracy"][-1] > 0.4


def test_everything_is_compiled_before_the_first_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the seconds of the first epoch, and the time left, are those of training."""
    model, before = small_model(), Progress.start
    done: list[str] = []
    real = compiler.compile

    def compile(graph: Graph, **options: Any) -> Any:
        done.append(f"{graph.name} {graph.inputs[0].type}")
        return real(graph, **options)

    def start(self: Progress, steps: int) -> None:
        done.append("started")
        before(self, steps)

    monkeypatch.setattr(compiler, "compile", compile)
    monkeypatch.setattr(Progress, "start", start)
    held_out = {"x_val": X[:5], "y_val": Y[:5]}
    fit(model, engine="native", epochs=2, **held_out)
    assert done == [
        "model f32[N,8,8,1]", "model_train f32[16,8,8,1]", "model_statistics f32[16,8,8,1]",
        "model_train f32[6,8,8,1]", "started",
    ]  # fmt: skip


def test_long_epochs_say_how_far_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("addergraph.stages.EVERY", 0.0)
    fit(small_model(), epochs=2, batch_size=32, verbose=1)
    lines = [line for line in capsys.readouterr().out.splitlines() if "step" in line]
    count = len([line for line in lines if line.startswith("epoch 1/2, step ")])
    assert count > 1 and f"epoch 2/2, step {count}/{count}  loss " in lines[-1]
    assert " images/s, " in lines[-1] and all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("epochs", [2, 400, 100_000])
def test_an_epoch_is_told_in_lines_of_a_terminal(
    capsys: pytest.CaptureFixture[str], epochs: int
) -> None:
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    record = {name: 0.125 * i for i, name in enumerate(names)} | {"seconds": 2.0}
    Progress(epochs, 10, 5000, 1).epoch(1, record)
    out = capsys.readouterr().out
    words = "  ".join(out.split())
    assert words.startswith("epoch  ") and "(2.00  s,  2,500  images/s,  " in words
    assert all(f"{name}  {record[name]:.4f}" in words for name in names)
    assert 1 <= len(out.splitlines()) <= 3 and max(map(len, out.splitlines())) <= 80
