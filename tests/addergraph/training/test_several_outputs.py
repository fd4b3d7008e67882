"""Training of models with several inputs and outputs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph import Model, layers, ops, training
from addergraph.data import Augment, Normalize, Preprocessing
from addergraph.diagnostics.diagnosis import diagnose
from addergraph.diagnostics.gradients import Recording
from addergraph.errors import DataError, DataWarning, GraphError, UnsupportedError
from addergraph.files import storage
from addergraph.ir import Array
from addergraph.ir.trace import Tensor
from addergraph.training import SGD
from addergraph.training.feed import Feed
from addergraph.training.settings import Fit
from tests.addergraph.models import (
    ENGINES,
    LOSSES,
    SHAPES,
    both_ends,
    f32,
    fit,
    of_two_ends,
    same_weights,
    small_model,
)

pytestmark = pytest.mark.usefixtures("quick_objects")

NORMALIZE = Normalize((0.5,), (0.25,), 1 / 255)
X, Y = both_ends()
PLAIN = SGD(momentum=0.0, weight_decay=0.0)


def numbers(found: Any) -> dict[str, list[float]]:
    return {name: values for name, values in found.history.items() if name != "seconds"}


def heads(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Two networks that share nothing."""
    return {
        "p": layers.Dense(3, name="one")(a),
        "q": layers.Dense(2, name="two")(layers.Activation("tanh")(b)),
    }


# --- what is minimized ----------------------------------------------------------------------------


def test_the_loss_is_the_weighted_sum() -> None:
    """By a finite difference of `evaluate`, which computes the losses of NumPy in f64."""
    model = of_two_ends(input_shape=SHAPES, loss_weights={"size": 0.25})
    model.preprocessing = Preprocessing(NORMALIZE)
    found = model.evaluate(X, Y, engine="reference")
    assert list(found) == ["loss", "class_loss", "size_loss", "class_accuracy"]
    assert found["loss"] == pytest.approx(found["class_loss"] + 0.25 * found["size_loss"])
    scores, sizes = model.predict(X, engine="reference").values()
    assert found["size_loss"] == pytest.approx(np.mean((sizes - Y["size"]) ** 2), rel=1e-5)
    assert found["class_accuracy"] == np.mean(scores.argmax(1) == Y["class"])
    rows = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    assert found["class_loss"] == pytest.approx(-rows[np.arange(40), Y["class"]].mean(), rel=1e-5)


@pytest.mark.parametrize(("weights", "factor"), [(None, 1.0), ({"q": 0.5}, 0.5), ((1, 0), 0.0)])
def test_networks_that_share_nothing_train_as_alone(weights: Any, factor: float) -> None:
    """A weight is a factor of the learning rate of plain SGD; that of 1 changes no bit."""
    a, b = X["meta"], X["meta"][:, :3]
    p, q = Y["class"], f32(np.c_[Y["size"], -Y["size"]])
    both = Model(heads, loss=("cat_cross_entropy", "huber"), loss_weights=weights)
    fit(both, (a, b), {"q": q, "p": p}, optimizer=PLAIN, epochs=2)
    one = Model(lambda a: layers.Dense(3, name="one")(a), loss="cat_cross_entropy")
    fit(one, a, p, optimizer=PLAIN, epochs=2)
    assert all(np.array_equal(both.weights[name], one.weights[name]) for name in one.weights)
    two = Model(lambda b: layers.Dense(2, name="two")(layers.Activation("tanh")(b)), loss="huber")
    two.build((3,))
    if factor:
        fit(two, b, q, optimizer=PLAIN, epochs=2, learning_rate=0.05 * factor)
    for name, array in two.weights.items():
        assert np.allclose(both.weights[name], array, atol=1e-6)
        assert factor != 1.0 or np.array_equal(both.weights[name], array)


