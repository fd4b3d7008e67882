"""Losses: named ones against NumPy, and functions of symbolic tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph import Model, compiler, layers, ops
from addergraph.errors import AdderGraphError, DataError, GraphError, ShapeError, UnsupportedError
from addergraph.ir import Array
from addergraph.ir.interpreter import run_reference
from addergraph.ir.trace import Tensor
from addergraph.training.labels import as_targets
from addergraph.training.losses import LOSSES, loss_of
from addergraph.training.stalled import constant_loss
from tests.addergraph.models import X, Y, fit, small_model
from tests.addergraph.shell import Shell

RNG = np.random.default_rng(0)
Z = RNG.normal(scale=2, size=(6, 3)).astype(np.float32)
T = RNG.random((6, 3)).astype(np.float32)
SHAPE = (8, 8, 1)


def sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z.astype(np.float64))))


def binary(z: Array, t: Array) -> Array:
    p = sigmoid(z)
    return np.asarray(-(t * np.log(p) + (1 - t) * np.log(1 - p)))


def huber(z: Array, t: Array) -> Array:
    d = np.abs(z - t)
    return np.asarray(np.where(d <= 1, d * d / 2, d - 0.5))


EXPECTED: dict[str, tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]] = {
    "binary_cross_entropy": (binary, lambda z, t: sigmoid(z) - t),
    "huber": (huber, lambda z, t: np.clip(z - t, -1, 1)),
    "mean_absolute_error": (lambda z, t: np.abs(z - t), lambda z, t: np.sign(z - t)),
    "mean_squared_error": (lambda z, t: (z - t) ** 2, lambda z, t: 2 * (z - t)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_named_losses_and_their_gradients(name: str) -> None:
    losses, gradient = EXPECTED[name]
    loss = loss_of(name)
    assert np.allclose(loss.of_samples(Z, T, False), losses(Z, T).mean(axis=1), rtol=1e-5)
    graph = compiler.grad(loss.graph(Z.shape), ["scores"])
    upstream = np.full(len(Z), 1, np.float32)
    (found,), _ = run_reference(graph, [Z, T, upstream], {})
    assert np.allclose(found, gradient(Z, T) / Z.shape[1], rtol=1e-4, atol=1e-6)


def test_binary_cross_entropy_is_stable() -> None:
    loss = loss_of("binary_cross_entropy")
    z = np.asarray([[-500.0], [0.0], [500.0]], np.float32)
    ones = np.ones_like(z)
    assert np.allclose(loss.of_samples(z, ones, False), [500.0, np.log(2.0), 0.0])
    graph = compiler.grad(loss.graph(z.shape), ["scores"])
    (found,), _ = run_reference(graph, [z, ones, np.ones(3, np.float32)], {})
    assert found[:, 0].tolist() == [-1.0, -0.5, 0.0]
    answers = np.asarray([[0.0], [0.25], [1.0]], np.float32)  # behind a sigmoid
    with_zero = loss.of_samples(answers, ones, True)
    assert np.allclose(with_zero[1:], [np.log(4.0), 0.0], atol=1e-6) and with_zero[0] > 80


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_a_run_is_that_of_evaluate(name: str) -> None:
    last = {"cat_cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}.get(name, "tanh")
    model = Model(input_shape=SHAPE, loss=name)
    for layer in (layers.Flatten(), layers.Dense(10), layers.Activation(last)):
        model.add(layer)
    step = model.train_step(len(X), engine="reference")
    before = model.evaluate(X, Y, engine="reference")["loss"]
    assert step(X, Y, 0.05)[0] == pytest.approx(before, rel=1e-5)
    assert model.evaluate(X, Y, engine="reference")["loss"] < before


def test_constant_answers() -> None:
    """What a run has to beat: by search over constants."""
    values = np.asarray([[0.0], [0.2], [1.0], [0.1]], np.float32)
    targets = as_targets(values, 4, (1,), False)
    tries = np.linspace(0.025, 0.975, 39, dtype=np.float32)
    for name in ("mean_squared_error", "mean_absolute_error"):
        losses = [loss_of(name).of_samples(np.full((4, 1), c), values, False).mean() for c in tries]
        assert constant_loss(targets, loss_of(name)) == pytest.approx(min(losses), abs=1e-3)
    losses = [loss_of("binary_cross_entropy").of_samples(np.full((4, 1), c), values, True).mean()
              for c in tries]  # fmt: skip
    found = constant_loss(targets, loss_of("binary_cross_entropy"))
    assert found == pytest.approx(min(losses), abs=1e-3)
    assert constant_loss(targets, loss_of("huber")) == 0
    labels = as_targets(np.arange(8) % 4, 8, (4,), False)
    assert constant_loss(labels, loss_of("mean_absolute_error")) == pytest.approx(0.25)


def test_targets_of_probabilities_are_checked() -> None:
    model = Model(input_shape=SHAPE, loss="binary_cross_entropy")
    for layer in (layers.Flatten(), layers.Dense(1)):
        model.add(layer)
    with pytest.raises(DataError, match=r"y: targets .* from -1 to 1"):
        fit(model, X, np.where(Y % 2, 1, -1))
    first = fit(model, X, Y % 2, epochs=8, learning_rate=0.1).history["loss"]
    assert first[-1] < 0.5 < first[0]


# --- functions ------------------------------------------------------------------------------------


def focal(p: Tensor, t: Tensor) -> Tensor:
    """-t (1 - p)^2 log p."""
    rest = 1.0 - p
    return -ops.reduce_sum(t * rest * rest * ops.log(p + 1e-6), 1)


def as_named(p: Tensor, t: Tensor) -> Tensor:
    return ops.mean_squared_error(p, t)


@pytest.mark.parametrize("mean", [False, True], ids=["rows", "mean"])
def test_a_function_trains_as_the_same_named_loss(mean: bool) -> None:
    def loss(p: Tensor, t: Tensor) -> Tensor:
        return ops.reduce_mean(as_named(p, t), (0,)) if mean else as_named(p, t)

    runs = [small_model(loss=loss), small_model(loss="mean_squared_error")]
    ours, theirs = (fit(m, x_val=X[:20], y_val=Y[:20], epochs=2).history for m in runs)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert np.allclose(ours[name], theirs[name], rtol=1e-5)
    for name, array in runs[0].weights.items():
        assert np.allclose(array, runs[1].weights[name], rtol=1e-4, atol=1e-6)
    assert runs[0].loss_name == "custom"


@pytest.mark.usefixtures("quick_objects")
def test_a_function_is_compiled_like_the_rest() -> None:
    models = [small_model(loss=focal, input_shape=SHAPE) for _ in range(2)]
    steps = [
        m.train_step(16, engine=e) for m, e in zip(models, ("native", "reference"), strict=True)
    ]
    for _ in range(3):
        native, expected = (step(X[:16], Y[:16], 0.1)[0] for step in steps)
        assert native == pytest.approx(expected, rel=1e-4)


def test_one_setting_has_two_names() -> None:
    assert Model().loss == Model().loss_name == "cat_cross_entropy"
    assert Model(loss_name="huber").loss == Model(loss="huber").loss_name == "huber"
    assert Model(loss="huber", loss_name="huber").loss == "huber"
    with pytest.raises(GraphError, match='loss="?.huber.*two names of one setting'):
        Model(loss="huber", loss_name="mean_squared_error")
    with pytest.raises(GraphError, match='unknown loss .hubert.*did you mean "huber"'):
        Model(loss="hubert")
    with pytest.raises(GraphError, match="a function of two tensors.*too many positional"):
        Model(loss=lambda p: p)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="unknown loss 3"):
        Model(loss=3)  # type: ignore[arg-type]


def _makes_parameters(p: Tensor, t: Tensor) -> Tensor:
    return as_named(layers.Dense(10, name="extra")(p), t)


def _not_differentiable(p: Tensor, t: Tensor) -> Tensor:
    return ops.reduce_mean(ops.cast(ops.argmax(p, 1), "f32") - 1.0, (0,))


WRONG: dict[str, tuple[Any, type[AdderGraphError], str]] = {
    "shape": (lambda p, t: p - t, ShapeError, r"gives f32\[16,10\] .* f32\[16\], or one for all"),
    "two": (lambda p, t: [p, t], GraphError, "the loss function returned"),
    "number": (lambda p, t: 0.0, GraphError, "the loss function returned 0.0"),
    "none": (lambda p, t: None, GraphError, "the loss function returned None"),
    "no prediction": (lambda p, t: as_named(t, t), GraphError, "depends on nothing"),
    "steps": (
        lambda p, t: ops.reduce_mean(ops.select(p > t, t, t), 1), GraphError, "depends on nothing",
    ),
    "argmax": (_not_differentiable, GraphError, "a differentiable function of the prediction"),
    "parameters": (_makes_parameters, GraphError, r"makes parameters \(extra.f, extra.b\)"),
    "dropout": (
        lambda p, t: as_named(layers.Dropout(0.5)(p), t), GraphError, r"dropout\d.steps.*Dropout",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_function_is_said_before_the_first_step(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    function, error, message = WRONG[kind]
    model = small_model(loss=function, input_shape=SHAPE)
    before = {name: a.copy() for name, a in model.weights.items()}
    with pytest.raises(error, match=message):
        fit(model, verbose=1)
    assert "compiling" not in capsys.readouterr().out
    assert all(np.array_equal(a, before[name]) for name, a in model.weights.items())


def test_smoothing_is_of_classes() -> None:
    with pytest.raises(DataError, match="custom has none"):
        fit(small_model(loss=focal), label_smoothing=0.1)


def test_a_file_says_that_the_loss_is_a_function(tmp_path: Path) -> None:
    model = small_model(loss=focal, input_shape=SHAPE)
    model.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert again.loss_name == "custom"
    expected = model.evaluate(X, Y, engine="reference")
    assert again.evaluate(X, Y, engine="reference") == {"accuracy": expected["accuracy"]}
    with pytest.raises(UnsupportedError, match="assign it again, as model.loss = f"):
        fit(again)
    with pytest.raises(UnsupportedError, match="which its file does not hold"):
        again.evaluate(X, np.zeros((len(X), 10)), engine="reference")
    with_loss = Model.load(tmp_path / "m.safetensors", loss=focal)
    assert with_loss.evaluate(X, Y, engine="reference") == expected
    assert "loss" in fit(with_loss).history
    again.loss = "cat_cross_entropy"
    fit(again)


def test_the_command_line_evaluates_a_file_with_a_function(shell: Shell) -> None:
    small_model(loss=focal, input_shape=SHAPE, seed=3).save("m.safetensors")
    np.savez("mine.npz", x=X, y=Y)
    model = Model.load("m.safetensors")
    model.weights["dense1.b"][...] = 1.0
    model.save("m.safetensors")
    out = shell.ok("evaluate", "m.safetensors", "--data", "mine.npz", "--normalize", "none")
    assert "accuracy" in out and "loss" not in out
    done = shell("train", "--model", "m.safetensors", "--data", "mine.npz", "-o", "n.safetensors")
    assert done.status == 2 and "the loss of this model is a function" in done.err


def test_a_run_goes_on_with_the_same_function(tmp_path: Path) -> None:
    def other(p: Tensor, t: Tensor) -> Tensor:
        return ops.reduce_mean(abs(p - t), 1)

    options: dict[str, Any] = {"checkpoint": tmp_path, "resume": True}
    fit(small_model(loss=focal), epochs=1, **options)
    fit(small_model(loss=lambda p, t: focal(p, t)), epochs=2, **options)  # computes the same
    with pytest.raises(DataError, match="made with loss=custom [0-9a-f]{16}, this run has"):
        fit(small_model(loss=other), epochs=3, **options)


@pytest.mark.parametrize(
    ("given", "said"),
    [("hubr", 'did you mean "huber"'), ("mse", 'here it is "mean_squared_error"'),
     ("mae", 'here it is "mean_absolute_error"'), ("BCE", 'here it is "binary_cross_entropy"'),
     ("categorical_crossentropy", 'here it is "cat_cross_entropy"'), (5, "unknown loss 5"),
     (None, "unknown loss None"), (lambda p: p, "expected a function of two tensors")],
)  # fmt: skip
def test_what_is_no_loss_is_refused_when_it_is_assigned(given: Any, said: str) -> None:
    model = Model()
    with pytest.raises(GraphError, match=said):
        model.loss = given
    assert model.loss == "cat_cross_entropy"
