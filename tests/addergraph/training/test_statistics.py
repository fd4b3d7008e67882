"""Batch norms have the statistics of the weights that they stand beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph import Model, layers
from addergraph.data import Loader
from addergraph.errors import DataError
from addergraph.files import storage
from addergraph.ir import Array
from addergraph.training import SGD, Callback
from addergraph.training.settings import NATIVE, REFERENCE
from addergraph.training.statistics import at_rest
from tests.addergraph.models import DATA, X, Y, fit, same_weights, small_model

pytestmark = pytest.mark.usefixtures("quick_objects")

VALIDATION = {"x_val": DATA.x_test[:100], "y_val": DATA.y_test[:100]}


def network(momentum: float = 0.1) -> Model:
    model = Model(input_shape=(64,))
    model.add(layers.AdderDense(8, name="first"))
    model.add(layers.BatchNorm(momentum, name="bn"))
    model.add(layers.Activation("relu"))
    model.add(layers.Dense(10, name="last"))
    return model


def features(images: Array) -> Array:
    return images.reshape(len(images), 64)


def train(model: Model, **options: Any) -> Any:
    return fit(model, features(X), Y, learning_rate=0.1, **options)


def precise(model: Model, epoch: int, batches: int) -> tuple[Array, Array]:
    """Mean and unbiased variance of the first layer, of the first batches of 16 of an epoch."""
    means, variances = [], []
    loader = Loader(features(X), batch_size=16, prefetch=0)
    for (x, _), _ in zip(loader.epoch(epoch), range(batches), strict=False):
        x = x.astype("f8")
        y = -np.abs(x[:, :, None] - model.weights["first.f"]).sum(1)
        means.append(y.mean(0))
        variances.append(y.var(0, ddof=1))
    return np.mean(means, 0), np.mean(variances, 0)


@pytest.mark.parametrize("more", [{}, {"keep_best": True}, {"optimizer": SGD(average=0.8)}])
@pytest.mark.parametrize(
    ("samples", "batches", "engine"),
    [(40, 3, REFERENCE), (1024, 4, REFERENCE), (1024, 4, NATIVE)],  # 70 have 4 whole batches
)
def test_the_result_has_the_statistics_of_its_weights(
    more: dict[str, Any], samples: int, batches: int, engine: str
) -> None:
    model = network()
    history = train(model, epochs=3, engine=engine, batch_norm_samples=samples, **more).history
    epoch = int(np.argmin(history["loss"])) if "keep_best" in more else 2
    mean, variance = precise(model, epoch, batches)
    np.testing.assert_allclose(model.weights["bn.mean"], mean, rtol=1e-4)
    np.testing.assert_allclose(model.weights["bn.variance"], variance, rtol=1e-3)


class Stops(Callback):
    def __init__(self, step: int) -> None:
        self.left = step

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.left -= 1
        self.stop_training = not self.left


@pytest.mark.parametrize(
    "more",
    [{}, {"x_val": features(X[:20]), "y_val": Y[:20]}, {"optimizer": SGD(average=0.8)},
     {"keep_best": True}],
)  # fmt: skip
@pytest.mark.parametrize("steps", [2, 8])  # an epoch has 5
def test_so_has_a_run_that_stops_within_an_epoch(more: dict[str, Any], steps: int) -> None:
    model = network()
    train(model, epochs=3, callbacks=[Stops(steps)], **more)
    best = "keep_best" in more and steps > 5
    mean, variance = precise(model, 0 if best else steps // 5, 4)
    np.testing.assert_allclose(model.weights["bn.mean"], mean, rtol=1e-4)
    np.testing.assert_allclose(model.weights["bn.variance"], variance, rtol=1e-3)


def test_so_have_the_weights_of_a_checkpoint_where_training_diverges(tmp_path: Path) -> None:
    """And a weight that is not finite is no end of a run that is stopped."""
    train(network(), callbacks=[Stops(2)], checkpoint=tmp_path)
    model = network()

    class Breaks(Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            self.model.weights["last.b"][...] = np.nan
            self.stop_training = True

    with pytest.raises(DataError, match="those of the checkpoint in epoch 1, step 2"):
        train(model, callbacks=[Breaks()], checkpoint=tmp_path, resume=True)
    np.testing.assert_allclose(model.weights["bn.mean"], precise(model, 0, 4)[0], rtol=1e-4)


def test_validation_measures_the_model_that_is_returned() -> None:
    """And changes nothing of what is trained: with one and without, the results are equal."""
    model, other = small_model(), small_model()
    held_out = {"x_val": DATA.x_test, "y_val": DATA.y_test}
    history = fit(model, epochs=3, learning_rate=0.2, **held_out).history
    fit(other, epochs=3, learning_rate=0.2)
    assert same_weights(model, other)
    assert model.evaluate(*held_out.values(), engine="reference")["loss"] == history["val_loss"][-1]


def test_validation_means_something_at_a_high_rate() -> None:
    def accuracy(samples: int) -> float:
        history = fit(
            small_model(), DATA.x_train[:320], DATA.y_train[:320], learning_rate=0.2, epochs=2,
            batch_norm_samples=samples, **VALIDATION,
        ).history  # fmt: skip
        return float(history["val_accuracy"][-1])

    assert accuracy(1024) > 0.5 > accuracy(0)


def test_what_never_moves_stays() -> None:
    model = network(momentum=0.0)
    train(model)
    assert not model.weights["bn.mean"].any() and (model.weights["bn.variance"] == 1).all()
    assert not at_rest(model.graph(training=True, batch=4))


@pytest.mark.parametrize("momentum", [0.1, 1.0])
def test_the_form_of_an_update(momentum: float) -> None:
    found = at_rest(network(momentum).graph(training=True, batch=5))
    assert [*found] == ["bn.mean", "bn.variance"]
    (mean, one), (variance, unbiased) = found.values()
    assert (mean.name, variance.name) == ("bn.batch.mean", "bn.batch.variance")
    assert (one, unbiased) == pytest.approx((1.0, 5 / 4))


@pytest.mark.slow
def test_any_number_of_threads() -> None:
    one, two = small_model(), small_model()
    for threads, model in enumerate((one, two), 1):
        fit(model, engine="native", threads=threads, **VALIDATION)
    assert same_weights(one, two)


def test_a_checkpoint_from_before_is_refused(tmp_path: Path) -> None:
    train(network(), checkpoint=tmp_path)
    file = tmp_path / "checkpoint.safetensors"
    tensors, metadata = storage.load(file)
    settings = json.loads(metadata["settings"])
    del settings["batch_norm_samples"]
    storage.save(file, tensors, metadata | {"settings": json.dumps(settings)})
    said = "was made before there was batch_norm_samples, this run has batch_norm_samples=1024"
    with pytest.raises(DataError, match=said):
        train(network(), epochs=2, checkpoint=tmp_path, resume=True)