def test_a_name_is_the_loss_of_every_output_and_functions_are_losses_too(tmp_path: Path) -> None:
    def far(p: Tensor, t: Tensor) -> Tensor:
        return ops.reduce_sum(abs(p - t), 1)

    targets = {"class": f32(np.eye(3)[Y["class"]]), "size": Y["size"]}
    histories = [
        numbers(fit(of_two_ends(loss=loss), X, targets, normalize=NORMALIZE))
        for loss in ("mean_absolute_error", ["mean_absolute_error"] * 2)
    ]
    assert histories[0] == histories[1]
    custom = of_two_ends(loss={**LOSSES, "size": far})
    assert "cat_cross_entropy + far>" in repr(custom)
    fit(custom, X, Y, normalize=NORMALIZE)
    custom.save(tmp_path / "m.safetensors")
    loaded = Model.load(tmp_path / "m.safetensors")
    found = loaded.evaluate(X, Y, engine="reference")
    assert list(found) == ["class_loss", "class_accuracy"]
    with pytest.raises(UnsupportedError, match="assign it again"):
        fit(loaded, X, Y)
    again = Model.load(tmp_path / "m.safetensors", loss={**LOSSES, "size": far})
    assert again.evaluate(X, Y, engine="reference") == custom.evaluate(X, Y, engine="reference")


def test_smoothing_is_of_classes_alone() -> None:
    model, plain = of_two_ends(), of_two_ends()
    found = fit(model, X, Y, label_smoothing=0.1, normalize=NORMALIZE).history
    other = fit(plain, X, Y, normalize=NORMALIZE).history
    assert found["class_loss"] != other["class_loss"]
    with pytest.raises(DataError, match="label_smoothing=0.1 spreads"):
        fit(
            of_two_ends(loss="huber"), X, {**Y, "class": np.eye(3)[Y["class"]]}, label_smoothing=0.1
        )


# --- a run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_has_numbers_of_every_output(engine: str) -> None:
    ways: list[tuple[Any, Any]] = [(X, Y), (tuple(X.values()), [*Y.values()])]
    found = [
        fit(of_two_ends(loss_weights={"size": 0.5}), x, y, x_val=x, y_val=y, epochs=3,
            normalize=NORMALIZE, engine=engine)
        for x, y in ways
    ]  # fmt: skip
    assert numbers(found[0]) == numbers(found[1])
    history = numbers(found[0])
    assert list(history) == [
        "loss", "class_loss", "size_loss", "class_accuracy",
        "val_loss", "val_class_loss", "val_size_loss", "val_class_accuracy",
    ]  # fmt: skip
    for epoch in range(3):
        row = {name: values[epoch] for name, values in history.items()}
        for val in ("", "val_"):
            parts = row[f"{val}class_loss"] + 0.5 * row[f"{val}size_loss"]
            assert row[f"{val}loss"] == pytest.approx(parts, rel=1e-5)
    assert history["loss"][-1] < history["loss"][0]


def test_threads_change_no_bit() -> None:
    models = [of_two_ends(), of_two_ends()]
    histories = [
        numbers(fit(m, X, Y, epochs=2, engine="native", threads=t, normalize=NORMALIZE))
        for t, m in enumerate(models, 1)
    ]
    assert histories[0] == histories[1] and same_weights(*models)


def test_images_alone_are_augmented_and_normalized() -> None:
    settings = Fit(batch_size=16, normalize=NORMALIZE, augment=Augment(padding=2), seed=5)
    feed = Feed(X, None, settings)
    alone = Feed({"image": X["image"]}, None, settings)
    assert feed.image == "image" and len(feed) == 3
    for (inputs, index), ((image,), same) in zip(feed.epoch(1), alone.epoch(1), strict=True):
        assert np.array_equal(index, same) and np.array_equal(inputs[0], image)
        assert np.array_equal(inputs[1], X["meta"][index])
        assert [array.dtype for array in inputs] == [np.float32, np.float32]
    model = of_two_ends()
    fit(model, X, Y, normalize=NORMALIZE)
    assert model.preprocessing == Preprocessing(NORMALIZE, channels="grey", input="image")


def test_bytes_of_another_input_enter_as_they_are() -> None:
    x = {**X, "meta": (X["meta"] > 0).astype("u1") * 200}
    with pytest.warns(DataWarning, match=r"^meta: samples enter with numbers up to 200"):
        fit(of_two_ends(), x, Y, normalize=NORMALIZE, learning_rate=1e-6)


def interrupted(at: int) -> training.Callback:
    class Stop(training.Callback):
        steps = 0

        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            self.steps += 1
            self.stop_training = self.steps == at

    return Stop()


