"""Training for speed: how many taps are left out, which, what comes back, and going on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import addergraph as ag
from addergraph import Model, layers, ops
from addergraph.errors import DataError
from addergraph.ir import Array
from addergraph.ir.trace import Tensor, trace
from addergraph.ir.types import tensor
from addergraph.training import SGD, Adam, Cosine, callbacks
from addergraph.training.checkpoint import Position
from addergraph.training.recipes import find
from addergraph.training.settings import Fit
from addergraph.training.sparsity import filters_of, is_thinned, share_at, thin
from tests.addergraph.models import X, Y, f32, fit, same_weights
from tests.addergraph.shell import Shell

pytestmark = pytest.mark.usefixtures("quick_objects")


def network(**options: Any) -> Model:
    """Two adder layers, the second of them behind a relu."""
    model = Model(seed=1, **options)
    for layer in (
        layers.AvgPool(2), layers.Adder(4, 3), layers.BatchNorm(), layers.Activation("relu"),
        layers.Adder(5, 2, name="thin"), layers.BatchNorm(), layers.Flatten(), layers.Dense(10),
    ):  # fmt: skip
        model.add(layer)
    return model


def shares(model: Any) -> list[float]:
    return [float(np.mean(model.weights[f"{name}.f"] <= 0)) for name in ("adder1", "thin")]


class Watch(callbacks.Callback):
    """The share of `thin` at the end of every epoch, and its filter after every step."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.filters: list[Array] = []

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self.filters.append(self.model.weights["thin.f"].copy())

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        self.shares.append(shares(self.model)[1])


@pytest.mark.parametrize("optimizer", [SGD(), SGD(average=0.9), Adam()])
def test_the_share_grows_to_what_is_asked_for(optimizer: Any) -> None:
    model, watch, settings = network(), Watch(), Fit(epochs=8, sparsity=0.9)
    fit(model, epochs=8, sparsity=0.9, optimizer=optimizer, callbacks=[watch])
    assert watch.shares == sorted(watch.shares)
    due = [round(80 * share_at(settings, epoch + 1)) / 80 for epoch in range(8)]
    assert watch.shares == pytest.approx(due) and due[3:] == [0.9] * 5
    assert shares(model)[1] >= 0.9 > 0.75 > shares(model)[0]  # of averages, more may be


def test_the_schedule() -> None:
    """s + (1/2 - s) (1 - t / end)^3 of Zhu and Gupta, from what N(0, 1) has."""
    settings = Fit(epochs=10, sparsity=0.8, sparsity_end=0.4)
    found = [share_at(settings, epochs) for epochs in (0, 1, 2, 4, 9)]
    assert found == pytest.approx([0.5, 0.8 - 0.3 * 27 / 64, 0.8 - 0.3 / 8, 0.8, 0.8])
    assert share_at(Fit(epochs=10, sparsity=0.2), 0) == pytest.approx(0.2)
    assert [is_thinned(settings, epochs) for epochs in (3, 4)] == [False, True]


