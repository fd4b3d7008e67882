"""Distributions, activations and gradients against their definitions."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from addergraph import Model, layers
from addergraph.diagnostics import (
    GradientHistory,
    GradientProbe,
    Recording,
    activations,
    diagnose,
    record_gradients,
    shape_of,
    vanished,
)
from addergraph.diagnostics.activations import dead_relus
from addergraph.diagnostics.gradients import QUANTILES, VANISHED
from addergraph.errors import DataError, GraphError, UnsupportedError
from addergraph.ir import Array
from addergraph.ir.interpreter import evaluate
from addergraph.training.optimizers import SGD
from tests.addergraph.models import DATA, X, Y, small_model

pytestmark = pytest.mark.usefixtures("quick_objects")

RANDOM = np.random.default_rng(5)
LAPLACE = RANDOM.laplace(0.5, 2.0, 20_000)
NORMAL = RANDOM.normal(-1.0, 3.0, 20_000)


# --- distributions --------------------------------------------------------------------------------


def test_the_density_that_the_values_come_from_fits_better() -> None:
    laplace, normal = shape_of(LAPLACE.astype(np.float32)), shape_of(NORMAL)
    assert laplace.better is not None and laplace.better.density == "Laplace"
    assert (laplace.better.location, laplace.better.scale) == pytest.approx((0.5, 2.0), abs=0.05)
    assert normal.better is not None and normal.better.density == "normal"
    assert (normal.better.location, normal.better.scale) == pytest.approx((-1.0, 3.0), abs=0.05)
    # By the entropies: log(s sqrt(2 pi e)) - log(2 b e), where s^2 = 2 b^2 of Laplace values, and
    # b = s sqrt(2 / pi) of normal ones.
    assert laplace.advantage == pytest.approx(0.5 * math.log(math.pi / math.e), abs=0.02)
    assert normal.advantage == pytest.approx(0.5 * math.log(math.pi**2 / (4 * math.e)), abs=0.02)


@pytest.mark.parametrize("values", [LAPLACE, NORMAL])
def test_likelihoods_are_means_of_the_log_density_and_maximal(values: Array) -> None:
    for fit in shape_of(values).fits:
        assert np.log(fit.at(values)).mean() == pytest.approx(fit.log_likelihood, rel=1e-9)
        x = np.linspace(-80, 80, 200_001)
        assert fit.at(x).sum() * (x[1] - x[0]) == pytest.approx(1.0, abs=1e-4)
        for change in (0.97, 1.03):
            other = type(fit)(fit.density, fit.location, fit.scale * change, 0.0)
            assert np.log(other.at(values)).mean() < fit.log_likelihood


def test_histograms_are_densities_between_far_quantiles() -> None:
    shape = shape_of(np.concatenate([NORMAL, [1e6]]))
    assert shape.edges[-1] < 15
    assert (shape.density * np.diff(shape.edges)).sum() == pytest.approx(0.998, abs=1e-3)
    assert len(shape_of(NORMAL[:9]).density) == 10 and len(shape.density) == 60


def test_zeros_and_constants() -> None:
    shape = shape_of(np.array([[0.0, 0.0], [0.0, 1.0]]))
    assert (shape.count, shape.zeros, shape.mean) == (4, 0.75, 0.25)
    constant = shape_of(np.full(5, 2.0))
    assert constant.better is None and constant.advantage == 0.0
    assert constant.edges[0] == 1.5 and constant.density.max() > 0
    for bad, message in ((np.zeros(0), "there are no values"), ([1, np.nan], "1 of 2 are NaN")):
        with pytest.raises(DataError, match=f"filter: {message}"):
            shape_of(np.asarray(bad), "filter")


# --- activations ----------------------------------------------------------------------------------


def test_results_and_dead_channels() -> None:
    model = small_model(input_shape=(8, 8, 1))
    model.weights["bn1.gamma"][1] = 0.0
    model.weights["bn1.beta"][1] = -1.0
    before = model.weights["bn1.mean"].copy()
    found = {one.node: one for one in activations(model, X[:20])}
    assert list(found) == ["adder1", "act1", "dense1"]
    expected = evaluate(model.graph(training=True, batch=20), [X[:20]], model.weights)
    for name, one in found.items():
        assert one.shape.mean == pytest.approx(expected[name].mean(), rel=1e-4, abs=1e-5)
        assert one.shape.std == pytest.approx(expected[name].std(), rel=1e-3)
    assert found["act1"].dead == 0.25 and found["adder1"].dead is None
    assert found["act1"].shape.zeros == pytest.approx((expected["act1"] == 0).mean(), abs=1e-3)
    assert np.array_equal(model.weights["bn1.mean"], before)
    assert not dead_relus(tuple(found.values()))
    model.weights["bn1.gamma"][:] = 0.0
    model.weights["bn1.beta"][:] = -1.0
    (finding,) = dead_relus(activations(model, X[:20]))
    assert finding.node == "act1" and 'relu "act1" is 0 for every sample' in finding.message


def test_large_results_are_sampled_in_all_channels() -> None:
    model = Model(input_shape=(8, 8, 1))
    model.add(layers.Conv(64, 3, padding=1))
    model.add(layers.Flatten())
    model.weights["conv1.f"][...] = 0.0
    model.weights["conv1.f"][1, 1, :, 1] = 1.0  # one channel of 64 is the image
    (one,) = activations(model, np.ones((128, 8, 8, 1)))
    assert one.shape.count == 1 << 18
    assert one.shape.mean == pytest.approx(1 / 64, rel=0.1)


# --- gradients ------------------------------------------------------------------------------------


def net() -> Model:
    """conv, adder without adaptive rate, dense: the update is the gradient."""
    model = Model(input_shape=(8, 8, 1), seed=3)
    for layer in (
        layers.Conv(4, 3), layers.BatchNorm(), layers.Activation("relu"),
        layers.Adder(4, 3, eta=None), layers.BatchNorm(), layers.Flatten(), layers.Dense(10),
        layers.Activation("softmax"),
    ):  # fmt: skip
        model.add(layer)
    return model


def test_the_probe_gives_what_the_training_step_subtracts() -> None:
    model = net()
    step = model.train_step(12, optimizer=SGD(momentum=0.0, weight_decay=0.0), threads=1)
    probe = GradientProbe(step, 12)
    for rows in (slice(0, 12), slice(12, 24)):
        before = {name: array.copy() for name, array in model.weights.items()}
        found = probe(X[rows], Y[rows])
        assert list(found) == ["conv1.f", "adder1.f", "dense1.f"]
        assert all(np.array_equal(model.weights[n], before[n]) for n in before)
        step(X[rows], Y[rows], 1.0)
        for name, gradient in found.items():
            moved = before[name] - model.weights[name]
            assert np.abs(gradient).max() > 1e-4
            np.testing.assert_allclose(gradient, moved, atol=2e-6)


def test_dropouts_leave_out_what_the_step_leaves_out() -> None:
    model = Model(input_shape=(8, 8, 1), loss="mean_squared_error")
    for layer in (layers.Flatten(), layers.Dropout(0.5), layers.Dense(3)):
        model.add(layer)
    step = model.train_step(12, optimizer=SGD(momentum=0.0, weight_decay=0.0), threads=1)
    probe, y = GradientProbe(step, 12), np.eye(3)[Y[:12] % 3]
    for _ in range(2):
        before, found = model.weights["dense1.f"].copy(), probe(X[:12], y)
        step(X[:12], y, 0.5)
        moved = 2 * (before - model.weights["dense1.f"])
        np.testing.assert_allclose(found["dense1.f"], moved, atol=1e-6)
    assert [one.node for one in activations(model, X[:20])] == ["dense1"]


def test_the_probe_refuses_what_it_cannot_do() -> None:
    model = net()
    probe = GradientProbe(model.train_step(4, threads=1), 4)
    with pytest.raises(DataError, match="the probe takes 4 samples, found 5"):
        probe(X[:5], Y[:5])
    only_norm = Model(input_shape=(4,), loss_name="mean_squared_error")
    only_norm.add(layers.BatchNorm())
    with pytest.raises(GraphError, match="has no filters"):
        GradientProbe(only_norm.train_step(4, threads=1), 4)


def test_records_are_statistics_of_the_values() -> None:
    history = GradientHistory()
    values = np.arange(-50.0, 51.0).reshape(101, 1)
    history.record(0, {"a.f": values, "b.f": np.array([[3.0, 0.0], [0.0, 4.0]])})
    history.record(7, {"a.f": -2 * values, "b.f": np.zeros((2, 2))})
    assert history.steps == [0, 7] and history.names == ("a.f", "b.f")
    assert history.norm["b.f"] == [5.0, 0.0] and history.rms["b.f"] == [2.5, 0.0]
    assert history.zeros["b.f"] == [0.5, 1.0]
    np.testing.assert_allclose(history.quantiles["a.f"][0], 100 * np.asarray(QUANTILES) - 50)
    with pytest.raises(DataError, match='gradient of "b.f" holds NaN or Inf at step 9'):
        history.record(9, {"a.f": values, "b.f": np.full((2, 2), np.inf)})
    with pytest.raises(DataError, match=r"step 9 has gradients of a\.f; those before had a\.f, b"):
        history.record(9, {"a.f": values})
    assert history.steps == [0, 7]


def test_vanished_gradients_are_far_below_the_others() -> None:
    assert vanished(GradientHistory()) == ()
    history = GradientHistory()
    sizes = {"first.f": 0.99 * VANISHED, "second.f": 1.01 * VANISHED, "third.f": 1.0, "last.f": 9.0}
    # The median of the others of `first` is 1.0; that of the others of `second` is 1.0 as well.
    history.record(4, {name: np.full((2, 2), size) for name, size in sizes.items()})
    (finding,) = vanished(history)
    assert finding.node == "first.f"
    assert 'the gradient of "first.f" has vanished at step 4' in finding.message
    assert "9.9e-07, that of the other layers 1.0e+00" in finding.message
    assert 'layer "first"' in finding.hint and "batch norm" in finding.hint
    history.record(8, {name: np.full((2, 2), max(size, 0.1)) for name, size in sizes.items()})
    assert vanished(history) == ()
    alone = GradientHistory()
    alone.record(0, {"f": np.zeros((2, 2))})
    (finding,) = vanished(alone)
    assert "its root mean square is 0" in finding.message and 'layer "f"' in finding.hint


def test_recording_trains_and_samples() -> None:
    model, x, y = net(), X[:14], Y[:14, None]
    settings = Recording(steps=7, every=3, batch=12, threads=1)
    history = record_gradients(model, x, y, settings)
    assert history.steps == [0, 3, 6]  # of which each epoch of 14 samples has one
    again = record_gradients(net(), x, y, settings)
    assert again.rms == history.rms
    assert not np.array_equal(model.weights["conv1.f"], net().weights["conv1.f"])
    few = Recording(steps=2, every=1, threads=1)
    assert record_gradients(net(), x[:12], y[:12], few).steps == [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0 must be an integer of at least 1"),
        ({"every": -1}, "every=-1 must be an integer of at least 1"),
        ({"learning_rate": 1e30}, "training diverged"),
    ],
)
def test_bad_settings(options: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        record_gradients(net(), X, Y, replace(Recording(steps=4, batch=8, threads=1), **options))  # type: ignore[arg-type]


# --- all of it ------------------------------------------------------------------------------------


def test_a_diagnosis_leaves_the_model_as_it_was() -> None:
    model = small_model(input_shape=(8, 8, 1))
    before = {name: array.copy() for name, array in model.weights.items()}
    found = diagnose(
        model, DATA.x_train, DATA.y_train, Recording(steps=5, every=2, batch=32, threads=1)
    )
    assert all(np.array_equal(model.weights[name], array) for name, array in before.items())
    assert found.gradients.steps == [0, 2, 4]
    assert dict(found.kinds)["adder1.f"] == "adder2d" and found.kinds["dense1.f"] == "dense"
    (finding,) = found.findings  # images come straight into its adder
    assert "loses the fast kernel" in finding.message
    text = found.text()
    assert "warning: adder2d" in text and "dead channels" in text
    assert max(map(len, text.splitlines()[:-1])) <= 110
    numbers = json.loads(json.dumps(found.numbers()))
    assert numbers["gradients"]["adder1.f"]["rms"] == found.gradients.rms["adder1.f"]
    assert numbers["filters"]["adder1.f"]["fits"]["normal"]["scale"] == pytest.approx(1, abs=0.2)
    assert numbers["activations"]["act1"]["dead_channels"] == 0.0
    assert numbers["findings"][0]["node"] == "adder1"


def test_the_decks_network_is_found_dead_once() -> None:
    model = Model(input_shape=(8, 8, 1))
    for layer in (
        layers.Adder(4, 3), layers.Activation("relu"), layers.Flatten(), layers.Dense(10),
    ):  # fmt: skip
        model.add(layer)
    found = diagnose(model, X, Y, Recording(steps=2, every=1, batch=16, threads=1))
    nodes = [finding.node for finding in found.findings]
    assert nodes == ["act1", "adder1", "adder1.f", "dense1.f"]


def test_a_loaded_function_cannot_be_diagnosed() -> None:
    model = small_model(input_shape=(8, 8, 1))
    stored = Model(input_shape=(8, 8, 1))
    stored.restore(model.graph(training=False))
    with pytest.raises(UnsupportedError, match="it can predict and evaluate"):
        diagnose(stored, X, Y)