def test_a_stopped_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "epochs": 3, "batch_size": 16, "x_val": X, "y_val": Y, "normalize": NORMALIZE,
        "keep_best": True, "seed": 3,
    }  # fmt: skip
    whole, parts = of_two_ends(), of_two_ends()
    expected = fit(whole, X, Y, checkpoint=tmp_path / "whole", **given)
    fit(parts, X, Y, checkpoint=tmp_path / "parts", callbacks=[interrupted(5)], **given)
    _, metadata = storage.load(tmp_path / "parts" / "checkpoint.safetensors")
    position = json.loads(metadata["position"])
    assert (position["epoch"], position["step"], position["correct"]) == (1, 2, 0)
    assert position["parts"].keys() == {"class_loss", "size_loss", "class_accuracy"}
    found = fit(parts, X, Y, checkpoint=tmp_path / "parts", resume=True, **given)
    assert numbers(found) == numbers(expected) and same_weights(whole, parts)
    header = (tmp_path / "parts" / "log.csv").read_text().splitlines()[0]
    assert header.startswith(
        "epoch,learning_rate,loss,class_loss,size_loss,class_accuracy,val_loss"
    )
    loss = {"class": "cat_cross_entropy", "size": "huber"}
    for other, said in (
        (
            of_two_ends(loss_weights=[1, 2]),
            "size mean_squared_error x 1.0, this run has loss=.*2.0",
        ),
        (of_two_ends(loss=loss), "this run has loss=class cat_cross_entropy x 1.0, size huber"),
    ):
        with pytest.raises(DataError, match=said):
            fit(other, X, Y, checkpoint=tmp_path / "parts", resume=True, **given)
    with pytest.raises(DataError, match="is of another data"):
        fit(of_two_ends(), {**X, "meta": X["meta"] + 1}, Y, checkpoint=tmp_path / "parts",
            resume=True, **given)  # fmt: skip


def test_a_checkpoint_of_one_output_is_what_it_was(tmp_path: Path) -> None:
    fit(small_model(), checkpoint=tmp_path)
    _, metadata = storage.load(tmp_path / "checkpoint.safetensors")
    assert list(json.loads(metadata["position"])) == [
        "epoch", "step", "loss", "correct", "seconds", "best_epoch", "best_score", "history",
    ]  # fmt: skip
    assert json.loads(metadata["settings"])["loss"] == "cat_cross_entropy"


def test_frozen_layers_stay() -> None:
    model = of_two_ends(input_shape=SHAPES)
    model.freeze("edges", "head")
    before = {name: model.weights[name].copy() for name in ("edges.f", "head.f", "meta.f")}
    fit(model, X, Y, normalize=NORMALIZE)
    same = [np.array_equal(model.weights[name], array) for name, array in before.items()]
    assert same == [True, True, False]


def test_loops_of_your_own() -> None:
    model = of_two_ends(input_shape=SHAPES, preprocessing=Preprocessing(NORMALIZE))
    step = model.train_step(40, engine="reference")
    expected = model.evaluate(X, Y, engine="reference")["loss"]
    loss, prediction = step(model.entering(X), Y, 0.05)
    assert list(prediction) == ["class", "size"] and prediction["class"].shape == (40, 3)
    losses = [step(model.entering(X), Y, 0.05)[0] for _ in range(5)]
    assert math.isfinite(expected) and losses[-1] < loss
    with pytest.raises(DataError, match="rows: image 40, meta 39"):
        step({**model.entering(X), "meta": X["meta"][1:]}, Y, 0.05)


def test_a_diagnosis_is_of_all_of_it() -> None:
    model = of_two_ends(input_shape=SHAPES, preprocessing=Preprocessing(NORMALIZE))
    found = diagnose(model, X, Y, Recording(steps=3, every=1, batch=16, threads=1))
    assert set(found.filters) == {"edges.f", "meta.f", "head.f", "dense1.f"}
    assert {one.node for one in found.activations} >= {"class", "size", "edges"}