def test_the_smallest_go_and_what_has_grown_comes_back() -> None:
    filter = f32([-3, 0, 1, 2, 3, 4, 5, 6])
    views: dict[str, Array] = {"f": filter, "f.held": f32([0] * 8), "f.threshold": f32(0)}
    settings = Fit(epochs=1, sparsity=0.5, sparsity_end=1.0)
    at = Position(step=16)
    thin(views, ["f"], settings, at, 20)
    assert views["f"].tolist() == [-3, 0, 0, 0, 3, 4, 5, 6]
    assert views["f.held"].tolist() == [0, 0, 1, 2, 0, 0, 0, 0] and views["f.threshold"] == 2
    views["f.held"][3] += 9
    views["f"][7] -= 5
    thin(views, ["f"], settings, Position(step=17), 20)  # not yet
    assert views["f"].tolist() == [-3, 0, 0, 0, 3, 4, 5, 1]
    thin(views, ["f"], settings, Position(step=20), 20)  # an epoch's end
    assert views["f"].tolist() == [-3, 0, 0, 11, 3, 4, 5, 0] and views["f.held"][7] == 1
    views["f"][...] = views["f.held"][...] = 0
    thin(views, ["f"], settings, at, 20)
    assert views["f.threshold"] == 0


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_the_update(engine: str) -> None:
    """A plain step moves p + held; what is above the threshold is p, and what was out is back."""
    model = network(input_shape=(8, 8, 1))
    plain = model.train_step(16, optimizer=SGD(momentum=0, weight_decay=0), engine="reference")
    old, held = model.weights["thin.f"].copy(), np.zeros((2, 2, 4, 5), np.float32)
    out = (old > 0) & (old < 1)
    held[out], old[out] = old[out] + 0.5, 0
    before = {name: array.copy() for name, array in model.weights.items()} | {"thin.f": old}
    plain.state.load(before)
    plain(X[:16], Y[:16], 0.5)
    moved = plain.state.views["thin.f"] - old
    step = type(plain)(
        model, 16, plain.optimizer, label_smoothing=0.0, gradient="full_precision", engine=engine,
        threads=1, seed=0, thinned=["thin.f"],
    )  # fmt: skip
    step.state.load({**before, "thin.f.held": held, "thin.f.threshold": f32(0.9)})
    step(X[:16], Y[:16], 0.5)
    latent = old + held + moved
    expected = np.where(latent > 0.9, latent, np.minimum(latent, 0))
    found = step.state.views
    np.testing.assert_allclose(found["thin.f"], expected, atol=1e-5)
    np.testing.assert_allclose(found["thin.f.held"], latent - expected, atol=1e-5)
    assert (expected[out] > 0).any() and (expected[out] == 0).any()


def test_what_is_averaged_is_left_out_with_its_weight() -> None:
    model = network()
    fit(model, epochs=3, sparsity=0.8, optimizer=SGD(average=0.99))
    assert shares(model)[1] >= 0.8


@pytest.mark.parametrize("threads", [1, 2])
def test_going_on_to_the_bit(tmp_path: Path, threads: int) -> None:
    """A run of one thread, and one that is stopped within an epoch: 5 steps each, 8 a threshold."""

    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            self.stop_training = batch == 3

    given: dict[str, Any] = {"epochs": 4, "sparsity": 0.85, "engine": "native", "keep_best": True}
    given |= {"optimizer": SGD(average=0.9), "x_val": X[:20], "y_val": Y[:20]}
    expected, found = network(), network()
    fit(expected, **given, threads=1)
    fit(network(), **given, threads=threads, checkpoint=tmp_path, callbacks=[Stop()])
    fit(found, **given, threads=threads, checkpoint=tmp_path, resume=True)
    assert same_weights(found, expected)
    said = "made with sparsity=0.85 in a run of 4 epochs, this run has sparsity=0.85 in a run of 5"
    with pytest.raises(DataError, match=said):
        fit(network(), **given | {"epochs": 5}, checkpoint=tmp_path, resume=True)


