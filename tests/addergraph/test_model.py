"""Model: declare, train, evaluate, predict, and every refusal on the way."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from addergraph import compiler, layers, ops
from addergraph.errors import DataError, GraphError, ShapeError
from addergraph.ir import Array
from addergraph.ir.trace import Tensor
from addergraph.model import CHUNK, Model
from addergraph.stages import is_terminal
from addergraph.training import SGD, cosine
from addergraph.training.losses import LOSSES
from tests.addergraph.models import (
    DATA,
    ENGINES,
    X,
    Y,
    f32,
    fit,
    residual,
    same_weights,
    small_model,
)

pytestmark = pytest.mark.usefixtures("quick_objects")

# --- training -----------------------------------------------------------------------------------


def two_tensors(x: Tensor, y: Tensor) -> Tensor:
    return x + y


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("net", [None, residual])
def test_training_learns_with_validation_and_a_partial_batch(
    engine: str, net: Callable[[Tensor], Tensor] | None
) -> None:
    model = small_model() if net is None else Model(net)
    history = model.fit(
        X, Y, DATA.x_test[:40], DATA.y_test[:40],
        epochs=6, batch_size=32, learning_rate=cosine(0.1, 6), engine=engine, verbose=0,
    ).history  # fmt: skip
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy", "seconds"}
    assert all(len(numbers) == 6 for numbers in history.values())
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert history["accuracy"][-1] > history["accuracy"][0]
    found = model.evaluate(DATA.x_test[:40], DATA.y_test[:40], engine=engine)
    assert found["loss"] == pytest.approx(history["val_loss"][-1], rel=1e-6)
    assert found["accuracy"] == history["val_accuracy"][-1]


# Rounding differences grow from step to step: a relu or a maximum that flips moves whole gradients.
@pytest.mark.parametrize(("steps", "tolerance"), [(1, 1e-5), (8, 1e-2)])
def test_both_engines_train_to_the_same_weights(steps: int, tolerance: float) -> None:
    models = [small_model(seed=3), small_model(seed=3)]
    for model, engine in zip(models, ENGINES, strict=True):
        size = len(X) if steps == 1 else -(-len(X) // (steps // 2))
        fit(model, epochs=min(steps, 2), engine=engine, learning_rate=0.01, batch_size=size)
    for name, reference in models[0].weights.items():
        error = np.linalg.norm(models[1].weights[name] - reference)
        assert error <= tolerance * np.linalg.norm(reference), name
    predictions = [m.predict(X, engine="native") for m in models]
    np.testing.assert_allclose(predictions[0], predictions[1], atol=5e-3)


def test_a_sound_model_gets_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(small_model())


@pytest.mark.parametrize(
    "labels",
    [Y[:, None], Y.astype(np.uint8), Y.astype(float), np.eye(10)[Y], np.eye(10, dtype=int)[Y]],
)
def test_every_form_of_labels_means_the_same(labels: Array) -> None:
    expected, model = small_model(), small_model()
    first, second = fit(expected), fit(model, y=labels)
    assert same_weights(expected, model)
    assert first.history["accuracy"] == second.history["accuracy"]


def test_bytes_are_taken_as_numbers() -> None:
    images = (X * 16).astype(np.uint8)
    as_bytes, as_floats = small_model(), small_model()
    fit(as_bytes, images)
    fit(as_floats, images.astype(np.float64))
    assert same_weights(as_bytes, as_floats)
    first, second = (m.predict(images, engine="reference") for m in (as_bytes, as_floats))
    assert np.array_equal(first, second)


def test_seeds_decide_everything() -> None:
    runs = {}
    for name, model_seed, seed in (("a", 0, 0), ("b", 0, 0), ("c", 0, 1), ("d", 1, 0)):
        runs[name] = small_model(seed=model_seed)
        fit(runs[name], seed=seed)
    assert same_weights(runs["a"], runs["b"])
    assert not same_weights(runs["a"], runs["c"]) and not same_weights(runs["a"], runs["d"])


def test_without_shuffling_the_seed_does_not_matter() -> None:
    models = [small_model(), small_model()]
    for seed, model in enumerate(models):
        fit(model, shuffle=False, seed=seed)
    assert same_weights(*models)


def test_the_loss_is_the_mean_over_samples_not_over_batches() -> None:
    model = small_model(input_shape=(8, 8, 1))
    history = fit(model, X[:5], Y[:5], batch_size=3, learning_rate=1e-30, shuffle=False).history
    fresh = small_model(input_shape=(8, 8, 1))
    step = fresh.train_step(3, engine="reference")
    losses = [step(X[:3], Y[:3], 0.0)[0], step(X[3:5], Y[3:5], 0.0)[0]]
    assert history["loss"][0] == pytest.approx((3 * losses[0] + 2 * losses[1]) / 5, rel=1e-6)


def test_a_last_batch_of_one_with_batch_norm_is_fine() -> None:
    model = small_model()
    fit(model, X[:17], Y[:17], epochs=2)
    assert all(np.isfinite(w).all() for w in model.weights.values())


def test_regression_reports_no_accuracy() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3))
    y = x @ [1.0, -2.0, 0.5] + 1.0
    model = Model(loss_name="mean_squared_error")
    model.add(layers.Dense(1))
    history = fit(
        model, x, y, epochs=60, learning_rate=0.05, optimizer=SGD(momentum=0.9, weight_decay=0.0)
    ).history
    assert set(history) == {"loss", "seconds"} and history["loss"][-1] < 1e-4
    assert model.evaluate(x, y[:, None], engine="reference").keys() == {"loss"}
    np.testing.assert_allclose(model.weights["dense1.f"][:, 0], [1, -2, 0.5], atol=0.02)


def test_squared_error_takes_labels_too() -> None:
    model = small_model(loss_name="mean_squared_error")
    assert "accuracy" in fit(model).history


def test_fitting_again_goes_on_from_the_weights() -> None:
    model = small_model()
    first = fit(model, epochs=3).history["loss"]
    assert fit(model).history["loss"][0] < first[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_divergence_keeps_the_weights_of_the_last_good_epoch(engine: str) -> None:
    model, good = small_model(), small_model()
    fit(good, epochs=2, engine=engine)

    def schedule(epoch: int) -> float:
        return 0.05 if epoch < 2 else 1e30

    with pytest.raises(DataError, match="diverged in epoch 3.*of the end of epoch 2.*1e[+]30"):
        fit(model, epochs=5, learning_rate=schedule, engine=engine)
    assert same_weights(model, good)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loop_of_your_own(engine: str) -> None:
    model = small_model(input_shape=(8, 8, 1))
    step = model.train_step(batch=35, engine=engine)
    losses = []
    for _ in range(8):
        for start in (0, 35):
            loss, prediction = step(X[start : start + 35], Y[start : start + 35], 0.05)
            losses.append(loss)
    assert prediction.shape == (35, 10) and losses[-1] < 0.7 * losses[0]
    before = model.weights["adder1.f"].copy()
    step(X[:7], Y[:7], 0.05)  # another batch size: compiled when it comes
    assert not np.array_equal(before, model.weights["adder1.f"])
    with pytest.raises(DataError, match="label 10 in row 1"):
        step(X[:2], [0, 10], 0.05)
    with pytest.raises(DataError, match="learning rate"):
        step(X[:2], [0, 1], float("nan"))


def test_two_steps_work_on_the_same_weights() -> None:
    model = small_model(input_shape=(8, 8, 1))
    one, two = (model.train_step(16, engine="reference") for _ in range(2))
    one(X[:16], Y[:16], 0.05)
    after_one = {k: v.copy() for k, v in model.weights.items()}
    two(X[:16], Y[:16], 0.0)  # a rate of zero: the trainable weights stay what they were
    assert np.array_equal(model.weights["adder1.f"], after_one["adder1.f"])
    assert not np.array_equal(model.weights["bn1.mean"], after_one["bn1.mean"])


@pytest.mark.parametrize("engine", ENGINES)
def test_predictions_follow_the_weights(engine: str) -> None:
    model = small_model(input_shape=(8, 8, 1))
    before = model.predict(X[:3], engine=engine)
    model.weights["dense1.b"][4] += 50.0
    after = model.predict(X[:3], engine=engine)
    assert not np.array_equal(before, after) and (after.argmax(axis=1) == 4).all()


# --- evaluation and prediction ------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_an_empty_batch_gives_an_empty_answer(engine: str) -> None:
    answer = small_model().predict
    with pytest.raises(GraphError, match="does not know its input yet"):
        answer(X)
    model = small_model(input_shape=(8, 8, 1))
    empty = model.predict(np.zeros((0, 8, 8, 1), np.float32), engine=engine)
    assert empty.shape == (0, 10) and empty.dtype == np.float32


def test_prediction_in_parts_is_prediction_of_the_whole() -> None:
    model = Model(input_shape=(3,))
    model.add(layers.Dense(2))
    x = np.random.default_rng(0).normal(size=(2 * CHUNK + 5, 3)).astype(np.float32)
    found = model.predict(x, engine="reference")
    expected = x @ model.weights["dense1.f"] + model.weights["dense1.b"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_evaluation_with_and_without_a_final_softmax_agree() -> None:
    with_softmax = small_model(input_shape=(8, 8, 1))
    logits = Model(input_shape=(8, 8, 1))
    for layer in with_softmax.layers[:-1]:
        logits.add(layer)
    for found, expected in zip(
        with_softmax.evaluate(X, Y, engine="reference").values(),
        logits.evaluate(X, Y, engine="reference").values(),
        strict=True,
    ):
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("unused", [ops.softmax, ops.relu])
def test_what_the_answer_does_not_use_is_no_matter_of_the_loss(unused: Any) -> None:
    def net(x: Tensor, then: Any = None) -> Tensor:
        y = layers.Dense(10, name="d")(layers.Flatten()(x))
        y = ops.softmax(y) if unused is ops.relu else y
        if then is not None:
            then(y)
        return y

    plain = Model(lambda x: net(x), input_shape=(8, 8, 1), name="m")
    other = Model(lambda x: net(x, unused), input_shape=(8, 8, 1), name="m")
    found = other.evaluate(X, Y, engine="reference")
    assert found == plain.evaluate(X, Y, engine="reference")


def test_a_network_may_be_its_input() -> None:
    model = Model(lambda x: x, input_shape=(2,))
    assert model.evaluate([[0.0, 0.0]], [1])["loss"] == pytest.approx(np.log(2))


def test_a_vanished_probability_is_a_finite_loss() -> None:
    model = Model(input_shape=(2,))
    model.add(layers.Dense(2))
    model.add(layers.Activation("softmax"))
    model.weights = {"dense1.f": f32([[1000, 0], [0, 0]]), "dense1.b": np.zeros(2, "f4")}
    assert 80 < model.evaluate([[1, 0]], [1], engine="reference")["loss"] < 90


def test_networks_over_the_whole_batch_predict_it_at_once() -> None:
    from addergraph import ops

    def centred(x: Tensor) -> Tensor:
        return ops.sub(x, ops.reduce_mean(x, (0,), keepdims=True))

    model = Model(centred, input_shape=(2,), loss_name="mean_squared_error")
    found = model.predict([[1, 2], [3, 6]], engine="reference")
    assert np.array_equal(found, [[-1, -2], [1, 2]])


# --- structure ----------------------------------------------------------------------------------


def test_graphs_of_both_kinds() -> None:
    model = small_model(input_shape=(8, 8, 1), name="net")
    inference, training = model.graph(training=False), model.graph(training=True, batch=4)
    assert inference.is_open and not inference.updates and inference.name == "net"
    assert not training.is_open and len(training.updates) == 2
    assert model.graph(training=False) is inference
    assert model.output_shape == (10,)


def test_summary_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model(input_shape=(8, 8, 1))
    assert model.summary() is None  # type: ignore[func-returns-value]
    shown = capsys.readouterr().out
    assert shown == model.summary_text() + "\n"
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line.strip()}
    assert rows["adder1"][1:] == ["adder2d", "8x8x4", "36", "144", "B", f"{2 * 9 * 64 * 4:,}"]
    assert rows["dense1"][1:4] == ["dense", "10", "650"]
    assert rows["total"][1] == f"{4608 + 512 + 192 + 640 + 20:,}"  # additions, by kind
    assert "694 trainable and 8 fixed" in shown


def test_weights_are_checked_when_assigned() -> None:
    model = small_model(input_shape=(8, 8, 1))
    good = {k: v + 1 for k, v in model.weights.items()}
    view = model.weights["dense1.b"]
    model.weights = good
    assert (view == 1).all()
    gamma, beta = "bn1.gamma", "bn1.beta"
    model.weights = good | {gamma: model.weights[beta], beta: model.weights[gamma]}  # views
    assert all((model.weights[a] == good[b]).all() for a, b in ((gamma, beta), (beta, gamma)))
    model.weights = good
    for change, error, said in (
        ({"extra": np.zeros(1, "f4")}, DataError, 'no parameter named "extra"'),
        ({"dense1.b": np.zeros(9, "f4")}, ShapeError, "dense1.b"),
        ({"dense1.b": np.zeros(10)}, DataError, "dense1.b.*float64"),
    ):
        with pytest.raises(error, match=said):
            model.weights = good | change
    with pytest.raises(DataError, match="dense1.f"):
        model.weights = {k: v for k, v in good.items() if k != "dense1.f"}
    assert (model.weights["dense1.b"] == 1).all()


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: Model(loss_name="cat_crossentropy"), GraphError, 'mean "cat_cross_entropy"'),
        (lambda: Model(name="my model"), GraphError, "one word"),
        (lambda: Model(net=3), GraphError, "expected a function"),  # type: ignore[arg-type]
        (lambda: Model(seed=-1), DataError, "seed=-1"),
        (lambda: Model(input_shape=(8, 0)), ShapeError, "input_shape"),
        (lambda: Model(input_shape=8), ShapeError, "input_shape=8"),
        (lambda: Model().add("relu"), GraphError, "expected a layer"),  # type: ignore[arg-type]
        (lambda: Model(residual).add(layers.Flatten()), GraphError, "is a function"),
        (lambda: Model(input_shape=(3,)).summary(), GraphError, "no layers"),
        (lambda: small_model().summary(), GraphError, "does not know its input"),
        (lambda: Model(lambda x: 3, input_shape=(3,)).weights, GraphError, "returned 3"),
        (lambda: small_model(input_shape=(8, 8, 1)).build((8, 8, 2)), ShapeError, "not"),
    ],
)
def test_bad_models_are_refused(
    make: Callable[[], object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        make()


def test_layers_cannot_be_added_to_a_built_model() -> None:
    model = small_model(input_shape=(8, 8, 1))
    model.build((8, 8, 1))
    with pytest.raises(GraphError, match="built already"):
        model.add(layers.Flatten())


def test_a_failed_build_leaves_the_model_open_to_other_shapes() -> None:
    model = small_model()
    with pytest.raises(ShapeError, match='adder2d "adder1"'):
        model.build((8, 8))
    model.build((8, 8, 1))
    assert model.weights["adder1.f"].shape == (3, 3, 1, 4)


# --- rates and losses -----------------------------------------------------------------------------


def test_schedules() -> None:
    rate = cosine(0.2, 4)
    assert rate(0) == 0.2 and rate(2) == pytest.approx(0.1)
    assert [rate(e) for e in range(4)] == sorted((rate(e) for e in range(4)), reverse=True)
    with pytest.raises(DataError, match="epochs=0 must be a number of at least 1"):
        cosine(0.1, 0)


def test_the_losses_of_the_model_are_those_of_the_training_step() -> None:
    from addergraph.passes.train_step import train_step

    model = small_model(input_shape=(8, 8, 1))
    for loss in LOSSES.values():
        assert train_step(model.graph(training=True, batch=2), loss(), SGD()).updates


# --- progress -----------------------------------------------------------------------------------


def test_off_terminal_progress_is_one_plain_line_an_epoch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit(small_model(), epochs=2, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "\x1b" not in "".join(lines)
    assert lines[0].startswith("epoch 1/2  loss ") and "accuracy" in lines[0]


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    fit(small_model(), verbose=0)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    fit(small_model(), epochs=2, verbose=1)
    assert "epoch 2/2  loss" in terminal.getvalue() and "10/10" in terminal.getvalue()


@pytest.mark.parametrize("stream", ["none", "logger", "closed"])
def test_standard_output_may_be_anything(monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    """None under pythonw and some services; a logger's own class; closed."""

    class Logger:
        written = ""

        def write(self, text: str) -> None:
            self.written += text

        def flush(self) -> None:
            pass

    (closed := io.StringIO()).close()
    given = {"none": None, "closed": closed, "logger": Logger()}[stream]
    monkeypatch.setattr(sys, "stdout", given)
    assert not is_terminal(given)
    if stream != "closed":  # Python's own print raises there
        fit(small_model(), epochs=1, verbose=1)
    if isinstance(given, Logger):
        assert "epoch 1/1" in given.written


