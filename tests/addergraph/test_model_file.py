"""Model files: what comes back, what is reproducible, and which files are refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph import layers
from addergraph.data import Normalize, Preprocessing
from addergraph.data.preprocessing import encoded
from addergraph.errors import GraphError, StorageError, UnsupportedError
from addergraph.files import storage
from addergraph.ir import Array
from addergraph.ir.trace import Tensor
from addergraph.model import Model
from tests.addergraph.models import X, Y, fit, residual, same_weights, small_model

pytestmark = pytest.mark.usefixtures("quick_objects")


def test_a_model_of_layers_survives_its_file_and_trains_on(tmp_path: Path) -> None:
    model = small_model(name="net", seed=7)
    fit(model, epochs=2)
    model.save(tmp_path / "m.safetensors")
    again = Model.load(tmp_path / "m.safetensors")
    assert same_weights(model, again)
    assert (again.name, again.seed, again.input_shape) == ("net", 7, (8, 8, 1))
    assert again.graph(training=False) == model.graph(training=False)
    first, second = (m.predict(X, engine="reference") for m in (model, again))
    assert np.array_equal(first, second)
    histories = [fit(m).history["loss"] for m in (model, again)]
    assert histories[0] == histories[1] and same_weights(model, again)


def test_the_file_of_a_model_is_reproducible(tmp_path: Path) -> None:
    for name in ("a", "b"):
        model = small_model()
        fit(model)
        model.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_shared_layers_stay_shared_in_the_file(tmp_path: Path) -> None:
    model, shared = Model(input_shape=(4,)), layers.Dense(4)
    for layer in (shared, layers.Activation("relu"), shared, layers.Dense(2), shared.__class__(2)):
        model.add(layer)
    model.save(tmp_path / "m")
    again = Model.load(tmp_path / "m")
    assert again.layers[0] is again.layers[2] and again.layers[3] is not again.layers[4]
    assert same_weights(model, again)


def test_a_function_model_trains_on_from_its_file(tmp_path: Path) -> None:
    model = Model(residual)
    fit(model)
    model.save(tmp_path / "m")
    again = Model.load(tmp_path / "m")
    first, second = (m.predict(X, engine="reference") for m in (model, again))
    assert np.array_equal(first, second)
    assert again.evaluate(X, Y, engine="reference") == model.evaluate(X, Y, engine="reference")
    assert again.graph(training=False, batch=3) == model.graph(training=False).bind(3)
    with pytest.raises(GraphError, match="is a function"):
        again.add(layers.Flatten())
    again.save(tmp_path / "twice")
    assert (tmp_path / "twice").read_bytes() == (tmp_path / "m").read_bytes()
    onward = Model(residual, input_shape=(8, 8, 1))
    onward.weights = again.weights
    assert fit(onward).history["loss"] == fit(again).history["loss"]
    assert same_weights(onward, again)


def of_two_norms(image: Tensor) -> Tensor:
    """Momenta of its own, an unnamed input, and numbers without operands."""
    x = layers.BatchNorm(0.3)(layers.Adder(4, 3, eta=0.2)(image * 0.5))
    x = layers.Activation("relu")(layers.BatchNorm(epsilon=1e-3, name="second")(x))
    return layers.Dense(10)(layers.Flatten()(x + 1))


def test_batch_norms_keep_their_momenta(tmp_path: Path) -> None:
    model = Model(of_two_norms, input_shape=(8, 8, 1))
    model.save(tmp_path / "m")
    _, metadata = storage.load(tmp_path / "m")
    assert json.loads(metadata["momentum"]) == {"bn1": 0.3, "second": 0.1}
    again = Model.load(tmp_path / "m")
    assert again.graph(training=False) == model.graph(training=False)
    assert again.graph(training=True, batch=3).inputs[0].name == "image"
    histories = [fit(m).history["loss"] for m in (model, again)]
    assert histories[0] == histories[1] and same_weights(model, again)
    Model(residual, input_shape=(8, 8, 1)).save(tmp_path / "m")
    aware = ag.quantization_aware(Model.load(tmp_path / "m"), X, bits=4)
    aware.save(tmp_path / "aware")
    assert fit(Model.load(tmp_path / "aware")).history["loss"] == fit(aware).history["loss"]


def looks_at_its_form(x: Tensor) -> Tensor:
    x = layers.Dense(10)(layers.Flatten()(x))
    return x * 2.0 if x.builder.training else x


def test_a_training_form_of_its_own_is_not_guessed(tmp_path: Path) -> None:
    Model(looks_at_its_form, input_shape=(8, 8, 1)).save(tmp_path / "m")
    again = Model.load(tmp_path / "m")
    assert again.predict(X).shape == (len(X), 10)
    with pytest.raises(UnsupportedError, match=r"Python function.*model\.weights ="):
        fit(again)


def test_saving_an_unbuilt_model_needs_its_input(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="does not know its input"):
        small_model().save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def _saved(tmp_path: Path) -> tuple[Path, dict[str, Array], dict[str, str]]:
    path = tmp_path / "m.safetensors"
    small_model(input_shape=(8, 8, 1)).save(path)
    return path, *storage.load(path)


def _described(metadata: dict[str, str], **changes: object) -> dict[str, str]:
    return metadata | {"model": json.dumps(json.loads(metadata["model"]) | changes)}


CHANGES: dict[str, tuple[Callable[[dict[str, str]], dict[str, str]], str]] = {
    "format": (lambda m: m | {"format": "other"}, "no model file"),
    "version": (lambda m: m | {"version": "2"}, "version 2, this program reads version 1"),
    "no graph": (lambda m: {k: v for k, v in m.items() if k != "graph"}, "no model file"),
    "op": (lambda m: m | {"graph": m["graph"].replace("adder2d(", "ader2d(")}, 'mean "adder2d"'),
    "text": (lambda m: m | {"graph": m["graph"][:100]}, "m.safetensors"),
    "other graph": (
        lambda m: m | {"graph": m["graph"].replace("eta=0.2", "eta=0.3")}, "do not build"
    ),
    "layer": (
        lambda m: _described(m, layers=[{"kind": "Lambda"}]), 'unknown layer "Lambda"'
    ),
    "no dict": (lambda m: _described(m, layers=["Flatten"]), "description of a layer"),
    "repeat": (lambda m: _described(m, layers=[{"repeat": 0}]), "does not exist"),
    "loss": (lambda m: _described(m, loss_name="l1"), "unknown loss"),
    "shape": (lambda m: _described(m, input_shape=[-1]), "input_shape"),
    "field": (lambda m: _described(m, seed="x"), "seed = 'x' in the desc"),
    "layers": (lambda m: _described(m, layers=3), "layers = 3.*expected a list"),
    "no layers": (lambda m: m | {"model": m["model"].replace('"layers"', '"other"')}, '"other"'),
    "json": (lambda m: m | {"model": "{"}, "not JSON"),
    "preprocessing": (lambda m: m | {"preprocessing": "[]"}, "preprocessing is no JSON object"),
    "preprocessing more": (lambda m: _pixels(m, crop=4), 'unknown key "crop"'),
    "preprocessing less": (lambda m: m | {"preprocessing": "{}"}, "normalize is missing"),
    "normalize": (lambda m: _pixels(m, normalize=2), "normalize in .* is no object"),
    "deviation": (
        lambda m: _pixels(m, normalize={"mean": [0], "std": [0], "scale": 1}), "must be above 0"
    ),
    "channels": (
        lambda m: _pixels(m, normalize={"mean": [0, 0], "std": [1, 1], "scale": 1}),
        "has 2 channels",
    ),
    "order": (lambda m: _pixels(m, channels="rbg"), 'did you mean "rgb".*; expected grey, rgb'),
    "pixel": (lambda m: _pixels(m, dtype="u16"), 'dtype="u16".*expected u8, f32'),
    "classes": (lambda m: _pixels(m, classes=[1]), "classes = 1 in preprocessing"),
    "momentum": (
        lambda m: _described(m, layers=None) | {"momentum": '{"bn1": 2}'}, "momentum does not give"
    ),
    "no momentum": (
        lambda m: _described(m, layers=None) | {"momentum": '{"bn1": "x"}'}, "does not give"
    ),
    "function with another input": (
        lambda m: _described(m, layers=None, input_shape=[4]), r"takes f32\[N,8,8,1\]"
    ),
}  # fmt: skip


def _pixels(metadata: dict[str, str], **changes: object) -> dict[str, str]:
    known = encoded(Preprocessing(Normalize((0.0,), (1.0,))))
    return metadata | {"preprocessing": json.dumps(known | changes)}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_lies_is_refused_by_name(tmp_path: Path, change: str) -> None:
    path, tensors, metadata = _saved(tmp_path)
    altered, said = CHANGES[change]
    storage.save(path, tensors, altered(metadata))
    with pytest.raises(StorageError, match=said) as caught:
        Model.load(path)
    assert "m.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("dense1.b", np.zeros(9, "f4"), "dense1.b"),
        ("dense1.b", np.zeros(10, "i4"), "dense1.b.*int32"),
        ("dense1.c", np.zeros(10, "f4"), 'no parameter named "dense1.c"'),
    ],
)
def test_tensors_that_do_not_fit_the_graph_are_named(
    tmp_path: Path, name: str, array: Array, said: str
) -> None:
    path, tensors, metadata = _saved(tmp_path)
    storage.save(path, tensors | {name: array}, metadata)
    with pytest.raises(StorageError, match=said):
        Model.load(path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    path, tensors, metadata = _saved(tmp_path)
    del tensors["bn1.mean"]
    storage.save(path, tensors, metadata)
    with pytest.raises(StorageError, match="bn1.mean"):
        Model.load(path)


def test_loading_imports_no_new_module_of_the_file(tmp_path: Path) -> None:
    path, _, _ = _saved(tmp_path)
    Model.load(path)
    before = set(sys.modules)
    Model.load(path)
    assert set(sys.modules) == before