def test_the_best_epoch_has_the_share() -> None:
    """Whatever came before it, and patience begins with it."""

    class Worse(callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            for array in self.model.weights.values():
                array *= 1 + epoch

    model, patient = network(), network()
    given: dict[str, Any] = {"epochs": 8, "sparsity": 0.9, "callbacks": [Worse()]}
    fit(model, keep_best=True, **given)
    assert shares(model)[1] == pytest.approx(0.9)
    history = fit(patient, patience=1, learning_rate=Cosine(1e-9, 8), **given)
    assert history.epochs >= 4


def test_layers_that_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    model = Model(input_shape=(6, 6, 2), name="some")
    for layer in (
        layers.Adder(4, 3, name="first"), layers.BatchNorm(), layers.Activation("relu"),
        layers.Adder(4, 1, name="second"), layers.BatchNorm(), layers.Activation("relu"),
        layers.DepthwiseAdder(3, name="depthwise"), layers.BatchNorm(), layers.Activation("relu"),
        layers.Adder(4, 1, name="held", trainable=False), layers.Activation("relu6"),
        layers.Flatten(), layers.AdderDense(3, name="last"),
    ):  # fmt: skip
        model.add(layer)
    found, alone = filters_of(model.graph(training=False))
    assert found == {"second": "second.f"}
    assert alone == {
        "first": "its input may be negative",
        "depthwise": "a filter for each channel has too few taps",
        "held": "its filter is not trained",
        "last": "no kernel of dense layers leaves taps out",
    }
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 2))
    with pytest.warns(ag.errors.RangeWarning):
        model.fit(x, np.arange(8) % 3, sparsity=0.6, engine="reference")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "0.6 of the taps of second shall need no work"
    assert said[1] == "  first is left alone: its input may be negative"
    model.freeze("second")
    with pytest.raises(DataError, match='"some" has no filter .*second: its filter is not trained'):
        model.fit(x, np.arange(8) % 3, sparsity=0.6, engine="reference")


def test_a_filter_that_comes_in_is_left_alone() -> None:
    def net(x: Tensor, f: Tensor) -> Tensor:
        return ops.adder2d(ops.relu(x), ops.reshape(f, (1, 1, 2, 2)))

    graph = trace(net, tensor("f32", (2, 4, 4, 2)), tensor("f32", (2, 2)))
    with pytest.raises(DataError, match="adder2d.*: its filter is not trained"):
        filters_of(graph)


def test_no_layer_is_emptied() -> None:
    with pytest.raises(DataError, match="sparsity=0.96 must be at least 0 and at most 0.95"):
        fit(network(), sparsity=0.96)
    model = network()
    fit(model, epochs=2, sparsity=0.95)
    assert np.count_nonzero(model.weights["thin.f"] > 0) == 4
    views = {"f": f32([1, 2, 3, np.inf]), "f.held": f32([0] * 4), "f.threshold": f32(0)}
    thin(views, ["f"], Fit(sparsity=0.95), Position(step=8), 8)
    assert views["f"].tolist() == [0, 0, 0, np.inf]


def test_quantization_aware_training_goes_on(quick_objects: None) -> None:
    model = network()
    fit(model, epochs=2, sparsity=0.8)
    aware = ag.quantization_aware(model, X[:32])
    fit(aware, epochs=2, sparsity=0.8)
    made = ag.quantize(aware, X[:32])
    bytes_of = next(a for n, a in made.weights.items() if n.startswith("thin.f"))
    assert np.mean(bytes_of == 0) >= 0.8


def test_recipes_and_the_command_line(shell: Shell, tmp_path: Path) -> None:
    text = find("quick").text()
    assert "sparsity = 0.0\nsparsity_end = 0.5" in text
    (tmp_path / "my.toml").write_text(text.replace("sparsity = 0.0", "sparsity = 0.6"))
    assert find(tmp_path / "my.toml").arguments()["sparsity"] == 0.6
    (tmp_path / "my.toml").write_text(text.replace("sparsity = 0.0", "sparsity = 0.97"))
    with pytest.raises(DataError, match="my.toml.*sparsity=0.97 must be at least 0"):
        find(tmp_path / "my.toml")
    x = np.concatenate([X, X])
    np.savez(tmp_path / "d.npz", x_train=x, y_train=np.concatenate([Y, Y]), x_test=X, y_test=Y)
    output = tmp_path / "m.safetensors"
    network(input_shape=(8, 8, 1)).save(tmp_path / "start.safetensors")
    done = shell(
        "train", "--model", tmp_path / "start.safetensors", "--data", f"npz:{tmp_path}/d.npz",
        "--epochs", 2, "--batch", 20, "--sparsity", 0.75, "--sparsity-end", 1, "--allow-chance",
        "--engine", "reference", "-o", output,
    )  # fmt: skip
    assert done.status == 0 and "0.75 of the taps of thin shall need no work" in done.out
    assert shares(Model.load(output))[1] == 0.75