def test_an_output_that_learns_nothing_is_named() -> None:
    def dead(meta: Tensor) -> dict[str, Tensor]:
        return {"ok": layers.Dense(1)(meta), "dead": 0.0 * layers.Dense(3)(meta)}

    model, y = (
        Model(dead, loss=("mean_squared_error", "cat_cross_entropy")),
        (Y["size"], Y["class"]),
    )
    options: dict[str, Any] = {"epochs": 30, "batch_size": 8, "optimizer": PLAIN}
    with pytest.warns(
        DataWarning, match=r'^output "dead": after \d+ epochs the network has learned'
    ):
        history = fit(model, X["meta"], y, **options)
    assert len(history.findings) == 1
    unweighted = Model(dead, loss=model.loss, loss_weights=(1, 0))
    assert not fit(unweighted, X["meta"], y, **options).findings


# --- what does not fit ----------------------------------------------------------------------------

HEAD, META = Y["class"], X["meta"]
BAD_DATA: list[tuple[Any, Any, str]] = [
    ({"image": X["image"]}, Y, 'x lacks "meta"; expected image, meta'),
    ({**X, "metas": META}, Y, "there is no 'metas' here .did you mean \"meta\""),
    (X["image"], Y, "x: expected a dict with image, meta, or a tuple of 2 in this order"),
    ((X["image"],) * 3, Y, "found a tuple of 3"),
    ({**X, "meta": META[:9]}, Y, "a row a sample in every input, found rows: image 40, meta 9"),
    ({**X, "meta": META * np.nan}, Y, r'x\["meta"\]: sample 0 holds nan'),
    (X, HEAD, "y: expected a dict with class, size"),
    (X, {"class": HEAD}, 'y lacks "size"'),
    (X, {**Y, "size": Y["size"][1:]}, r'y\["size"\]: expected 40 rows'),
    (X, {**Y, "class": HEAD + 2}, r'y\["class"\]: label [34] in row'),
]
BAD_LOSSES: list[tuple[dict[str, Any], str]] = [
    ({"loss": {**LOSSES, "sizes": "huber"}}, "no 'sizes' here .did you mean \"size\""),
    ({"loss": {"class": "huber"}}, 'no loss reads the output "size"'),
    ({"loss": ["huber"]}, "loss: expected a dict with class, size"),
    ({"loss": {**LOSSES, "size": "mse"}}, 'here it is "mean_squared_error"'),
    ({"loss_weights": {"size": -1}}, 'that of "size" is -1'),
    ({"loss_weights": [1, math.nan]}, 'that of "size" is nan'),
    ({"loss_weights": {"siz": 1}}, "no 'siz' here"),
    ({"loss_weights": [0, 0]}, "are all 0"),
]


@pytest.mark.parametrize(("x", "y", "said"), BAD_DATA)
def test_data_that_do_not_fit_are_refused(x: Any, y: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        fit(of_two_ends(), x, y)


@pytest.mark.parametrize(("options", "said"), BAD_LOSSES)
def test_losses_that_do_not_fit_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(GraphError, match=said):
        fit(of_two_ends(**options), X, Y)


def test_one_output_has_no_weights() -> None:
    with pytest.raises(GraphError, match="this model has one"):
        fit(Model(lambda a: layers.Dense(3)(a), loss_weights=[1]), META, HEAD)


def test_validation_is_checked_as_well() -> None:
    for x_val, y_val, said in (
        (X, None, "both x_val and y_val"),
        ({"image": X["image"]}, Y, 'x_val lacks "meta"'),
        (X, {**Y, "size": Y["size"][:3]}, r'y_val\["size"\]: expected 40 rows'),
    ):
        with pytest.raises(DataError, match=said):
            fit(of_two_ends(), X, Y, x_val=x_val, y_val=y_val)


def two_images(left: Tensor, right: Tensor) -> Tensor:
    return layers.Dense(2)(ops.flatten(left - right))


@pytest.mark.parametrize("given", [{"normalize": NORMALIZE}, {"augment": Augment(padding=1)}])
def test_of_two_images_somebody_says_which(given: Any) -> None:
    x = (X["image"], X["image"][::-1] / np.float32(255))
    y: Array = Y["class"] % 2
    with pytest.raises(DataError, match="nothing says which of the inputs left, right takes them"):
        fit(Model(two_images), x, y, **given)
    model = Model(two_images, preprocessing=Preprocessing(NORMALIZE, input="left"))
    assert fit(model, x, y, **given).epochs == 1