def test_a_model_and_a_program_say_what_they_are() -> None:
    model = Model(name="net")
    model.add(layers.Flatten())
    model.add(layers.Dense(3))
    assert repr(model) == '<Model "net" of any samples: 2 layers, cat_cross_entropy>'
    model.build((2, 2))
    assert repr(model) == (
        '<Model "net" of samples (2, 2) -> (3,): 2 layers, 15 parameters, cat_cross_entropy>'
    )
    traced = Model(layers.Dense(3), input_shape=(4,), loss_name="mean_squared_error")
    assert repr(traced) == '<Model "model" of samples (4,): a function, mean_squared_error>'
    traced.build((4,))
    traced.loss = two_tensors
    assert repr(traced) == (
        '<Model "model" of samples (4,) -> (3,): a function, 15 parameters, two_tensors>'
    )
    wrong = Model(input_shape=(4,))
    wrong.add(layers.Conv(3, 3))
    assert repr(wrong) == '<Model "model" of samples (4,): 1 layers, cat_cross_entropy>'
    program = compiler.compile(model)
    target = program.built.lowered.target.name
    assert repr(program) == f'<Program "net" for {target}: f32[N,2,2] -> f32[N,3]>'


@pytest.mark.parametrize("classes", [True, False])
def test_evaluation_in_parts_gives_the_numbers_of_the_whole(
    classes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,000 scores for each of 200,000 samples took 7.9 GB at once."""
    model = Model(
        input_shape=(6,), loss_name="cat_cross_entropy" if classes else "mean_squared_error"
    )
    model.add(layers.Dense(5))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(103, 6)).astype(np.float32)
    y = np.arange(103) % 5 if classes else rng.normal(size=(103, 5))
    whole, calls = model.evaluate(x, y), []
    predict = Model.predict

    def counted(self: Model, x: Array, **options: Any) -> Any:
        calls.append(len(x))
        return predict(self, x, **options)

    monkeypatch.setattr(Model, "predict", counted)
    monkeypatch.setattr("addergraph.training.validation.MEASURED", 20)
    assert model.evaluate(x, y) == whole
    assert calls == [20] * 5 + [3] and ("accuracy" in whole) == classes
