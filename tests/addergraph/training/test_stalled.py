"""A run that learns nothing says so, and names what died."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from addergraph import Model, layers
from addergraph.errors import DataWarning
from addergraph.training.labels import as_targets
from addergraph.training.logs import History
from addergraph.training.losses import loss_of
from addergraph.training.stalled import constant_loss, has_stalled, is_by_chance, is_learning
from tests.addergraph.shell import Shell

RNG = np.random.default_rng(0)
Y = np.arange(60) % 3
X = (RNG.normal(size=(60, 4)) + 3 * np.eye(3, 4)[Y]).astype(np.float32)


def network(dead: bool) -> Model:
    model = Model(input_shape=(4,))
    model.add(layers.Dense(8, name="hidden"))
    model.add(layers.Activation("relu", name="act"))
    model.add(layers.Dense(3, name="last"))
    if dead:
        model.weights["hidden.b"][...] = -1e4
    return model


def test_the_layer_that_died_is_named_once() -> None:
    with pytest.warns(DataWarning, match="learned nothing") as said:
        history = network(dead=True).fit(X, Y, epochs=6, batch_size=2, verbose=0)
    (one,) = [w for w in said if "learned nothing" in str(w.message)]
    assert one.filename == __file__
    (found,) = history.findings
    assert found.node == "act"
    assert re.fullmatch(
        r"after 4 epochs the network has learned nothing: its loss, 1\.\d+, is not below that of "
        r'one constant answer, 1\.099; the result of relu "act" is the same for every sample: it '
        r"has died",
        found.message,
    )
    assert "lower the learning rate (it was 0.1)" in found.hint


@pytest.mark.slow
def test_a_run_that_learns_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        assert not network(dead=False).fit(X, Y, epochs=3, batch_size=1, verbose=0).findings


@pytest.mark.slow
def test_what_was_said_too_early_is_taken_back() -> None:
    def rate(epoch: int) -> float:
        return 1e-9 if epoch < 4 else 0.01

    model = Model(input_shape=(4,), loss_name="mean_squared_error")
    model.add(layers.Dense(1))
    y = (X @ np.arange(4)).astype(np.float32) + 20
    with pytest.warns(DataWarning, match=r"after 4 epochs the network has learned nothing"):
        history = model.fit(X, y, epochs=14, batch_size=2, learning_rate=rate, verbose=0)
    assert history.history["loss"][-1] < 1.0 and not history.findings


def test_answers_that_vary_are_not_called_dead() -> None:
    y = RNG.integers(0, 3, 60)
    model = network(dead=False)
    with pytest.warns(DataWarning, match="do not follow the targets"):
        history = model.fit(X * 1e-3, y, epochs=3, batch_size=1, learning_rate=1e-6, verbose=0)
    assert history.findings[0].node == ""


def test_the_loss_of_one_constant_answer() -> None:
    y = np.array([0, 0, 0, 1])
    expected = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    labels = as_targets(y, 4, (2,), classes=True)
    rows = as_targets(np.eye(2)[y], 4, (2,), classes=True)
    for targets in (labels, rows):
        assert constant_loss(targets, loss_of("cat_cross_entropy")) == pytest.approx(expected)
    p = 0.75 * 0.9 + 0.05
    smoothed = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    assert constant_loss(labels, loss_of("cat_cross_entropy", 0.1)) == pytest.approx(smoothed)
    values = as_targets(np.array([[1.0], [3.0]]), 2, (1,), classes=False)
    assert constant_loss(values, loss_of("mean_squared_error")) == pytest.approx(1.0)
    for targets in (labels, rows):
        assert constant_loss(targets, loss_of("mean_squared_error")) == pytest.approx(0.75 * 0.25)


@pytest.mark.parametrize(
    ("losses", "accuracies", "stalled"),
    [
        ([1.1, 1.1], [0.33, 0.34], True),
        ([1.1], [0.33], False),  # one epoch proves nothing
        ([1.1, 1.0], [0.33, 0.34], False),
        ([1.3, 1.2], [0.33, 0.34], False),  # not there yet, but on its way
        ([1.0, 1.1, 1.1], [0.5, 0.33, 0.33], True),  # it has died on the way
        ([1.1, 1.1], [0.33, 0.99], False),  # badly scaled, but it learns
    ],
)
def test_what_counts_as_stalled(
    losses: list[float], accuracies: list[float], stalled: bool
) -> None:
    targets = as_targets(Y, 60, (3,), classes=True)
    history = History({"loss": losses, "accuracy": accuracies})
    assert has_stalled(history.history, 200, targets, math.log(3)) is stalled
    assert not has_stalled(history.history, 99, targets, math.log(3))


def test_train_ends_with_an_error_and_the_file(shell: Shell) -> None:
    rng = np.random.default_rng(0)
    np.savez("x.npz", x=rng.integers(0, 255, (60, 4, 4, 1), np.uint8), y=np.arange(60) % 3)
    model = Model(input_shape=(4, 4, 1))
    model.add(layers.Flatten())
    model.add(layers.Dense(8, name="hidden"))
    model.add(layers.Activation("relu", name="act"))
    model.add(layers.Dense(3))
    model.weights["hidden.b"][...] = -1e4
    model.save("dead.safetensors")
    base = (
        "train", "--data", "x.npz", "--model", "dead.safetensors", "--epochs", 4, "--batch", 2
    )  # fmt: skip
    done = shell(*base, "-o", "m.safetensors")
    assert done.status == 2 and 'relu "act" is the same for every sample' in done.err
    assert "The model file is written all the same" in done.err
    assert Path("m.safetensors").exists()
    assert shell(*base, "-o", "m.safetensors", "--allow-chance").status == 0


@pytest.mark.slow
def test_validation_by_chance_is_said_once_and_taken_back() -> None:
    """Labels of the validation samples that mean nothing; then those that they have."""
    x = np.tile(X, (4, 1))
    y, wrong = np.tile(Y, 4), RNG.integers(0, 3, 240)
    with pytest.warns(DataWarning, match="by chance only") as said:
        history = network(dead=False).fit(x, y, x, wrong, epochs=6, batch_size=4, verbose=0)
    (one,) = [w for w in said if "by chance" in str(w.message)]
    assert one.filename == __file__
    (found,) = history.findings
    assert re.match(
        r"after [3-6] epochs the network tells the training samples apart "
        r"\(accuracy [01][.\d]*\), but the validation samples by chance only "
        r"\(val_accuracy 0\.\d+\)",
        found.message,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        assert not network(dead=False).fit(x, y, x, y, epochs=4, batch_size=4, verbose=0).findings


@pytest.mark.parametrize(
    ("accuracies", "held_out", "steps", "said"),
    [
        ([0.9, 0.95, 0.99], [0.3, 0.33, 0.3], 200, True),
        ([0.9, 0.95], [0.3, 0.33], 200, False),  # batch norms lag at the start
        ([0.9, 0.95, 0.99], [0.3, 0.33, 0.3], 99, False),
        ([0.9, 0.95, 0.99], [0.3, 0.33, 0.8], 200, False),  # it has come
        ([0.9, 0.95, 0.99], [0.3, 0.6, 0.3], 200, False),  # it comes and goes
        ([0.5, 0.6, 0.65], [0.3, 0.33, 0.3], 200, False),  # hardly begun
    ],
)
def test_what_counts_as_validation_by_chance(
    accuracies: list[float], held_out: list[float], steps: int, said: bool
) -> None:
    targets = as_targets(Y, 60, (3,), classes=True)
    history = {"accuracy": accuracies, "val_accuracy": held_out}
    assert (is_learning(history, steps, targets) and is_by_chance(history, targets)) is said
    assert not is_by_chance({"accuracy": accuracies}, targets)
    few = as_targets(Y[:6], 6, (3,), classes=True)  # luck may give any accuracy, and proves nothing
    assert not is_by_chance({"val_accuracy": [0.5] * 3}, few)
    assert is_by_chance({"val_accuracy": [2 / 6] * 3}, few)
